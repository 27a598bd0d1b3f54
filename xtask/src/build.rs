//! Builds our own programs.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, progress};

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root()).stdin(Stdio::null());
    // Cargo sets these for the package it runs, which is xtask, and not for those that xtask
    // builds.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_")
            || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
        {
            command.env_remove(name);
        }
    }
    // It is set for the harness of tests. Build scripts of many crates look at it: what a test
    // builds with it would be compiled anew, and once more in the next build.
    command.env_remove("RUSTC_BOOTSTRAP");
    command
}

/// The cargo that runs us, for builds with a sanitizer: the compiler then takes flags that are not
/// stable yet. They are as good in this compiler as in a nightly one of its age, and there is one
/// toolchain for everything.
pub(crate) fn sanitizing() -> Command {
    let mut command = cargo();
    command.env("RUSTC_BOOTSTRAP", "1");
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// Reason why nothing can be built with AddressSanitizer here, if there is one.
pub(crate) fn sanitizer_obstacle() -> Option<&'static str> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .current_dir(paths::root())
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let folder = PathBuf::from(String::from_utf8_lossy(&text).trim_end());
    obstacle_in(&folder)
}

/// The same for a toolchain whose libraries are in this folder.
fn obstacle_in(folder: &Path) -> Option<&'static str> {
    let mut entries = folder.read_dir().into_iter().flatten().flatten();
    let is_there = entries.any(|entry| entry.file_name().to_string_lossy().ends_with(RUNTIME));
    (!is_there).then_some("this toolchain has no AddressSanitizer (rustup's toolchains have it)")
}

/// Returns `true` if a command can be run and succeeds, whatever it says.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a build. On a terminal cargo shows how far it is; elsewhere only what is wrong is shown.
/// `what` is named when it fails.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<()> {
    let shown = progress::hand_over();
    if shown.is_none() {
        command.env("CARGO_TERM_QUIET", "true");
    }
    let status = command.status().context("cannot run cargo")?;
    drop(shown);
    ensure!(status.success(), "{what} do not build");
    Ok(())
}

/// Without shared libraries to find and link at every start, and with the addresses in it that
/// depend on where it is loaded listed in 1 KiB instead of 240, which every start goes through. Set
/// here and not for the whole repository, so that other builds need no static C library.
const STATIC: &str = r#"target.x86_64-unknown-linux-gnu.rustflags=["-Ctarget-feature=+crt-static","-Clink-arg=-Wl,-z,pack-relative-relocs"]"#;
/// The only target, this host's. Named to cargo, so that settings of it are for programs and tests,
/// and not for what runs while they are built.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// End of the name of AddressSanitizer's library, which begins with the toolchain's channel.
const RUNTIME: &str = "_rt.asan.a";

/// Builds the release `vmm`, statically linked where that can be done, and says where it is. It is
/// at `target/release/vmm` as well.
pub(crate) fn vmm() -> Result<PathBuf> {
    let built = vmm_of("release")?;
    let usual = paths::target().join("release/vmm");
    if built != usual {
        let failed = || format!("cannot write {}", usual.display());
        std::fs::create_dir_all(paths::target().join("release")).with_context(failed)?;
        // Another one may run, and keeps its file then.
        match std::fs::remove_file(&usual) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(failed);
            }
            _ => std::fs::hard_link(&built, &usual).with_context(failed)?,
        }
    }
    Ok(built)
}

/// Builds a `vmm` that is quick to build.
pub(crate) fn quick_vmm() -> Result<PathBuf> {
    vmm_of("quick")
}

fn vmm_of(profile: &str) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--profile", profile, "--package", "nerite-vmm", "--bin", "vmm"]);
    let folder = if has_static_libc() {
        command.args(["--target", TARGET, "--config", STATIC]);
        paths::target().join(TARGET)
    } else {
        progress::say(
            "linking vmm dynamically: there is no libc.a (Debian: libc6-dev, Fedora: glibc-static)",
        );
        paths::target()
    };
    let program = folder.join(profile).join("vmm");
    if !program.exists() {
        progress::say("the first build of vmm takes one to three minutes on two processors");
    }
    let step = progress::step("building vmm");
    run(command.arg("--target-dir").arg(paths::target()), "the sources of vmm")?;
    step.done();
    Ok(program)
}

/// Builds the debug `vmm` as the tests do, which is no work after them, and says where it is.
pub(crate) fn vmm_for_tests() -> Result<PathBuf> {
    let step = progress::step("building vmm with debug assertions");
    let target = paths::target();
    let mut command = cargo();
    command
        .args(["test", "--no-run", "--workspace", "--all-features", "--target-dir"])
        .arg(&target);
    run(&mut command, "the sources of vmm")?;
    step.done();
    Ok(target.join("debug/vmm"))
}

/// Builds xtask-host, as the tests do, which is no work after them, and says where it is.
pub(crate) fn host_tool() -> Result<PathBuf> {
    let target = paths::target();
    let mut command = cargo();
    command.args(["build", "--workspace", "--all-features", "--bin", "xtask-host", "--target-dir"]);
    run(command.arg(&target), "the sources of xtask-host")?;
    Ok(target.join("debug/xtask-host"))
}

/// Builds all examples, as the tests do, and says in which folder they are.
pub(crate) fn examples() -> Result<PathBuf> {
    let target = paths::target();
    let mut command = cargo();
    command.args(["build", "--quiet", "--workspace", "--all-features", "--examples"]);
    quiet(command.arg("--target-dir").arg(&target))?;
    Ok(target.join("debug/examples"))
}

/// Returns `true` if the C compiler knows where a static C library is.
pub(crate) fn has_static_libc() -> bool {
    let output = Command::new("cc").arg("-print-file-name=libc.a").output();
    // It prints the bare name of what it does not find.
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().starts_with('/'))
}

/// Runs a command whose output is of interest only when it fails.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{}\n{}{}", output.status, err, out);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_the_same_under_the_harness_of_tests() {
        let bootstrap = |command: &Command| {
            let mut envs = command.get_envs().filter(|(name, _)| *name == "RUSTC_BOOTSTRAP");
            envs.next().map(|(_, value)| value.map(ToOwned::to_owned))
        };
        assert_eq!(bootstrap(&cargo()), Some(None));
        assert_eq!(bootstrap(&sanitizing()), Some(Some("1".into())));
    }

    #[test]
    fn a_toolchain_without_the_sanitizer_is_an_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        assert!(obstacle_in(&folder.path().join("absent")).is_some());
        std::fs::write(folder.path().join("librustc-stable_rt.tsan.a"), "").unwrap();
        assert!(obstacle_in(folder.path()).is_some());
        std::fs::write(folder.path().join("librustc-stable_rt.asan.a"), "").unwrap();
        assert_eq!(obstacle_in(folder.path()), None);
    }
}
