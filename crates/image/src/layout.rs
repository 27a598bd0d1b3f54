//! [`Layout`]: a directory or archive of blobs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, OciLayout};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde_json::from_slice;

use crate::Error;
use crate::blob::{self, read_limited};
use crate::reference::{Kind, Reference};
use crate::text::short;

/// Largest document of a layout, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Most files of a layout in an archive.
const MAX_FILES: usize = 1 << 16;
/// Longest path of a file of a layout.
const MAX_PATH: usize = 256;
/// Name of the file that marks a layout.
pub(crate) const MARK: &str = "oci-layout";
/// Name of the file that lists the images of a layout.
pub(crate) const INDEX: &str = "index.json";

/// An OCI image layout, opened and not looked into yet: its contents are hostile.
///
/// A process that confines itself opens it before and reads it after.
#[derive(Debug)]
pub struct Layout {
    files: Files,
}

#[derive(Debug)]
enum Files {
    Directory(OwnedFd),
    /// With the places of its files, once they are known.
    Archive(File, Option<BTreeMap<String, (u64, u64)>>),
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Layout {
    /// Opens the layout that a name has.
    ///
    /// # Errors
    /// If it cannot be opened, or is neither a directory nor a regular file.
    pub fn open(reference: &Reference) -> Result<Self, Error> {
        let path = &reference.path;
        let failed =
            |errno: Errno| Error::Read { path: path.clone(), source: io::Error::from(errno) };
        let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        if reference.kind == Kind::Directory {
            flags |= OFlags::DIRECTORY;
        }
        let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let files = match reference.kind {
            Kind::Directory => Files::Directory(opened),
            Kind::Archive => {
                let file = File::from(opened);
                if !is_regular(&file).map_err(|source| failed_at(path, source))? {
                    let reason = "not a regular file".to_owned();
                    return Err(Error::NoLayout { reason });
                }
                Files::Archive(file, None)
            }
        };
        Ok(Self { files })
    }

    /// A layout of these files, by their paths.
    #[must_use]
    pub fn in_memory(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self { files: Files::Memory(files) }
    }

    /// The directory below which files are opened, which has to stay accessible.
    #[must_use]
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        match &self.files {
            Files::Directory(directory) => Some(directory.as_fd()),
            _ => None,
        }
    }

    /// Checks the mark of a layout.
    pub(crate) fn check_mark(&mut self) -> Result<(), Error> {
        let Some(bytes) = self.read(MARK, MAX_DOCUMENT)? else {
            return Err(Error::NoLayout { reason: format!("it has no file {MARK}") });
        };
        let mark: OciLayout = document(MARK, &bytes)?;
        let version = short(mark.image_layout_version());
        if version.starts_with("1.") {
            return Ok(());
        }
        let reason = format!("its version {version:?} is not supported (1.0.0 is)");
        Err(Error::NoLayout { reason })
    }

    /// The blob of a descriptor, of at most `limit` bytes, checked.
    pub(crate) fn blob(&mut self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, Error> {
        let size = descriptor.size();
        if size > limit {
            return Err(Error::Limit { what: "bytes of a blob", limit });
        }
        let path = blob::path(descriptor)?;
        let missing = || Error::MissingBlob { digest: descriptor.digest().to_string() };
        let bytes = self.read(&path, size)?.ok_or_else(missing)?;
        blob::check(descriptor, &bytes)?;
        Ok(bytes)
    }

    /// The file of a path, or the first `limit` bytes of it and one more; `None` if there is none.
    pub(crate) fn read(&mut self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let failed = |source| failed_at(Path::new(path), source);
        match &mut self.files {
            Files::Memory(files) => {
                let bytes = files.get(path).map(|bytes| read_limited(bytes.as_slice(), limit));
                bytes.transpose().map_err(failed)
            }
            Files::Directory(directory) => {
                let file = match open_beneath(directory, path) {
                    Err(Errno::NOENT) => return Ok(None),
                    opened => File::from(opened.map_err(io::Error::from).map_err(failed)?),
                };
                if !is_regular(&file).map_err(failed)? {
                    let reason = "not a regular file".to_owned();
                    return Err(Error::Unfit { name: path.to_owned(), reason });
                }
                read_limited(file, limit).map(Some).map_err(failed)
            }
            Files::Archive(file, places) => {
                let known = match places.take() {
                    Some(known) => known,
                    None => list(file)?,
                };
                let place = places.insert(known).get(path).copied();
                let Some((start, size)) = place else { return Ok(None) };
                file.seek(SeekFrom::Start(start)).map_err(failed)?;
                read_limited((&*file).take(size), limit).map(Some).map_err(failed)
            }
        }
    }
}

/// A document of the layout.
pub(crate) fn document<'a, T: serde::Deserialize<'a>>(
    name: &str,
    bytes: &'a [u8],
) -> Result<T, Error> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::Limit { what: "bytes of a document", limit: MAX_DOCUMENT });
    }
    from_slice(bytes).map_err(|error| {
        // A message of the parser can have any text of the document in it.
        let (line, column) = (error.line(), error.column());
        let problem = format!("line {line}, column {column}: {}", short(&error.to_string()));
        Error::Malformed { name: name.to_owned(), problem }
    })
}

fn failed_at(path: &Path, source: io::Error) -> Error {
    Error::Read { path: PathBuf::from(path), source }
}

fn is_regular(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.is_file())
}

/// Opens a file below a directory, through no link.
fn open_beneath(directory: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(directory, path, flags, Mode::empty(), resolve)
}

/// Offsets and sizes of the regular files of a tar archive.
fn list(file: &mut File) -> Result<BTreeMap<String, (u64, u64)>, Error> {
    let bad = |error: io::Error| {
        let reason = format!("not a tar archive: {error}");
        Error::NoLayout { reason }
    };
    file.rewind().map_err(bad)?;
    let size = file.metadata().map_err(bad)?.len();
    let mut places = BTreeMap::new();
    let mut archive = tar::Archive::new(&*file);
    let entries = archive.entries_with_seek().map_err(bad)?.raw(true);
    for (index, entry) in entries.enumerate() {
        if index >= MAX_FILES {
            return Err(Error::Limit { what: "files of the layout", limit: MAX_FILES as u64 });
        }
        let entry = entry.map_err(bad)?;
        let header = entry.header();
        if !header.entry_type().is_file() {
            continue;
        }
        let name = header.path_bytes();
        let name = name.strip_prefix(b"./").unwrap_or(&name);
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_PATH)
        else {
            continue;
        };
        let place = (entry.raw_file_position(), entry.size());
        if place.0.checked_add(place.1).is_none_or(|end| end > size) {
            return Err(Error::NoLayout { reason: format!("the archive ends within {name:?}") });
        }
        places.insert(name.to_owned(), place);
    }
    Ok(places)
}
