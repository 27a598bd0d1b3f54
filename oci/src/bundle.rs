//! A bundle's `config.json`, read and checked.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec, SpecBuilder};

/// Largest `config.json`, in bytes. Engines write some 10 KB.
const MAX_SIZE: u64 = 4 << 20;

/// A container as its engine describes it.
#[derive(Debug)]
pub struct Bundle {
    /// Absolute path of the bundle's directory.
    pub folder: PathBuf,
    /// Contents of `config.json`.
    pub spec: Spec,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
}

impl Bundle {
    /// Reads the bundle in the directory `folder`.
    ///
    /// # Errors
    /// If `config.json` cannot be read, is malformed, or asks for what a guest cannot have.
    pub fn read(folder: &Path) -> Result<Self> {
        let folder =
            folder.canonicalize().with_context(|| format!("bundle {}", folder.display()))?;
        let path = folder.join("config.json");
        let text = read_limited(&path)?;
        Self::parse(&folder, &text).with_context(|| path.display().to_string())
    }

    /// Parses the text of a `config.json` whose bundle is the directory `folder`.
    ///
    /// # Errors
    /// If it is malformed, or asks for what a guest cannot have.
    pub fn parse(folder: &Path, text: &[u8]) -> Result<Self> {
        let spec: Spec = serde_json::from_slice(text)?;
        let version = spec.version();
        ensure!(
            version.starts_with("1."),
            "ociVersion {version:?} is not supported (1.0.0 to 1.3.x are)"
        );
        let root = spec.root().as_ref().context("root is missing")?;
        let rootfs = folder.join(root.path());
        let bundle = Self { folder: folder.to_owned(), rootfs, spec };
        let process = bundle.process()?;
        ensure!(
            process.args().as_ref().is_some_and(|args| !args.is_empty()),
            "process.args is empty: its first word names the guest's image"
        );
        ensure!(process.cwd().is_absolute(), "process.cwd {:?} is not absolute", process.cwd());
        for namespace in bundle.namespaces() {
            ensure!(
                !matches!(namespace.typ(), LinuxNamespaceType::User | LinuxNamespaceType::Time),
                "a {} namespace is not supported",
                namespace.typ()
            );
        }
        Ok(bundle)
    }

    /// The container's program.
    ///
    /// # Errors
    /// If there is none.
    pub fn process(&self) -> Result<&Process> {
        self.spec.process().as_ref().context("process is missing")
    }

    /// The namespaces of the container.
    pub fn namespaces(&self) -> &[oci_spec::runtime::LinuxNamespace] {
        let linux = self.spec.linux().as_ref();
        linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
    }

    /// `true` if the container has a network of its own.
    #[must_use]
    pub fn has_network_namespace(&self) -> bool {
        self.namespaces().iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Network)
    }

    /// `true` if the container only holds the namespaces of a pod, by the annotations of containerd
    /// and CRI-O.
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        let annotations = self.spec.annotations().iter().flatten();
        annotations
            .filter(|(name, _)| SANDBOX.contains(&name.as_str()))
            .any(|(_, value)| value == "sandbox")
    }

    /// The value of an annotation of this runtime, the name of which is `nerite.` and `name`.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.spec.annotations().as_ref()?;
        annotations.get(&format!("{PREFIX}{name}")).map(String::as_str)
    }

    /// Annotations of this runtime that are not among `known`.
    pub fn unknown_annotations<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let annotations = self.spec.annotations().iter().flatten();
        annotations.map(|(name, _)| name.as_str()).filter(move |name| {
            name.strip_prefix(PREFIX).is_some_and(|name| !known.contains(&name))
        })
    }
}

/// Annotations with the kind of a container in a pod.
const SANDBOX: [&str; 2] =
    ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];

/// Beginning of the names of this runtime's annotations.
pub const PREFIX: &str = "nerite.";

fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut text))
        .with_context(|| path.display().to_string())?;
    ensure!(text.len() as u64 <= MAX_SIZE, "{}: more than 4 MiB", path.display());
    Ok(text)
}

/// Writes an example of a `config.json` into the directory `folder`.
///
/// # Errors
/// If there is one, or it cannot be written.
pub fn write_example(folder: &Path) -> Result<()> {
    let mut spec = SpecBuilder::default().hostname("nerite").build()?;
    if let Some(process) = spec.process_mut() {
        process.set_args(Some(vec!["/hello".to_owned()]));
        process.set_capabilities(None);
        process.set_env(None);
    }
    // A guest has neither the pseudo file systems of Linux nor paths of them to hide.
    spec.set_mounts(None);
    if let Some(linux) = spec.linux_mut() {
        linux.set_masked_paths(None);
        linux.set_readonly_paths(None);
    }
    let path = folder.join("config.json");
    let file = fs::File::create_new(&path).with_context(|| path.display().to_string())?;
    serde_json::to_writer_pretty(file, &spec).with_context(|| path.display().to_string())
}
