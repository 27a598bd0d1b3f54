//! Builds our own programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{paths, progress};

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).stdin(Stdio::null());
    command
}

/// Builds the release `vmm` and says where it is.
pub(crate) fn vmm() -> Result<PathBuf> {
    let step = progress::step("building vmm");
    let status = cargo()
        .args(["build", "--quiet", "--release", "--package", "nerite-vmm", "--bin", "vmm", "--target-dir"])
        .arg(paths::target())
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "vmm does not build");
    step.done();
    Ok(paths::target().join("release/vmm"))
}
