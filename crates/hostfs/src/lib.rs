//! The files a virtual machine's guest may touch.
//!
//! The one idea: **a guest has names of its own, and only what was mounted has a way to the host**.
//! A path is normalised, the mount it is below is found, and the host's kernel walks the rest from
//! the mount's directory without ever leaving it (`openat2` with `RESOLVE_BENEATH`). So it does not
//! matter what links and `..` say, nor what is renamed meanwhile. Everything else is in
//! memory: the directories above the mount points, the files of a Hermit image (read-only, never
//! copied), and temporary files, which have no name on the host and vanish with the process.
//!
//! Bytes go between files and guest memory without a copy; a descriptor is a shared reference, so
//! no lock is held while the host reads or writes, and closing a file that another vCPU reads is
//! safe.
//!
//! ```
//! use nerite_hostfs::{Access, HostFs, Limits, Mount};
//! use nerite_hypercall::{errno, file};
//! use vm_memory::VolatileSlice;
//!
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("hello"), "hi")?;
//! let mount =
//!     Mount { host: folder.path().into(), guest: "/data".into(), access: Access::ReadOnly };
//! let files = HostFs::new(&[mount], &[], Limits::default())?;
//!
//! let fd = files.open(b"/data/../data/hello", file::O_RDONLY, 0).unwrap();
//! let mut memory = [0; 8];
//! assert_eq!(files.read(fd, [VolatileSlice::from(&mut memory[..])]), Ok(2));
//! assert_eq!(memory, *b"hi\0\0\0\0\0\0");
//! assert_eq!(files.open(b"/data/new", file::O_CREAT, 0o600), Err(errno::EROFS));
//! assert_eq!(files.open(b"/etc/passwd", file::O_RDONLY, 0), Err(errno::ENOENT));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Directories need Linux 5.6 or later. The crate has no features.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod attributes;
mod directory;
mod errno;
mod error;
mod flags;
mod fs;
mod host;
mod image;
mod limits;
mod mount;
mod named;
mod names;
mod open;
mod path;
mod reach;
mod restore;
mod state;
mod table;
mod temporary;
mod transfer;

// Crates whose types are in this one's interface.
pub use nerite_hypercall;
pub use nerite_saved;
pub use vm_memory;

pub use error::Error;
pub use fs::HostFs;
pub use host::Mounts;
pub use image::{ImageFile, SharedBytes};
pub use limits::Limits;
pub use mount::{Access, Mount};
pub use path::{GuestPath, NAME_MAX, PATH_MAX};
pub use reach::{MountedPath, Needs};
pub use state::{
    AccessState, Extent, FilesState, Identity, NameState, NodeState, OnChanged, OpenState,
    OriginState, TemporaryState,
};

/// The README's example, kept true by running it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
