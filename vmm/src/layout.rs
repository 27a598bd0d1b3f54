//! Images in OCI layouts: `oci:DIR[:TAG]` and `oci-archive:FILE[:TAG]`.

use std::error::Error as StdError;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nerite_image::{HermitImage, Layout, Manifest, Process, Reference, Rootfs};
use nerite_loader::Limits;
use nerite_machine::{Config, Embedding, LateImage};

use crate::error::Error;

/// The image of a layout, opened and not looked into yet.
#[derive(Debug)]
pub(crate) struct LayoutImage {
    layout: Layout,
    tag: Option<String>,
    /// Arguments in place of those of the image.
    args: Vec<String>,
}

/// An image that has been read.
#[derive(Debug)]
pub(crate) struct Contents {
    manifest: Manifest,
    process: Process,
    rootfs: Rootfs,
}

/// An image without its files.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) manifest: Manifest,
    pub(crate) process: Process,
}

impl LayoutImage {
    /// Opens the layout that a path names, if it names one.
    pub(crate) fn open(path: &Path, args: Vec<String>) -> Result<Option<Self>, Error> {
        let Some(reference) = Reference::parse(path.as_os_str()) else { return Ok(None) };
        let reference =
            reference.map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
        let failed = |source| Error::Layout { name: path.to_owned(), source };
        let layout = Layout::open(&reference).map_err(failed)?;
        Ok(Some(Self { layout, tag: reference.tag, args }))
    }

    /// Directory that has to stay accessible.
    pub(crate) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.layout.directory()
    }

    /// Reads it.
    pub(crate) fn contents(mut self) -> Result<Contents, nerite_image::Error> {
        let manifest = Manifest::read(&mut self.layout, self.tag.as_deref())?;
        let rootfs = Rootfs::read(&mut self.layout, &manifest, &Limits::default())?;
        let process = Process::of(&manifest.config, &self.args)?;
        Ok(Contents { manifest, process, rootfs })
    }
}

impl Contents {
    /// Writes the guest that a machine gets, and forgets the files: both together are as large as
    /// two images. Returns the path of the application.
    pub(crate) fn write(
        self,
        to: impl Write,
    ) -> Result<(Description, PathBuf), nerite_image::Error> {
        let Self { manifest, process, rootfs } = self;
        let guest = HermitImage::new(&rootfs, &process, &Limits::default())?;
        guest.write(to)?;
        let path = guest.path();
        Ok((Description { manifest, process }, path))
    }
}

impl LateImage for LayoutImage {
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        Self::directory(self)
    }

    fn read(self: Box<Self>, to: &mut File) -> Result<PathBuf, Box<dyn StdError + Send + Sync>> {
        let (_, path) = self.contents()?.write(BufWriter::new(to))?;
        Ok(path)
    }
}

/// Parts of a machine whose image is in a layout; none for a file. The guest's arguments are the
/// layout's then, where they stand behind those of its `Entrypoint`.
pub(crate) fn embedding(config: &mut Config) -> Result<Embedding, Error> {
    if config.restore.is_some() {
        return Ok(Embedding::new());
    }
    let args = &mut config.guest.app_args;
    let Some(image) = LayoutImage::open(&config.image, args.clone())? else {
        return Ok(Embedding::new());
    };
    args.clear();
    Ok(Embedding::new().late_image(Box::new(image)))
}
