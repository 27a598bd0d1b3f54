//! `cargo xtask dist`: what a package of `vmm` is made of, in `target/dist`: the stripped program,
//! shell completions and man pages, its bill of materials, digests of these, and the book that
//! `docs` is, where mdBook is installed.

mod sbom;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::{self, cargo, quiet};
use crate::{paths, progress};

pub(crate) fn main() -> Result<()> {
    let folder = paths::target().join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;

    let mut command = cargo();
    // With the features that the tests have, so that after them there is nothing to build.
    command.args(["build", "--workspace", "--all-features", "--example", "cli_files"]);
    build::run(
        command.arg("--target-dir").arg(paths::target()),
        "what writes shell completions and man pages",
    )?;
    quiet(Command::new(paths::target().join("debug/examples/cli_files")).arg(&folder))?;

    let program = folder.join("vmm");
    fs::copy(build::vmm()?, &program)
        .with_context(|| format!("cannot write {}", program.display()))?;
    let status = Command::new("strip").arg(&program).status();
    let status =
        status.context("cannot run strip (package binutils, which comes with a C compiler)")?;
    ensure!(status.success(), "strip failed on {}", program.display());
    fs::write(folder.join("vmm.cdx.json"), sbom::document()?)
        .context("cannot write the bill of materials")?;
    write_digests(&folder)?;
    let book = if build_book(&folder.join("book"))? { ", the book" } else { "" };
    progress::say(&format!(
        "{} holds vmm{book}, completions, man pages, bill of materials and digests",
        folder.display()
    ));
    Ok(())
}

/// Writes `SHA256SUMS`, for `sha256sum --check`, with the files of the folder.
fn write_digests(folder: &Path) -> Result<()> {
    const NAME: &str = "SHA256SUMS";
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).context("cannot read the folder")? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != NAME {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let output = Command::new("sha256sum").arg("--").args(&names).current_dir(folder).output();
    let output = output.context("cannot run sha256sum (package coreutils)")?;
    ensure!(output.status.success(), "sha256sum failed");
    fs::write(folder.join(NAME), output.stdout).context("cannot write the digests")
}

/// Makes the book of the pages in `docs`. Returns `false`, and prints what is missing, where there
/// is no mdBook.
fn build_book(folder: &Path) -> Result<bool> {
    if !build::works(Command::new("mdbook").arg("--version")) {
        progress::say("no book is made: mdbook is not installed (cargo install mdbook)");
        return Ok(false);
    }
    let mut mdbook = Command::new("mdbook");
    mdbook.arg("build").arg(paths::root().join("docs")).arg("--dest-dir").arg(folder);
    quiet(&mut mdbook)?;
    Ok(true)
}
