//! Saved state of a guest's files: plain data.

use nerite_saved::bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Treatment of an open file that is not found as it was when the guest was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChanged {
    /// The guest is not restored.
    #[default]
    Refuse,
    /// The guest's descriptor answers with `EIO`.
    Eio,
}

/// State of a [`HostFs`](crate::HostFs).
///
/// Files of the host are named by the guest's paths and opened anew; temporary files are here with
/// their contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesState {
    /// Version of this layout: 1.
    pub version: u32,
    /// Bytes written so far, as far as they are limited.
    pub bytes_written: u64,
    /// First inode number of names that the guest creates; those before are of mounts and the
    /// image.
    pub first_inode: u64,
    /// Inode number of the next name that the guest creates.
    pub next_inode: u64,
    /// Temporary files, also those without a name.
    pub temporary: Vec<TemporaryState>,
    /// Names that the guest has created, in the order of their inode numbers.
    pub names: Vec<NameState>,
    /// Open files with their numbers, in ascending order.
    pub open: Vec<(i32, OpenState)>,
}

/// A temporary file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemporaryState {
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Contents; what is between them is zero.
    pub extents: Vec<Extent>,
}

/// A piece of a file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Offset of the first byte.
    pub offset: u64,
    /// The bytes.
    #[serde(with = "nerite_saved::bytes")]
    pub bytes: Vec<u8>,
}

/// A name that the guest has created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameState {
    /// Its inode number.
    pub inode: u64,
    /// Inode number of the directory that it is in.
    pub parent: u64,
    /// The name.
    #[serde(with = "nerite_saved::bytes")]
    pub name: Vec<u8>,
    /// File of that name.
    pub node: NodeState,
}

/// File of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum NodeState {
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u32,
    },
    /// A temporary file.
    Temporary {
        /// Index in [`FilesState::temporary`].
        file: usize,
    },
}

/// An open file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum OpenState {
    /// A regular file of the host.
    Regular {
        /// Path, rights and identity.
        origin: OriginState,
        /// Offset of the next byte.
        position: u64,
    },
    /// A pipe or device of the host.
    Special {
        /// Path, rights and identity.
        origin: OriginState,
    },
    /// A directory of the host.
    HostDirectory {
        /// Path, rights and identity.
        origin: OriginState,
        /// Position in its entries, as its file system counts.
        position: u64,
    },
    /// A temporary file.
    Temporary {
        /// Index in [`FilesState::temporary`].
        file: usize,
        /// Inode number.
        inode: u64,
        /// Offset of the next byte.
        position: u64,
        /// Rights.
        access: AccessState,
    },
    /// A file of the image.
    Image {
        /// Inode number.
        inode: u64,
        /// Offset of the next byte.
        position: u64,
    },
    /// A directory in memory.
    Directory {
        /// The guest's path, with a slash before each name.
        #[serde(with = "nerite_saved::bytes")]
        path: Vec<u8>,
        /// Name of the last entry that was given, if one was.
        cursor: Option<Bytes>,
    },
    /// A file that was not found again earlier.
    Lost,
}

/// Path and rights that a file of the host was opened with, and its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OriginState {
    /// The guest's path, with a slash before each name.
    #[serde(with = "nerite_saved::bytes")]
    pub path: Vec<u8>,
    /// Rights.
    pub access: AccessState,
    /// Identity of the file.
    pub identity: Identity,
}

/// Rights of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessState {
    /// `true` if it can be read.
    pub read: bool,
    /// `true` if it can be written.
    pub write: bool,
    /// `true` if writes go to the end.
    pub append: bool,
}

/// Identity and version of a file of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Device of its file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes; 0 unless it is a regular file, as are the other fields.
    pub size: i64,
    /// Time of the last change, in seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: i32,
}
