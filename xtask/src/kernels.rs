//! Builds the test kernels: a workspace of its own, since guests need another panic strategy and
//! link arguments than host programs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use crate::build::{self, cargo};
use crate::{paths, progress};

/// Variables that a shell may have set for host programs; none of them is meant for a guest.
const NOT_FOR_GUESTS: [&str; 5] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
];

/// The folder of the test kernels' workspace.
pub(crate) fn source() -> PathBuf {
    paths::root().join("tests/kernels")
}

/// A cargo for the guests' workspace, which builds under `target/kernels`.
pub(crate) fn guest_cargo(subcommand: &str) -> std::process::Command {
    let mut command = cargo();
    for name in NOT_FOR_GUESTS {
        command.env_remove(name);
    }
    command
        .current_dir(source())
        .arg(subcommand)
        .arg("--target-dir")
        .arg(paths::target().join("kernels"));
    command
}

/// Builds all test kernels and says in which folder they are.
pub(crate) fn build() -> Result<PathBuf> {
    let step = progress::step("building the test kernels");
    build::run(
        guest_cargo("build").args(["--release", "--workspace", "--bins"]),
        "the test kernels",
    )?;
    step.done();
    Ok(paths::target().join("kernels/release"))
}

/// Builds one test kernel and says where it is.
pub(crate) fn build_one(name: &str) -> Result<PathBuf> {
    let step = progress::step(&format!("building the guest {name}"));
    build::run(guest_cargo("build").args(["--release", "--bin", name]), "the guest's sources")?;
    step.done();
    Ok(paths::target().join("kernels/release").join(name))
}

/// Builds the test kernel that a path names, if it names one; `false` if not.
pub(crate) fn build_named(path: &Path) -> Result<bool> {
    let name = name_of(path);
    if let Some(name) = &name {
        build_one(name)?;
    }
    Ok(name.is_some())
}

/// Returns `true` if a path is that of a test kernel, built or not.
pub(crate) fn is_named(path: &Path) -> bool {
    name_of(path).is_some()
}

/// Name of the test kernel at a path.
fn name_of(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    let name = path.file_name()?.to_str()?;
    let is_kernel = path.parent() == Some(&paths::target().join("kernels/release"))
        && source().join(format!("guests/src/bin/{name}.rs")).is_file();
    is_kernel.then(|| name.to_owned())
}

/// Settings in the `hermit.toml` of a Hermit image tar.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tar {
    memory: Option<String>,
    cpus: Option<u32>,
    kernel_args: Vec<String>,
    app_args: Vec<String>,
    env_vars: Vec<String>,
}

#[derive(Serialize)]
struct HermitToml<'a> {
    version: &'a str,
    kernel: &'a str,
    input: Input<'a>,
    requirements: Requirements<'a>,
}

#[derive(Serialize)]
struct Input<'a> {
    kernel_args: &'a [String],
    app_args: &'a [String],
    env_vars: &'a [String],
}

#[derive(Serialize)]
struct Requirements<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<u32>,
}

impl Tar {
    /// Packs `kernel` and a `hermit.toml` into the gzip'd tar `image`.
    pub(crate) fn pack(&self, kernel: &Path, image: &Path) -> Result<()> {
        ensure!(kernel.is_file(), "{} is not there", kernel.display());
        let config = toml::to_string(&HermitToml {
            version: "1",
            kernel: "kernel",
            input: Input {
                kernel_args: &self.kernel_args,
                app_args: &self.app_args,
                env_vars: &self.env_vars,
            },
            requirements: Requirements { memory: self.memory.as_deref(), cpus: self.cpus },
        })?;
        let write = || -> std::io::Result<()> {
            if let Some(folder) = image.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut tar =
                tar::Builder::new(GzEncoder::new(File::create(image)?, Compression::fast()));
            let mut header = tar::Header::new_gnu();
            header.set_size(config.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, "hermit.toml", config.as_bytes())?;
            tar.append_path_with_name(kernel, "kernel")?;
            tar.into_inner()?.finish()?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", image.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_what_has_a_source_is_a_test_kernel() {
        for path in ["/tmp/hello", "target/hello", "nothing"] {
            assert!(!build_named(Path::new(path)).unwrap(), "{path}");
        }
        let unknown = paths::target().join("kernels/release/no-such-kernel");
        assert!(!build_named(&unknown).unwrap());
    }

    #[test]
    fn a_tar_holds_the_kernel_and_its_settings() {
        let dir = tempfile::tempdir().unwrap();
        let (kernel, image) = (dir.path().join("k"), dir.path().join("images/k.hermit"));
        fs::write(&kernel, b"ELF").unwrap();
        let tar: Tar = toml::from_str("memory = '32M'\napp_args = ['a b']").unwrap();
        tar.pack(&kernel, &image).unwrap();
        let gzip = flate2::read::GzDecoder::new(File::open(&image).unwrap());
        let mut archive = tar::Archive::new(gzip);
        let mut texts = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut text = String::new();
            let mut entry = entry.unwrap();
            entry.read_to_string(&mut text).unwrap();
            texts.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(texts[1], ("kernel".to_owned(), "ELF".to_owned()));
        assert_eq!(texts[0].0, "hermit.toml");
        assert!(
            texts[0].1.contains("app_args = [\"a b\"]") && texts[0].1.contains("memory = \"32M\"")
        );
        assert!(!texts[0].1.contains("cpus"));
    }
}
