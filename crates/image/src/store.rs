//! Writing images into layouts, so that a layout is whole at any time.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use crate::blob::{digest, read_limited};
use crate::layout::{INDEX, MARK, MAX_DOCUMENT};
use crate::manifest::TAG;
use crate::pack::{blob_path, text};
use crate::{PackError, Packed};

impl Packed {
    /// Writes the image with a tag into the layout in a directory, in place of one that has the tag
    /// already.
    ///
    /// A directory that is missing or empty becomes a layout in one step, by its name. In a layout,
    /// blobs are written first, and the index takes its name last: however this ends, there is a
    /// layout, with the image or without it.
    ///
    /// # Errors
    /// If the directory is neither empty nor a layout, the tag is none, or the host fails.
    pub fn store(&self, directory: &Path, tag: &str) -> Result<(), PackError> {
        check_tag(tag)?;
        let failed = failed(directory);
        let is_empty = match fs::read_dir(directory) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed(error)),
        };
        if is_empty { self.create(directory, tag) } else { self.add(directory, tag) }
    }

    /// Makes a new layout.
    fn create(&self, directory: &Path, tag: &str) -> Result<(), PackError> {
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let made = tempfile::Builder::new()
            .prefix(".layout-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(failed(parent))?;
        for (name, bytes) in self.files(tag) {
            let path = made.path().join(name);
            let folder = path.parent().unwrap_or(made.path());
            fs::create_dir_all(folder).map_err(failed(directory))?;
            let write = || {
                let mut file = File::create_new(&path)?;
                file.write_all(&bytes)?;
                file.sync_all()
            };
            write().map_err(failed(directory))?;
        }
        for folder in ["blobs/sha256", "blobs", "."] {
            sync_directory(&made.path().join(folder)).map_err(failed(directory))?;
        }
        // The name of an empty directory can be taken.
        fs::rename(made.path(), directory).map_err(failed(directory))?;
        // It has another name now, and there is nothing to be removed.
        let _ = made.keep();
        sync_directory(parent).map_err(failed(parent))
    }

    /// Adds the image to a layout.
    fn add(&self, directory: &Path, tag: &str) -> Result<(), PackError> {
        let failed = failed(directory);
        let locked = File::open(directory).map_err(&failed)?;
        // Another process that adds an image has to be waited for: its tag would be lost.
        flock(&locked, FlockOperation::LockExclusive)
            .map_err(|errno| failed(io::Error::from(errno)))?;
        let mark = document(&directory.join(MARK));
        let version = mark.as_ref().and_then(|mark| mark.get("imageLayoutVersion"));
        let mut listed = document(&directory.join(INDEX)).unwrap_or_default();
        let (Some("1.0.0"), Some(manifests)) = (
            version.and_then(Value::as_str),
            listed.get_mut("manifests").and_then(Value::as_array_mut),
        ) else {
            return Err(PackError::NoLayout { path: directory.to_owned() });
        };
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(&failed)?;
        for (digest, bytes) in &self.blobs {
            let path = directory.join(blob_path(digest));
            if !has_blob(&path, digest, bytes.len() as u64) {
                replace(&path, bytes).map_err(&failed)?;
            }
        }
        sync_directory(&blobs).map_err(&failed)?;
        let tag_of = |manifest: &Value| manifest.get("annotations")?.get(TAG).cloned();
        manifests.retain(|manifest| tag_of(manifest) != Some(tag.into()));
        manifests.push(self.tagged(tag));
        replace(&directory.join(INDEX), &text(listed)).map_err(&failed)?;
        sync_directory(directory).map_err(failed)
    }
}

/// The grammar of the specification, "Pre-Defined Annotation Keys", but for repeated separators.
fn check_tag(tag: &str) -> Result<(), PackError> {
    let is_separator = |c: char| "-._:@/+".contains(c);
    let is_tag = tag.len() <= 255
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || is_separator(c))
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric())
        && tag.ends_with(|c: char| c.is_ascii_alphanumeric());
    if is_tag { Ok(()) } else { Err(PackError::Tag { tag: tag.to_owned() }) }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> PackError + use<> {
    let path = PathBuf::from(path);
    move |source| PackError::Write { path: path.clone(), source }
}

/// A document, if it is one.
fn document(path: &Path) -> Option<Value> {
    let bytes = read_limited(File::open(path).ok()?, MAX_DOCUMENT).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// `true` if the blob is there, and not damaged.
fn has_blob(path: &Path, expected: &str, size: u64) -> bool {
    let bytes = File::open(path).and_then(|file| read_limited(file, size));
    bytes.is_ok_and(|bytes| digest(&bytes) == expected)
}

/// Writes a file that takes its name when it is whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let builder = builder.permissions(Permissions::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
