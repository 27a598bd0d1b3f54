//! Files for tests.

use std::fs::File;

use rustix::fs::{MemfdFlags, memfd_create};

/// A file that is kept in memory, as on a tmpfs: its holes are exact, and reading one through a
/// mapping fills it.
pub(crate) fn in_memory() -> File {
    memfd_create("test", MemfdFlags::CLOEXEC).unwrap().into()
}
