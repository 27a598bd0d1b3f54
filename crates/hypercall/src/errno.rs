//! Error numbers as Hermit knows them (`hermit-abi`). A call reports an error as the negative
//! number.
//!
//! They equal Linux's on x86-64 for the numbers listed here, but a host should still translate by
//! name, and send only numbers of this list.

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: i32 = $value;)*

        /// The name of a positive error number, for logs: `Some("EBADF")` for 9.
        #[must_use]
        pub const fn name(errno: i32) -> Option<&'static str> {
            match errno {
                $($value => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1;
    /// No such file or directory.
    ENOENT = 2;
    /// Interrupted.
    EINTR = 4;
    /// Input/output error.
    EIO = 5;
    /// No such device or address.
    ENXIO = 6;
    /// Bad file descriptor.
    EBADF = 9;
    /// Try again.
    EAGAIN = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// Permission denied.
    EACCES = 13;
    /// Bad address: a guest address that is not (wholly) in its RAM.
    EFAULT = 14;
    /// Device or resource busy.
    EBUSY = 16;
    /// File exists.
    EEXIST = 17;
    /// Cross-device link.
    EXDEV = 18;
    /// No such device.
    ENODEV = 19;
    /// Not a directory.
    ENOTDIR = 20;
    /// Is a directory.
    EISDIR = 21;
    /// Invalid argument.
    EINVAL = 22;
    /// Too many open files in the system.
    ENFILE = 23;
    /// Too many open files.
    EMFILE = 24;
    /// Not a terminal.
    ENOTTY = 25;
    /// File too large.
    EFBIG = 27;
    /// No space left on device.
    ENOSPC = 28;
    /// Illegal seek.
    ESPIPE = 29;
    /// Read-only file system.
    EROFS = 30;
    /// Too many links.
    EMLINK = 31;
    /// Broken pipe.
    EPIPE = 32;
    /// Result out of range.
    ERANGE = 34;
    /// File name too long.
    ENAMETOOLONG = 36;
    /// Function not implemented.
    ENOSYS = 38;
    /// Directory not empty.
    ENOTEMPTY = 39;
    /// Too many symbolic links.
    ELOOP = 40;
    /// Value too large for its type.
    EOVERFLOW = 75;
}
