//! An own hypercall: the guest passes the address of a text, and another call ends the machine:
//! `cargo run -p nerite-machine --example own_hypercall`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::ops::ControlFlow;

use nerite_machine::config::Accelerator;
use nerite_machine::{Config, Embedding, Machine, Outcome};
use nerite_testkit::guest::Guest;

const SAY: u16 = 0x910;
const END: u16 = 0x914;
/// Longest text that the guest may pass.
const LONGEST: usize = 80;

fn main() -> Result<(), Box<dyn Error>> {
    let text = 0x20_0000;
    let guest = Guest::new().store_text(text, "called\0").out32(SAY, text).out32(SAY, 0xffff_fff0);
    let embedding = Embedding::new()
        .image(guest.out8(END, 42).spin().image())
        .hypercall(SAY, |call| {
            // The address may be anything.
            match call.ram().read_cstr(call.value.into(), LONGEST) {
                Ok(text) => println!("vCPU {}: {}", call.vcpu(), String::from_utf8_lossy(&text)),
                Err(error) => println!("vCPU {}: {error}", call.vcpu()),
            }
            ControlFlow::Continue(())
        })
        .hypercall(END, |call| ControlFlow::Break(call.value.cast_signed()));
    let config = Config { accelerator: Accelerator::Software, ..Config::default() };
    let outcome = Machine::embed(&config, embedding)?.start()?.wait(None)?;
    println!("{outcome}");
    assert!(matches!(outcome, Outcome::Exited(42)));
    Ok(())
}
