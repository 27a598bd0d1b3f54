#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(not(feature = "guest"), forbid(unsafe_code))]
#![cfg_attr(feature = "guest", deny(unsafe_code))]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("the hypercall ABI is defined for 64-bit little-endian machines");

pub mod errno;
pub mod file;
#[cfg(all(feature = "guest", target_arch = "x86_64"))]
#[allow(unsafe_code, reason = "performing a hypercall is an instruction no safe code can express")]
pub mod guest;
pub mod v1;
pub mod v2;

// The crate whose traits make bytes of the structures, and structures of bytes.
pub use zerocopy;

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
