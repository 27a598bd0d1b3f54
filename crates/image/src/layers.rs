//! [`Rootfs`]: the layers of an image, one upon the other.

use flate2::bufread::MultiGzDecoder;
use nerite_loader::{Archive, EntryKind, Limits};
use oci_spec::image::{Descriptor, MediaType};

use crate::blob::{digest, read_limited};
use crate::text::short;
use crate::tree::{InLayer, Node, Tree};
use crate::{Error, LayerError, Layout, Manifest};

/// The root file system of an image, in memory.
#[derive(Debug)]
pub struct Rootfs {
    layers: Vec<Archive>,
    pub(crate) tree: Tree,
}

/// Compression of a layer.
enum Packing {
    Tar,
    Gzip,
}

impl Rootfs {
    /// Reads the layers of an image and puts them one upon the other.
    ///
    /// `limits` are for all layers together: bytes of the files, bytes decompressed, entries and
    /// names.
    ///
    /// # Errors
    /// If a layer is missing, damaged or malformed, or beyond the limits.
    pub fn read(layout: &mut Layout, manifest: &Manifest, limits: &Limits) -> Result<Self, Error> {
        let mut rest = *limits;
        let mut rootfs = Self { layers: Vec::new(), tree: Tree::default() };
        let contents = manifest.config.rootfs().diff_ids();
        for (descriptor, diff_id) in manifest.manifest.layers().iter().zip(contents) {
            let number = rootfs.layers.len().saturating_add(1);
            let failed = |source| Error::Layer { number, source };
            let packing = packing(descriptor).map_err(failed)?;
            let bytes = layout.blob(descriptor, rest.max_file)?;
            rest.max_file = rest.max_file.saturating_sub(descriptor.size());
            rootfs.add(bytes, &packing, diff_id, &mut rest, limits).map_err(failed)?;
        }
        Ok(rootfs)
    }

    fn add(
        &mut self,
        bytes: Vec<u8>,
        packing: &Packing,
        diff_id: &str,
        rest: &mut Limits,
        limits: &Limits,
    ) -> Result<(), LayerError> {
        let tar = match packing {
            Packing::Tar => bytes,
            Packing::Gzip => {
                let decoder = MultiGzDecoder::new(bytes.as_slice());
                read_limited(decoder, rest.max_decompressed).map_err(LayerError::Gzip)?
            }
        };
        let size = tar.len() as u64;
        if size > rest.max_decompressed {
            return Err(LayerError::Bomb { limit: limits.max_decompressed });
        }
        let found = digest(&tar);
        if found != diff_id {
            return Err(LayerError::DiffId { expected: short(diff_id), found });
        }
        let archive = Archive::from_tar(tar, rest)?;
        let names = archive.entries().iter().map(|entry| {
            entry.name.len().saturating_add(entry.target.as_ref().map_or(0, Vec::len))
        });
        rest.max_decompressed = rest.max_decompressed.saturating_sub(size);
        rest.max_names = rest.max_names.saturating_sub(names.sum());
        rest.max_entries = rest.max_entries.saturating_sub(archive.entries().len());
        self.tree.apply(self.layers.len(), archive.entries(), limits)?;
        self.layers.push(archive);
        Ok(())
    }

    /// Contents of the regular file that a path leads to. Links lead to no place outside.
    #[must_use]
    pub fn file(&self, path: &[u8]) -> Option<&[u8]> {
        let (_, place) = self.tree.file(path)?;
        self.data(place)
    }

    /// Paths of all files, directories and links, without leading slashes, with their kinds.
    pub fn paths(&self) -> impl Iterator<Item = (&[u8], EntryKind)> {
        self.tree.iter().map(|(path, node)| {
            let kind = match node {
                Node::Directory => EntryKind::Directory,
                Node::File(_) => EntryKind::File,
                Node::Link(_) => EntryKind::Symlink,
            };
            (path, kind)
        })
    }

    pub(crate) fn data(&self, place: InLayer) -> Option<&[u8]> {
        let layer = self.layers.get(place.layer)?;
        Some(layer.data(layer.entries().get(place.entry)?))
    }

    pub(crate) fn mode(&self, place: InLayer) -> u32 {
        let entry = self.layers.get(place.layer).and_then(|it| it.entries().get(place.entry));
        entry.map_or(0, |entry| entry.mode)
    }
}

fn packing(descriptor: &Descriptor) -> Result<Packing, LayerError> {
    match descriptor.media_type() {
        MediaType::ImageLayer | MediaType::ImageLayerNonDistributable => Ok(Packing::Tar),
        MediaType::ImageLayerGzip | MediaType::ImageLayerNonDistributableGzip => Ok(Packing::Gzip),
        MediaType::ImageLayerZstd | MediaType::ImageLayerNonDistributableZstd => {
            Err(LayerError::Zstd)
        }
        other => match other.as_ref() {
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Packing::Gzip),
            "application/vnd.docker.image.rootfs.diff.tar" => Ok(Packing::Tar),
            other if other.ends_with("zstd") => Err(LayerError::Zstd),
            other => Err(LayerError::MediaType(short(other))),
        },
    }
}
