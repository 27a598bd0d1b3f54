//! Interface version 1: Hermit kernels up to 0.9, and newer ones without the `UHYVEIF` note.
//!
//! `EAX` holds the 32-bit guest-physical address of a packed parameter block, except for
//! [`Call::SerialWriteByte`], where `AL` is the byte. Addresses named *virtual* below go through
//! the guest's page tables (CR3 at the time of the call), page by page; all others are
//! guest-physical.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The calls of interface version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Call {
    /// Write to a descriptor: [`WriteParams`]. There is no result.
    FileWrite = 0x400,
    /// Open a file: [`OpenParams`].
    FileOpen = 0x440,
    /// Close a descriptor: [`CloseParams`].
    FileClose = 0x480,
    /// Read from a descriptor: [`ReadParams`].
    FileRead = 0x500,
    /// End the machine: [`ExitParams`].
    Exit = 0x540,
    /// Move a descriptor's position: [`LseekParams`].
    FileLseek = 0x580,
    /// Historical, never in use: send a network packet. A host ignores it.
    NetWrite = 0x640,
    /// Historical, never in use: receive a network packet. A host ignores it.
    NetRead = 0x680,
    /// Historical, never in use: the state of the network card. A host ignores it.
    NetStat = 0x700,
    /// Ask for the number and lengths of arguments and environment: [`CmdsizeParams`].
    Cmdsize = 0x740,
    /// Fetch arguments and environment into buffers the guest provides: [`CmdvalParams`].
    Cmdval = 0x780,
    /// Write one byte (`AL`) to the console. Called "Uart" in `uhyve-interface`.
    SerialWriteByte = 0x800,
    /// Remove a file: [`UnlinkParams`].
    FileUnlink = 0x840,
    /// Write a buffer to the console: [`SerialWriteBufferParams`].
    SerialWriteBuffer = 0x880,
}

impl Call {
    /// Every call, in order of the ports.
    pub const ALL: [Self; 14] = [
        Self::FileWrite,
        Self::FileOpen,
        Self::FileClose,
        Self::FileRead,
        Self::Exit,
        Self::FileLseek,
        Self::NetWrite,
        Self::NetRead,
        Self::NetStat,
        Self::Cmdsize,
        Self::Cmdval,
        Self::SerialWriteByte,
        Self::FileUnlink,
        Self::SerialWriteBuffer,
    ];

    /// The call that a port number stands for; `None` for a port of no call.
    #[must_use]
    #[inline]
    pub const fn from_port(port: u16) -> Option<Self> {
        Some(match port {
            0x400 => Self::FileWrite,
            0x440 => Self::FileOpen,
            0x480 => Self::FileClose,
            0x500 => Self::FileRead,
            0x540 => Self::Exit,
            0x580 => Self::FileLseek,
            0x640 => Self::NetWrite,
            0x680 => Self::NetRead,
            0x700 => Self::NetStat,
            0x740 => Self::Cmdsize,
            0x780 => Self::Cmdval,
            0x800 => Self::SerialWriteByte,
            0x840 => Self::FileUnlink,
            0x880 => Self::SerialWriteBuffer,
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
            Self::FileWrite => "FileWrite",
            Self::FileOpen => "FileOpen",
            Self::FileClose => "FileClose",
            Self::FileRead => "FileRead",
            Self::Exit => "Exit",
            Self::FileLseek => "FileLseek",
            Self::NetWrite => "NetWrite",
            Self::NetRead => "NetRead",
            Self::NetStat => "NetStat",
            Self::Cmdsize => "Cmdsize",
            Self::Cmdval => "Cmdval",
            Self::SerialWriteByte => "SerialWriteByte",
            Self::FileUnlink => "FileUnlink",
            Self::SerialWriteBuffer => "SerialWriteBuffer",
        }
    }

    /// Size in bytes of the parameter block; 0 where the register itself is the value, and for the
    /// historical network calls.
    #[must_use]
    pub const fn param_size(self) -> usize {
        match self {
            Self::FileWrite => size_of::<WriteParams>(),
            Self::FileOpen => size_of::<OpenParams>(),
            Self::FileClose => size_of::<CloseParams>(),
            Self::FileRead => size_of::<ReadParams>(),
            Self::Exit => size_of::<ExitParams>(),
            Self::FileLseek => size_of::<LseekParams>(),
            Self::Cmdsize => size_of::<CmdsizeParams>(),
            Self::Cmdval => size_of::<CmdvalParams>(),
            Self::FileUnlink => size_of::<UnlinkParams>(),
            Self::SerialWriteBuffer => size_of::<SerialWriteBufferParams>(),
            Self::SerialWriteByte | Self::NetWrite | Self::NetRead | Self::NetStat => 0,
        }
    }
}

/// The most arguments, and the most environment entries, that [`CmdsizeParams`] has room for.
pub const MAX_ARGC_ENVC: usize = 128;

/// Parameters of [`Call::Cmdsize`]; all fields are filled in by the host.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C, packed)]
pub struct CmdsizeParams {
    /// Number of arguments; the first one is the kernel's path.
    pub argc: i32,
    /// Length in bytes of each argument, its terminating zero included.
    pub argsz: [i32; MAX_ARGC_ENVC],
    /// Number of environment entries.
    pub envc: i32,
    /// Length in bytes of each `KEY=VALUE`, its terminating zero included.
    pub envsz: [i32; MAX_ARGC_ENVC],
}

impl Default for CmdsizeParams {
    fn default() -> Self {
        Self { argc: 0, argsz: [0; MAX_ARGC_ENVC], envc: 0, envsz: [0; MAX_ARGC_ENVC] }
    }
}

/// Parameters of [`Call::Cmdval`]. The guest lays out the tables and the buffers they point to, of
/// the lengths that [`Call::Cmdsize`] told.
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
pub struct CmdvalParams {
    /// Address of a table of `argc` 64-bit guest-physical addresses, one buffer each.
    pub argv: u64,
    /// Address of a table of `envc` 64-bit guest-physical addresses, one buffer each.
    pub envp: u64,
}

/// Parameters of [`Call::Exit`].
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
pub struct ExitParams {
    /// The guest's exit code. A panicking Hermit sends -1.
    pub arg: i32,
}

/// Parameters of [`Call::FileUnlink`], the same in both versions.
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
pub struct UnlinkParams {
    /// Address of the zero-terminated path.
    pub name: u64,
    /// Result: 0, or a negative error number.
    pub ret: i32,
}

/// Parameters of [`Call::FileWrite`]. The call has no result: a guest takes it for granted that all
/// of `len` was written.
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
pub struct WriteParams {
    /// Descriptor.
    pub fd: i32,
    /// *Virtual* address of the bytes.
    pub buf: u64,
    /// Number of bytes.
    pub len: u64,
}

/// Parameters of [`Call::FileRead`].
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
pub struct ReadParams {
    /// Descriptor.
    pub fd: i32,
    /// *Virtual* address of the buffer.
    pub buf: u64,
    /// Size of the buffer in bytes.
    pub len: u64,
    /// Result: number of bytes read, 0 at the end, or a negative error number.
    pub ret: i64,
}

/// Parameters of [`Call::FileClose`], the same in both versions.
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
pub struct CloseParams {
    /// Descriptor.
    pub fd: i32,
    /// Result: 0, or a negative error number. Closing a standard stream succeeds and does nothing.
    pub ret: i32,
}

/// Parameters of [`Call::FileOpen`], the same in both versions.
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
pub struct OpenParams {
    /// Address of the zero-terminated path.
    pub name: u64,
    /// Flags ([`crate::file`]).
    pub flags: i32,
    /// Permission bits of a file that is created.
    pub mode: i32,
    /// Result: the descriptor, or a negative error number.
    pub ret: i32,
}

/// Parameters of [`Call::FileLseek`].
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
pub struct LseekParams {
    /// Descriptor.
    pub fd: i32,
    /// In: the offset. Out: the new position from the start, or -1 for any error.
    pub offset: i64,
    /// One of [`SEEK_SET`](crate::file::SEEK_SET), [`SEEK_CUR`](crate::file::SEEK_CUR),
    /// [`SEEK_END`](crate::file::SEEK_END).
    pub whence: i32,
}

/// Parameters of [`Call::SerialWriteBuffer`].
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
pub struct SerialWriteBufferParams {
    /// Address of the bytes (physical, unlike [`WriteParams::buf`]).
    pub buf: u64,
    /// Number of bytes.
    pub len: u64,
}
