//! INIT and a start message make another processor begin anew, in real mode at the page that the
//! message says. Wants two processors and memory at address 0, which version 1 has with
//! `--no-aslr`.

#![no_std]
#![no_main]

use runtime::prelude::*;
use runtime::{apic, mmio, paging, smp};

runtime::kernel!(v1, main);

const ICR: u32 = 0x830;
/// A page that the boot layout leaves alone.
const PAGE: u64 = 0x9000;
/// Offset in the other processor's segment that it writes to.
const CELL: u64 = 0x800;

/// `mov ax, cs; mov ds, ax; mov word [0x800], 0x4711; mov [0x802], ax; cli; hlt; jmp $-1` in 16-bit
/// code.
const CODE: [u8; 18] = [
    0x8c, 0xc8, 0x8e, 0xd8, 0xc7, 0x06, 0x00, 0x08, 0x11, 0x47, 0xa3, 0x02, 0x08, 0xfa, 0xf4, 0xeb,
    0xfd, 0x90,
];

fn main() {
    check!(boot::cpus() >= 2, "this guest wants two processors");
    smp::wait_until_started();
    paging::map_identity(PAGE, PAGE + paging::PAGE);
    apic::enable();
    for round in 1..=3 {
        mmio::write32(PAGE + CELL, 0);
        for (at, byte) in (0..).zip(CODE) {
            mmio::write8(PAGE + at, byte);
        }
        cpu::wrmsr(ICR, 1 << 32 | 0xc500);
        cpu::wrmsr(ICR, 1 << 32 | 0x4600 | PAGE >> 12);
        while mmio::read32(PAGE + CELL) != 0x0900_4711 {
            core::hint::spin_loop();
        }
        println!("start {round}");
    }
}
