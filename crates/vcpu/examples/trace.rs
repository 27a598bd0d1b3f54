//! A vCPU that plays back a script, a layer that prints each step, and a kick from another thread:
//! `cargo run -p nerite-vcpu --example trace`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use std::ops::ControlFlow;
use std::thread;

use nerite_hypervisor::scripted::Scripted;
use nerite_vcpu::{Counted, Entry, Error, Exit, Handler, Layer, Vcpu, drive};

/// Prints the entries and exits of a vCPU.
#[derive(Debug)]
struct Printed(Box<dyn Vcpu>);

impl Layer for Printed {
    fn inner(&self) -> &dyn Vcpu {
        &*self.0
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.0
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        let exit = self.0.run(entry)?;
        println!("  {entry:x?} -> {exit:x?}");
        Ok(exit)
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        self.0.complete(entry)
    }
}

/// Answers reads with the number of the port or address; a kick is where others would look what is
/// wanted of them.
struct Echo;

impl Handler for Echo {
    type End = Exit;

    fn handle(&mut self, _vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Exit, Entry> {
        match *exit {
            Exit::PortIn { port, .. } => ControlFlow::Continue(Entry::Data(port.into())),
            Exit::MmioRead { address, .. } => ControlFlow::Continue(Entry::Data(address)),
            Exit::MsrRead { .. } | Exit::MsrWrite { .. } => ControlFlow::Continue(Entry::Fault),
            Exit::PortOut { .. } | Exit::MmioWrite { .. } | Exit::Kicked => {
                ControlFlow::Continue(Entry::Resume)
            }
            end => ControlFlow::Break(end),
        }
    }
}

fn main() -> Result<(), Error> {
    let script = [
        Exit::PortOut { port: 0x3f8, width: 1, value: 0x41 },
        Exit::PortIn { port: 0x60, width: 1 },
        Exit::MmioRead { address: 0xfee0_0020, width: 4 },
        Exit::MsrRead { index: 0xc001_0117 },
    ];
    let mut vcpu = Counted::new(Box::new(Printed(Box::new(Scripted::new(script)))));

    // Before the first step: the kick waits for it.
    let kicker = vcpu.kicker();
    let kick = thread::spawn(move || kicker.kick());
    println!("kicked: {}", kick.join().is_ok());

    let end = drive(&mut vcpu, &mut Echo)?;
    println!("ended with {end:?} after {}", vcpu.counts());
    Ok(())
}
