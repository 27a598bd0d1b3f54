//! Flags and constants of the file calls, common to both interface versions (`hermit-abi` values).

/// Open for reading only.
pub const O_RDONLY: i32 = 0o0;
/// Open for writing only.
pub const O_WRONLY: i32 = 0o1;
/// Open for reading and writing.
pub const O_RDWR: i32 = 0o2;
/// The bits that hold one of [`O_RDONLY`], [`O_WRONLY`] and [`O_RDWR`].
pub const O_ACCMODE: i32 = 0o3;
/// Create the file where it does not exist.
pub const O_CREAT: i32 = 0o100;
/// With [`O_CREAT`]: fail where the file exists.
pub const O_EXCL: i32 = 0o200;
/// Cut the file to length 0.
pub const O_TRUNC: i32 = 0o1000;
/// Write at the end.
pub const O_APPEND: i32 = 0o2000;
/// Fail unless it is a directory.
pub const O_DIRECTORY: i32 = 0o200_000;

/// The flags a guest may pass; a host drops all others.
pub const ALLOWED_OPEN_FLAGS: i32 =
    O_RDONLY | O_WRONLY | O_RDWR | O_CREAT | O_EXCL | O_TRUNC | O_APPEND | O_DIRECTORY;

/// Seek from the start.
pub const SEEK_SET: i32 = 0;
/// Seek from the current position.
pub const SEEK_CUR: i32 = 1;
/// Seek from the end.
pub const SEEK_END: i32 = 2;
