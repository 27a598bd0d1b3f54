//! [`GuestImage`]: an image of any kind.

use crate::archive::GZIP_MAGIC;
use crate::bytes::Bytes;
use crate::pc::{self, BzImage, Multiboot, Pvh};
use crate::{Error, Image, Limits, Protocol, elf};

impl Protocol {
    /// Boot protocol of the image with these first bytes; Hermit's if they name none.
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
    /// Parses an image, as what it says it is or as what `protocol` says.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but those of loading.
    pub fn parse(
        bytes: Vec<u8>,
        protocol: Option<Protocol>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if size > limits.max_file {
            return Err(Error::TooLarge { size, limit: limits.max_file });
        }
        match protocol.unwrap_or_else(|| Protocol::of(&bytes)) {
            Protocol::Hermit => Image::parse(bytes, limits).map(Box::new).map(Self::Hermit),
            Protocol::Linux => BzImage::from_bytes(Bytes::new(bytes)).map(Self::Linux),
            Protocol::Pvh => Pvh::from_bytes(Bytes::new(bytes), limits).map(Self::Pvh),
            Protocol::Multiboot => {
                Multiboot::from_bytes(Bytes::new(bytes), limits).map(Self::Multiboot)
            }
        }
    }

    /// Boot protocol of the image.
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
