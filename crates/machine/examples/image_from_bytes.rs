//! An image from memory, and the guest's output in a function:
//! `cargo run -p nerite-machine --example image_from_bytes`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::sync::{Arc, Mutex};

use nerite_machine::config::Accelerator;
use nerite_machine::{Config, Embedding, Machine, Outcome};
use nerite_testkit::guest::Guest;

fn main() -> Result<(), Box<dyn Error>> {
    let image = Guest::new().print("one\ntwo\n").image();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = lines.clone();
    let embedding = Embedding::new().image(image).output_with(move |bytes| {
        let mut lines = collected.lock().map_err(|_| std::io::Error::other("poisoned"))?;
        lines.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(())
    });
    // The path is only a name; any machine can run this, also one without KVM.
    let config = Config {
        image: "two-lines".into(),
        accelerator: Accelerator::Software,
        ..Config::default()
    };
    let outcome = Machine::embed(&config, embedding)?.start()?.wait(None)?;
    let lines = lines.lock().map_err(|_| "poisoned")?.concat();
    println!("{outcome}, after {lines:?}");
    assert!(matches!(outcome, Outcome::Exited(1)) && lines == "one\ntwo\n");
    Ok(())
}
