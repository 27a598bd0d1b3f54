//! `print!` and `println!`: one hypercall each, so that lines of several processors do not mix.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::{Interface, v1, v2};

static VERSION_1: AtomicBool = AtomicBool::new(false);
static LOCKED: AtomicBool = AtomicBool::new(false);

/// Tells the console which hypercalls to make.
pub(crate) fn init(interface: Interface) {
    VERSION_1.store(interface == Interface::V1, Ordering::Release);
}

/// Writes bytes as they are, with one hypercall.
pub fn write_bytes(bytes: &[u8]) {
    if VERSION_1.load(Ordering::Acquire) {
        // A stack is part of the image, and an image of version 1 lies below 4 GiB.
        let _ = v1().write(bytes);
    } else {
        v2().write(bytes);
    }
}

/// Collects text and writes it when full and at the end.
struct Buffer {
    bytes: [u8; 1024],
    used: usize,
}

impl Buffer {
    fn flush(&mut self) {
        if self.used > 0 {
            write_bytes(&self.bytes[..self.used]);
            self.used = 0;
        }
    }
}

impl fmt::Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.used == self.bytes.len() {
                self.flush();
            }
            self.bytes[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// The implementation of `print!`.
pub fn print(arguments: fmt::Arguments<'_>) {
    while LOCKED.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    let mut buffer = Buffer { bytes: [0; 1024], used: 0 };
    // `Buffer` itself never fails; an error of a value's own formatting leaves what was formatted.
    let _ = buffer.write_fmt(arguments);
    buffer.flush();
    LOCKED.store(false, Ordering::Release);
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($arguments:tt)*) => { $crate::console::print(format_args!($($arguments)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arguments:tt)*) => { $crate::print!("{}\n", format_args!($($arguments)*)) };
}
