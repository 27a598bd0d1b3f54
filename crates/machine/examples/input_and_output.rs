//! Input from a descriptor, and output to another one:
//! `cargo run -p nerite-machine --example input_and_output`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;

use nerite_machine::config::Accelerator;
use nerite_machine::{Config, Embedding, Machine};
use nerite_testkit::guest::Guest;

fn main() -> Result<(), Box<dyn Error>> {
    let image = Guest::new().print("name? ").echo().echo().echo().print("!\n").image();
    // A socket here; a pipe, a file or a terminal does as well, and two may differ.
    let (mut ours, guests) = UnixStream::pair()?;
    let embedding = Embedding::new().image(image).input(guests.try_clone()?).output(guests);
    let config = Config { accelerator: Accelerator::Software, ..Config::default() };
    let running = Machine::embed(&config, embedding)?.start()?;
    // It also passes on lines that are not complete, such as prompts.
    let machine = thread::spawn(move || running.wait(None));

    let mut prompt = [0; 6];
    ours.read_exact(&mut prompt)?;
    ours.write_all(b"Ada")?;
    machine.join().map_err(|_| "the machine panicked")??;
    let mut answer = String::new();
    ours.read_to_string(&mut answer)?;
    println!("{}{answer}", String::from_utf8_lossy(&prompt));
    assert_eq!((&prompt, answer.as_str()), (b"name? ", "Ada!\n"));
    Ok(())
}
