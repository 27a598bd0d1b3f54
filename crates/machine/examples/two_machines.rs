//! Several machines in one process, each with output of its own:
//! `cargo run -p nerite-machine --example two_machines`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::io::Read as _;

use nerite_machine::config::Accelerator;
use nerite_machine::{Config, Embedding, Machine};
use nerite_testkit::guest::Guest;

fn main() -> Result<(), Box<dyn Error>> {
    let config = Config { accelerator: Accelerator::Software, ..Config::default() };
    let mut machines = Vec::new();
    for name in ["first", "second"] {
        // It ends at the first byte of input.
        let image = Guest::new().print(name).print("\n").echo().image();
        let (output, guests_output) = std::io::pipe()?;
        let (guests_input, input) = std::io::pipe()?;
        let embedding = Embedding::new().image(image).input(guests_input).output(guests_output);
        let running = Machine::embed(&config, embedding)?.start()?;
        machines.push((name, running, output, input));
    }
    // Both run. The one that came last ends first.
    for (name, running, mut output, mut input) in machines.into_iter().rev() {
        std::io::Write::write_all(&mut input, b"q")?;
        let outcome = running.wait(None)?;
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        println!("{name}: {outcome}, after {text:?}");
        assert_eq!(text, format!("{name}\nq"));
    }
    Ok(())
}
