//! The archive inside of a Hermit image: decompressed once, its files looked up by name.

use std::io::Read as _;
use std::sync::Arc;

use flate2::bufread::GzDecoder;

use crate::bytes::Bytes;
use crate::entry::{self, Entry, EntryKind};
use crate::{Error, Limits, tar_reader, text};

/// The first bytes of a gzip stream with deflate compression (RFC 1952, 2.3.1).
pub(crate) const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];

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

    /// Lists a tar archive that is not compressed.
    ///
    /// # Errors
    ///
    /// If it is malformed or beyond the limits.
    pub fn from_tar(bytes: Vec<u8>, limits: &Limits) -> Result<Self, Error> {
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
        let name = entry::relative(name);
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
