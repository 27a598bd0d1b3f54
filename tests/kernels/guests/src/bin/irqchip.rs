//! The PICs and the I/O APIC are where a PC has them; with the argument `pit`, the PIT's interrupts
//! arrive.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::interrupts::set_handler;
use runtime::prelude::*;
use runtime::{apic, mmio, paging};

runtime::kernel!(v2, main);

const IO_APIC: u64 = 0xfec0_0000;
const VECTOR: u8 = 0x60;

static TICKS: AtomicU64 = AtomicU64::new(0);

fn io_apic_read(register: u32) -> u32 {
    mmio::write32(IO_APIC, register);
    mmio::read32(IO_APIC + 0x10)
}

fn io_apic_write(register: u32, value: u32) {
    mmio::write32(IO_APIC, register);
    mmio::write32(IO_APIC + 0x10, value);
}

/// The interrupt masks of both PICs can be set and read back.
fn check_pics() {
    for data in [0x21u16, 0xa1] {
        for mask in [0xaa, 0x55, 0xff] {
            cpu::out8(data, mask);
            check_eq!(cpu::in8(data), mask, "interrupt mask at port {data:#x}");
        }
    }
}

fn check_io_apic() {
    paging::map_identity(IO_APIC, IO_APIC + paging::PAGE);
    let version = io_apic_read(1);
    check_eq!(version >> 16 & 0xff, 23, "last redirection entry of the I/O APIC");
    // Entry 5, masked.
    io_apic_write(0x10 + 2 * 5, 1 << 16 | 0x77);
    check_eq!(io_apic_read(0x10 + 2 * 5), 1 << 16 | 0x77, "redirection entry 5");
}

/// The PIT. PCs have it on pin 2 of the I/O APIC, KVM's default routing on pin 0.
fn check_pit() {
    set_handler(VECTOR, |_| {
        TICKS.fetch_add(1, Ordering::AcqRel);
    });
    apic::enable();
    for pin in [0, 2] {
        io_apic_write(0x10 + 2 * pin + 1, 0);
        io_apic_write(0x10 + 2 * pin, u32::from(VECTOR));
    }
    // Channel 0, both bytes, rate generator, 1193182 Hz / 5966 = 200 Hz.
    cpu::out8(0x43, 0x34);
    cpu::out8(0x40, 5966u16.to_le_bytes()[0]);
    cpu::out8(0x40, 5966u16.to_le_bytes()[1]);
    let start = cpu::tsc();
    while TICKS.load(Ordering::Acquire) < 10 {
        cpu::wait_for_interrupt();
    }
    let milliseconds = (cpu::tsc() - start) / boot::tsc_khz();
    for pin in [0, 2] {
        io_apic_write(0x10 + 2 * pin, 1 << 16);
    }
    cpu::disable_interrupts();
    // Ten periods of 5 ms. KVM may deliver late ones in a row, so only much too fast is wrong.
    check!(milliseconds >= 30, "10 periods of the PIT took {milliseconds} ms");
    println!("{} PIT interrupts", TICKS.load(Ordering::Acquire));
}

fn main() {
    check_pics();
    check_io_apic();
    if boot::args().iter().any(|arg| arg == "pit") {
        check_pit();
    }
}
