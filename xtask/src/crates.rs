//! The crates of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths;

/// A library of the workspace.
#[derive(Debug)]
pub(crate) struct Library {
    /// Name of the package.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// `true` if it is published; the others are for tests.
    pub(crate) is_published: bool,
}

/// All libraries, by folder.
pub(crate) fn libraries() -> Result<Vec<Library>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(paths::root().join("crates")).context("cannot read crates/")? {
        found.push(Library::read(&folder?.path())?);
    }
    found.sort_by(|one, other| one.folder.cmp(&other.folder));
    Ok(found)
}

impl Library {
    fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("Cargo.toml");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let read = || {
            let manifest: toml::Table = text.parse()?;
            let package = manifest.get("package").context("no [package]")?;
            let name = package.get("name").and_then(toml::Value::as_str).context("no name")?;
            let is_published = package.get("publish").and_then(toml::Value::as_bool) != Some(false);
            anyhow::Ok(Self { name: name.to_owned(), folder: folder.to_owned(), is_published })
        };
        read().with_context(|| file.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn support_for_tests_is_not_published() {
        let libraries = libraries().unwrap();
        let published =
            |name| libraries.iter().find(|library| library.name == name).unwrap().is_published;
        assert!(published("nerite-machine") && !published("nerite-testkit"));
    }
}
