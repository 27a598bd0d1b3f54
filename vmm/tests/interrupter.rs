//! A machine whose vCPU runs on the thread that waits for it: what its timer and its signals do when it is over.

mod common;

use std::time::Duration;

use common::Folder;
use common::image;
use nerite_machine::config::{Config, Output};
use nerite_machine::{Machine, Outcome};
use rustix::event::{Timespec, poll};

/// Waits for so long, and says if nothing disturbed it: a signal ends the call.
fn undisturbed(time: Duration) -> bool {
    let time = Timespec::try_from(time).unwrap();
    match poll(&mut [], Some(&time)) {
        Ok(_) => true,
        Err(rustix::io::Errno::INTR) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
#[ignore = "needs a KVM"]
fn nobody_is_kicked_when_the_machine_is_over() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let config = Config { image: folder.path(&image), output: Output::None, ..Config::default() };
    let running = Machine::new(&config).unwrap().start_here().unwrap();
    // A program keeps it for its signal handlers, and so for longer than the machine.
    let interrupter = running.interrupter().unwrap();
    assert!(matches!(running.wait(None).unwrap(), Outcome::Exited(0)));
    // Its regular kicks come every second.
    assert!(undisturbed(Duration::from_millis(2500)), "the timer of a machine that is over");
    interrupter.interrupt();
    // The kick itself, if the thread is still known as that of the vCPU.
    let _ = undisturbed(Duration::from_millis(50));
    assert!(undisturbed(Duration::from_millis(500)), "the timer after a signal that came late");
}
