//! [`Image`]: a Hermit image.

use std::fs::File;

use crate::archive::{Archive, GZIP_MAGIC};
use crate::bytes::Bytes;
use crate::config::{self, ImageConfig};
use crate::source::Source;
use crate::{Error, Kernel, Limits, elf, text};

/// Packaging of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The kernel's ELF file alone.
    Elf,
    /// A gzip'd tar archive with the kernel, `hermit.toml` and files.
    Archive,
}

/// A parsed image: a kernel, and with an archive its configuration and files.
#[derive(Debug)]
pub struct Image {
    kernel: Kernel,
    archive: Option<(Archive, ImageConfig)>,
    file_size: u64,
    /// Kept open, if it is known, because closing it takes a system call and frees nothing.
    _file: Option<File>,
}

impl Image {
    /// Parses an image.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but those of loading.
    pub fn parse(bytes: Vec<u8>, limits: &Limits) -> Result<Self, Error> {
        let file_size = bytes.len() as u64;
        if file_size > limits.max_file {
            return Err(Error::TooLarge { size: file_size, limit: limits.max_file });
        }
        if bytes.starts_with(elf::MAGIC) {
            let kernel = Kernel::parse(bytes, limits)?;
            Ok(Self { kernel, archive: None, file_size, _file: None })
        } else if bytes.starts_with(GZIP_MAGIC) {
            let archive = Archive::from_gzip(&bytes, limits)?;
            Self::from_archive(archive, file_size, limits)
        } else if bytes.is_empty() {
            Err(Error::Empty)
        } else {
            Err(Error::UnknownFormat { found: guess(&bytes) })
        }
    }

    pub(crate) fn with(self, file: File) -> Self {
        Self { _file: Some(file), ..self }
    }

    /// The image in an ELF file.
    pub(crate) fn from_file(source: Source, limits: &Limits) -> Result<Self, Error> {
        let file_size = source.size();
        let kernel = Kernel::from_source(source, limits)?;
        Ok(Self { kernel, archive: None, file_size, _file: None })
    }

    fn from_archive(archive: Archive, file_size: u64, limits: &Limits) -> Result<Self, Error> {
        let entry = archive.get(config::NAME.as_bytes()).ok_or(Error::NoConfig)?;
        let config = ImageConfig::parse(archive.share(entry)?.as_slice())?;
        let name = || text::printable(config.kernel.as_bytes());
        let entry = archive
            .get(config.kernel.as_bytes())
            .ok_or_else(|| Error::NoKernel { name: name() })?;
        let bytes = archive.share(entry)?;
        let kernel = parse_inner(bytes, limits)
            .map_err(|error| Error::InArchive { name: name(), error: Box::new(error) })?;
        Ok(Self { kernel, archive: Some((archive, config)), file_size, _file: None })
    }

    /// Packaging of the image.
    #[must_use]
    pub fn format(&self) -> Format {
        if self.archive.is_some() { Format::Archive } else { Format::Elf }
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The configuration, if the image is an archive.
    #[must_use]
    pub fn config(&self) -> Option<&ImageConfig> {
        self.archive.as_ref().map(|(_, config)| config)
    }

    /// The files, if the image is an archive.
    #[must_use]
    pub fn archive(&self) -> Option<&Archive> {
        self.archive.as_ref().map(|(archive, _)| archive)
    }

    /// Size in bytes of the image file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.file_size
    }
}

/// The kernel of an archive.
fn parse_inner(bytes: Bytes, limits: &Limits) -> Result<Kernel, Error> {
    match bytes.as_slice() {
        [] => Err(Error::Empty),
        start if !start.starts_with(elf::MAGIC) => {
            Err(Error::UnknownFormat { found: guess(start) })
        }
        _ => Kernel::from_source(Source::Memory(bytes), limits),
    }
}

/// Describes a file of an unknown format by its first bytes.
fn guess(bytes: &[u8]) -> String {
    let known: &[(usize, &[u8], &str)] = &[
        (257, b"ustar", "a tar archive that is not compressed (use gzip)"),
        (0, &[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd"),
        (0, b"\xfd7zXZ\0", "compressed with xz"),
        (0, b"BZh", "compressed with bzip2"),
        (0, b"PK\x03\x04", "a zip archive"),
        (0, b"#!", "a script"),
        (0, b"MZ", "a PE file or Linux kernel"),
        (0, b"!<arch>", "a static library"),
    ];
    for (offset, magic, name) in known {
        if bytes.get(*offset..).is_some_and(|rest| rest.starts_with(magic)) {
            return (*name).to_owned();
        }
    }
    let start = bytes.get(..4).unwrap_or(bytes);
    let hex: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("it starts with {}", hex.join(" "))
}
