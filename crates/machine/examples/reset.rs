//! Runs a guest over and over from the same moment, as a fuzzer does, and says how long one round
//! takes: `cargo run --release -p nerite-machine --example reset -- IMAGE ROUNDS [ARGUMENTS]`.
//!
//! The guest is saved as soon as it runs, and put back each time it has ended.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::env;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use nerite_machine::config::{GuestConfig, Observe, Output};
use nerite_machine::{Config, Handle, Machine, ResetPoint};
use nerite_snapshot::{Snapshot, Staging};

/// Time for a guest to come to its end.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let (Some(image), Some(rounds)) = (words.next(), words.next()) else {
        println!("usage: reset IMAGE ROUNDS [ARGUMENTS]");
        return Ok(());
    };
    let config = Config {
        image: image.into(),
        guest: GuestConfig { app_args: words.collect(), ..GuestConfig::default() },
        observe: Observe { snapshots: true, hold_ends: true, ..Observe::default() },
        output: Output::None,
        ..Config::default()
    };
    let running = Machine::new(&config)?.start()?;
    let done = repeat(&running.handle(), rounds.parse()?);
    running.handle().stop();
    running.wait(None)?;
    done
}

fn repeat(handle: &Handle, rounds: u32) -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("reset-{}", std::process::id()));
    let point = save(handle, &directory);
    // Open files are enough.
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    let point = point?;
    let begin = Instant::now();
    let mut in_resets = Duration::ZERO;
    for round in 0..rounds {
        let end = handle.wait_for_end(PATIENCE).ok_or("the guest did not come to its end")?;
        if round == 0 {
            println!("the guest ends with {:?}", end.code);
        }
        let reset = Instant::now();
        let reverted = handle.reset_to(&point)?;
        in_resets += reset.elapsed();
        if round + 1 == rounds {
            println!("memory: {reverted:?}");
        }
    }
    println!("a round: {:?}, of which reset: {:?}", begin.elapsed() / rounds, in_resets / rounds);
    Ok(())
}

fn save(handle: &Handle, directory: &Path) -> Result<ResetPoint, Box<dyn Error>> {
    let staging = Staging::create(directory)?;
    handle.snapshot(staging.files())?;
    staging.commit()?;
    Ok(ResetPoint::read(Snapshot::open(directory)?, false)?)
}
