//! Files and directories that a sandbox has to leave accessible.

use std::os::fd::BorrowedFd;

/// A file or directory that a guest may use, for a sandbox's rules.
#[derive(Debug, Clone, Copy)]
pub struct MountedPath<'a> {
    /// An `O_PATH` descriptor.
    pub file: BorrowedFd<'a>,
    /// Operations that the guest's calls need.
    pub needs: Needs,
    /// `true` if it is a directory, and everything below it is meant.
    pub is_directory: bool,
}

/// Operations on a file, or on what is below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Reading.
    Read,
    /// Reading, writing, creating and removing.
    Write,
    /// Removing files alone.
    RemoveFiles,
    /// Creating, reading, writing and removing files; nothing about directories.
    MakeFiles,
}
