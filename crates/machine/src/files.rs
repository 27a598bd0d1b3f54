//! The files a machine's guest sees: what the user mounts, and what its image brings along.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nerite_hostfs::{HostFs, ImageFile, Mounts};
use nerite_loader::{Archive, EntryKind, Image, Interface};

use crate::{Config, Error};

/// A file in an unpacked image. Shares the image's bytes.
#[derive(Debug)]
struct InArchive {
    archive: Arc<Archive>,
    index: usize,
}

impl AsRef<[u8]> for InArchive {
    fn as_ref(&self) -> &[u8] {
        self.archive.entries().get(self.index).map(|entry| self.archive.data(entry)).unwrap_or_default()
    }
}

/// Where kernels with hypercall interface v1 look for files, unless this environment variable says otherwise.
const V1_FOLDER: (&str, &str) = ("UHYVE_MOUNT", "/root");

/// Takes the mounts and the files of the image.
pub(crate) fn take(
    mounts: Mounts,
    config: &Config,
    image: &Image,
    env: &[(String, String)],
) -> Result<HostFs, Error> {
    if image.kernel().interface() == Interface::V1 {
        let (variable, default) = V1_FOLDER;
        let folder = env.iter().find(|(name, _)| name == variable).map_or(default, |(_, value)| value);
        for mount in config.mounts.iter().filter(|mount| !Path::new(&mount.guest).starts_with(folder)) {
            log::warn!(
                "this kernel has hypercall interface v1 and looks for files only below {folder}: it does not see {} \
                 unless the environment variable {variable} names another folder",
                mount.guest
            );
        }
    }
    let files = image.archive().map(|archive| image_files(&Arc::new(archive.clone()))).unwrap_or_default();
    Ok(HostFs::with_mounts(mounts, &files, config.file_limits)?)
}

/// Regular files, and hard links to them. A symbolic link in an image is not followed by anyone.
fn image_files(archive: &Arc<Archive>) -> Vec<ImageFile> {
    // By name, because a hostile image can have as many links as it likes.
    let regular: BTreeMap<&[u8], usize> = (0..)
        .zip(archive.entries())
        .filter(|(_, entry)| entry.kind == EntryKind::File)
        .map(|(index, entry)| (entry.relative_name(), index))
        .collect();
    let mut files = Vec::new();
    for (index, entry) in (0..).zip(archive.entries()) {
        let data = match entry.kind {
            EntryKind::File => Some(index),
            EntryKind::HardLink => {
                entry.target.as_deref().and_then(|target| regular.get(relative(target)).copied())
            }
            EntryKind::Directory => continue,
            _ => None,
        };
        match data {
            Some(index) => files.push(ImageFile {
                path: entry.name.clone(),
                data: Arc::new(InArchive { archive: archive.clone(), index }),
                mode: entry.mode,
            }),
            None => log::warn!(
                "the image's file {:?} is {} and not shown to the guest",
                String::from_utf8_lossy(&entry.name),
                entry.kind.describe()
            ),
        }
    }
    files
}

/// A link's target as [`Entry::relative_name`](nerite_loader::Entry::relative_name) gives names.
fn relative(target: &[u8]) -> &[u8] {
    let target = target.strip_prefix(b"./").unwrap_or(target);
    target.strip_prefix(b"/").unwrap_or(target)
}

/// The directories that the kernel is told to mount. It can name only what is UTF-8, and cannot mount on its root.
pub(crate) fn mount_points(files: &HostFs) -> Vec<String> {
    let mut points = Vec::new();
    for path in files.guest_directories() {
        match String::from_utf8(path) {
            Ok(path) => points.push(path),
            Err(error) => log::warn!(
                "the guest directory {:?} is not UTF-8, and the kernel is not told of it",
                String::from_utf8_lossy(error.as_bytes())
            ),
        }
    }
    points
}
