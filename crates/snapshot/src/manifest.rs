//! The description of a snapshot: `snapshot.json`.
//!
//! ```json
//! {
//!   "format": 1,
//!   "digest": "<of the text of content>",
//!   "content": { "writer": …, "memory": …, "state": … }
//! }
//! ```
//!
//! The format's number is looked at first, then the digest, and only then the content.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::PAGE;
use crate::{Digest, Error};

pub(crate) const STATE: &str = "snapshot.json";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const IMAGE: &str = "image";
/// Names of the files of a snapshot.
pub(crate) const NAMES: [&str; 3] = [STATE, MEMORY, IMAGE];

/// Number of the format that is written and read.
pub const FORMAT: u32 = 1;
/// Maximum size of `snapshot.json` in bytes: 64 MiB.
pub const MAX_STATE: u64 = 64 << 20;

/// Maximum number of pieces of RAM.
const MAX_REGIONS: usize = 64;

/// A piece of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Guest-physical address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Contents of a snapshot besides memory and image. `S` is the state of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest<S> {
    /// Program that wrote the snapshot, with its version.
    pub writer: String,
    /// RAM in ascending order, as it follows each other in the file `memory`.
    pub memory: Vec<Region>,
    /// [Digest](Digest::of_sparse) of the file `memory`.
    pub memory_digest: Digest,
    /// Digest of the file `image`.
    pub image_digest: Digest,
    /// State of the machine.
    pub state: S,
}

/// Envelope of the content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    format: u64,
    digest: Digest,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// The one field that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u64,
}

impl<S> Manifest<S> {
    /// Size of the file `memory` in bytes.
    ///
    /// # Errors
    /// Fails if the pieces of RAM are not whole pages in ascending order.
    pub fn memory_size(&self) -> Result<u64, Error> {
        if self.memory.is_empty() || self.memory.len() > MAX_REGIONS {
            return Err(Error::Invalid("the number of memory regions is out of range"));
        }
        let (mut size, mut end) = (0_u64, 0_u64);
        for region in &self.memory {
            if region.size == 0
                || !region.start.is_multiple_of(PAGE)
                || !region.size.is_multiple_of(PAGE)
            {
                return Err(Error::Invalid("a memory region is not a number of whole pages"));
            }
            if region.start < end {
                return Err(Error::Invalid("the memory regions overlap or are not in order"));
            }
            let out_of_range = Error::Invalid("a memory region is out of range");
            let Some(next) = region.start.checked_add(region.size) else {
                return Err(out_of_range);
            };
            (size, end) = (size.saturating_add(region.size), next);
        }
        // Offsets in files are signed.
        if i64::try_from(size).is_err() {
            return Err(Error::Invalid("the memory is out of range"));
        }
        Ok(size)
    }
}

impl<S: Serialize> Manifest<S> {
    /// The text of `snapshot.json`.
    pub(crate) fn to_text(&self) -> Result<Vec<u8>, Error> {
        self.memory_size()?;
        let content = serde_json::to_string_pretty(self).map_err(Error::Malformed)?;
        let digest = Digest::of(content.as_bytes());
        let content = RawValue::from_string(content).map_err(Error::Malformed)?;
        let envelope = Envelope { format: FORMAT.into(), digest, content: &content };
        let mut text = serde_json::to_vec(&envelope).map_err(Error::Malformed)?;
        text.push(b'\n');
        let size = text.len() as u64;
        if size > MAX_STATE {
            return Err(Error::TooLarge { name: STATE, size, limit: MAX_STATE });
        }
        Ok(text)
    }
}

impl<S: DeserializeOwned> Manifest<S> {
    /// Reads the text of `snapshot.json`.
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, Error> {
        let AnyFormat { format } = serde_json::from_slice(text).map_err(Error::Malformed)?;
        if format != u64::from(FORMAT) {
            return Err(Error::Format { found: format, supported: FORMAT });
        }
        let envelope: Envelope<'_> = serde_json::from_slice(text).map_err(Error::Malformed)?;
        let content = envelope.content.get();
        if Digest::of(content.as_bytes()) != envelope.digest {
            return Err(Error::Damaged { name: STATE });
        }
        let manifest: Self = serde_json::from_str(content).map_err(Error::Malformed)?;
        manifest.memory_size()?;
        Ok(manifest)
    }
}

#[cfg(test)]
#[path = "manifest_test.rs"]
mod tests;
