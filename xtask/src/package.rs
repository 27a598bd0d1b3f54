//! Checks that each crate can be published, and used, alone: from its package, by the programs in
//! its README.
//!
//! `cargo package` can verify what it packs, but it takes a crate's neighbours from a cache that
//! goes by their version, which does not change while they do. So the packages are unpacked beside
//! each other here, and what is built is made of them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;

use crate::build::{self, cargo};
use crate::results::{Failure, Results};
use crate::{crates, paths, progress};

mod metadata;
mod programs;

/// Packs every crate, and checks that each one builds from its package: as the only dependency of
/// the programs in its README, or by itself if that has none.
pub(crate) fn check() -> Result<Results> {
    let packed = pack()?;
    let folder = paths::target().join("package-check");
    let (sources, projects) = (folder.join("src"), folder.join("programs"));
    for old in [&sources, &projects] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
    }
    let (mut names, mut to_check) = (Vec::new(), Vec::new());
    for package in packed {
        unpack(&package, &sources)?;
        let stem = package.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (name, source) = (name_of(&stem), sources.join(&stem));
        metadata::check(&source, name)
            .with_context(|| format!("the package {stem} would be refused, or not be found"))?;
        let users = programs::write(&projects, name, &source)?;
        if users.is_empty() {
            let is_program = source.join("src/main.rs").is_file();
            ensure!(is_program, "the README of {name} has no program");
            to_check.push(name.to_owned());
        }
        to_check.extend(users.into_iter().map(|project| project.name));
        names.push(stem);
    }
    fs::write(folder.join("Cargo.toml"), workspace(&names, &profiles()?))
        .context("cannot write a workspace of the packages")?;
    fs::copy(paths::root().join("Cargo.lock"), folder.join("Cargo.lock"))
        .context("cannot copy Cargo.lock")?;
    let mut results = Results::default();
    // One at a time, so that none gets a feature of a dependency that another one asked for.
    for name in &to_check {
        let mut command = cargo();
        // Dependencies are those that clippy had checked, where the features are the same.
        command.args(["check", "--quiet", "--offline", "--target-dir"]).arg(paths::target());
        match build::quiet(command.args(["--package", name]).current_dir(&folder)) {
            Ok(()) => results += Results::passed(),
            Err(error) => {
                let error = format!("{error:#}");
                progress::print(&format!("FAIL {name}: {error}"));
                results += Results::failed(Failure::new(name, error));
            }
        }
    }
    programs::client_is_small(&folder)?;
    Ok(results)
}

/// Packs every crate that is published; returns the packages.
fn pack() -> Result<Vec<PathBuf>> {
    let target = paths::target();
    let packed = target.join("package");
    for old in crates_in(&packed).unwrap_or_default() {
        fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    let mut command = cargo();
    // The sources are those of the tree, committed or not: that is what is tested here.
    command.args(["package", "--workspace", "--exclude", "xtask*", "--allow-dirty", "--no-verify"]);
    // Support for tests goes nowhere.
    for library in crates::libraries()?.iter().filter(|library| !library.is_published) {
        command.args(["--exclude", &library.name]);
    }
    let output =
        command.arg("--target-dir").arg(&target).output().context("cannot run cargo package")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !has_warning(&text), "cargo package:\n{text}");
    let packages = crates_in(&packed)?;
    ensure!(!packages.is_empty(), "cargo package packed nothing");
    Ok(packages)
}

/// Returns `true` if cargo has warned of a package, and not of the network.
fn has_warning(text: &str) -> bool {
    let is_network = |line: &str| line.starts_with("warning: spurious network error");
    text.lines().any(|line| line.starts_with("warning") && !is_network(line))
}

fn crates_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "crate"));
    found.sort();
    Ok(found)
}

fn unpack(package: &Path, to: &Path) -> Result<()> {
    let open = || -> std::io::Result<()> {
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(package)?));
        // All files in a package have the same time, by which cargo would not notice that they
        // changed.
        archive.set_preserve_mtime(false);
        archive.unpack(to)
    };
    open().with_context(|| format!("cannot unpack {}", package.display()))
}

/// The crate's name: what stands before the version in `name-1.2.3`.
fn name_of(package: &str) -> &str {
    package.rsplit_once('-').map_or(package, |(name, _)| name)
}

/// Profiles of our own workspace, as the text of a manifest.
fn profiles() -> Result<String> {
    let file = paths::root().join("Cargo.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut manifest: toml::Table = text.parse().context("Cargo.toml is malformed")?;
    manifest.retain(|name, _| name == "profile");
    toml::to_string(&manifest).context("cannot write the profiles of Cargo.toml")
}

/// A workspace of the packages, in which each takes the others from here rather than from the
/// registry. `profiles` as in ours, since what is built in another way is built again.
fn workspace(packages: &[String], profiles: &str) -> String {
    let mut text = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [\"src/*\", \"programs/*\"]\n\n{profiles}\n[patch.crates-io]\n"
    );
    for package in packages {
        text.push_str(&format!("{} = {{ path = \"src/{package}\" }}\n", name_of(package)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_built_as_the_tree_is() {
        let workspace: toml::Table = workspace(&[], &profiles().unwrap()).parse().unwrap();
        assert_eq!(workspace["profile"]["release"]["panic"].as_str(), Some("abort"));
        assert_eq!(workspace["workspace"]["resolver"].as_str(), Some("3"));
    }

    #[test]
    fn warnings_are_noticed() {
        assert!(has_warning("   Packaging a\nwarning: manifest has no documentation\n"));
        assert!(!has_warning("   Packaging a\n    Packaged 3 files\n"));
        assert!(!has_warning("warning: spurious network error (3 tries remaining)\n"));
    }

    #[test]
    fn packages_replace_those_of_the_registry() {
        let text = workspace(&["nerite-bus-0.1.0".to_owned()], "");
        assert!(text.ends_with("nerite-bus = { path = \"src/nerite-bus-0.1.0\" }\n"));
    }
}
