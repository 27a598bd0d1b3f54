//! [`Image`]: what a user names on the command line.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::archive::{Archive, GZIP_MAGIC};
use crate::bytes::Bytes;
use crate::config::{self, ImageConfig};
use crate::source::{ImageFile, Source};
use crate::{Error, GuestImage, Inspection, Kernel, Protocol, elf, pc, text};

/// Files of up to this many bytes are read at once. Of longer ones with a Hermit kernel in them
/// only what is needed is read, and the segments straight into guest memory.
const SMALL: u64 = 64 << 10;
/// So much of a longer file is looked at to find out what it is: linkers put headers and notes
/// there.
const HEAD: usize = 4096;

/// How much an image may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file. 1 GiB by default.
    pub max_file: u64,
    /// Bytes of the archive in it when decompressed. 1 GiB by default.
    pub max_decompressed: u64,
    /// Entries of the archive. 65 536 by default.
    pub max_entries: usize,
    /// Bytes of all names and link targets of the archive together. 8 MiB by default.
    pub max_names: usize,
    /// Bytes of guest memory that the kernel takes when loaded. 4 GiB by default.
    pub max_memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file: 1 << 30,
            max_decompressed: 1 << 30,
            max_entries: 1 << 16,
            max_names: 8 << 20,
            max_memory: 4 << 30,
        }
    }
}

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The kernel's ELF file alone.
    Elf,
    /// A gzip'd tar archive with the kernel, `hermit.toml` and files.
    Archive,
}

/// An image file that has been opened, and not looked into yet.
///
/// It is hostile: whoever wants to confine the process before its bytes are parsed opens it first.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    file: File,
    size: u64,
}

impl ImageSource {
    /// Opens an image file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or is no regular file, in an [`Error::InFile`] with the path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        match open_file(&path) {
            Ok((file, size)) => Ok(Self { path, file, size }),
            Err(error) => Err(Error::InFile { path, error: Box::new(error) }),
        }
    }

    /// Reads and parses it.
    ///
    /// # Errors
    ///
    /// As [`Image::read`].
    pub fn read(self, limits: &Limits) -> Result<Image, Error> {
        self.parse(Some(Protocol::Hermit), limits, |contents| match contents {
            Contents::All(bytes, file) => Image::parse(bytes, limits).map(|image| image.with(file)),
            Contents::Kernel(source) => Image::from_file(source, limits),
        })
    }

    /// Reads and parses an image of any kind, as what it says it is or as what `protocol` says.
    ///
    /// # Errors
    ///
    /// As [`GuestImage::read`].
    pub fn read_guest(self, protocol: Option<Protocol>, limits: &Limits) -> Result<GuestImage, Error> {
        self.parse(protocol, limits, |contents| match contents {
            Contents::All(bytes, file) => Ok(match GuestImage::parse(bytes, protocol, limits)? {
                GuestImage::Hermit(image) => GuestImage::Hermit(Box::new(image.with(file))),
                other => other,
            }),
            Contents::Kernel(source) => {
                Image::from_file(source, limits).map(Box::new).map(GuestImage::Hermit)
            }
        })
    }

    /// Reads it as it is: a file for the guest, such as an initial file system.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is larger than [`Limits::max_file`].
    pub fn read_bytes(self, limits: &Limits) -> Result<Vec<u8>, Error> {
        let read =
            check_size(self.size, limits).and_then(|size| read_from(&self.file, &[], size)).map_err(Box::new);
        read.map_err(|error| Error::InFile { path: self.path, error })
    }

    /// Its size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn parse<T>(
        self,
        protocol: Option<Protocol>,
        limits: &Limits,
        parse: impl FnOnce(Contents) -> Result<T, Error>,
    ) -> Result<T, Error> {
        Contents::read(self.file, self.size, protocol, limits)
            .and_then(parse)
            .map_err(|error| Error::InFile { path: self.path, error: Box::new(error) })
    }
}

/// What has been read of a file.
enum Contents {
    /// All of it.
    All(Vec<u8>, File),
    /// The beginning of a large one with a Hermit kernel.
    Kernel(Source),
}

impl Contents {
    fn read(file: File, size: u64, protocol: Option<Protocol>, limits: &Limits) -> Result<Self, Error> {
        let length = check_size(size, limits)?;
        if size <= SMALL {
            return Ok(Self::All(read_from(&file, &[], length)?, file));
        }
        let head = read_from(&file, &[], HEAD)?;
        let is_kernel = head.starts_with(elf::MAGIC)
            && protocol.map_or_else(|| pc::has_hermit_note(&head), |protocol| protocol == Protocol::Hermit);
        if is_kernel {
            return Ok(Self::Kernel(Source::File(ImageFile::new(file, size, head))));
        }
        Ok(Self::All(read_from(&file, &head, length)?, file))
    }
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
    /// Reads and parses an image file.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but those of loading, in an [`Error::InFile`] with the path.
    pub fn read(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, Error> {
        ImageSource::open(path)?.read(limits)
    }

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

    fn with(self, file: File) -> Self {
        Self { _file: Some(file), ..self }
    }

    /// The image in an ELF file.
    fn from_file(source: Source, limits: &Limits) -> Result<Self, Error> {
        let file_size = source.size();
        let kernel = Kernel::from_source(source, limits)?;
        Ok(Self { kernel, archive: None, file_size, _file: None })
    }

    fn from_archive(archive: Archive, file_size: u64, limits: &Limits) -> Result<Self, Error> {
        let entry = archive.get(config::NAME.as_bytes()).ok_or(Error::NoConfig)?;
        let config = ImageConfig::parse(archive.share(entry)?.as_slice())?;
        let name = || text::printable(config.kernel.as_bytes());
        let entry = archive.get(config.kernel.as_bytes()).ok_or_else(|| Error::NoKernel { name: name() })?;
        let bytes = archive.share(entry)?;
        let kernel = parse_inner(bytes, limits)
            .map_err(|error| Error::InArchive { name: name(), error: Box::new(error) })?;
        Ok(Self { kernel, archive: Some((archive, config)), file_size, _file: None })
    }

    /// How the image is packed.
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

    /// Everything a person may want to know about it.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        Inspection::new(self)
    }
}

/// The kernel of an archive.
fn parse_inner(bytes: Bytes, limits: &Limits) -> Result<Kernel, Error> {
    match bytes.as_slice() {
        [] => Err(Error::Empty),
        start if !start.starts_with(elf::MAGIC) => Err(Error::UnknownFormat { found: guess(start) }),
        _ => Kernel::from_source(Source::Memory(bytes), limits),
    }
}

/// `O_NONBLOCK` on x86-64 (asm-generic/fcntl.h).
const NONBLOCK: i32 = 0o4000;

/// Opens a regular file, and says how long it is.
fn open_file(path: &Path) -> Result<(File, u64), Error> {
    // Opening a pipe would block; for regular files the flag has no meaning.
    let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path).map_err(Error::Read)?;
    let metadata = file.metadata().map_err(Error::Read)?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(Error::NotAFile) }
}

/// The size of a file as a length in memory.
fn check_size(size: u64, limits: &Limits) -> Result<usize, Error> {
    let limit = limits.max_file;
    let length = usize::try_from(size).ok().filter(|_| size <= limit);
    length.ok_or(Error::TooLarge { size, limit })
}

/// Reads what comes after `head`, so that there are `size` bytes, or as many as the file has. What
/// is added meanwhile is not part of it.
fn read_from(mut file: &File, head: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    // Large ones are fresh memory, which nobody zeroes.
    let mut bytes = vec![0; size];
    let mut length = head.len().min(size);
    for (to, from) in bytes.iter_mut().zip(head) {
        *to = *from;
    }
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(read) => length = length.saturating_add(read),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Read(error)),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// What a file that is no image seems to be.
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
