//! The core file of a guest that may crash.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nerite_inspect::Core;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::Error;

/// The file that a crash will be written to, opened before the process confines itself. Without a
/// crash it is as it was: one that was made for it is removed, an earlier one keeps its contents.
#[derive(Debug)]
pub(crate) struct CoreFile {
    path: PathBuf,
    file: File,
    /// Name of a file that was made here, and the directory that it is in.
    made: Option<(OwnedFd, OsString)>,
}

impl CoreFile {
    /// Opens the file. A guest's memory holds its secrets: the file is this user's alone, and one
    /// that is there already is taken only if it was before.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::CoreFile { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options
            .write(true)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                let file = made.map_err(failed)?;
                let place = place(path).map_err(failed)?;
                return Ok(Self { path: path.to_owned(), file, made: Some(place) });
            }
        }
        let file = options.open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let is_own = found.is_file()
            && found.nlink() == 1
            && found.uid() == rustix::process::geteuid().as_raw();
        if !is_own {
            let reason = "there is something else than a file of this user with this one name";
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, reason)));
        }
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, made: None })
    }

    /// Path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory from which the file may have to be removed.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.made.as_ref().map(|(directory, _)| directory.as_fd())
    }

    /// Writes the core, in place of an earlier one.
    ///
    /// # Errors
    /// Those of the host, and `Interrupted` once `is_stopping` returns `true`. Nothing is in the
    /// file then: part of a core would look like a whole one.
    pub(crate) fn write(&self, core: &Core<'_>, is_stopping: &dyn Fn() -> bool) -> io::Result<()> {
        self.file.set_len(0)?;
        let written = core.write(&self.file, is_stopping);
        if written.is_err() {
            self.file.set_len(0)?;
        }
        written
    }
}

impl Drop for CoreFile {
    fn drop(&mut self) {
        let Some((directory, name)) = &self.made else { return };
        if self.file.metadata().is_ok_and(|found| found.len() > 0) {
            return;
        }
        if let Err(error) = rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            log::debug!("removing the empty {}: {error}", self.path.display());
        }
    }
}

/// The directory of a file, and its name there.
fn place(path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    Ok((directory, name.to_owned()))
}
