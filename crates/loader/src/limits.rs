//! [`Limits`]: upper bounds on the resources that an image may take.

/// Upper bounds on the resources that an image may take; larger images are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file. 1 GiB by default.
    pub max_file: u64,
    /// Bytes of the archive in it when decompressed. 1 GiB by default.
    pub max_decompressed: u64,
    /// Entries of the archive. 65 536 by default.
    pub max_entries: usize,
    /// Bytes of all names and link targets of the archive together. 8 MiB by default.
    pub max_names: usize,
    /// Bytes of guest memory that the kernel takes when loaded. 4 GiB by default.
    pub max_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file: 1 << 30,
            max_decompressed: 1 << 30,
            max_entries: 1 << 16,
            max_names: 8 << 20,
            max_memory: 4 << 30,
        }
    }
}
