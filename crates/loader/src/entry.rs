//! [`Entry`]: a file, directory or link of an archive.

use std::ops::Range;

/// Kind of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A hard link to an earlier entry.
    HardLink,
    /// A device, a pipe or something unknown.
    Special,
}

impl EntryKind {
    /// In words, with an article.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::HardLink => "a hard link",
            Self::Special => "a special file",
        }
    }
}

/// A file, directory or link of an [`Archive`](crate::Archive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is in the archive: any bytes, maybe absolute or with `..`.
    pub name: Vec<u8>,
    /// Kind of the entry.
    pub kind: EntryKind,
    /// Target of a symbolic or hard link.
    pub target: Option<Vec<u8>>,
    /// Permission bits of the mode; 0 if the archive does not say.
    pub mode: u32,
    /// Range of the data in the decompressed archive; empty unless the entry is a regular file.
    pub(crate) data: Range<usize>,
}

impl Entry {
    /// Size in bytes; 0 for what is not a regular file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// Returns `true` if the name starts with a slash.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.name.starts_with(b"/")
    }

    /// Returns `true` if the name has a `..` component, which may lead out of the archive.
    #[must_use]
    pub fn has_parent_component(&self) -> bool {
        self.name.split(|&byte| byte == b'/').any(|component| component == b"..")
    }

    /// The name relative to the root of the archive: without leading `/` and `./`, and without a
    /// trailing `/`.
    #[must_use]
    pub fn relative_name(&self) -> &[u8] {
        relative(&self.name)
    }
}

/// A name without leading `/` and `./` and without trailing `/`.
pub(crate) fn relative(mut name: &[u8]) -> &[u8] {
    loop {
        name = match name {
            [b'/', rest @ ..] | [b'.', b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            _ => return name,
        }
    }
}
