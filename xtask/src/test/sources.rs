//! Checks of the sources, which run nothing of them.

use std::process::Stdio;

use anyhow::Context;

use super::Run;
use crate::build::{cargo, quiet};
use crate::{fuzz, kernels, paths, style};

/// Checks the sources without running them; skips nothing that can be downloaded if `all`.
pub(super) fn check(run: &mut Run, all: bool) {
    run.check("style", style::check);
    run.check("format", || {
        quiet(cargo().args(["fmt", "--all", "--check"]))?;
        for folder in ["tests/kernels", "tests/hermit-app", "fuzz"] {
            quiet(
                cargo().args(["fmt", "--all", "--check"]).current_dir(paths::root().join(folder)),
            )
            .with_context(|| folder.to_owned())?;
        }
        Ok(())
    });
    run.check("clippy", || {
        let arguments = ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features"];
        quiet(cargo().args(arguments).args(["--", "-D", "warnings"]))
    });
    if is_installed("deny") {
        run.check("licences and sources of dependencies", || {
            // Duplicate versions are warnings, each with a graph; only errors are of interest.
            quiet(cargo().args([
                "deny",
                "--log-level",
                "error",
                "check",
                "licenses",
                "bans",
                "sources",
            ]))
        });
    } else {
        run.skip(
            "licences and sources of dependencies",
            "cargo-deny is not installed (cargo install --locked cargo-deny)",
        );
    }
    run.check("clippy on the test kernels", || {
        let mut command = kernels::guest_cargo("clippy");
        quiet(command.args([
            "--quiet",
            "--release",
            "--workspace",
            "--bins",
            "--",
            "-D",
            "warnings",
        ]))
    });
    let name = "clippy on the fuzz targets";
    let obstacle = if all { None } else { fuzz::obstacle() };
    match obstacle {
        Some(reason) => run.skip(name, &reason),
        None => run.check(name, fuzz::check),
    }
}

/// Returns `true` if cargo has this subcommand.
fn is_installed(subcommand: &str) -> bool {
    let mut command = cargo();
    command.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subcommands_of_cargo_are_found() {
        assert!(is_installed("fmt"));
        assert!(!is_installed("no-such-subcommand"));
    }
}
