#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
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
