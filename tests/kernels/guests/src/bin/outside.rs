//! Counts interrupts sent from outside: NMIs, edges on line 5 of the I/O APIC, and messages.
//! Arguments: how many of each; it says after each how many came, ends when they have all come, and
//! checks that no more have. Its first processor halts meanwhile.
//!
//! They are to be sent one by one: NMIs, or messages of one vector, that come before the last one
//! is taken are one, as on hardware.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::interrupts::set_handler;
use runtime::prelude::*;
use runtime::{apic, mmio, paging};

runtime::kernel!(v2, main);

const NMI: u8 = 2;
const LINE: u8 = 0x50;
const MESSAGE: u8 = 0x51;
const TICK: u8 = 0x52;
/// Some milliseconds of the APIC's timer.
const TICK_COUNT: u32 = 10_000_000;
const IO_APIC: u64 = 0xfec0_0000;
/// The line's redirection entry.
const ENTRY: u32 = 0x10 + 2 * 5;

static NMIS: AtomicU64 = AtomicU64::new(0);
static EDGES: AtomicU64 = AtomicU64::new(0);
static MESSAGES: AtomicU64 = AtomicU64::new(0);

fn io_apic_write(register: u32, value: u32) {
    mmio::write32(IO_APIC, register);
    mmio::write32(IO_APIC + 0x10, value);
}

fn counts() -> [u64; 3] {
    [&NMIS, &EDGES, &MESSAGES].map(|counter| counter.load(Ordering::Acquire))
}

fn main() {
    let args = boot::args();
    let number = |index: usize| {
        args.get(index).and_then(|arg| arg.parse().ok()).expect("wants three numbers")
    };
    let wanted: [u64; 3] = [number(0), number(1), number(2)];
    set_handler(NMI, |_| {
        NMIS.fetch_add(1, Ordering::AcqRel);
    });
    set_handler(LINE, |_| {
        EDGES.fetch_add(1, Ordering::AcqRel);
    });
    set_handler(MESSAGE, |_| {
        MESSAGES.fetch_add(1, Ordering::AcqRel);
    });
    set_handler(TICK, |_| ());
    apic::enable();
    if wanted[1] > 0 {
        // The PIC has the line, too.
        cpu::out8(0x21, 0xff);
        cpu::out8(0xa1, 0xff);
        paging::map_identity(IO_APIC, IO_APIC + paging::PAGE);
        io_apic_write(ENTRY + 1, 0);
        io_apic_write(ENTRY, LINE.into());
    }
    println!("ready");
    let mut told = 0;
    loop {
        cpu::disable_interrupts();
        let now = counts();
        let came = now.iter().sum();
        if came > told {
            told = came;
            println!("{came} came");
        }
        if now.iter().zip(wanted).all(|(now, wanted)| *now >= wanted) {
            break;
        }
        // An NMI that comes between the counting and the halt does not end the halt.
        apic::set_count(TICK, TICK_COUNT);
        cpu::wait_for_interrupt();
    }
    check_eq!(counts(), wanted, "interrupts");
    println!("{wanted:?} interrupts came");
}
