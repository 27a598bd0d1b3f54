//! Builds our own programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, progress};

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).stdin(Stdio::null());
    // Cargo sets these for the package it runs, which is xtask, and not for those that xtask builds.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a build; its messages go where ours go. `what` is named when it fails.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "{what} do not build");
    Ok(())
}

/// Builds the release `vmm` and says where it is.
pub(crate) fn vmm() -> Result<PathBuf> {
    let step = progress::step("building vmm");
    let mut command = cargo();
    command.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "nerite-vmm",
        "--bin",
        "vmm",
        "--target-dir",
    ]);
    run(command.arg(paths::target()), "the sources of vmm")?;
    step.done();
    Ok(paths::target().join("release/vmm"))
}

/// Runs a command whose output is of interest only when it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{}\n{}{}", output.status, err, out);
    }
    Ok(())
}
