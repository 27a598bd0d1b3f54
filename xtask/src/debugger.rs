//! A GDB that runs in the lab: one that needs no Python, whose library is thousands of files.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::packages::{self, Tool};
use crate::{paths, progress};

/// The full GDB of a host is as good for the libraries it brings; `gdb-minimal` is installed where
/// there is none.
pub(crate) const GDB: Tool = Tool { program: "gdb", package: "gdb-minimal" };

/// Returns its path, after downloading it if need be.
pub(crate) fn get() -> Result<PathBuf> {
    let installed = packages::need(&[GDB])?.into_iter().next().context("no path of gdb")?;
    if !needs_python(&installed)? {
        return Ok(installed);
    }
    let folder = paths::lab().join("gdb");
    let program = folder.join("usr/bin/gdb");
    if !program.is_file() {
        let step = progress::step(&format!("downloading {} for the lab", GDB.package));
        std::fs::create_dir_all(paths::lab())?;
        let work = tempfile::tempdir_in(paths::lab())?;
        let deb = packages::download(GDB.package, work.path())?;
        let fresh = tempfile::tempdir_in(paths::lab())?;
        let status = Command::new("dpkg").arg("-x").arg(&deb).arg(fresh.path()).status();
        ensure!(status.context("cannot run dpkg")?.success(), "cannot unpack {}", deb.display());
        // Another run may have been faster.
        if std::fs::rename(fresh.path(), &folder).is_ok() {
            let _ = fresh.keep();
        }
        step.done();
    }
    Ok(program)
}

fn needs_python(program: &PathBuf) -> Result<bool> {
    let output =
        Command::new("ldd").arg(program).output().context("cannot run ldd (package libc-bin)")?;
    Ok(String::from_utf8_lossy(&output.stdout).contains("libpython"))
}
