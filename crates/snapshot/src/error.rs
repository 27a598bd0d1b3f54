//! Failures of writing and reading snapshots.

use std::io;
use std::path::PathBuf;

/// A snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host failed.
    #[error("snapshot {}: {what}", path.display())]
    Host {
        /// The snapshot's directory, or a file in it.
        path: PathBuf,
        /// The operation.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// There is something under the snapshot's name already.
    #[error("snapshot {}: the name is taken; snapshots are never overwritten", .0.display())]
    Exists(PathBuf),
    /// Another process writes a snapshot of this name.
    #[error("snapshot {}: another process is writing it (in {})", path.display(), temporary.display())]
    InUse {
        /// The snapshot's directory.
        path: PathBuf,
        /// The temporary directory.
        temporary: PathBuf,
    },
    /// The path has no last component to name a directory by.
    #[error("snapshot {}: the path does not end in a name", .0.display())]
    NoName(PathBuf),
    /// A file of the snapshot is a link, a device or something else.
    #[error("{name} of the snapshot is not a regular file")]
    NotAFile {
        /// Name of the file.
        name: &'static str,
    },
    /// The snapshot is of another format.
    #[error("the snapshot has format {found}; this version reads format {supported} only")]
    Format {
        /// The format's number.
        found: u64,
        /// The number of the format that is read.
        supported: u32,
    },
    /// The description is larger than any that is written.
    #[error("{name} of the snapshot has {size} bytes, more than the {limit} that are read")]
    TooLarge {
        /// Name of the file.
        name: &'static str,
        /// Its size in bytes.
        size: u64,
        /// Maximum size.
        limit: u64,
    },
    /// The description is not what this version writes.
    #[error("snapshot.json is malformed")]
    Malformed(#[source] serde_json::Error),
    /// A value of the description is out of range.
    #[error("snapshot.json is malformed: {0}")]
    Invalid(&'static str),
    /// A file does not have the size that the description says.
    #[error(
        "{name} of the snapshot has {size} bytes instead of {expected}: it is truncated or of another snapshot"
    )]
    Size {
        /// Name of the file.
        name: &'static str,
        /// Its size in bytes.
        size: u64,
        /// Size that the description says.
        expected: u64,
    },
    /// The contents of a file are not those that were written.
    #[error("{name} of the snapshot is damaged: its digest is not the recorded one")]
    Damaged {
        /// Name of the file.
        name: &'static str,
    },
    /// A file of the snapshot cannot be read or written.
    #[error("{name} of the snapshot")]
    File {
        /// Name of the file.
        name: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl Error {
    /// `true` if the snapshot is at fault, and not the host.
    #[must_use]
    pub fn is_bad_snapshot(&self) -> bool {
        match self {
            Self::Host { .. }
            | Self::Exists(_)
            | Self::InUse { .. }
            | Self::NoName(_)
            | Self::File { .. } => false,
            Self::NotAFile { .. }
            | Self::Format { .. }
            | Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::Invalid(_)
            | Self::Size { .. }
            | Self::Damaged { .. } => true,
        }
    }
}
