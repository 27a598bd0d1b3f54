//! The archive inside of a Hermit image: decompressed once, its files looked up by name.

use std::io::Read as _;
use std::ops::Range;
use std::sync::Arc;

use flate2::bufread::GzDecoder;

use crate::bytes::Bytes;
use crate::{Error, Limits, tar_reader, text};

/// The first bytes of a gzip stream with deflate compression (RFC 1952, 2.3.1).
pub(crate) const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];

/// What an [`Entry`] is.
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

/// A file, directory or link of an [`Archive`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is in the archive: any bytes, maybe absolute or with `..`.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Where a link points.
    pub target: Option<Vec<u8>>,
    /// Permission bits of the mode; 0 if the archive does not say.
    pub mode: u32,
    /// Where its data is in the decompressed archive; empty unless it is a regular file.
    pub(crate) data: Range<usize>,
}

impl Entry {
    /// Size in bytes; 0 for what is not a regular file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether the name starts with a slash.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.name.starts_with(b"/")
    }

    /// Whether the name has a `..` component, which may lead out of the archive.
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

/// The files of a Hermit image, decompressed once. A clone shares them.
#[derive(Debug, Clone)]
pub struct Archive {
    bytes: Bytes,
    entries: Arc<[Entry]>,
}

impl Archive {
    /// Decompresses a gzip stream and lists the tar archive in it.
    pub(crate) fn from_gzip(compressed: &[u8], limits: &Limits) -> Result<Self, Error> {
        let limit = limits.max_decompressed;
        let mut bytes = Vec::new();
        let mut reader = GzDecoder::new(compressed).take(limit.saturating_add(1));
        reader.read_to_end(&mut bytes).map_err(Error::Gzip)?;
        if bytes.len() as u64 > limit {
            return Err(Error::Bomb { limit });
        }
        Self::from_tar(bytes, limits)
    }

    /// Lists a tar archive.
    pub(crate) fn from_tar(bytes: Vec<u8>, limits: &Limits) -> Result<Self, Error> {
        let bytes = Bytes::new(bytes);
        let entries = tar_reader::entries(bytes.as_slice(), limits)?;
        Ok(Self { bytes, entries: entries.into() })
    }

    /// All entries in the order of the archive. Names can occur more than once: the latest counts.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries, shared.
    pub(crate) fn shared_entries(&self) -> Arc<[Entry]> {
        self.entries.clone()
    }

    /// The latest entry of a name; leading `/` and `./` make no difference.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Entry> {
        let name = relative(name);
        self.entries.iter().rev().find(|entry| entry.relative_name() == name)
    }

    /// The data of an entry of this archive.
    #[must_use]
    pub fn data(&self, entry: &Entry) -> &[u8] {
        self.bytes.as_slice().get(entry.data.clone()).unwrap_or_default()
    }

    /// The data of a regular file, sharing the archive's bytes.
    pub(crate) fn share(&self, entry: &Entry) -> Result<Bytes, Error> {
        if entry.kind != EntryKind::File {
            return Err(Error::NotRegular { name: text::printable(&entry.name), kind: entry.kind });
        }
        Ok(self.bytes.slice(entry.data.clone()).unwrap_or_else(|| Bytes::new(Vec::new())))
    }

    /// Size in bytes of the decompressed archive.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.as_slice().len() as u64
    }
}

/// A name without leading `/` and `./` and without trailing `/`.
fn relative(mut name: &[u8]) -> &[u8] {
    loop {
        name = match name {
            [b'/', rest @ ..] | [b'.', b'/', rest @ ..] | [rest @ .., b'/'] => rest,
            _ => return name,
        }
    }
}
