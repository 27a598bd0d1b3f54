//! Blocks of the calls about directories and metadata.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// File types in [`DirentHeader::kind`] (Linux `DT_*`).
pub mod file_type {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// Named pipe.
    pub const FIFO: u8 = 1;
    /// Character device.
    pub const CHARACTER_DEVICE: u8 = 2;
    /// Directory.
    pub const DIRECTORY: u8 = 4;
    /// Block device.
    pub const BLOCK_DEVICE: u8 = 6;
    /// Regular file.
    pub const REGULAR_FILE: u8 = 8;
    /// Symbolic link.
    pub const SYMBOLIC_LINK: u8 = 10;
    /// Socket.
    pub const SOCKET: u8 = 12;
    /// Whiteout.
    pub const WHITEOUT: u8 = 14;
}

/// Header before the zero-terminated name in an entry that
/// [`Call::Getdents`](super::Call::Getdents) writes: Linux's `struct linux_dirent64` without its
/// flexible array. Entries start at multiples of [`DIRENT_ALIGN`].
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C, packed)]
pub struct DirentHeader {
    /// Inode number.
    pub ino: u64,
    /// No meaning; 0.
    pub off: i64,
    /// Size of the whole entry in bytes, header, name, its zero and padding included.
    pub reclen: u16,
    /// One of [`file_type`].
    pub kind: u8,
}

/// Alignment in bytes of directory entries.
pub const DIRENT_ALIGN: usize = 8;

/// Result of [`Call::Getdents`](super::Call::Getdents): `{ tag, value }`, the C layout of a Rust
/// enum.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct GetdentsResult {
    /// One of [`Self::NONE`], [`Self::SUCCESS`], [`Self::END`], [`Self::ERROR`].
    pub tag: u32,
    /// Padding.
    pub reserved: u32,
    /// Bytes written, for [`Self::SUCCESS`]; an error number (positive, in the low 32 bits) for
    /// [`Self::ERROR`].
    pub value: u64,
}

impl GetdentsResult {
    /// Set by the guest before the call.
    pub const NONE: u32 = 0;
    /// Entries were written.
    pub const SUCCESS: u32 = 1;
    /// There are no more entries.
    pub const END: u32 = 2;
    /// Failed.
    pub const ERROR: u32 = 3;

    /// `bytes` bytes of entries were written.
    #[must_use]
    pub const fn success(bytes: u64) -> Self {
        Self { tag: Self::SUCCESS, reserved: 0, value: bytes }
    }

    /// There are no more entries.
    #[must_use]
    pub const fn end() -> Self {
        Self { tag: Self::END, reserved: 0, value: 0 }
    }

    /// Failed with a positive error number.
    #[must_use]
    pub const fn error(errno: i32) -> Self {
        Self { tag: Self::ERROR, reserved: 0, value: errno.cast_unsigned() as u64 }
    }

    /// The error number, where this is an error.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the number is the low half of the field"
        )]
        let low = self.value as u32;
        if self.tag == Self::ERROR { Some(low.cast_signed()) } else { None }
    }
}

/// Result of [`Call::Mkdir`](super::Call::Mkdir), [`super::Call::FileStat`] and
/// [`super::Call::FileFstat`]: `{ tag, error number }`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StatusResult {
    /// One of [`Self::NONE`], [`Self::SUCCESS`], [`Self::ERROR`].
    pub tag: u32,
    /// An error number (positive) for [`Self::ERROR`], else 0.
    pub value: i32,
}

impl StatusResult {
    /// Set by the guest before the call.
    pub const NONE: u32 = 0;
    /// Done.
    pub const SUCCESS: u32 = 1;
    /// Failed.
    pub const ERROR: u32 = 2;

    /// Done.
    #[must_use]
    pub const fn success() -> Self {
        Self { tag: Self::SUCCESS, value: 0 }
    }

    /// Failed with a positive error number.
    #[must_use]
    pub const fn error(errno: i32) -> Self {
        Self { tag: Self::ERROR, value: errno }
    }

    /// The error number, where this is an error.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        if self.tag == Self::ERROR { Some(self.value) } else { None }
    }
}

/// Parameters of [`Call::Getdents`](super::Call::Getdents).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct GetdentsParams {
    /// Descriptor of a directory.
    pub fd: i32,
    /// Padding.
    pub reserved: u32,
    /// Address of the buffer for [`DirentHeader`]s and names.
    pub buf: u64,
    /// Size of the buffer in bytes.
    pub len: u64,
    /// Result.
    pub ret: GetdentsResult,
}

/// Parameters of [`Call::Mkdir`](super::Call::Mkdir).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MkdirParams {
    /// Address of the zero-terminated path.
    pub path: u64,
    /// Size in bytes of the buffer that holds the path.
    pub len: u64,
    /// Result.
    pub ret: StatusResult,
}

/// [`StatParams::kind`]: follow a symbolic link (`stat`).
pub const STAT_FOLLOW: u32 = 0;
/// [`StatParams::kind`]: look at a symbolic link itself (`lstat`).
pub const STAT_NO_FOLLOW: u32 = 1;

/// A point in time, in [`FileAttr`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Timespec {
    /// Seconds since the Unix epoch.
    pub tv_sec: i64,
    /// Nanoseconds, 0 to 999 999 999.
    pub tv_nsec: i32,
    /// Padding.
    pub reserved: u32,
}

/// File metadata that [`Call::FileStat`](super::Call::FileStat) and [`super::Call::FileFstat`]
/// write.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FileAttr {
    /// Device of the file.
    pub st_dev: u64,
    /// Inode number.
    pub st_ino: u64,
    /// Number of hard links.
    pub st_nlink: u64,
    /// Type and permission bits.
    pub st_mode: u32,
    /// Owner.
    pub st_uid: u32,
    /// Group.
    pub st_gid: u32,
    /// Padding.
    pub reserved: u32,
    /// Device number of a device file.
    pub st_rdev: u64,
    /// Size in bytes.
    pub st_size: i64,
    /// Preferred size of an access, in bytes.
    pub st_blksize: i64,
    /// Allocated 512-byte blocks.
    pub st_blocks: i64,
    /// Last access.
    pub st_atim: Timespec,
    /// Last change of the contents.
    pub st_mtim: Timespec,
    /// Last change of the metadata.
    pub st_ctim: Timespec,
}

/// Parameters of [`Call::FileStat`](super::Call::FileStat).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct StatParams {
    /// Address of the zero-terminated path.
    pub name: u64,
    /// [`STAT_FOLLOW`] or [`STAT_NO_FOLLOW`].
    pub kind: u32,
    /// Padding.
    pub reserved: u32,
    /// Address of room for a [`FileAttr`].
    pub attr: u64,
    /// Result.
    pub ret: StatusResult,
}

/// Parameters of [`Call::FileFstat`](super::Call::FileFstat).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FstatParams {
    /// Descriptor.
    pub fd: i32,
    /// Padding.
    pub reserved: u32,
    /// Address of room for a [`FileAttr`].
    pub attr: u64,
    /// Result.
    pub ret: StatusResult,
}
