//! The Hermit/uhyve hypercall ABI, versions 1 and 2, as plain old data.
//!
//! The one idea: **a hypercall is a port number and a parameter block that is copied in and copied
//! out**. The guest executes `out dx, eax`; the port in `DX` names the call ([`v1::Call`],
//! [`v2::Call`]), and a register holds either a small value or the guest-physical address of a
//! parameter block. The host copies the block out of guest memory, looks at it, and copies a block
//! with the results back. No reference ever points into guest memory, so every block here is made
//! of plain little-endian integers with every byte accounted for, and implements zerocopy's
//! [`FromBytes`](zerocopy::FromBytes) and [`IntoBytes`](zerocopy::IntoBytes): any bytes are a valid
//! block, and no padding leaks.
//!
//! | | version 1 | version 2 |
//! |---|---|---|
//! | the register | `EAX`, so parameter blocks lie below 4 GiB | `RDI`, 64 bits; `EAX` is ignored |
//! | buffers of file reads and writes | guest-**virtual** addresses | guest-physical, contiguous |
//! | other addresses in blocks | guest-physical | guest-physical |
//! | blocks | packed | naturally aligned, padding spelled out |
//! | command line | [`v1::Call::Cmdsize`], [`v1::Call::Cmdval`] | `/chosen/bootargs` of the device tree |
//!
//! Port numbers and layouts equal those of the crate `uhyve-interface`; a test compares every
//! field.
//!
//! ```
//! use nerite_hypercall::v2;
//! use zerocopy::IntoBytes;
//!
//! let call = v2::Call::from_port(0x1030);
//! assert_eq!(call, Some(v2::Call::SerialWriteBuffer));
//! assert_eq!(v2::Call::SerialWriteBuffer.param_size(), 16);
//! let params = v2::SerialWriteBufferParams { len: 5, buf: 0x4_2000 };
//! assert_eq!(params.as_bytes()[..8], [5, 0, 0, 0, 0, 0, 0, 0]);
//! ```
//!
//! # Features
//! * `guest`: the module `guest`, wrappers that perform the calls from inside a guest. The only
//!   place with `unsafe` code.

#![no_std]
#![cfg_attr(not(feature = "guest"), forbid(unsafe_code))]
#![cfg_attr(feature = "guest", deny(unsafe_code))]
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

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("the hypercall ABI is defined for 64-bit little-endian machines");

pub mod errno;
pub mod file;
#[cfg(all(feature = "guest", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "performing a hypercall is an instruction no safe code can express")]
pub mod guest;
pub mod v1;
pub mod v2;

/// The interface version a guest states in its `UHYVEIF` ELF note to get version-2 calls. Versions
/// 2 and 3 are the same interface; a guest without the note gets version 1.
pub const UHYVE_INTERFACE_VERSION: u32 = 3;

/// Guest descriptor of standard input.
pub const STDIN: i32 = 0;
/// Guest descriptor of standard output.
pub const STDOUT: i32 = 1;
/// Guest descriptor of standard error.
pub const STDERR: i32 = 2;

/// The serial port that the boot info names for guests of interface version 1:
/// [`v1::Call::SerialWriteByte`].
pub const SERIAL_PORT_V1: u16 = v1::Call::SerialWriteByte.port();

/// The serial port that the boot info names for guests of interface version 2:
/// [`v2::Call::SerialWriteBuffer`].
pub const SERIAL_PORT_V2: u16 = v2::Call::SerialWriteBuffer.port();

/// The README's example, kept true by running it.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
