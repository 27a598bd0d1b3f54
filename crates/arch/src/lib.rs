//! The state of an x86-64 guest at its first instruction, as plain data.
//!
//! The one idea: **the boot state of a virtual CPU is a value**. Registers, CPUID leaves, MSRs,
//! descriptor and page tables, the device tree and the boot information are computed here, by
//! functions without side effects, and applied elsewhere: by a hypervisor backend to a vCPU, by the
//! machine to guest memory. So all of it is tested without KVM.
//!
//! * [`Regs`] and [`SpecialRegs`]: registers in hypervisor-neutral form, printable for crash
//!   reports; [`BootState`]: what a vCPU starts with;
//! * [`hermit`]: the entry state of a Hermit kernel;
//! * [`pc`]: the entry states of Linux, PVH and multiboot kernels, and their tables;
//! * [`cpuid`]: a host's CPUID leaves made fit for a guest;
//! * [`gdt`], [`paging`]: the boot descriptor table and page tables, and a walker for the guest's
//!   own;
//! * [`fdt`], [`boot_info`]: the description of the machine for the guest.
//!
//! ```
//! use nerite_arch::BootState;
//! use nerite_arch::hermit::BootAddresses;
//!
//! let addresses = BootAddresses {
//!     entry: 0x1_0004_1000,
//!     boot_info: 0x1_0000_5000,
//!     stack: 0x1_0003_8000,
//!     pml4: 0x1_0001_0000,
//!     gdt: 0x1_0000_0000,
//! };
//! let state = BootState::hermit(0, &addresses);
//! assert_eq!(state.regs.rdi, addresses.boot_info);
//! assert_eq!(state.special.cr3, addresses.pml4);
//! println!("{}\n{}", state.regs, state.special);
//! ```

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]
#![forbid(unsafe_code)]

pub mod boot_info;
pub mod cpuid;
mod error;
pub mod fdt;
mod fpu;
pub mod gdt;
pub mod hermit;
pub mod paging;
pub mod pc;
mod regs;
pub mod reset;

pub use cpuid::CpuidEntry;
pub use error::Error;
pub use fpu::Fpu;
pub use regs::{BootState, DescriptorTable, Msr, Regs, Segment, SpecialRegs};

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
