//! Interface version 2: kernels with a `UHYVEIF` note of 2 or 3, Hermit 0.10 and later.
//!
//! `RDI` holds the 64-bit guest-physical address of a parameter block, or a small value for
//! [`Call::Exit`] and [`Call::SerialWriteByte`]; `EAX` means nothing. All addresses are
//! guest-physical, all buffers contiguous. Blocks are naturally aligned, and the padding is spelled
//! out as `reserved` fields, which a sender sets to 0 and a receiver ignores.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use self::metadata::{
    DIRENT_ALIGN, DirentHeader, FileAttr, FstatParams, GetdentsParams, GetdentsResult, MkdirParams,
    STAT_FOLLOW, STAT_NO_FOLLOW, StatParams, StatusResult, Timespec, file_type,
};
pub use crate::v1::{CloseParams, OpenParams, UnlinkParams};

mod metadata;

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
    /// Read one byte from the console, by **`in`** (not `out`) from the port, waiting for one to
    /// come. A 32-bit `in eax, dx` gives 0 to 255 for a byte and [`SERIAL_END`] at the end of the
    /// input; an 8-bit `in al, dx` gives the byte, or 0xff at the end. There is no parameter.
    ///
    /// `uhyve-interface` names the port and says nothing about where the byte goes, and no known
    /// VMM or kernel uses it: a read is what this project makes of it.
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

/// Result of a 32-bit read of [`Call::SerialReadByte`] at the end of the input.
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
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
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
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
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
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
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
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SerialWriteBufferParams {
    /// Number of bytes.
    pub len: u64,
    /// Address of the bytes.
    pub buf: u64,
}

/// Parameters of [`Call::SerialReadBuffer`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SerialReadBufferParams {
    /// Size of the buffer in bytes.
    pub maxlen: u64,
    /// Result: number of bytes read, 0 at the end and for a buffer that is not in RAM.
    pub len: u64,
    /// Address of the buffer.
    pub buf: u64,
}
