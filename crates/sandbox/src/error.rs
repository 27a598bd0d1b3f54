//! Errors of confinement.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// A process cannot be confined as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something is missing, and everything was asked for.
    #[error("a strict sandbox is not possible: {0}")]
    Strict(Missing),
    /// Another user was asked for.
    #[error("cannot become user {uid} of group {gid}")]
    User {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// Cause.
        source: io::Error,
    },
    /// Another root directory was asked for.
    #[error("{}: cannot make it the root directory", path.display())]
    Chroot {
        /// The directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The host refuses something that every Linux allows.
    #[error("{what}")]
    Host {
        /// Operation that failed.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// A table of system calls cannot be compiled.
    #[error("compiling a table of system calls: {0}")]
    Table(String),
    /// The kernel does not load a filter.
    #[error("limiting system calls")]
    Seccomp(#[source] io::Error),
}

impl Error {
    pub(crate) fn host(what: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }
}

/// A part of the confinement that this host lacks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// No Landlock: paths are guarded by `openat2` alone.
    #[error(
        "this kernel has no Landlock: {}",
        if *mounts { "what is mounted is kept apart from other files by the path checks of each call alone" }
        else { "it would only be a second line behind the limits on system calls" }
    )]
    Landlock {
        /// `true` if there are mounts; without them no file can be opened at all.
        mounts: bool,
    },
    /// Landlock before Linux 6.2.
    #[error(
        "this kernel's Landlock cannot keep files from being truncated, which read-only mounts need (Linux 6.2 can)"
    )]
    Truncation,
    /// Root without the privilege to have namespaces of its own.
    #[error("cannot have a root directory of its own")]
    Namespaces(#[source] io::Error),
    /// The kernel has no bounding set or secure bits to change.
    #[error("cannot give up capabilities for good")]
    Capabilities(#[source] io::Error),
}
