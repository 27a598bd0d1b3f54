//! Kernels that know nothing of Hermit: Linux' bzImage, PVH, multiboot 1.
//!
//! As a Hermit kernel they are checked whole when they are parsed. They are loaded at the
//! guest-physical addresses they name, and enter with what the `nerite-arch` crate's `pc` module
//! describes.

mod bzimage;
mod elf;
mod multiboot;
mod pvh;
mod segments;

pub use bzimage::BzImage;
pub use multiboot::Multiboot;
pub use pvh::Pvh;
pub use segments::{PhysicalSegment, SegmentedKernel};

pub(crate) use bzimage::is_bzimage;
pub(crate) use elf::has_hermit_note;
pub(crate) use multiboot::is_multiboot;
pub(crate) use pvh::is_pvh;

use crate::{Error, Protocol};

/// An error in an image of `protocol`.
fn wrong(protocol: Protocol, problem: &'static str) -> Error {
    Error::Kernel { protocol, problem }
}

/// A little-endian word of an image.
fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let end = offset.checked_add(2)?;
    Some(u16::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A little-endian doubleword of an image.
fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let end = offset.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}

/// A little-endian quadword of an image.
fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(offset..end)?.try_into().ok()?))
}
