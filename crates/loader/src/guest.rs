//! [`GuestImage`]: an image of any kind.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::archive::GZIP_MAGIC;
use crate::bytes::Bytes;
use crate::pc::{self, BzImage, Multiboot, Pvh};
use crate::{Error, Image, ImageSource, Limits, elf};

/// How a kernel is started.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// As a Hermit kernel under the uhyve hypercall interface.
    Hermit,
    /// By Linux' boot protocol: a bzImage.
    Linux,
    /// By Xen's PVH protocol: an ELF file with a note.
    Pvh,
    /// By multiboot, version 1.
    Multiboot,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hermit, Self::Linux, Self::Pvh, Self::Multiboot];

    /// Its name: `hermit`, `linux`, `pvh`, `multiboot`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hermit => "hermit",
            Self::Linux => "linux",
            Self::Pvh => "pvh",
            Self::Multiboot => "multiboot",
        }
    }

    /// Which one these bytes are for: what they say, and Hermit's if they say nothing.
    ///
    /// An ELF file can have several entries: Hermit's note comes first, then PVH's, then
    /// multiboot's header.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(elf::MAGIC) {
            if pc::has_hermit_note(bytes) {
                return Self::Hermit;
            }
            if pc::is_pvh(bytes) {
                return Self::Pvh;
            }
        } else if bytes.starts_with(GZIP_MAGIC) {
            return Self::Hermit;
        } else if pc::is_bzimage(bytes) {
            return Self::Linux;
        }
        if pc::is_multiboot(bytes) { Self::Multiboot } else { Self::Hermit }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no protocol's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a way to boot; there are hermit, linux, pvh and multiboot")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

/// A parsed image of any kind.
#[non_exhaustive]
#[derive(Debug)]
pub enum GuestImage {
    /// A Hermit image.
    Hermit(Box<Image>),
    /// A Linux bzImage.
    Linux(BzImage),
    /// A kernel with a PVH entry point.
    Pvh(Pvh),
    /// A multiboot kernel.
    Multiboot(Multiboot),
}

impl GuestImage {
    /// Reads and parses an image file, as what it says it is or as what `protocol` says.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but those of loading, in an [`Error::InFile`] with the path.
    pub fn read(path: impl AsRef<Path>, protocol: Option<Protocol>, limits: &Limits) -> Result<Self, Error> {
        ImageSource::open(path)?.read_guest(protocol, limits)
    }

    /// Parses an image, as what it says it is or as what `protocol` says.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but those of loading.
    pub fn parse(bytes: Vec<u8>, protocol: Option<Protocol>, limits: &Limits) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if size > limits.max_file {
            return Err(Error::TooLarge { size, limit: limits.max_file });
        }
        match protocol.unwrap_or_else(|| Protocol::of(&bytes)) {
            Protocol::Hermit => Image::parse(bytes, limits).map(Box::new).map(Self::Hermit),
            Protocol::Linux => BzImage::from_bytes(Bytes::new(bytes)).map(Self::Linux),
            Protocol::Pvh => Pvh::from_bytes(Bytes::new(bytes), limits).map(Self::Pvh),
            Protocol::Multiboot => Multiboot::from_bytes(Bytes::new(bytes), limits).map(Self::Multiboot),
        }
    }

    /// How it is started.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Hermit(_) => Protocol::Hermit,
            Self::Linux(_) => Protocol::Linux,
            Self::Pvh(_) => Protocol::Pvh,
            Self::Multiboot(_) => Protocol::Multiboot,
        }
    }
}
