//! Single files of which the name is mounted, so that a guest can remove and create them.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// A mounted name of a regular file.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: OsString,
    /// The file of this name when it was mounted.
    pub(crate) file: Option<OwnedFd>,
}

impl Name {
    /// The directory and the name of a regular file, or of one that does not exist; nothing if
    /// there is anything else, which is mounted as it is.
    pub(crate) fn find(path: &Path) -> Result<Option<(OwnedFd, Self)>, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(file) => Some(file),
            Err(Errno::NOENT) if !path.as_os_str().as_bytes().ends_with(b"/") => None,
            Err(error) => return Err(error),
        };
        if let Some(file) = &file
            && FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode) != FileType::RegularFile
        {
            return Ok(None);
        }
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Ok(None);
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let parent = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
        Ok(Some((parent, Self { name: name.to_owned(), file })))
    }
}
