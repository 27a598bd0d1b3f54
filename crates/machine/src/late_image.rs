//! Images that are put together once the process is confined.

use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io::Seek as _;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use nerite_loader::ImageSource;

use crate::image_file::empty_file;
use crate::{Config, Error};

/// An image that is made of other files, all of which are hostile: so it is opened before the
/// process is confined, and read after.
pub trait LateImage: fmt::Debug + Send {
    /// Directory below which files are opened, if there is one. It stays accessible.
    fn directory(&self) -> Option<BorrowedFd<'_>>;

    /// Writes the image into an empty file, and returns its name, which is the guest's first
    /// argument.
    ///
    /// # Errors
    /// If there is no image to be had.
    fn read(self: Box<Self>, to: &mut File) -> Result<PathBuf, Box<dyn StdError + Send + Sync>>;
}

/// Reads an image; `config` gets its name.
pub(crate) fn read(image: Box<dyn LateImage>, config: &mut Config) -> Result<ImageSource, Error> {
    let mut file = empty_file().map_err(Error::host("keeping the image in memory"))?;
    let name = image.read(&mut file).map_err(Error::LateImage)?;
    file.rewind().map_err(Error::host("keeping the image in memory"))?;
    let source = ImageSource::from_file(&config.image, file)?;
    config.image = name;
    Ok(source)
}
