//! A Rust toolchain with library sources: Debian's `rustc-web` and `rust-web-src`, unpacked and not
//! installed, so that the host's own toolchain never sees them.
//!
//! Cargo is the one that runs us: it reads the library sources that belong to the compiler it is
//! told to use.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{build, packages, paths, progress};

/// The compiler and its library sources; what they depend on is found out.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// Packages that compiling any Rust program on this host takes, or others that have the same.
const ASSUMED: [&str; 3] = ["gcc", "binutils", "libc6-dev"];
/// The first 1.x whose compiler understands the kernel with our patches.
const OLDEST: u32 = 96;

/// Variables that a shell may have set for other programs and other kernels.
const NOT_FOR_US: [&str; 8] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "HERMIT_LOG_LEVEL_FILTER",
];

/// A toolchain that is there and runs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The folder that stands for `/usr`.
    usr: PathBuf,
    /// The linker of the pinned toolchain; Debian's has none of its own.
    lld: PathBuf,
    /// Version, as the compiler says it.
    pub(crate) version: String,
}

impl Toolchain {
    /// The toolchain in `folder`, downloaded first if it is not there, or again if it is too old:
    /// with old package lists, that is what comes.
    pub(crate) fn get(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            download(folder)?;
        }
        let mut toolchain = Self::open(folder)?;
        if !toolchain.is_new_enough() && packages::update().is_ok() {
            fs::remove_dir_all(folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
            download(folder)?;
            toolchain = Self::open(folder)?;
        }
        ensure!(
            toolchain.is_new_enough(),
            "Debian's rustc-web is {}, and 1.{OLDEST} is needed; the security archive has it (bookworm-security). \
             When that is set up, type:\n    apt-get update && rm -r {}",
            toolchain.version,
            folder.display()
        );
        Ok(toolchain)
    }

    /// The toolchain that is in `folder`.
    fn open(folder: &Path) -> Result<Self> {
        let mut toolchain = Self { usr: folder.join("usr"), lld: lld()?, version: String::new() };
        toolchain.version = toolchain.ask_version().with_context(|| {
            format!(
                "the compiler in {} does not run; delete that folder to get it again",
                folder.display()
            )
        })?;
        Ok(toolchain)
    }

    fn is_new_enough(&self) -> bool {
        let minor = self.version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        minor.is_some_and(|minor| minor >= OLDEST)
    }

    /// A cargo that builds with this toolchain, unstable options allowed.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = build::cargo();
        for name in NOT_FOR_US {
            command.env_remove(name);
        }
        command.env("RUSTC", self.rustc()).env("RUSTC_BOOTSTRAP", "1");
        command.env("LD_LIBRARY_PATH", self.library_path());
        command.env("CARGO_TARGET_X86_64_UNKNOWN_HERMIT_LINKER", &self.lld);
        command
    }

    fn rustc(&self) -> PathBuf {
        self.usr.join("bin/rustc")
    }

    fn library_path(&self) -> OsString {
        // Some packages have their libraries in /lib, where no system has two folders any more.
        let mut path = OsString::from(self.usr.join("lib/x86_64-linux-gnu"));
        path.push(":");
        path.push(self.usr.join("../lib/x86_64-linux-gnu"));
        if let Some(rest) = std::env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(rest);
        }
        path
    }

    fn ask_version(&self) -> Result<String> {
        let mut command = Command::new(self.rustc());
        command.arg("--version").env("LD_LIBRARY_PATH", self.library_path());
        let text = output_of(&mut command)?;
        Ok(text.trim().trim_start_matches("rustc ").to_owned())
    }
}

/// The linker that comes with the pinned toolchain.
fn lld() -> Result<PathBuf> {
    let sysroot =
        output_of(Command::new("rustc").args(["--print", "sysroot"]).current_dir(paths::root()))?;
    let lld = Path::new(sysroot.trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld");
    ensure!(
        lld.is_file(),
        "{} is not there; the toolchain that rustup installs has it",
        lld.display()
    );
    Ok(lld)
}

/// Unpacks the packages into `folder`, which is there afterwards only if all went well.
fn download(folder: &Path) -> Result<()> {
    let parent = folder.parent().context("the toolchain has no parent folder")?;
    let fresh = tempfile::tempdir_in(parent).context("cannot make a temporary folder")?;
    let names = match needed() {
        Ok(names) => names,
        // A machine that has just been set up has no package lists.
        Err(_) => {
            packages::update()?;
            needed().context("the Rust toolchain with library sources comes from Debian")?
        }
    };
    let step = progress::step(&format!(
        "downloading a Rust toolchain with library sources ({} packages)",
        names.len()
    ));
    for name in &names {
        let debs = tempfile::tempdir_in(parent).context("cannot make a temporary folder")?;
        let deb = packages::download(name, debs.path())?;
        output_of(Command::new("dpkg").arg("-x").arg(&deb).arg(fresh.path()))
            .with_context(|| format!("cannot unpack {name}"))?;
    }
    fs::rename(fresh.keep(), folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    step.done();
    Ok(())
}

/// The packages to download: ours, and those they depend on that this host has not installed.
fn needed() -> Result<BTreeSet<String>> {
    let mut needed = BTreeSet::new();
    let mut queue: Vec<String> = PACKAGES.iter().map(|&name| name.to_owned()).collect();
    while let Some(name) = queue.pop() {
        if ASSUMED.contains(&name.as_str()) || needed.contains(&name) || installed(&name) {
            continue;
        }
        let mut command = Command::new("apt-cache");
        // What it says depends on the language.
        let text = output_of(command.args(["depends", "--important", &name]).env("LC_ALL", "C"))
            .with_context(|| format!("the package lists do not know {name}"))?;
        queue.extend(dependencies(&text));
        needed.insert(name);
    }
    Ok(needed)
}

/// The packages in what `apt-cache depends` says; of alternatives all, and none that is only a name
/// for others.
fn dependencies(text: &str) -> impl Iterator<Item = String> + '_ {
    let names = text.lines().filter_map(|line| {
        let line = line.trim_start_matches([' ', '|']);
        line.strip_prefix("Depends: ").or_else(|| line.strip_prefix("PreDepends: "))
    });
    names.map(str::trim).filter(|name| !name.starts_with('<')).map(str::to_owned)
}

fn installed(package: &str) -> bool {
    output_of(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Returns what a command writes to its standard output.
pub(super) fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} failed ({}):\n{}", output.status, said.trim_end());
    String::from_utf8(output.stdout).with_context(|| format!("{program} does not speak UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_real_packages() {
        let text = "rustc-web\n  Depends: libc6\n |Depends: gcc\n  Depends: <libc-dev>\n    libc6-dev\n \
                    PreDepends: dpkg\n  Conflicts: rustc\n";
        assert_eq!(dependencies(text).collect::<Vec<_>>(), ["libc6", "gcc", "dpkg"]);
    }

    #[test]
    fn a_command_that_fails_is_quoted() {
        let error = output_of(Command::new("sh").args(["-c", "echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh failed") && error.contains("why"), "{error}");
        assert_eq!(output_of(Command::new("echo").arg("x")).unwrap(), "x\n");
    }
}
