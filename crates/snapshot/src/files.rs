//! The files of a snapshot, open.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manifest::{IMAGE, MEMORY, NAMES, STATE};
use crate::{Digest, Error, MAX_STATE, Manifest};

/// The files of a snapshot that is being written, open for reading and writing.
///
/// They can be of another process, which has the directory: a confined one that has only these
/// descriptors writes a snapshot all the same.
#[derive(Debug)]
pub struct Files {
    /// The description, `snapshot.json`.
    pub state: File,
    /// RAM of the guest, sparse.
    pub memory: File,
    /// The image that the guest was booted from.
    pub image: File,
}

impl Files {
    /// Describes the memory and the image, which are written, and writes `snapshot.json`.
    ///
    /// `make` is given the digests of the two.
    ///
    /// # Errors
    /// Fails if a file cannot be read or written, or the state is too large.
    pub fn describe<S: Serialize>(
        &self,
        make: impl FnOnce(Digest, Digest) -> Manifest<S>,
    ) -> Result<(), Error> {
        let memory = size(&self.memory, MEMORY)?;
        let memory = Digest::of_sparse(&self.memory, memory).map_err(in_file(MEMORY))?;
        let image = digest_of_image(&self.image)?;
        let text = make(memory, image).to_text()?;
        let mut state = &self.state;
        state.rewind().and_then(|()| state.write_all(&text)).map_err(in_file(STATE))
    }
}

/// A snapshot, opened for reading.
///
/// Nothing of it has been looked at yet: a process can confine itself before it calls
/// [`Snapshot::read`].
#[derive(Debug)]
pub struct Snapshot {
    state: File,
    memory: File,
    image: File,
}

impl Snapshot {
    /// Opens the snapshot in the directory `path`.
    ///
    /// No link in it is followed.
    ///
    /// # Errors
    /// Fails if one of its files cannot be opened, or is not a regular file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |path: &Path, source: rustix::io::Errno| Error::Host {
            path: path.to_owned(),
            what: "opening",
            source: source.into(),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(path, errno))?;
        let open = |name: &str| {
            open_beneath(directory.as_fd(), name).map_err(|errno| failed(&path.join(name), errno))
        };
        let [state, memory, image] = NAMES.map(open);
        Self::new(state?, memory?, image?)
    }

    /// A snapshot of files that are open for reading.
    ///
    /// # Errors
    /// Fails if one of them is not a regular file.
    pub fn new(state: File, memory: File, image: File) -> Result<Self, Error> {
        for (file, name) in [&state, &memory, &image].into_iter().zip(NAMES) {
            if !file.metadata().map_err(in_file(name))?.is_file() {
                return Err(Error::NotAFile { name });
            }
        }
        Ok(Self { state, memory, image })
    }

    /// Reads `snapshot.json` and checks that the memory has the size it says.
    ///
    /// The state comes from a file that anyone may have written: check each value before its use.
    ///
    /// # Errors
    /// Fails if the description is malformed, damaged, of another format or too large, or the
    /// memory has another size.
    pub fn read<S: DeserializeOwned>(&self) -> Result<Manifest<S>, Error> {
        let size = size(&self.state, STATE)?;
        if size > MAX_STATE {
            return Err(Error::TooLarge { name: STATE, size, limit: MAX_STATE });
        }
        let mut text = Vec::new();
        let mut state = &self.state;
        // It can have grown meanwhile.
        state
            .rewind()
            .and_then(|()| state.take(MAX_STATE).read_to_end(&mut text))
            .map_err(in_file(STATE))?;
        let manifest = Manifest::from_text(&text)?;
        let expected = manifest.memory_size()?;
        let size = self::size(&self.memory, MEMORY)?;
        if size != expected {
            return Err(Error::Size { name: MEMORY, size, expected });
        }
        Ok(manifest)
    }

    /// Compares memory and image with their digests. It reads all of both.
    ///
    /// # Errors
    /// Fails if one is damaged or cannot be read.
    pub fn verify<S>(&self, manifest: &Manifest<S>) -> Result<(), Error> {
        let memory =
            Digest::of_sparse(&self.memory, manifest.memory_size()?).map_err(in_file(MEMORY))?;
        if memory != manifest.memory_digest {
            return Err(Error::Damaged { name: MEMORY });
        }
        if digest_of_image(&self.image)? != manifest.image_digest {
            return Err(Error::Damaged { name: IMAGE });
        }
        Ok(())
    }

    /// The files `memory` and `image`.
    #[must_use]
    pub fn into_files(self) -> (File, File) {
        (self.memory, self.image)
    }

    /// RAM of the guest.
    #[must_use]
    pub fn memory(&self) -> &File {
        &self.memory
    }

    /// The image that the guest was booted from.
    #[must_use]
    pub fn image(&self) -> &File {
        &self.image
    }
}

fn open_beneath(directory: impl AsFd, name: &str) -> rustix::io::Result<File> {
    // A pipe or device must not keep the caller waiting before it is refused.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file: OwnedFd = rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve)?;
    Ok(file.into())
}

fn digest_of_image(image: &File) -> Result<Digest, Error> {
    let size = size(image, IMAGE)?;
    Digest::of_file(image, size).map_err(in_file(IMAGE))
}

fn size(file: &File, name: &'static str) -> Result<u64, Error> {
    Ok(file.metadata().map_err(in_file(name))?.len())
}

/// Names the file that could not be read or written.
fn in_file(name: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { name, source }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
