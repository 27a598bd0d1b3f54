//! The kernel: a Hermit ELF file, checked whole and ready to be loaded.
//!
//! Parsed with the raw structures of the `object` crate (gABI, "Object Files"; System V ABI AMD64
//! supplement, chapter 4), which checks bounds and never panics. Its `unaligned` feature is on, so
//! that a kernel inside an archive can be used where it lies.

mod dynamic;
mod header;
mod kernel;
mod load;
mod note;
mod relocation;
mod segment;

pub use kernel::Kernel;
pub use load::LoadedKernel;
pub use note::{Interface, KernelVersion};
pub use relocation::RelocationCounts;
pub use segment::{Segment, SegmentFlags, Tls};

pub(crate) use header::MAGIC;

use object::LittleEndian;
use object::elf::{FileHeader64, ProgramHeader64};

/// The byte order of all images.
const LE: LittleEndian = LittleEndian;
/// The file header of all images.
type Header = FileHeader64<LittleEndian>;
/// A program header of all images.
type ProgramHeader = ProgramHeader64<LittleEndian>;
