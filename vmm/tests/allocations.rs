//! That an exit costs no heap allocation: counted, in a machine that runs in this process.

#![cfg(test)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Folder;
use common::image;
use nerite_machine::config::{Config, Output};
use nerite_machine::{Machine, Outcome};

/// Counts what it passes on.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Makes `rounds` rounds of three accesses, two of which leave the guest: PCI address, PCI data, a
/// port where nothing is.
#[rustfmt::skip]
fn guest(rounds: u32) -> Vec<u8> {
    let mut code = vec![0xb9]; //              mov ecx, rounds
    code.extend(rounds.to_le_bytes());
    code.extend([
        0x66, 0xba, 0xf8, 0x0c, //          1: mov dx, 0xcf8
        0xef, //                               out dx, eax
        0x66, 0xba, 0xfc, 0x0c, //             mov dx, 0xcfc
        0xed, //                               in eax, dx
        0x66, 0xba, 0x00, 0x30, //             mov dx, 0x3000
        0xec, //                               in al, dx
        0xff, 0xc9, //                         dec ecx
        0x75, 0xed, //                         jnz 1b
    ]);
    code.extend(image::exit(0));
    code
}

/// Numbers of allocations and exits of a run.
fn run(folder: &Folder, rounds: u32) -> (usize, u64) {
    let image = folder.file("image", image::elf(&guest(rounds)));
    let config = Config { image: folder.path(&image), output: Output::None, ..Config::default() };
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let (outcome, report) = Machine::new(&config).unwrap().start().unwrap().wait_and_report(None);
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(matches!(outcome.unwrap(), Outcome::Exited(0)));
    (after - before, report.total().exits.total())
}

#[test]
#[ignore = "needs a KVM"]
fn an_exit_allocates_nothing() {
    let folder = Folder::new();
    // What else happens in a process now and then can only add some.
    let least = |rounds| (0..3).map(|_| run(&folder, rounds)).min().unwrap();
    let (few, many) = (least(100), least(2100));
    assert!(many.1 >= few.1 + 4000, "the guest left {} and {} times", few.1, many.1);
    // Where 4000 exits take more than a second, the thread that waits for the end wakes up in
    // between, which does allocate.
    let more = many.0.abs_diff(few.0);
    assert!(
        more < 10,
        "{} and {} allocations in runs of {} and {} exits",
        few.0,
        many.0,
        few.1,
        many.1
    );
}
