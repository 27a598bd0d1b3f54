//! Memory access by one plain instruction each, at addresses that are not Rust's: device memory,
//! page tables, RAM outside the image.
//!
//! Not `unsafe`, for the reason that `cpu` gives; an address that is not mapped ends the guest. A
//! guest must not write to its own image this way.

use core::arch::asm;

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $register:ident, $modifier:literal, $width:literal) => {
        #[doc = concat!("Reads ", $width, ".")]
        #[must_use]
        pub fn $read(address: u64) -> $type {
            let value: $type;
            // SAFETY: see the module's documentation.
            unsafe {
                asm!(concat!("mov {value", $modifier, "}, [{address}]"), address = in(reg) address,
                    value = out($register) value, options(readonly, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $width, ".")]
        pub fn $write(address: u64, value: $type) {
            // SAFETY: see the module's documentation.
            unsafe {
                asm!(concat!("mov [{address}], {value", $modifier, "}"), address = in(reg) address,
                    value = in($register) value, options(nostack, preserves_flags));
            }
        }
    };
}

access!(read8, write8, u8, reg_byte, "", "a byte");
access!(read16, write16, u16, reg, ":x", "two bytes");
access!(read32, write32, u32, reg, ":e", "four bytes");
access!(read64, write64, u64, reg, ":r", "eight bytes");
