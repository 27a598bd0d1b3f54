//! `cargo xtask bench cpu`: instructions a second of the processor in software, beside QEMU's TCG,
//! Bochs, and this host's own processor.
//!
//! All run the same image (`tests/kernels/guests/src/bin/cpu-loops.rs`), which prints a line after
//! each loop. They take turns after every line, stopped by SIGSTOP meanwhile, and what counts is
//! their processor time: ratios are of one moment, and other programs have little part in them.

mod rival;
mod rom;
mod table;

use std::path::Path;

use anyhow::{Context, Result, ensure};

use self::rival::{Rival, Running};
use crate::packages::{self, BOCHS, QEMU, Tool, VGABIOS};
use crate::{build, kernels, progress};

/// Guest with the loops.
const GUEST: &str = "cpu-loops";

/// `cargo xtask bench cpu`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run all loops so often
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
}

/// Instructions of one loop and the seconds that they took.
#[derive(Clone, Debug, PartialEq)]
struct Sample {
    kind: String,
    instructions: u64,
    seconds: f64,
}

/// Samples of one rival, in the order of the loops and rounds.
struct Results {
    name: &'static str,
    samples: Vec<Sample>,
}

/// Measures and prints.
pub(super) fn main(args: &Args) -> Result<i32> {
    ensure!(args.rounds > 0, "no round is to be run");
    let (vmm, guest) = (build::vmm()?, kernels::build_one(GUEST)?);
    let folder = tempfile::tempdir().context("cannot make a folder for Bochs")?;
    let mut skipped = Vec::new();
    let rivals = rivals(&vmm, &guest, folder.path(), &mut skipped)?;
    let results = measure(&rivals, args.rounds, &mut skipped)?;
    progress::print(&format!("{}\n{}", table::setting(), table::print(&results)));
    skipped.iter().for_each(|why| progress::print(&format!("skipped: {why}")));
    Ok(0)
}

/// The programs to compare, ours first.
fn rivals(
    vmm: &Path,
    guest: &Path,
    folder: &Path,
    skipped: &mut Vec<String>,
) -> Result<Vec<Rival>> {
    let mut rivals = vec![Rival::vmm(vmm, guest)];
    let mut find = |name, tools: &[Tool]| match packages::need(tools) {
        Ok(paths) => paths.into_iter().next(),
        Err(error) => {
            skipped.push(format!("{name}: {error:#}"));
            None
        }
    };
    if let Some(program) = find("TCG", &[QEMU]) {
        rivals.push(Rival::tcg(&program, guest));
    }
    if let Some(program) = find("Bochs", &[BOCHS, VGABIOS]) {
        rivals.push(Rival::bochs(&program, guest, folder)?);
    }
    rivals.push(Rival::native(guest));
    Ok(rivals)
}

/// Lets the rivals run in turns. One that ends early, or is silent for too long, is left out.
fn measure(rivals: &[Rival], rounds: usize, skipped: &mut Vec<String>) -> Result<Vec<Results>> {
    let mut running = Vec::new();
    for rival in rivals {
        match Running::start(rival) {
            Ok(started) => {
                running.push((started, Results { name: rival.name(), samples: Vec::new() }))
            }
            Err(error) => skipped.push(format!("{}: {error:#}", rival.name())),
        }
    }
    let mut first: Option<String> = None;
    let mut round = 0;
    while round < rounds {
        let mut kinds = Vec::new();
        running.retain_mut(|(program, results)| match program.sample() {
            Ok(sample) => {
                kinds.push(sample.kind.clone());
                results.samples.push(sample);
                true
            }
            Err(error) => {
                skipped.push(format!("{}: {error:#}", results.name));
                false
            }
        });
        let ours = running.first().map(|(_, results)| results.name);
        ensure!(ours == rivals.first().map(Rival::name), "{}", skipped.join("\n"));
        let kind = kinds.first().context("no program runs the loops")?;
        ensure!(
            kinds.iter().all(|other| other == kind),
            "the programs run different loops: {kinds:?}"
        );
        // The first loop of a round tells that the one before is complete.
        let is_first = first.get_or_insert_with(|| kind.clone()) == kind;
        if is_first && running.iter().all(|(_, results)| results.samples.len() > 1) {
            round += 1;
            progress::say(&format!("round {round} of {rounds}"));
        }
    }
    // What the last turn has is the beginning of a round that is not wanted.
    let results = running.into_iter().map(|(_, mut results)| {
        results.samples.pop();
        results
    });
    Ok(results.collect())
}
