//! [`HermitImage`]: a root file system and its application as a Hermit image archive.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use flate2::{Compression, GzBuilder};
use nerite_loader::{EntryKind, Image, ImageConfig, Limits};
use tar::{Builder, EntryType, Header};
use toml::{Table, Value};

use crate::process::is_pseudo;
use crate::text::short;
use crate::tree::{InLayer, Node};
use crate::{Error, Process, Rootfs};

/// Path of the configuration in a Hermit image.
const CONFIG: &str = "hermit.toml";
/// Path of the kernel of an image archive, if its own is that of other files.
const KERNEL: &str = "hermit.kernel";
/// First bytes of a gzip stream.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Mode of what comes without one.
const MODE: u32 = 0o644;

/// The guest of a container: the application, and the files in the directories of the root file
/// system, but for `/dev`, `/proc` and `/sys`.
#[derive(Debug)]
pub struct HermitImage<'a> {
    rootfs: &'a Rootfs,
    process: &'a Process,
    /// Path of the application without links.
    application: Vec<u8>,
    place: InLayer,
    /// The image that the application is, if it is an archive.
    inner: Option<Box<Image>>,
}

impl<'a> HermitImage<'a> {
    /// Finds the application in the root file system.
    ///
    /// # Errors
    /// If it is not there, or is a malformed image archive.
    pub fn new(rootfs: &'a Rootfs, process: &'a Process, limits: &Limits) -> Result<Self, Error> {
        let found = process.candidates.iter();
        let found = found.filter_map(|path| rootfs.tree.file(path.as_os_str().as_bytes())).next();
        let name = || short(&process.name);
        let (application, place) = found
            .ok_or_else(|| Error::Application { name: name(), reason: "not found in the image" })?;
        let bytes = rootfs.data(place).unwrap_or_default();
        let inner = if bytes.starts_with(GZIP) {
            let image = Image::parse(bytes.to_vec(), limits);
            Some(Box::new(image.map_err(|source| Error::Image { name: name(), source })?))
        } else {
            None
        };
        Ok(Self { rootfs, process, application, place, inner })
    }

    /// The application's file.
    #[must_use]
    pub fn application(&self) -> &[u8] {
        self.rootfs.data(self.place).unwrap_or_default()
    }

    /// Absolute path of the application's file, without links.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        Path::new("/").join(std::ffi::OsString::from_vec(self.application.clone()))
    }

    /// Writes the guest as a Hermit image archive.
    ///
    /// # Errors
    /// If it cannot be written, or a name is one that no guest can have.
    pub fn write(&self, to: impl Write) -> Result<(), Error> {
        let kernel = self.kernel_path()?;
        let config = self.config(&kernel)?;
        // Not compressed: it is read once, by this very process.
        let gzip = GzBuilder::new().mtime(0).write(to, Compression::none());
        let mut archive = Builder::new(gzip);
        self.append_all(&mut archive, &kernel, &config)
            .and_then(|()| archive.into_inner()?.finish()?.flush())
            .map_err(Error::Write)
    }

    fn append_all(
        &self,
        archive: &mut Builder<impl Write>,
        kernel: &str,
        config: &str,
    ) -> io::Result<()> {
        if let Some((image, files)) =
            self.inner.as_ref().and_then(|image| Some((image, image.archive()?)))
        {
            let own = image.config().map(|config| config.kernel.as_bytes()).unwrap_or_default();
            for entry in files.entries() {
                let name = entry.relative_name();
                let is_none = name.is_empty() || entry.has_parent_component();
                if is_none || self.is_covered(name) || name == CONFIG.as_bytes() {
                    continue;
                }
                match entry.kind {
                    EntryKind::File => append(archive, name, entry.mode, files.data(entry))?,
                    EntryKind::HardLink => {
                        let target = entry.target.as_deref().unwrap_or_default();
                        append_link(archive, name, target)?;
                    }
                    _ => {}
                }
            }
            let data = files.get(own).map(|entry| files.data(entry)).unwrap_or_default();
            append(archive, kernel.as_bytes(), MODE, data)?;
        }
        let mut written: BTreeMap<InLayer, &[u8]> = BTreeMap::new();
        for (path, node) in self.rootfs.tree.iter() {
            let place = match node {
                Node::Directory => continue,
                Node::File(place) => *place,
                Node::Link(_) => match self.linked(path) {
                    Some(place) => place,
                    None => continue,
                },
            };
            let is_kernel = self.inner.is_none() && path == self.application;
            if !is_kernel && !is_visible(path) {
                continue;
            }
            if let Some(first) = written.get(&place) {
                append_link(archive, path, first)?;
            } else {
                let data = self.rootfs.data(place).unwrap_or_default();
                append(archive, path, self.rootfs.mode(place), data)?;
                written.insert(place, path);
            }
        }
        append(archive, CONFIG.as_bytes(), MODE, config.as_bytes())
    }

    /// The file that a link leads to, if that is below the same directory of the root.
    fn linked(&self, path: &[u8]) -> Option<InLayer> {
        let (target, place) = self.rootfs.tree.file(path)?;
        (first(path) == first(&target) && is_visible(&target)).then_some(place)
    }

    /// `true` if a file of an image archive is hidden by a directory of the root file system.
    fn is_covered(&self, name: &[u8]) -> bool {
        let first = first(name);
        first != name && self.rootfs.tree.is_directory(first) && is_visible(name)
    }

    /// Path of the kernel in the archive.
    fn kernel_path(&self) -> Result<String, Error> {
        let own = self.inner.as_ref().and_then(|image| {
            let entry = image.archive()?.get(image.config()?.kernel.as_bytes())?;
            Some(entry.relative_name())
        });
        let path = match own {
            Some(name) if self.is_covered(name) => KERNEL.as_bytes(),
            Some(name) => name,
            None => &self.application,
        };
        let reason = "its path is not UTF-8, or that of a configuration";
        let bad = || Error::Application { name: short(&self.process.name), reason };
        let path = std::str::from_utf8(path).map_err(|_| bad())?;
        if path == CONFIG { Err(bad()) } else { Ok(path.to_owned()) }
    }

    /// Configuration of the guest: that of the image archive, with what the container says.
    fn config(&self, kernel: &str) -> Result<String, Error> {
        let own = self.inner.as_ref().and_then(|image| image.config()).cloned();
        let ImageConfig { kernel_args, app_args, env_vars, memory, cpus, .. } =
            own.unwrap_or_default();
        let Process { args, env, .. } = self.process;
        let args = if args.is_empty() { app_args } else { args.clone() };
        let env: Vec<String> = env_vars.into_iter().chain(env.iter().cloned()).collect();
        let mut input = Table::new();
        for (key, words) in [("kernel_args", kernel_args), ("app_args", args), ("env_vars", env)] {
            input.insert(key.to_owned(), words.into());
        }
        let mut requirements = Table::new();
        if let Some(memory) = memory {
            requirements.insert("memory".to_owned(), memory.to_string().into());
        }
        if let Some(cpus) = cpus {
            requirements.insert("cpus".to_owned(), Value::Integer(cpus.into()));
        }
        let mut config = Table::new();
        config.insert("version".to_owned(), "1".into());
        config.insert("kernel".to_owned(), kernel.into());
        config.insert("input".to_owned(), input.into());
        config.insert("requirements".to_owned(), requirements.into());
        toml::to_string(&config)
            .map_err(|error| Error::Config { reason: short(&error.to_string()) })
    }
}

/// The first name of a path.
fn first(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/').next().unwrap_or_default()
}

/// `true` if a guest sees the file of this path: a Hermit kernel sees none in `/` itself.
fn is_visible(path: &[u8]) -> bool {
    let absolute = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
    first(path) != path && !is_pseudo(&absolute)
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn append(to: &mut Builder<impl Write>, path: &[u8], mode: u32, data: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode, data.len());
    to.append_data(&mut header, std::ffi::OsStr::from_bytes(path), data)
}

fn append_link(to: &mut Builder<impl Write>, path: &[u8], target: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Link, MODE, 0);
    let name = std::ffi::OsStr::from_bytes;
    to.append_link(&mut header, name(path), name(target))
}
