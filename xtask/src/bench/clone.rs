//! `cargo xtask bench clone`: starts of a guest beside restores and clones of it, on this host.
//!
//! The guest (`tests/kernels/guests/src/bin/gate.rs`) prints a line, waits for a file, and prints
//! another. It is saved while it waits. All starts take turns, so that other programs have the same
//! part in each.

mod pool;
mod starts;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::pool::Pool;
use self::starts::{cold, restore, save};
use crate::{build, kernels, progress};

/// Guest that waits for a file.
const GUEST: &str = "gate";
/// Memory sizes of the guest in MiB.
const SIZES: [u32; 4] = [64, 256, 1024, 4096];
/// The size of the guest that is cloned.
const CLONED: u32 = 256;
/// Snapshot of a guest that has halted: many can be alive without using the processors.
const HALTED: &str = "halted";

/// Name of the snapshot of a guest with so much memory that waits for the file.
fn snapshot(size: u32) -> String {
    format!("saved{size}")
}

/// `cargo xtask bench clone`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Time each start so often
    #[arg(long, default_value_t = 21, value_name = "N")]
    rounds: usize,
    /// Keep so many clones alive at a time
    #[arg(long, default_value_t = 1000, value_name = "N")]
    alive: usize,
    /// Accelerator, as for vmm
    #[arg(long, default_value = "auto", value_name = "KIND")]
    accel: String,
    /// A vmm that is built already
    #[arg(long, value_name = "PATH")]
    vmm: Option<PathBuf>,
}

/// Surroundings of all parts of the bench.
struct Bench {
    vmm: PathBuf,
    guest: PathBuf,
    accel: String,
    folder: tempfile::TempDir,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The mount in which the guest finds the file.
    fn mount(&self) -> String {
        format!("{}:/data", self.path("data").display())
    }

    /// Lets guests go on at once.
    fn open_gate(&self) -> Result<()> {
        fs::write(self.path("data/go"), "").context("cannot open the gate")
    }
}

/// The middle of some times.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Measures and prints.
pub(super) fn main(args: &Args) -> Result<i32> {
    ensure!(args.rounds > 0, "no round is to be run");
    let vmm = args.vmm.as_deref().map_or_else(build::vmm, |path| Ok(path.to_owned()))?;
    let bench = Bench {
        vmm: std::path::absolute(vmm)?,
        guest: kernels::build_one(GUEST)?,
        accel: args.accel.clone(),
        folder: tempfile::tempdir().context("cannot make a folder")?,
    };
    fs::create_dir(bench.path("data")).context("cannot make a folder")?;
    for size in SIZES {
        save(&bench, size, &snapshot(size), None)?;
    }
    save(&bench, CLONED, HALTED, Some("halt"))?;
    bench.open_gate()?;
    times(&bench, args.rounds)?;
    alive(&bench, args.alive)?;
    Ok(0)
}

/// Times of starts, restores and clones.
fn times(bench: &Bench, rounds: usize) -> Result<()> {
    let mut pool = Pool::start(bench, &snapshot(CLONED), 4, 8)?;
    let mut colds = Vec::new();
    let mut restores = SIZES.map(|_| Vec::new());
    let (mut firsts, mut clones) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        pool.wait_ready(1)?;
        let (first, whole) = pool.run_one()?;
        // Before the processors have something else to do.
        pool.wait_ready(4)?;
        let start = cold(bench, CLONED)?;
        let mut restored = Vec::new();
        for size in SIZES {
            restored.push(restore(bench, size)?);
        }
        // The first round brings files into memory.
        if round > 0 {
            firsts.push(first);
            clones.push(whole);
            colds.push(start);
            restores.iter_mut().zip(restored).for_each(|(all, time)| all.push(time));
        }
    }
    pool.end()?;
    let (cold, clone, first) = (median(&mut colds), median(&mut clones), median(&mut firsts));
    let ratio = |time: Duration| time.as_secs_f64() / cold.as_secs_f64();
    progress::print(&format!("cold start of {CLONED} MiB to its end: {cold:?}"));
    for (size, times) in SIZES.iter().zip(&mut restores) {
        let time = median(times);
        progress::print(&format!(
            "restore of {size} MiB to its end: {time:?}, {:.2} of the cold start",
            ratio(time)
        ));
    }
    progress::print(&format!(
        "clone from the pool, request to first output: {first:?}, {:.3} of the cold start",
        ratio(first)
    ));
    progress::print(&format!(
        "clone from the pool, request to its end: {clone:?}, {:.3} of the cold start",
        ratio(clone)
    ));
    Ok(())
}

/// Many clones at a time.
fn alive(bench: &Bench, count: usize) -> Result<()> {
    let mut pool = Pool::start(bench, HALTED, 8, count)?;
    pool.wait_ready(1)?;
    let private = pool.private_memory()?;
    progress::print(&format!(
        "private memory of a clone before its first instruction: {private} KiB"
    ));
    let (before, begin) = (available()?, std::time::Instant::now());
    pool.run_many(count)?;
    let time = begin.elapsed();
    let taken = before.saturating_sub(available()?);
    progress::print(&format!(
        "{count} clones of {CLONED} MiB alive at once after {time:?}: {} KiB of the host's memory each",
        taken / count as u64
    ));
    let begin = std::time::Instant::now();
    pool.end()?;
    progress::print(&format!("SIGTERM to the end of all: {:?}", begin.elapsed()));
    Ok(())
}

/// Memory of the host that is available, in KiB.
fn available() -> Result<u64> {
    number(Path::new("/proc/meminfo"), "MemAvailable:")
}

/// A number in a file of the kernel's.
fn number(path: &Path, name: &str) -> Result<u64> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("{} has no {name}", path.display()))
}
