//! The application of a container: rules that `vmm` and the OCI runtime share.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use oci_spec::image::ImageConfiguration;

use crate::Error;
use crate::text::short;

/// Directories of Linux's pseudo file systems, which a guest does not share with its host.
const PSEUDO: [&str; 3] = ["dev", "proc", "sys"];
/// Directories in which engines look for a program if the image has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `true` if an absolute path is in a directory that no guest sees.
#[must_use]
pub fn is_pseudo(path: &Path) -> bool {
    let first = path.components().nth(1).map(Component::as_os_str);
    first.is_some_and(|first| PSEUDO.iter().any(|name| first == OsStr::new(name)))
}

/// Paths in the root file system at which the program `name` is looked for, in order: one if it has
/// a slash, else one for each directory of `search`.
#[must_use]
pub fn candidates(name: &str, search: &str, directory: &Path) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![directory.join(name)];
    }
    let folders = search.split(':').filter(|folder| !folder.is_empty());
    folders.map(|folder| directory.join(folder).join(name)).collect()
}

/// The value of `PATH` in an environment.
#[must_use]
pub fn search_path<S: AsRef<str>>(env: &[S]) -> Option<&str> {
    env.iter().find_map(|entry| entry.as_ref().strip_prefix("PATH="))
}

/// `true` if `entry` is NAME=VALUE.
#[must_use]
pub fn is_assignment(entry: &str) -> bool {
    entry.split_once('=').is_some_and(|(name, _)| !name.is_empty())
}

/// The application of an image, with its arguments and environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its name, as the image has it.
    pub name: String,
    /// Paths at which it is looked for, in order.
    pub candidates: Vec<PathBuf>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, each NAME=VALUE.
    pub env: Vec<String>,
}

impl Process {
    /// The application of an image's configuration.
    ///
    /// `args` take the place of `Cmd`. Without `Entrypoint`, the first word of `Cmd` names the
    /// application all the same.
    ///
    /// # Errors
    /// If it names none, or says what no guest can have.
    pub fn of(config: &ImageConfiguration, args: &[String]) -> Result<Self, Error> {
        let fault = |reason: String| Error::Config { reason };
        let config = config.config().as_ref();
        let words = |of: Option<&Option<Vec<String>>>| {
            of.and_then(Option::as_ref).cloned().unwrap_or_default()
        };
        let mut first = words(config.map(|config| config.entrypoint()));
        let mut rest = words(config.map(|config| config.cmd()));
        if first.is_empty() && !rest.is_empty() {
            first.push(rest.remove(0));
        }
        let nothing = || fault("neither Entrypoint nor Cmd names an application".to_owned());
        let name = first.first().filter(|name| !name.is_empty()).cloned().ok_or_else(nothing)?;
        if !args.is_empty() {
            rest = args.to_vec();
        }
        let env = words(config.map(|config| config.env()));
        if let Some(entry) = env.iter().find(|entry| !is_assignment(entry)) {
            return Err(fault(format!("Env has {:?}, which is not NAME=VALUE", short(entry))));
        }
        let directory = config.and_then(|config| config.working_dir().as_deref());
        let directory = Path::new(directory.filter(|it| !it.is_empty()).unwrap_or("/"));
        if !directory.is_absolute() {
            return Err(fault(format!(
                "WorkingDir {:?} is not absolute",
                short(&directory.to_string_lossy())
            )));
        }
        let search = search_path(&env).unwrap_or(DEFAULT_PATH);
        let candidates = candidates(&name, search, directory);
        Ok(Self { name, candidates, args: first.into_iter().skip(1).chain(rest).collect(), env })
    }
}

#[cfg(test)]
#[path = "process_test.rs"]
mod tests;
