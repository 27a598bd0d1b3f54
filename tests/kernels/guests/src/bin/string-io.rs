//! String port instructions: the VMM gets them element by element or in bulk, and must serve all of
//! them.

#![no_std]
#![no_main]

use core::arch::asm;

use runtime::prelude::*;

runtime::kernel!(v2, main);

/// A port where nothing is.
const PORT: u16 = 0x3000;

/// Value of the guard bytes around a buffer.
const GUARD: u8 = 0x5a;

fn input(buffer: &mut [u8], width: usize) {
    let (to, count) = (buffer.as_mut_ptr(), buffer.len() / width);
    // SAFETY: writes `count` elements of `width` bytes to the buffer.
    unsafe {
        match width {
            1 => {
                asm!("rep insb", in("dx") PORT, inout("rdi") to => _, inout("rcx") count => _, options(nostack))
            }
            2 => {
                asm!("rep insw", in("dx") PORT, inout("rdi") to => _, inout("rcx") count => _, options(nostack))
            }
            _ => {
                asm!("rep insd", in("dx") PORT, inout("rdi") to => _, inout("rcx") count => _, options(nostack))
            }
        }
    }
}

fn output(buffer: &[u8], width: usize) {
    let (from, count) = (buffer.as_ptr(), buffer.len() / width);
    // SAFETY: reads `count` elements of `width` bytes from the buffer.
    unsafe {
        match width {
            1 => {
                asm!("rep outsb", in("dx") PORT, inout("rsi") from => _, inout("rcx") count => _, options(nostack))
            }
            2 => {
                asm!("rep outsw", in("dx") PORT, inout("rsi") from => _, inout("rcx") count => _, options(nostack))
            }
            _ => {
                asm!("rep outsd", in("dx") PORT, inout("rsi") from => _, inout("rcx") count => _, options(nostack))
            }
        }
    }
}

fn main() {
    // Longer than the page that KVM keeps for the data of one exit.
    const LENGTH: usize = 6000;
    for width in [1, 2, 4] {
        let mut room = vec![GUARD; LENGTH + 16];
        input(&mut room[8..8 + LENGTH], width);
        let wrong = room[8..8 + LENGTH].iter().filter(|&&byte| byte != 0xff).count();
        check_eq!(wrong, 0, "bytes that are not all ones after input of width {width}");
        let guards =
            room[..8].iter().chain(&room[8 + LENGTH..]).filter(|&&byte| byte != GUARD).count();
        check_eq!(guards, 0, "bytes written next to the buffer by input of width {width}");
        output(&room[8..8 + 600], width);
    }
    // Backwards.
    let mut room = vec![GUARD; 80];
    // SAFETY: writes 64 bytes downwards from the 72nd.
    unsafe {
        asm!("std", "rep insb", "cld", in("dx") PORT, inout("rdi") room.as_mut_ptr().add(71) => _,
            inout("rcx") 64 => _, options(nostack));
    }
    check!(room[8..72].iter().all(|&byte| byte == 0xff), "backward input left bytes out");
    check!(
        room[..8].iter().chain(&room[72..]).all(|&byte| byte == GUARD),
        "backward input wrote too much"
    );
    println!("{LENGTH} bytes in each width");
}
