//! The state of a container on disk: a directory below the root.
//!
//! | file | contents |
//! |---|---|
//! | `config.json` | the bundle's, as it was when the container was created |
//! | `bundle` | a link to the bundle |
//! | `systemd` | present if systemd was asked for the cgroup |
//! | `process.json` | the [`Identity`] of its process; absent while the container is created |
//! | `start` | a FIFO that the container's process reads; absent once the guest was started |
//! | `paused` | present while the container is frozen |
//!
//! Everything else is derived: a container is *stopped* when its process has ended, by
//! whatever.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::process::Identity;

/// Version of the runtime specification that this runtime follows.
pub const OCI_VERSION: &str = "1.2.0";

/// Longest ID, in bytes: a file name.
const MAX_ID: usize = 255;

/// Returns the directory of all containers, given or by default.
#[must_use]
pub fn root(given: Option<&Path>) -> PathBuf {
    given.map_or_else(
        || {
            let runtime = std::env::var_os("XDG_RUNTIME_DIR");
            match runtime.filter(|_| !rustix::process::geteuid().is_root()) {
                Some(folder) => Path::new(&folder).join("nerite-oci"),
                None => PathBuf::from("/run/nerite-oci"),
            }
        },
        Path::to_owned,
    )
}

/// Status of a container: those of runtime-spec, "State", and `paused`, which all runtimes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work, or was killed.
    Creating,
    /// The guest waits for `start`.
    Created,
    /// The guest runs.
    Running,
    /// The guest is frozen.
    Paused,
    /// The guest has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// State of a container as engines and hooks read it (runtime-spec, "State").
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Version of the specification.
    pub oci_version: &'static str,
    /// ID of the container.
    pub id: String,
    /// Status of the container.
    pub status: Status,
    /// Its process, if that has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Absolute path of its bundle.
    pub bundle: PathBuf,
    /// Annotations of its bundle.
    pub annotations: HashMap<String, String>,
}

/// A container's directory.
#[derive(Debug)]
pub struct Container {
    id: String,
    folder: PathBuf,
}

impl Container {
    /// Makes the directory of a new container.
    ///
    /// # Errors
    /// If the ID is malformed or taken, or the directory cannot be made.
    pub fn create(root: &Path, id: &str) -> Result<Self> {
        let folder = folder_of(root, id)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .with_context(|| root.display().to_string())?;
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => Ok(Self { id: id.to_owned(), folder }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                bail!("container {id} exists already")
            }
            Err(error) => Err(error).with_context(|| folder.display().to_string()),
        }
    }

    /// Returns a container that exists, or `None`.
    ///
    /// # Errors
    /// If the ID is malformed.
    pub fn find(root: &Path, id: &str) -> Result<Option<Self>> {
        let folder = folder_of(root, id)?;
        Ok(folder.is_dir().then(|| Self { id: id.to_owned(), folder }))
    }

    /// Returns a container that exists.
    ///
    /// # Errors
    /// If it does not.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        Self::find(root, id)?.with_context(|| format!("container {id} does not exist"))
    }

    /// Returns the containers below `root`, ordered by ID.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn all(root: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| root.display().to_string())?,
        };
        let mut all: Vec<Self> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|id| Self::find(root, &id).ok().flatten())
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The container's ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Absolute path of a file of the container's state.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the bundle as it was when the container was created.
    ///
    /// # Errors
    /// If its copy cannot be read.
    pub fn bundle(&self) -> Result<Bundle> {
        let path = self.path("config.json");
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        let folder = fs::read_link(self.path("bundle")).context("bundle")?;
        Bundle::parse(&folder, &text).with_context(|| path.display().to_string())
    }

    /// Keeps the bundle as it is now, and whether systemd is asked for its cgroup.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_bundle(&self, bundle: &Bundle, systemd: bool) -> Result<()> {
        if systemd {
            self.write("systemd", &[])?;
        }
        let text = serde_json::to_vec(&bundle.spec)?;
        self.write("config.json", &text)?;
        std::os::unix::fs::symlink(&bundle.folder, self.path("bundle")).context("bundle")
    }

    /// The container's cgroup.
    ///
    /// # Errors
    /// If the bundle cannot be read, or the host has no cgroups.
    pub fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::of(&self.bundle()?, &self.id, self.path("systemd").exists())
    }

    /// Returns the container's process, or `None` while the container is created.
    #[must_use]
    pub fn process(&self) -> Option<Identity> {
        serde_json::from_slice(&fs::read(self.path("process.json")).ok()?).ok()
    }

    /// Writes down the container's process: from now on the container is created.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_process(&self, process: Identity) -> Result<()> {
        self.write("process.json", &serde_json::to_vec(&process)?)
    }

    /// Writes a file that is there as a whole or not at all.
    fn write(&self, name: &str, contents: &[u8]) -> Result<()> {
        write_whole(&self.path(name), contents)
    }

    /// Status of the container.
    #[must_use]
    pub fn status(&self) -> Status {
        let Some(process) = self.process() else {
            return Status::Creating;
        };
        if !process.is_alive() {
            Status::Stopped
        } else if self.path("start").exists() {
            Status::Created
        } else if self.path("paused").exists() {
            Status::Paused
        } else {
            Status::Running
        }
    }

    /// State of the container as the specification wants it.
    ///
    /// # Errors
    /// If the container's files cannot be read.
    pub fn state(&self) -> Result<State> {
        self.state_with(self.status())
    }

    /// State of the container for hooks, which is `status` whatever it is now.
    ///
    /// # Errors
    /// If the container's files cannot be read.
    pub fn state_with(&self, status: Status) -> Result<State> {
        let bundle = self.bundle()?;
        let process = self.process().filter(|_| status != Status::Stopped);
        Ok(State {
            oci_version: OCI_VERSION,
            id: self.id.clone(),
            status,
            pid: process.map(|process| process.pid),
            bundle: bundle.folder,
            annotations: bundle.spec.annotations().clone().unwrap_or_default(),
        })
    }

    /// Removes the directory.
    ///
    /// # Errors
    /// If something in it cannot be removed.
    pub fn remove(self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| self.folder.display().to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Writes a file that is there as a whole or not at all.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(contents))
        .and_then(|()| fs::rename(&temporary, path))
        .inspect_err(|_| _ = fs::remove_file(&temporary))
        .with_context(|| path.display().to_string())
}

fn folder_of(root: &Path, id: &str) -> Result<PathBuf> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    ensure!(
        !matches!(id, "" | "." | "..") && id.len() <= MAX_ID && id.bytes().all(is_allowed),
        "container ID {id:?} is not 1 to {MAX_ID} letters, digits and `_ + - .`"
    );
    Ok(std::path::absolute(root).context("current directory")?.join(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_files() {
        let root = tempfile::tempdir().unwrap();
        for id in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(256)] {
            assert!(Container::create(root.path(), id).is_err(), "{id:?}");
        }
        for id in ["a", "a.b", "-", "_+-.", &"x".repeat(255)] {
            Container::create(root.path(), id).unwrap();
            let error = Container::create(root.path(), id).unwrap_err();
            assert!(error.to_string().ends_with("exists already"), "{error}");
        }
        assert_eq!(Container::all(root.path()).unwrap().len(), 5);
    }

    #[test]
    fn a_container_that_was_never_finished_can_be_removed() {
        let root = tempfile::tempdir().unwrap();
        let container = Container::create(root.path(), "a").unwrap();
        assert_eq!(container.status(), Status::Creating);
        container.remove().unwrap();
        assert!(Container::find(root.path(), "a").unwrap().is_none());
    }
}
