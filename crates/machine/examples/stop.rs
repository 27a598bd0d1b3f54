//! Stops a guest that never ends, after a second:
//! `cargo run -p nerite-machine --example stop`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use nerite_machine::config::Accelerator;
use nerite_machine::{Config, Embedding, Machine, Outcome};
use nerite_testkit::guest::Guest;

fn main() -> Result<(), Box<dyn Error>> {
    let image = Guest::new().print("for a while\n").spin().image();
    let config = Config { accelerator: Accelerator::Software, ..Config::default() };
    let running = Machine::embed(&config, Embedding::new().image(image))?.start()?;
    let handle = running.handle();
    let timer = thread::spawn(move || {
        thread::sleep(Duration::from_secs(1));
        handle.stop();
    });
    let outcome = running.wait(None)?;
    println!("{outcome}");
    assert!(matches!(outcome, Outcome::Stopped));
    timer.join().map_err(|_| "the timer panicked")?;
    Ok(())
}
