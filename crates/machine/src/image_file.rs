//! The file of an image, or standard input.

use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::Path;

use nerite_loader::{Error, ImageSource};
use rustix::fs::MemfdFlags;

/// Name of standard input in place of an image's path.
const STDIN: &str = "-";

/// Opens the image at `path`, or reads one from standard input if that is `-`, to its end.
///
/// # Errors
/// If it cannot be opened or read, or is no regular file.
pub fn open_image(path: &Path) -> Result<ImageSource, Error> {
    if path.as_os_str() != STDIN {
        return ImageSource::open(path);
    }
    let name = "standard input";
    let file = in_memory(std::io::stdin().lock()).map_err(|error| Error::InFile {
        path: name.into(),
        error: Box::new(Error::Read(error)),
    })?;
    ImageSource::from_file(name, file)
}

/// A file in memory, without a name.
pub(crate) fn empty_file() -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("image", MemfdFlags::CLOEXEC)?))
}

/// Copies all that `from` has into a file without a name, of which parts can be read in any order.
pub(crate) fn in_memory(mut from: impl Read) -> std::io::Result<File> {
    let mut file = empty_file()?;
    std::io::copy(&mut from, &mut file)?;
    file.rewind()?;
    Ok(file)
}
