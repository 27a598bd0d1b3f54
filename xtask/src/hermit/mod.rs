//! The group "hermit" of `cargo xtask test-kernels`: a `std` application on the real Hermit kernel.
//!
//! The pinned toolchain has no library sources, so another one is taken from Debian
//! ([`toolchain`]). With it, the kernel from the crate registry becomes a static library
//! ([`kernel`]), and `tests/hermit-app` a program that is linked with it. Everything stays under
//! `target/hermit`, and nothing is built again while what it is made of is the same.

mod kernel;
mod toolchain;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::{build, paths, progress};
use toolchain::Toolchain;

/// The compiler's name of the target of Hermit applications.
const TARGET: &str = "x86_64-unknown-hermit";
/// Placeholder of the host's time, in seconds since 1970, in the arguments of a test.
const NOW: &str = "{now}";

/// The folder of the application's sources and tests.
pub(crate) fn source() -> PathBuf {
    paths::root().join("tests/hermit-app")
}

/// Folder in which everything of this group is built.
fn target() -> PathBuf {
    paths::target().join("hermit")
}

/// The list of tests, in the format of the other kernels' `suite.toml`.
pub(crate) fn suite() -> Result<String> {
    let path = source().join("suite.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).context("this host's clock is before 1970")?;
    Ok(text.replace(NOW, &now.as_secs().to_string()))
}

/// Makes the folder of this group, which is this process's as long as it keeps the file.
fn lock() -> Result<File> {
    fs::create_dir_all(target()).with_context(|| format!("cannot make {}", target().display()))?;
    let lock = File::create(target().join("lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock target/hermit")?;
    Ok(lock)
}

/// Reason why toolchain or kernel cannot be had on this host, if there is one, in one line.
pub(crate) fn obstacle() -> Option<String> {
    let parts =
        lock().and_then(|_lock| kernel::fetch(&Toolchain::get(&target().join("toolchain"))?));
    parts.err().map(|error| progress::one_line(&error))
}

/// Builds the application, and before it what it takes; says in which folder `hermit-app` is.
pub(crate) fn build() -> Result<PathBuf> {
    let _lock = lock()?;
    let toolchain = Toolchain::get(&target().join("toolchain"))?;
    let kernel = kernel::build(&toolchain)?;
    let folder = target().join("app");
    let step = progress::step("building the Hermit application and its standard library");
    build::run(
        toolchain
            .cargo()
            .args(["build", "--locked", "--release", "--target", TARGET])
            .args([
                "-Zbuild-std=std,panic_abort",
                "-Zbuild-std-features=compiler-builtins-mem",
                "--target-dir",
            ])
            .arg(&folder)
            .current_dir(source())
            .env("HERMIT_KERNEL_DIR", kernel),
        "the sources of the Hermit application",
    )?;
    step.done();
    Ok(folder.join(TARGET).join("release"))
}
