//! Parses Hermit images (ELF files and gzip'd tars) and loads them into guest memory, without a
//! panic whatever the bytes.
//!
//! The one idea: **an image is checked whole when it is parsed.** [`Image::parse`] looks at every
//! number of the image that loading will use - segments, entry point, TLS, each relocation - so
//! that afterwards [`Kernel::load`] can only fail because of the memory it is given. The bytes are
//! kept once at most; segments are copied straight from them into guest memory.
//!
//! A kernel in a file of its own of more than 64 KiB stays there: headers, notes and tables are
//! read when they are looked at, and segments straight from the file into guest memory. So loading
//! it can also fail because the file changed or was cut short meanwhile, which is an [`Error`] as
//! all others are (nothing is mapped), and its relocations are checked as they are applied.
//!
//! ```no_run
//! use nerite_loader::{Image, Limits};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let image = Image::read("hello_world", &Limits::default())?;
//! println!("{}", image.inspect());
//!
//! let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 64 << 20)])?;
//! let loaded = image.kernel().load(&ram, image.kernel().fixed_start().unwrap_or(0x40000))?;
//! println!("enter at {:#x}", loaded.entry);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Other kernels
//!
//! [`GuestImage`] recognises and parses, by the same rule, what is no Hermit image: Linux' bzImage,
//! ELF files with a PVH note, multiboot kernels.
//!
//! # Compared with `hermit-entry`
//!
//! Every well-formed image gives the same bytes in memory, entry point and TLS data as
//! `hermit_entry::elf::KernelObject` (a test compares them). That parser panics on malformed input
//! and is meant for trusted files; this one answers with an [`Error`]. Where they differ on
//! purpose:
//!
//! * refused here, loaded wrongly there: `PT_LOAD` segments that overlap or do not ascend, an entry
//!   point outside of them, a relocatable image not linked at address 0, relocations against
//!   undefined symbols that are not weak, `DT_REL` and `DT_JMPREL` tables, `DT_NEEDED` is looked
//!   for up to `DT_NULL`;
//! * accepted here: `DT_RELR` relocations (ignored there), `R_X86_64_NONE`, images without section
//!   headers, tables that are not aligned in the file;
//! * an unknown `UHYVEIF` version is an error here and taken for the newest there.

#![forbid(unsafe_code)]
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

mod archive;
mod bytes;
mod config;
mod elf;
mod error;
mod guest;
mod guest_inspect;
mod image;
mod inspect;
mod pc;
mod source;
mod symbols;
mod tar_reader;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;

pub use archive::{Archive, Entry, EntryKind};
pub use config::ImageConfig;
pub use elf::{Interface, Kernel, KernelVersion, LoadedKernel, RelocationCounts, Segment, SegmentFlags, Tls};
pub use error::Error;
pub use guest::{GuestImage, Protocol, UnknownProtocol};
pub use guest_inspect::GuestInspection;
pub use image::{Format, Image, ImageSource, Limits};
pub use inspect::Inspection;
pub use pc::{BzImage, Multiboot, PhysicalSegment, Pvh, SegmentedKernel};
pub use symbols::{Location, Symbols};
