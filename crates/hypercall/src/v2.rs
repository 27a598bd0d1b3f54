//! Interface version 2: kernels with a `UHYVEIF` note of 2 or 3, Hermit 0.10 and later.
//!
//! `RDI` holds the 64-bit guest-physical address of a parameter block, or a small value for
//! [`Call::Exit`] and [`Call::SerialWriteByte`]; `EAX` means nothing. All addresses are guest-physical, all
//! buffers contiguous. Blocks are naturally aligned, and the padding is spelled out as `reserved` fields,
//! which a sender sets to 0 and a receiver ignores.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use crate::v1::{CloseParams, OpenParams, UnlinkParams};

/// The calls of interface version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Call {
    /// End the machine; the low 32 bits of `RDI` are the exit code, signed.
    Exit = 0x1010,
    /// Write one byte, the lowest of `RDI`, to the console.
    SerialWriteByte = 0x1020,
    /// Write a buffer to the console: [`SerialWriteBufferParams`].
    SerialWriteBuffer = 0x1030,
    /// Read one byte from the console, by **`in`** (not `out`) from the port, waiting for one to come. A
    /// 32-bit `in eax, dx` gives 0 to 255 for a byte and [`SERIAL_END`] at the end of the input; an 8-bit
    /// `in al, dx` gives the byte, or 0xff at the end. There is no parameter.
    ///
    /// `uhyve-interface` names the port and says nothing about where the byte goes, and no known VMM or
    /// kernel uses it: a read is what this project makes of it.
    SerialReadByte = 0x1040,
    /// Read from the console into a buffer: [`SerialReadBufferParams`].
    SerialReadBuffer = 0x1050,
    /// Write to a descriptor: [`WriteParams`].
    FileWrite = 0x1100,
    /// Open a file: [`OpenParams`].
    FileOpen = 0x1110,
    /// Close a descriptor: [`CloseParams`].
    FileClose = 0x1120,
    /// Read from a descriptor: [`ReadParams`].
    FileRead = 0x1130,
    /// Move a descriptor's position: [`LseekParams`].
    FileLseek = 0x1140,
    /// Remove a file: [`UnlinkParams`].
    FileUnlink = 0x1150,
    /// Read directory entries: [`GetdentsParams`].
    Getdents = 0x1160,
    /// Metadata of a path: [`StatParams`].
    FileStat = 0x1170,
    /// Metadata of a descriptor: [`FstatParams`].
    FileFstat = 0x1180,
    /// Create a directory: [`MkdirParams`].
    Mkdir = 0x1190,
    /// Reserved by the interface; has no parameters yet. A host ignores it.
    SharedMemOpen = 0x1200,
    /// Reserved by the interface; has no parameters yet. A host ignores it.
    SharedMemClose = 0x1210,
}

/// What a 32-bit read of [`Call::SerialReadByte`] gives at the end of the input.
pub const SERIAL_END: u32 = u32::MAX;

impl Call {
    /// Every call, in order of the ports.
    pub const ALL: [Self; 17] = [
        Self::Exit,
        Self::SerialWriteByte,
        Self::SerialWriteBuffer,
        Self::SerialReadByte,
        Self::SerialReadBuffer,
        Self::FileWrite,
        Self::FileOpen,
        Self::FileClose,
        Self::FileRead,
        Self::FileLseek,
        Self::FileUnlink,
        Self::Getdents,
        Self::FileStat,
        Self::FileFstat,
        Self::Mkdir,
        Self::SharedMemOpen,
        Self::SharedMemClose,
    ];

    /// The call that a port number stands for; `None` for a port of no call.
    #[must_use]
    #[inline]
    pub const fn from_port(port: u16) -> Option<Self> {
        Some(match port {
            0x1010 => Self::Exit,
            0x1020 => Self::SerialWriteByte,
            0x1030 => Self::SerialWriteBuffer,
            0x1040 => Self::SerialReadByte,
            0x1050 => Self::SerialReadBuffer,
            0x1100 => Self::FileWrite,
            0x1110 => Self::FileOpen,
            0x1120 => Self::FileClose,
            0x1130 => Self::FileRead,
            0x1140 => Self::FileLseek,
            0x1150 => Self::FileUnlink,
            0x1160 => Self::Getdents,
            0x1170 => Self::FileStat,
            0x1180 => Self::FileFstat,
            0x1190 => Self::Mkdir,
            0x1200 => Self::SharedMemOpen,
            0x1210 => Self::SharedMemClose,
            _ => return None,
        })
    }

    /// The port of the call.
    #[must_use]
    #[inline]
    pub const fn port(self) -> u16 {
        self as u16
    }

    /// The name of the call, for logs and statistics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exit => "Exit",
            Self::SerialWriteByte => "SerialWriteByte",
            Self::SerialWriteBuffer => "SerialWriteBuffer",
            Self::SerialReadByte => "SerialReadByte",
            Self::SerialReadBuffer => "SerialReadBuffer",
            Self::FileWrite => "FileWrite",
            Self::FileOpen => "FileOpen",
            Self::FileClose => "FileClose",
            Self::FileRead => "FileRead",
            Self::FileLseek => "FileLseek",
            Self::FileUnlink => "FileUnlink",
            Self::Getdents => "Getdents",
            Self::FileStat => "FileStat",
            Self::FileFstat => "FileFstat",
            Self::Mkdir => "Mkdir",
            Self::SharedMemOpen => "SharedMemOpen",
            Self::SharedMemClose => "SharedMemClose",
        }
    }

    /// Size in bytes of the parameter block; 0 for calls without one.
    #[must_use]
    pub const fn param_size(self) -> usize {
        match self {
            Self::SerialWriteBuffer => size_of::<SerialWriteBufferParams>(),
            Self::SerialReadBuffer => size_of::<SerialReadBufferParams>(),
            Self::FileWrite => size_of::<WriteParams>(),
            Self::FileOpen => size_of::<OpenParams>(),
            Self::FileClose => size_of::<CloseParams>(),
            Self::FileRead => size_of::<ReadParams>(),
            Self::FileLseek => size_of::<LseekParams>(),
            Self::FileUnlink => size_of::<UnlinkParams>(),
            Self::Getdents => size_of::<GetdentsParams>(),
            Self::FileStat => size_of::<StatParams>(),
            Self::FileFstat => size_of::<FstatParams>(),
            Self::Mkdir => size_of::<MkdirParams>(),
            Self::Exit
            | Self::SerialWriteByte
            | Self::SerialReadByte
            | Self::SharedMemOpen
            | Self::SharedMemClose => 0,
        }
    }
}

/// Parameters of [`Call::FileWrite`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WriteParams {
    /// Number of bytes.
    pub len: u64,
    /// Result: number of bytes written, or a negative error number.
    pub ret: i64,
    /// Address of the bytes.
    pub buf: u64,
    /// Descriptor.
    pub fd: i32,
    /// Padding.
    pub reserved: u32,
}

/// Parameters of [`Call::FileRead`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReadParams {
    /// Size of the buffer in bytes.
    pub len: u64,
    /// Result: number of bytes read, 0 at the end, or a negative error number.
    pub ret: i64,
    /// Address of the buffer.
    pub buf: u64,
    /// Descriptor.
    pub fd: i32,
    /// Padding.
    pub reserved: u32,
}

/// Parameters of [`Call::FileLseek`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LseekParams {
    /// In: the offset. Out: the new position from the start, or a negative error number.
    pub offset: i64,
    /// One of [`SEEK_SET`](crate::file::SEEK_SET), [`SEEK_CUR`](crate::file::SEEK_CUR),
    /// [`SEEK_END`](crate::file::SEEK_END).
    pub whence: u32,
    /// Descriptor.
    pub fd: i32,
}

/// Parameters of [`Call::SerialWriteBuffer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SerialWriteBufferParams {
    /// Number of bytes.
    pub len: u64,
    /// Address of the bytes.
    pub buf: u64,
}

/// Parameters of [`Call::SerialReadBuffer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SerialReadBufferParams {
    /// Size of the buffer in bytes.
    pub maxlen: u64,
    /// Result: number of bytes read, 0 at the end and for a buffer that is not in RAM.
    pub len: u64,
    /// Address of the buffer.
    pub buf: u64,
}

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

/// What comes before the zero-terminated name in an entry that [`Call::Getdents`] writes: Linux's
/// `struct linux_dirent64` without its flexible array. Entries start at multiples of [`DIRENT_ALIGN`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
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

/// Result of [`Call::Getdents`]: `{ tag, value }`, the C layout of a Rust enum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
        #[allow(clippy::cast_possible_truncation, reason = "the number is the low half of the field")]
        let low = self.value as u32;
        if self.tag == Self::ERROR { Some(low.cast_signed()) } else { None }
    }
}

/// Result of [`Call::Mkdir`], [`Call::FileStat`] and [`Call::FileFstat`]: `{ tag, error number }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

/// Parameters of [`Call::Getdents`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

/// Parameters of [`Call::Mkdir`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timespec {
    /// Seconds since the Unix epoch.
    pub tv_sec: i64,
    /// Nanoseconds, 0 to 999 999 999.
    pub tv_nsec: i32,
    /// Padding.
    pub reserved: u32,
}

/// File metadata that [`Call::FileStat`] and [`Call::FileFstat`] write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

/// Parameters of [`Call::FileStat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

/// Parameters of [`Call::FileFstat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
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
