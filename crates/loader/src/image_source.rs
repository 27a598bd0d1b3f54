//! [`ImageSource`]: an image file, opened before the process confines itself and read after.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::source::{ImageFile, Source};
use crate::{Error, GuestImage, Image, Limits, Protocol, elf, pc};

/// Files of up to this many bytes are read at once. Of longer ones with a Hermit kernel in them
/// only what is needed is read, and the segments straight into guest memory.
const SMALL: u64 = 64 << 10;
/// So much of a longer file is looked at to find out what it is: linkers put headers and notes
/// there.
const HEAD: usize = 4096;

/// An image file that has been opened, and not looked into yet.
///
/// Its content is hostile: a process that confines itself opens the image before, and parses it
/// after.
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

    /// An image in a file that is open for reading; `path` is for messages.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn from_file(path: impl AsRef<Path>, file: File) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        match regular(file) {
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
    pub fn read_guest(
        self,
        protocol: Option<Protocol>,
        limits: &Limits,
    ) -> Result<GuestImage, Error> {
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
        let read = check_size(self.size, limits)
            .and_then(|size| read_from(&self.file, &[], size))
            .map_err(Box::new);
        read.map_err(|error| Error::InFile { path: self.path, error })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
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

/// Content of an image file, as far as it has been read.
enum Contents {
    /// All of it.
    All(Vec<u8>, File),
    /// The beginning of a large one with a Hermit kernel.
    Kernel(Source),
}

impl Contents {
    fn read(
        file: File,
        size: u64,
        protocol: Option<Protocol>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let length = check_size(size, limits)?;
        if size <= SMALL {
            return Ok(Self::All(read_from(&file, &[], length)?, file));
        }
        let head = read_from(&file, &[], HEAD)?;
        let is_kernel = head.starts_with(elf::MAGIC)
            && protocol.map_or_else(
                || pc::has_hermit_note(&head),
                |protocol| protocol == Protocol::Hermit,
            );
        if is_kernel {
            return Ok(Self::Kernel(Source::File(ImageFile::new(file, size, head))));
        }
        Ok(Self::All(read_from(&file, &head, length)?, file))
    }
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
}

impl GuestImage {
    /// Reads and parses an image file, as what it says it is or as what `protocol` says.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but those of loading, in an [`Error::InFile`] with the path.
    pub fn read(
        path: impl AsRef<Path>,
        protocol: Option<Protocol>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        ImageSource::open(path)?.read_guest(protocol, limits)
    }
}

/// `O_NONBLOCK` on x86-64 (asm-generic/fcntl.h).
const NONBLOCK: i32 = 0o4000;

/// Opens a regular file, and says how long it is.
fn open_file(path: &Path) -> Result<(File, u64), Error> {
    // Opening a pipe would block; for regular files the flag has no meaning.
    let file =
        OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path).map_err(Error::Read)?;
    regular(file)
}

/// A file with its length, if it is a regular one.
fn regular(file: File) -> Result<(File, u64), Error> {
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
    // A large vector is fresh zero pages of the kernel: nothing is written here.
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
