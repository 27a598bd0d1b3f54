//! A snapshot on the way into its directory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::manifest::NAMES;
use crate::{Error, Files};

/// A snapshot that is being written: the files are in a temporary directory beside the final one.
///
/// The final name is taken in one step, by [`Staging::commit`], when everything is on the disk.
/// Without it the temporary directory is removed. What a process leaves there that is killed is
/// removed by the next [`Staging::create`] of the same name.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    name: OsString,
    temporary: OsString,
    /// The directory that both are in.
    parent: OwnedFd,
    /// The temporary directory, locked.
    directory: OwnedFd,
    files: Files,
    /// `true` if the remains of an interrupted snapshot were removed.
    replaced: bool,
    committed: bool,
}

impl Staging {
    /// Makes the files of a snapshot that will be the directory `path`, accessible to this user
    /// only.
    ///
    /// # Errors
    /// Fails if there is something under that name, another process writes it, or the host does.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let failed = |what| {
            move |errno: Errno| Error::Host { path: path.to_owned(), what, source: errno.into() }
        };
        let name = path.file_name().ok_or_else(|| Error::NoName(path.to_owned()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())
            .map_err(failed("opening the directory that it is to be in"))?;
        // Asked here only to fail early.
        if rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(Error::Exists(path.to_owned()));
        }
        let temporary = temporary_name(name);
        let in_use =
            || Error::InUse { path: path.to_owned(), temporary: path.with_file_name(&temporary) };
        let (directory, replaced) = match make_directory(&parent, &temporary) {
            Ok(made) => made.ok_or_else(in_use)?,
            Err(errno) => return Err(failed("making a temporary directory")(errno)),
        };
        let made = NAMES.map(|name| make_file(&directory, name));
        let [state, memory, image] = made;
        let files = || Ok(Files { state: state?, memory: memory?, image: image? });
        match files() {
            Ok(files) => Ok(Self {
                path: path.to_owned(),
                name: name.to_owned(),
                temporary,
                parent,
                directory,
                files,
                replaced,
                committed: false,
            }),
            Err(errno) => {
                remove(&parent, &directory, &temporary);
                Err(failed("making its files")(errno))
            }
        }
    }

    /// The files, to be written by this process or another one.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The directory that the snapshot will be in. A process that confines itself keeps the right
    /// to rename directories there.
    #[must_use]
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// `true` if the remains of a snapshot whose writer was killed were removed.
    #[must_use]
    pub fn replaced_remains(&self) -> bool {
        self.replaced
    }

    /// Brings everything to the disk, then gives the directory its name.
    ///
    /// # Errors
    /// Fails if the host does, or the name has been taken meanwhile. Then nothing is left of the
    /// snapshot.
    pub fn commit(mut self) -> Result<(), Error> {
        let failed = |what| {
            let path = self.path.clone();
            move |errno: Errno| Error::Host { path, what, source: errno.into() }
        };
        let Files { state, memory, image } = &self.files;
        for file in [state, memory, image] {
            rustix::fs::fsync(file).map_err(failed("writing it to the disk"))?;
        }
        rustix::fs::fsync(&self.directory).map_err(failed("writing it to the disk"))?;
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(
            &self.parent,
            &self.temporary,
            &self.parent,
            &self.name,
            flags,
        ) {
            Ok(()) => self.committed = true,
            Err(Errno::EXIST) => return Err(Error::Exists(self.path.clone())),
            Err(errno) => return Err(failed("giving it its name")(errno)),
        }
        // The name is there already; after a power failure it may not be.
        rustix::fs::fsync(&self.parent).map_err(failed("writing its name to the disk"))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.committed {
            remove(&self.parent, &self.directory, &self.temporary);
        }
    }
}

/// Name of the temporary directory for a snapshot.
fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".partial");
    temporary
}

/// Makes the temporary directory and locks it, or empties the one that a killed process has left.
/// `None` if another process is using it.
fn make_directory(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<(OwnedFd, bool)>> {
    let is_new = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        // Another process has found it before it was locked.
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    // A killed process holds no lock.
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    if !is_same(&directory, parent, name) {
        return Ok(None);
    }
    if !is_new {
        remove_files(&directory);
    }
    Ok(Some((directory, !is_new)))
}

/// Returns `true` if the directory still has this name.
fn is_same(directory: &OwnedFd, parent: &OwnedFd, name: &OsStr) -> bool {
    let named = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let open = rustix::fs::fstat(directory);
    matches!((named, open), (Ok(named), Ok(open)) if (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino))
}

fn make_file(directory: &OwnedFd, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn remove_files(directory: &OwnedFd) {
    for name in NAMES {
        // One that is not there need not be removed; anything else keeps the directory.
        let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    }
}

/// Removes a temporary directory. Where that fails, it stays for the next snapshot of the name.
fn remove(parent: &OwnedFd, directory: &OwnedFd, name: &OsStr) {
    remove_files(directory);
    let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
}
