//! Errors in the settings of the host's user.

use std::io;
use std::path::PathBuf;

/// The files of a guest cannot be set up. Later errors are answered to the guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A mount's text is not of the form `HOST:GUEST[:ro|rw]`.
    #[error("mount {text:?}: {reason}; write it as HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw")]
    Syntax {
        /// The text.
        text: String,
        /// The fault.
        reason: &'static str,
    },
    /// A mount's guest path cannot be one.
    #[error(
        "mount {}: the guest path {guest:?} is not usable: {reason}; \
         give an absolute path such as /data", host.display()
    )]
    GuestPath {
        /// The host side.
        host: PathBuf,
        /// The guest side.
        guest: String,
        /// The fault.
        reason: &'static str,
    },
    /// Two mounts have the same guest path.
    #[error("two mounts have the guest path {guest}; give each its own")]
    Duplicate {
        /// The guest path.
        guest: String,
    },
    /// The host side cannot be opened.
    #[error("mount {}: cannot open{}", path.display(), advice(source))]
    Open {
        /// The host side.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The host lacks `openat2`, so links could lead out of a directory.
    #[error(
        "mount {}: this host cannot confine paths to a directory (directories need Linux 5.6 or later and a container \
         that allows openat2; single files can still be mounted)", path.display()
    )]
    NoOpenat2 {
        /// The host side.
        path: PathBuf,
        /// Error of `openat2`.
        source: io::Error,
    },
    /// The host has no `/proc`, through which single files are opened.
    #[error("mount {}: cannot open /proc/self/fd (mount /proc, or mount the file's directory)", path.display())]
    NoProc {
        /// The host side.
        path: PathBuf,
        /// Error of opening `/proc/self/fd`.
        source: io::Error,
    },
    /// An image file's name cannot be one.
    #[error("the image's file {name:?} cannot be shown to the guest: {reason}")]
    ImageFile {
        /// The name.
        name: String,
        /// The fault.
        reason: &'static str,
    },
}

/// Advice against a mount that cannot be opened, in front of its cause.
fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => " (files and directories must exist before they are mounted)",
        _ => "",
    }
}
