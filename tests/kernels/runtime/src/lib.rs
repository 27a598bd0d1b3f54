//! The runtime of a bare test guest: entry, console, memory, interrupts, other processors, checks.
//!
//! A guest is one binary with [`kernel!`] and a `main`. Processor 0 runs `main`; the others wait
//! for [`smp::on_others`]. When `main` returns, the guest prints `<name>: ok` and exits 0, or, if a
//! [`check!`] failed, `<name>: FAILED` and exits 1.
//!
//! Everything runs in ring 0 on the page tables the VMM built, which map the guest's memory at
//! virtual addresses equal to physical ones. The guests are built for the host's own target, whose
//! `core` uses SSE and the red zone; `entry` and `interrupts` take care of both.

#![no_std]

extern crate alloc;

pub use {hermit_entry, nerite_hypercall as hypercall};

pub mod apic;
pub mod boot;
pub mod check;
pub mod console;
pub mod cpu;
pub mod entry;
pub mod escape;
mod heap;
pub mod interrupts;
mod libc;
pub mod mmio;
pub mod paging;
pub mod random;
pub mod smp;

pub mod prelude {
    //! Imports of nearly every guest.
    pub use alloc::{format, string::String, vec, vec::Vec};

    pub use crate::{boot, check, check_eq, cpu, print, println};
}

use nerite_hypercall::guest::{V1, V2};

/// The hypercall interface a guest was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Version 1: no `UHYVEIF` note in the image.
    V1,
    /// Version 2.
    V2,
}

/// One guest, as [`kernel!`] describes it.
#[derive(Debug)]
pub struct Kernel {
    /// Name of the binary.
    pub name: &'static str,
    /// Which hypercalls it makes.
    pub interface: Interface,
    /// Entry point of processor 0.
    pub main: fn(),
}

/// The hypercalls of version 1.
#[must_use]
pub fn v1() -> V1 {
    // SAFETY: the runtime never changes the identity mapping that the VMM made of the guest's
    // image, in which all stacks, statics and the heap lie; only guests of version 1 call this.
    unsafe { V1::assume_identity_mapped() }
}

/// The hypercalls of version 2.
#[must_use]
pub fn v2() -> V2 {
    // SAFETY: as for `v1`; only guests of version 2 call this.
    unsafe { V2::assume_identity_mapped() }
}

/// A parameter block of a hypercall.
pub trait Block: zerocopy::FromBytes + zerocopy::IntoBytes {}

impl<T: zerocopy::FromBytes + zerocopy::IntoBytes> Block for T {}

/// Puts a value on the heap for good.
#[must_use]
pub fn leak<T>(value: T) -> &'static mut T {
    alloc::boxed::Box::leak(alloc::boxed::Box::new(value))
}

/// Ends the machine with `code`.
pub fn exit(code: i32) -> ! {
    match entry::kernel().interface {
        Interface::V1 => v1().exit(code),
        Interface::V2 => v2().exit(code),
    }
}

/// Makes a binary a guest: the notes a loader looks for, the entry point, and `main`.
/// `kernel!(v1, main)` or `kernel!(v2, main)`.
///
/// The notes must lie in the binary crate: in a library nothing refers to them, and they are
/// dropped.
#[macro_export]
macro_rules! kernel {
    (v1, $main:path) => {
        $crate::kernel!(@common V1, $main);
    };
    (v2, $main:path) => {
        $crate::hermit_entry::define_uhyve_interface_version!($crate::hypercall::UHYVE_INTERFACE_VERSION);
        $crate::hermit_entry::define_abi_tag!();
        $crate::kernel!(@common V2, $main);
    };
    (@common $interface:ident, $main:path) => {
        $crate::hermit_entry::define_entry_version!();

        static KERNEL: $crate::Kernel = $crate::Kernel {
            name: env!("CARGO_BIN_NAME"),
            interface: $crate::Interface::$interface,
            main: $main,
        };

        /// Entry point of every processor: RDI is the boot info, ESI the processor's index.
        ///
        /// # Safety
        /// Only the VMM may come here.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn _start() -> ! {
            core::arch::naked_asm!(
                "lea rdx, [rip + {kernel}]",
                "jmp {entry}",
                kernel = sym KERNEL,
                entry = sym $crate::entry::entry,
            )
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    println!("{info}");
    exit(-1)
}
