//! Ports and addresses where nothing is: reads give all ones in every width, writes do nothing.

#![no_std]
#![no_main]

use core::arch::asm;

use runtime::prelude::*;
use runtime::{mmio, paging};

runtime::kernel!(v2, main);

fn ports() {
    for port in [0x3000, 0x5679, 0x0c, 0x2e8, 0x1031, 0x12f0, 0xfffc] {
        cpu::out8(port, 0x12);
        cpu::out16(port, 0x1234);
        cpu::out32(port, 0x1234_5678);
        check_eq!(cpu::in8(port), 0xff, "byte from port {port:#x}");
        check_eq!(cpu::in16(port), 0xffff, "word from port {port:#x}");
        check_eq!(cpu::in32(port), u32::MAX, "double word from port {port:#x}");
    }
}

/// A 16-byte read, which the VMM sees as two of 8.
fn read128(address: u64) -> [u64; 2] {
    let mut value = [0u64; 2];
    // SAFETY: reads device memory and writes `value`.
    unsafe {
        asm!("movdqu {x}, [{address}]", "movdqu [{value}], {x}", x = out(xmm_reg) _,
            address = in(reg) address, value = in(reg) &raw mut value, options(nostack));
    }
    value
}

fn memory(address: u64) {
    paging::map_identity(address, address + 2 * paging::PAGE);
    // Aligned, odd, and across the boundary of a page.
    for at in [address, address + 0x123, address + paging::PAGE - 4] {
        mmio::write8(at, 0);
        mmio::write16(at, 0);
        mmio::write32(at, 0);
        mmio::write64(at, 0);
        check_eq!(mmio::read8(at), 0xff, "byte at {at:#x}");
        check_eq!(mmio::read16(at), 0xffff, "word at {at:#x}");
        check_eq!(mmio::read32(at), u32::MAX, "double word at {at:#x}");
        check_eq!(mmio::read64(at), u64::MAX, "quad word at {at:#x}");
    }
    check_eq!(read128(address), [u64::MAX; 2], "16 bytes at {address:#x}");
    // The same address over and over is logged once, not a thousand times.
    for _ in 0..1000 {
        check_eq!(mmio::read32(address + 8), u32::MAX, "double word at {address:#x} + 8");
    }
}

fn main() {
    ports();
    for _ in 0..1000 {
        check_eq!(cpu::in8(0x3000), 0xff, "byte from port 0x3000");
    }
    // In the gap for devices, away from the APICs and from where a bridge would put its windows.
    memory(0xd123_4000);
    // Right after the end of RAM, within what 36 bits of physical address reach.
    let end = boot::memory().iter().map(|region| region.end).max().unwrap_or(0);
    if end + 0x10_0000 < 1 << 36 && end != 3 << 30 {
        memory(end);
    }
}
