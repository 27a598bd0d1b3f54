//! The files a machine's guest sees: what the user mounts, and what its image brings along.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nerite_hostfs::{HostFs, ImageFile, Mounts};
use nerite_loader::{Archive, EntryKind, Image, Interface, text};

use crate::{Error, Settings};

/// A file in an unpacked image. Shares the image's bytes.
#[derive(Debug)]
struct InArchive {
    archive: Arc<Archive>,
    index: usize,
}

impl AsRef<[u8]> for InArchive {
    fn as_ref(&self) -> &[u8] {
        self.archive
            .entries()
            .get(self.index)
            .map(|entry| self.archive.data(entry))
            .unwrap_or_default()
    }
}

/// Environment variable that names the directory of files for kernels with hypercall interface v1,
/// and its default.
const V1_FOLDER: (&str, &str) = ("UHYVE_MOUNT", "/root");

/// Takes the mounts and the files of the image.
pub(crate) fn take(
    mounts: Mounts,
    settings: &Settings,
    image: &Image,
    env: &[(String, String)],
) -> Result<HostFs, Error> {
    if image.kernel().interface() == Interface::V1 {
        let (variable, default) = V1_FOLDER;
        let folder =
            env.iter().find(|(name, _)| name == variable).map_or(default, |(_, value)| value);
        for mount in
            settings.mounts.iter().filter(|mount| !Path::new(&mount.guest).starts_with(folder))
        {
            log::warn!(
                "this kernel has hypercall interface v1 and looks for files only below {folder}: it does not see {} \
                 unless the environment variable {variable} names another folder",
                mount.guest
            );
        }
    }
    let Some(archive) = image.archive() else {
        return Ok(HostFs::with_mounts(mounts, [], settings.file_limits)?);
    };
    let mut hidden: Vec<&[u8]> = Vec::new();
    let files = image_files(archive, &mut hidden);
    let files = HostFs::with_mounts(mounts, files, settings.file_limits)?;
    if !hidden.is_empty() {
        let (count, names) = (hidden.len(), text::few(hidden));
        log::warn!(
            "the image's links and special files are not shown to the guest, {count} in all: {names}"
        );
    }
    Ok(files)
}

/// Regular files, and hard links to them. A symbolic link in an image is not followed by anyone:
/// the names of those and of what else the guest does not see go to `hidden`.
fn image_files<'a, 'b>(
    archive: &'a Archive,
    hidden: &'b mut Vec<&'a [u8]>,
) -> impl Iterator<Item = ImageFile> + use<'a, 'b> {
    // By name, because a hostile image can have as many links as it likes.
    let regular: BTreeMap<&[u8], usize> = (0..)
        .zip(archive.entries())
        .filter(|(_, entry)| entry.kind == EntryKind::File)
        .map(|(index, entry)| (entry.relative_name(), index))
        .collect();
    let shared = Arc::new(archive.clone());
    (0..).zip(archive.entries()).filter_map(move |(index, entry)| {
        let data = match entry.kind {
            EntryKind::File => Some(index),
            EntryKind::HardLink => {
                entry.target.as_deref().and_then(|target| regular.get(relative(target)).copied())
            }
            EntryKind::Directory => return None,
            _ => None,
        };
        let Some(index) = data else {
            hidden.push(&entry.name);
            return None;
        };
        let data = Arc::new(InArchive { archive: shared.clone(), index });
        Some(ImageFile { path: entry.name.clone(), data, mode: entry.mode })
    })
}

/// A link's target as [`Entry::relative_name`](nerite_loader::Entry::relative_name) gives names.
fn relative(target: &[u8]) -> &[u8] {
    let target = target.strip_prefix(b"./").unwrap_or(target);
    target.strip_prefix(b"/").unwrap_or(target)
}

/// The directories that the kernel is to mount. It can name only what is UTF-8, and cannot
/// mount on its root.
pub(crate) fn mount_points(files: &HostFs) -> Vec<String> {
    let mut points = Vec::new();
    let mut others = Vec::new();
    for path in files.guest_directories() {
        match String::from_utf8(path) {
            Ok(path) => points.push(path),
            Err(error) => others.push(error.into_bytes()),
        }
    }
    if !others.is_empty() {
        let names = text::few(others);
        log::warn!("guest directories that are not UTF-8 are not mounted by the kernel: {names}");
    }
    points
}
