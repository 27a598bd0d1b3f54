//! Ports and addresses at random: all widths, string instructions included. What is nothing reads
//! as all ones.

#![no_std]
#![no_main]

use runtime::hypercall::{v1, v2};
use runtime::mmio;
use runtime::paging::{LARGE_PAGE, map_identity};
use runtime::prelude::*;
use runtime::random::Random;

runtime::kernel!(v2, main);

const ROUNDS: u32 = 4000;

/// Ports whose writes do what they say: calls, whose blocks would be anywhere; the interrupt
/// controllers; the configuration of cards.
fn is_taken(port: u16) -> bool {
    (0..4).any(|width| {
        let port = port.wrapping_add(width);
        v1::Call::from_port(port).is_some() || v2::Call::from_port(port).is_some()
    }) || matches!(port, 0x1d..0x22 | 0x9d..0xa2 | 0x4ce..0x4d2 | 0x3d..0x44 | 0x5e..0x62)
}

fn ports(random: &mut Random) {
    for _ in 0..ROUNDS {
        let port = random.next() as u16;
        let value = random.next();
        if is_taken(port) {
            continue;
        }
        match value % 6 {
            0 => cpu::out8(port, value as u8),
            1 => cpu::out16(port, value as u16),
            2 => cpu::out32(port, value as u32),
            3 => check_eq!(cpu::in8(port) | cpu::in8(port), cpu::in8(port), "port {port:#x}"),
            4 => _ = cpu::in16(port),
            _ => _ = cpu::in32(port),
        }
    }
    check_eq!(cpu::in32(0x9000), u32::MAX, "a port where nothing is");
    // Calls in widths that are none: a byte or a word to the port of a call with a block.
    for call in v2::Call::ALL {
        if call.param_size() > 0 {
            cpu::out8(call.port() + 1, 0xff);
            let _ = cpu::in16(call.port());
        }
    }
}

fn memory(random: &mut Random) {
    // The gap between 3 and 4 GiB has no RAM; its controllers are at its end.
    let (start, end) = (0xd000_0000_u64, 0xd400_0000_u64);
    map_identity(start, end);
    for _ in 0..ROUNDS {
        let value = random.next();
        let at = start + random.next() % (end - start - 8);
        match value % 8 {
            0 => mmio::write8(at, value as u8),
            1 => mmio::write16(at, value as u16),
            2 => mmio::write32(at, value as u32),
            3 => mmio::write64(at, value),
            4 => check_eq!(mmio::read8(at), u8::MAX, "{at:#x}"),
            5 => check_eq!(mmio::read16(at), u16::MAX, "{at:#x}"),
            6 => check_eq!(mmio::read32(at), u32::MAX, "{at:#x}"),
            _ => check_eq!(mmio::read64(at), u64::MAX, "{at:#x}"),
        }
    }
    // Across pages, and beyond everything that is RAM.
    for at in [start + 4095, start + LARGE_PAGE - 3, end - 9] {
        check_eq!(mmio::read64(at), u64::MAX, "{at:#x}");
        mmio::write64(at, 0);
    }
    let beyond = boot::memory().iter().map(|region| region.end).max().unwrap_or(0) + (64 << 20);
    map_identity(beyond, beyond + LARGE_PAGE);
    check_eq!(mmio::read32(beyond + 4), u32::MAX, "beyond RAM");
    mmio::write32(beyond + 4, 1);
}

fn main() {
    let mut random = Random(0x0dd0_ba11_5eed_f00d);
    ports(&mut random);
    memory(&mut random);
    println!("all answered");
}
