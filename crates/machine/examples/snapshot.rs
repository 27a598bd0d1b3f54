//! Saves a Hermit guest at its first output, and resumes it from there several times, each in a
//! machine of its own and with another variable:
//! `cargo run -p nerite-machine --example snapshot -- IMAGE COUNT [ARGUMENTS]`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::env;
use std::error::Error;
use std::path::Path;

use nerite_machine::config::{GuestConfig, Observe, PlannedSnapshot, Restore, SnapshotMoment};
use nerite_machine::{Config, Machine};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = env::args().skip(1);
    let (Some(image), Some(count)) = (words.next(), words.next()) else {
        println!("usage: snapshot IMAGE COUNT [ARGUMENTS]");
        return Ok(());
    };
    let count: u32 = count.parse()?;
    let directory = env::temp_dir().join(format!("snapshot-{}", std::process::id()));
    let planned =
        PlannedSnapshot { directory: directory.clone(), moment: SnapshotMoment::FirstOutput };
    let config = Config {
        image: image.into(),
        guest: GuestConfig { app_args: words.collect(), ..GuestConfig::default() },
        observe: Observe { snapshot: Some(planned), ..Observe::default() },
        ..Config::default()
    };
    println!("the guest: {:?}", Machine::new(&config)?.start()?.wait(None)?);
    let done = (0..count).try_for_each(|number| resume(&directory, number));
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    done
}

/// Resumes the guest. It finds the variable if it has not read its environment yet.
fn resume(directory: &Path, number: u32) -> Result<(), Box<dyn Error>> {
    let restore = Restore { directory: directory.to_owned(), verify: true, ..Restore::default() };
    let env = vec![("CLONE".to_owned(), number.to_string())];
    let config = Config {
        restore: Some(restore),
        guest: GuestConfig { env, ..GuestConfig::default() },
        ..Config::default()
    };
    println!("clone {number}: {:?}", Machine::new(&config)?.start()?.wait(None)?);
    Ok(())
}
