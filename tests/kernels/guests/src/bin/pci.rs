//! PCI configuration space: absent devices read all ones, by byte, word and double word.

#![no_std]
#![no_main]

use runtime::prelude::*;

runtime::kernel!(v2, main);

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// The scan Hermit makes at every boot.
fn scan() -> u32 {
    let mut present = 0;
    for bus in 0..32u32 {
        for device in 0..32u32 {
            cpu::out32(ADDRESS, ENABLE | bus << 16 | device << 11);
            let id = cpu::in32(DATA);
            if id != u32::MAX {
                println!("bus {bus} device {device}: {id:#010x}");
                present += 1;
            }
        }
    }
    present
}

fn main() {
    check_eq!(scan(), 0, "PCI devices of a machine without any");
    for register in [0u32, 4, 8, 0x3c, 0xfc] {
        cpu::out32(ADDRESS, ENABLE | 31 << 16 | 31 << 11 | 7 << 8 | register);
        check_eq!(cpu::in32(DATA), u32::MAX, "double word at {register:#x}");
        for offset in 0..4 {
            check_eq!(cpu::in8(DATA + offset), 0xff, "byte at {register:#x} + {offset}");
        }
        for offset in [0, 2] {
            check_eq!(cpu::in16(DATA + offset), 0xffff, "word at {register:#x} + {offset}");
        }
        cpu::out32(DATA, 0);
        cpu::out16(DATA + 2, 0);
        cpu::out8(DATA + 3, 0);
        check_eq!(cpu::in32(DATA), u32::MAX, "double word at {register:#x} after writes");
    }
    // Without the enable bit no configuration cycle takes place.
    cpu::out32(ADDRESS, 0);
    check_eq!(cpu::in32(DATA), u32::MAX, "data without the enable bit");
    // Narrow writes to the address port are not for the PCI host (PCI 3.0, 3.2.2.3.2).
    cpu::out8(ADDRESS, 0xff);
    cpu::out16(ADDRESS, 0xffff);
    check_eq!(scan(), 0, "PCI devices after odd accesses");
}
