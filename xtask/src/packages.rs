//! Gets the Debian packages the lab is made of, or says which command gets them.
//!
//! Nothing is installed behind the back of a user at a terminal: there the exact command
//! is printed. On a build machine, packages are installed if that needs no
//! password.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::progress;

/// A program of this host that the lab needs.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    /// Its name, or the absolute path of a file.
    pub(crate) program: &'static str,
    /// The package it comes in.
    pub(crate) package: &'static str,
}

/// The emulator.
pub(crate) const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86" };
/// The lab's user space; the plain `busybox` package is linked dynamically and has fewer applets.
pub(crate) const BUSYBOX: Tool = Tool { program: "busybox", package: "busybox-static" };

/// Another processor in software, to compare with.
pub(crate) const BOCHS: Tool = Tool { program: "bochs-bin", package: "bochs" };

/// The firmware of its graphics card, without which it ends at once.
pub(crate) const VGABIOS: Tool =
    Tool { program: "/usr/share/vgabios/vgabios.bin", package: "vgabios" };

/// Package lists older than this are fetched anew before something is installed.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);

/// Waits for the other threads of this program that use apt: two labs, say, that are set up at the
/// same time. Two runs of apt-get at once fail, and who waits often finds the work done.
fn alone() -> MutexGuard<'static, ()> {
    static APT: Mutex<()> = Mutex::new(());
    APT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Path of `tool` on this host.
pub(crate) fn find(tool: Tool) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(tool.program))
        .find(|file| file.is_file())?;
    // The dynamic busybox has the same name; the dynamic one has no file in this folder of the
    // static package.
    let right =
        tool.package != BUSYBOX.package || Path::new("/usr/share/doc/busybox-static").exists();
    right.then_some(found)
}

/// Paths of these tools, after installing what is missing if that may be done.
pub(crate) fn need(tools: &[Tool]) -> Result<Vec<PathBuf>> {
    let _alone = alone();
    let missing: Vec<_> =
        tools.iter().filter(|tool| find(**tool).is_none()).map(|tool| tool.package).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    let found = tools.iter().map(|tool| {
        find(*tool).with_context(|| {
            format!("{} is not there although {} is installed", tool.program, tool.package)
        })
    });
    found.collect()
}

/// The command that installs these packages.
pub(crate) fn install_command(packages: &[&str]) -> String {
    let sudo = if is_root() { "" } else { "sudo " };
    format!(
        "{sudo}apt-get update && {sudo}apt-get install --no-install-recommends {}",
        packages.join(" ")
    )
}

fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    let Some(root) = root_prefix() else {
        bail!(
            "packages are needed that are not installed; type:\n    {}",
            install_command(packages)
        );
    };
    update_lists(&root)?;
    let step = progress::step(&format!("installing {names}"));
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    apt(&root, &arguments).with_context(|| format!("cannot install {names}"))?;
    step.done();
    Ok(())
}

/// Words before a command that make it run as root, if that is to be done and needs no person:
/// non-interactive, and root or a sudo that asks for no password.
fn root_prefix() -> Option<Vec<&'static str>> {
    let interactive = std::io::stdin().is_terminal() && std::env::var_os("CI").is_none();
    if interactive {
        return None;
    }
    if is_root() {
        return Some(vec!["env"]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then(|| vec!["sudo", "-n", "env"])
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn apt(root: &[&str], arguments: &[&str]) -> Result<()> {
    let (program, prefix) = root.split_first().context("no command")?;
    let output = Command::new(program)
        .args(prefix)
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get: the lab is made of Debian packages")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {} failed:\n{}", arguments.join(" "), said.trim_end());
    }
    Ok(())
}

fn update_lists(root: &[&str]) -> Result<()> {
    let age = lists_age();
    if age.is_some_and(|age| age < LISTS_AGE) {
        return Ok(());
    }
    let step = progress::step("fetching package lists");
    match (apt(root, &["update", "--quiet"]), age) {
        (Ok(()), _) => step.done(),
        (Err(e), Some(_)) => progress::say(&format!("continuing with old package lists: {e:#}")),
        (Err(e), None) => return Err(e),
    }
    Ok(())
}

/// Fetches the package lists anew, or says which command does.
pub(crate) fn update() -> Result<()> {
    let Some(root) = root_prefix() else {
        bail!("the package lists are not there, or too old; type:\n    sudo apt-get update");
    };
    let _alone = alone();
    let step = progress::step("fetching package lists");
    apt(&root, &["update", "--quiet"])?;
    step.done();
    Ok(())
}

/// Age of the newest package list; `None` where there is none.
fn lists_age() -> Option<Duration> {
    let entries = fs::read_dir("/var/lib/apt/lists").ok()?;
    let lists =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"));
    let has_lists = lists.count() > 0;
    // A list keeps the time at which the archive made it; the folder changes when lists are
    // fetched.
    let fetched =
        ["/var/lib/apt/lists/partial", "/var/lib/apt/lists", "/var/cache/apt/pkgcache.bin"]
            .into_iter()
            .filter_map(|path| fs::metadata(path).ok()?.modified().ok())
            .max();
    has_lists.then(|| {
        fetched.and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or_default()
    })
}

/// The versioned package that the kernel's metapackage depends on.
pub(crate) fn kernel_package(meta: &str) -> Result<String> {
    let _alone = alone();
    if let Some(package) = first_dependency(meta)? {
        return Ok(package);
    }
    let Some(root) = root_prefix() else {
        bail!(
            "the package lists do not know {meta}, the lab's kernel; type:\n    sudo apt-get update"
        );
    };
    apt(&root, &["update", "--quiet"])?;
    first_dependency(meta)?
        .with_context(|| format!("this system's packages have no {meta}; the lab needs Debian's"))
}

/// The same, if the package lists that are there say so.
pub(crate) fn known_kernel_package(meta: &str) -> Option<String> {
    first_dependency(meta).ok().flatten()
}

fn first_dependency(meta: &str) -> Result<Option<String>> {
    let output = Command::new("apt-cache")
        .args(["--no-recommends", "depends", meta])
        .output()
        .context("cannot run apt-cache: the lab is made of Debian packages")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned))
}

/// Downloads `package` into `folder`, which needs no root where the package lists are there.
pub(crate) fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    let _alone = alone();
    if let Err(first) = try_download(package, folder) {
        // Old lists name versions the archive no longer has.
        let Some(root) = root_prefix() else {
            bail!("{first:#}\nThe package lists may be old; type:\n    sudo apt-get update");
        };
        apt(&root, &["update", "--quiet"])?;
        try_download(package, folder)?;
    }
    let debs = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    debs.into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get download {package} left no package"))
}

fn try_download(package: &str, folder: &Path) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["download", "--quiet", package])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get: the lab is made of Debian packages")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot download {package}:\n{}", said.trim_end());
    Ok(())
}
