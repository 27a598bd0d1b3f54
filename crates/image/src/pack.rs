//! [`Pack`]: an application and files as an image, whose digests depend on nothing else.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};
use nerite_loader::{Image, ImageConfig, Limits};
use serde_json::{Map, Value, json};
use tar::{Builder, EntryType, Header};

use crate::blob::digest;
use crate::layout::{INDEX, MARK};
use crate::process::is_pseudo;
use crate::{Error, HermitImage, Layout, Manifest, PackError, Process, Rootfs};

/// Annotation and label with the version of the application's Hermit kernel.
pub const KERNEL_VERSION: &str = "org.hermit-os.kernel.version";
/// Annotation and label with the application's hypercall interface.
pub const INTERFACE: &str = "org.hermit-os.hypercall.interface";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// The file that marks a layout.
pub(crate) const MARK_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// An image to be: an application, and files beside it.
#[derive(Debug)]
pub struct Pack {
    entrypoint: String,
    config: Option<ImageConfig>,
    labels: Map<String, Value>,
    /// By their paths without a leading slash; `true` if they can be executed.
    files: BTreeMap<String, (bool, Vec<u8>)>,
    /// Bytes of all files.
    size: u64,
}

/// An image: its blobs, and the descriptor of its manifest.
#[derive(Debug)]
pub struct Packed {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) descriptor: Value,
    /// Digest of the manifest.
    pub digest: String,
}

impl Pack {
    /// An image of the application `name`, a Hermit ELF file or image archive, which it will have
    /// in its root directory.
    ///
    /// `config` is the `hermit.toml` of an ELF file: the image has an image archive of both then,
    /// so that its kernel arguments and requirements are not lost.
    ///
    /// # Errors
    /// If the application is malformed, or its name or configuration cannot be used.
    pub fn new(name: &str, bytes: Vec<u8>, config: Option<&[u8]>) -> Result<Self, PackError> {
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) || name.len() > 255 {
            return Err(PackError::Name { name: name.to_owned() });
        }
        let limits = Limits::default();
        let failed = |source| Error::Image { name: name.to_owned(), source };
        let bytes = match config {
            Some(_) if bytes.starts_with(&[0x1f, 0x8b]) => return Err(PackError::TwoConfigs),
            Some(text) => archive(bytes, text, &failed)?,
            None => bytes,
        };
        let image = Image::parse(bytes.clone(), &limits).map_err(failed)?;
        let kernel = image.kernel();
        let mut labels = Map::new();
        if let Some(version) = kernel.version() {
            labels.insert(KERNEL_VERSION.to_owned(), version.to_string().into());
        }
        labels.insert(INTERFACE.to_owned(), kernel.interface().to_string().into());
        let mut pack = Self {
            entrypoint: format!("/{name}"),
            config: image.config().cloned(),
            labels,
            files: BTreeMap::new(),
            size: 0,
        };
        pack.insert(name.to_owned(), true, bytes)?;
        Ok(pack)
    }

    /// Adds a file, whose path is absolute.
    ///
    /// # Errors
    /// If the guest would not see it there, another file is there, or the image becomes too large.
    pub fn file(
        &mut self,
        path: &str,
        is_executable: bool,
        bytes: Vec<u8>,
    ) -> Result<(), PackError> {
        let fault = |reason| PackError::Path { path: path.to_owned(), reason };
        let Some(relative) = path.strip_prefix('/') else { return Err(fault("not absolute")) };
        let parts: Vec<&str> = relative.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "" | "." | "..") || part.contains('\0')) {
            return Err(fault("has `.`, `..` or an empty name"));
        }
        if parts.iter().any(|part| part.starts_with(".wh.")) {
            return Err(fault("has a name that begins with `.wh.`, which marks what is removed"));
        }
        if parts.len() == 1 {
            return Err(fault("directly in `/`, where a guest sees no files"));
        }
        if is_pseudo(path.as_ref()) {
            return Err(fault("in a directory that no guest sees"));
        }
        self.insert(relative.to_owned(), is_executable, bytes)
    }

    fn insert(&mut self, path: String, executable: bool, bytes: Vec<u8>) -> Result<(), PackError> {
        let limit = Limits::default().max_decompressed;
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > limit {
            return Err(PackError::TooLarge { limit });
        }
        if self.files.contains_key(&path) {
            let path = format!("/{path}");
            return Err(PackError::Path { path, reason: "given twice" });
        }
        self.files.insert(path, (executable, bytes));
        Ok(())
    }

    /// The image.
    ///
    /// # Errors
    /// If it is one that could not be run: too large, too many files, a file in place of a
    /// directory.
    pub fn finish(self) -> Result<Packed, PackError> {
        let layer = self.layer().map_err(|source| PackError::Compress { source })?;
        let packed = gzip(&layer, Compression::default());
        let packed = packed.map_err(|source| PackError::Compress { source })?;
        let mut blobs = BTreeMap::new();
        let mut blob = |kind: &str, bytes: Vec<u8>| {
            let digest = digest(&bytes);
            let descriptor = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
            blobs.insert(digest, bytes);
            descriptor
        };
        let layer_descriptor = blob(LAYER_TYPE, packed);
        let config = text(json!({
            "architecture": "amd64",
            "os": "linux",
            "config": self.container(),
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        }));
        drop(layer);
        let config = blob(CONFIG_TYPE, config);
        let manifest = text(json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": [layer_descriptor],
            "annotations": self.labels,
        }));
        let digest = digest(&manifest);
        let mut descriptor = blob(MANIFEST_TYPE, manifest);
        if let Some(descriptor) = descriptor.as_object_mut() {
            let platform = json!({"architecture": "amd64", "os": "linux"});
            descriptor.insert("platform".to_owned(), platform);
        }
        let packed = Packed { blobs, descriptor, digest };
        packed.check()?;
        Ok(packed)
    }

    /// Settings that a container of the image is started with.
    fn container(&self) -> Value {
        let mut container = Map::new();
        container.insert("Entrypoint".to_owned(), json!([self.entrypoint]));
        container.insert("Labels".to_owned(), self.labels.clone().into());
        if let Some(config) = &self.config {
            let env: Vec<_> = config.env().map(|(name, value)| format!("{name}={value}")).collect();
            for (key, words) in [("Cmd", config.app_args.clone()), ("Env", env)] {
                if !words.is_empty() {
                    container.insert(key.to_owned(), words.into());
                }
            }
        }
        container.into()
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut entries: BTreeMap<&str, Option<&(bool, Vec<u8>)>> = BTreeMap::new();
        for (path, file) in &self.files {
            entries.insert(path, Some(file));
            for (at, _) in path.match_indices('/') {
                // A file in place of a directory is found out by reading the image.
                entries.entry(path.get(..at).unwrap_or_default()).or_insert(None);
            }
        }
        let mut builder = Builder::new(Vec::new());
        for (path, file) in entries {
            match file {
                None => append(&mut builder, path, EntryType::Directory, 0o755, &[])?,
                Some((executable, bytes)) => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    append(&mut builder, path, EntryType::Regular, mode, bytes)?;
                }
            }
        }
        builder.into_inner()
    }
}

impl Packed {
    /// The image as the index of a layout lists it.
    pub(crate) fn tagged(&self, tag: &str) -> Value {
        let mut descriptor = self.descriptor.clone();
        if let Some(descriptor) = descriptor.as_object_mut() {
            descriptor.insert("annotations".to_owned(), json!({crate::manifest::TAG: tag}));
        }
        descriptor
    }

    /// All files of a layout with this image alone.
    #[must_use]
    pub fn files(&self, tag: &str) -> BTreeMap<String, Vec<u8>> {
        let blobs = self.blobs.iter();
        let blobs = blobs.map(|(digest, bytes)| (blob_path(digest), bytes.clone()));
        let mut files: BTreeMap<String, Vec<u8>> = blobs.collect();
        files.insert(MARK.to_owned(), MARK_TEXT.as_bytes().to_vec());
        files.insert(INDEX.to_owned(), text(index(vec![self.tagged(tag)])));
        files
    }

    /// Reads the image as it will be read.
    fn check(&self) -> Result<(), Error> {
        let limits = Limits::default();
        let mut layout = Layout::in_memory(self.files(crate::manifest::DEFAULT_TAG));
        let manifest = Manifest::read(&mut layout, None)?;
        let rootfs = Rootfs::read(&mut layout, &manifest, &limits)?;
        drop(layout);
        let process = Process::of(&manifest.config, &[])?;
        let mut archive = Vec::new();
        HermitImage::new(&rootfs, &process, &limits)?.write(&mut archive)?;
        let name = process.name;
        Image::parse(archive, &limits).map_err(|source| Error::Image { name, source })?;
        Ok(())
    }
}

/// An index of these descriptors.
fn index(manifests: Vec<Value>) -> Value {
    json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests})
}

/// Path in a layout of the blob with a digest.
pub(crate) fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A document whose text is always the same.
pub(crate) fn text(mut value: Value) -> Vec<u8> {
    // Another crate may have turned on the feature that keeps objects in the order of insertion.
    value.sort_all_objects();
    value.to_string().into_bytes()
}

/// A Hermit image archive of an ELF file and its configuration.
fn archive(
    elf: Vec<u8>,
    text: &[u8],
    failed: &impl Fn(nerite_loader::Error) -> Error,
) -> Result<Vec<u8>, PackError> {
    let config = ImageConfig::parse(text).map_err(failed)?;
    let path = config.kernel.trim_start_matches("./").trim_start_matches('/');
    if path == "hermit.toml" {
        return Err(PackError::Name { name: config.kernel.clone() });
    }
    let write = || {
        let mut builder = Builder::new(Vec::new());
        append(&mut builder, path, EntryType::Regular, 0o755, &elf)?;
        append(&mut builder, "hermit.toml", EntryType::Regular, 0o644, text)?;
        // The layer is compressed.
        gzip(&builder.into_inner()?, Compression::none())
    };
    write().map_err(|source| PackError::Compress { source })
}

fn append(
    to: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    to.append_data(&mut header, path, bytes)
}

fn gzip(bytes: &[u8], level: Compression) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), level);
    encoder.write_all(bytes)?;
    encoder.finish()
}
