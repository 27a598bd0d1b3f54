//! The Hermit kernel as a static library, from the newest release whose source is in the crate
//! registry.
//!
//! That release is older than the compiler, so a copy of it is changed in two places, both in
//! [`patch`]. And since kernel and application are Rust programs with a `core` each, all symbols of
//! the kernel but those it offers get other names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::toolchain::{Toolchain, output_of};
use crate::{build, progress};

/// The compiler's name of the target of the kernel itself.
const TARGET: &str = "x86_64-unknown-none";
/// The parts of the kernel that the application needs; the same as in the manifest of
/// `tests/hermit-app`.
const FEATURES: &str = "acpi,dhcpv4,fsgsbase,pci,smp,tcp";

/// Builds `libhermit.a` and says in which folder it is.
pub(crate) fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let folder = super::target().join("kernel");
    let (library, stamp) = (folder.join("libhermit.a"), folder.join("stamp"));
    let inputs = inputs(toolchain)?;
    if library.is_file() && fs::read_to_string(&stamp).is_ok_and(|text| text == inputs) {
        return Ok(folder);
    }
    let step = progress::step("building the Hermit kernel");
    let source = folder.join("source");
    if folder.exists() {
        // The stamp goes first: what is half done must not look done.
        let _ = fs::remove_file(&stamp);
        let _ = fs::remove_dir_all(&source);
    }
    copy(&fetch(toolchain)?, &source)?;
    patch(&source)?;
    compile(toolchain, &source, &folder.join("build"))?;
    hide_symbols(&folder.join("build").join(TARGET).join("release/libhermit.a"), &library)?;
    fs::write(&stamp, inputs).with_context(|| format!("cannot write {}", stamp.display()))?;
    step.done();
    Ok(folder)
}

/// Changes whenever the library has to be built anew: compiler, kernel, and the recipe in this
/// file.
fn inputs(toolchain: &Toolchain) -> Result<String> {
    let lock = super::source().join("Cargo.lock");
    let lock =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let mut hasher = DefaultHasher::new();
    (&toolchain.version, lock, include_str!("kernel.rs")).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// Lets cargo fetch the kernel and what it depends on; says where cargo has put it.
pub(super) fn fetch(toolchain: &Toolchain) -> Result<PathBuf> {
    let json = output_of(
        toolchain
            .cargo()
            .args([
                "metadata",
                "--quiet",
                "--locked",
                "--format-version",
                "1",
                "--filter-platform",
                TARGET,
            ])
            .current_dir(super::source()),
    )
    .context("cannot get the Hermit kernel from the crate registry")?;
    let metadata: Metadata =
        serde_json::from_str(&json).context("cannot understand cargo metadata")?;
    let kernel = metadata.packages.iter().find(|package| package.name == "hermit-kernel");
    let manifest = &kernel.context("tests/hermit-app does not name hermit-kernel")?.manifest_path;
    Ok(manifest.parent().context("the kernel's manifest is in no folder")?.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)
                .with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Makes the kernel build with a compiler that is newer than itself.
fn patch(source: &Path) -> Result<()> {
    // It would select a nightly toolchain.
    fs::remove_file(source.join("rust-toolchain.toml")).context("the kernel names no toolchain")?;
    let renamed = replace(&source.join("src"), "#[naked]", "#[unsafe(naked)]")?;
    ensure!(
        renamed > 0,
        "the kernel has no #[naked] functions: it is another release than this was made for"
    );
    // It lies below our own workspace, and is none of it.
    let manifest = source.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).context("cannot read the kernel's manifest")?;
    fs::write(&manifest, text + "\n[workspace]\n").context("cannot write the kernel's manifest")?;
    // The kernel's build script assembles the code that starts further processors, with tools that
    // only a nightly toolchain has. Under this hypervisor all processors start at the kernel's
    // entry, and an empty file will do.
    let script = "fn main() -> std::io::Result<()> {\n    \
                  let out = std::env::var_os(\"OUT_DIR\").expect(\"cargo sets OUT_DIR\");\n    \
                  std::fs::write(std::path::Path::new(&out).join(\"boot.bin\"), [])\n}\n";
    fs::write(source.join("build.rs"), script).context("cannot replace the kernel's build script")
}

/// Replaces a text in all files of a folder and says in how many.
fn replace(folder: &Path, from: &str, to: &str) -> Result<usize> {
    let mut changed = 0;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            changed += replace(&path, from, to)?;
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if text.contains(from) {
            let text = text.replace(from, to);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn compile(toolchain: &Toolchain, source: &Path, folder: &Path) -> Result<()> {
    build::run(
        toolchain
            .cargo()
            .args(["rustc", "--locked", "--lib", "--crate-type", "staticlib", "--release"])
            .args(["--no-default-features", "--features", FEATURES, "--target", TARGET])
            .args([
                "-Zbuild-std=core,alloc",
                "-Zbuild-std-features=compiler-builtins-mem",
                "--target-dir",
            ])
            .arg(folder)
            .current_dir(source)
            // Its warnings are not ours.
            .args(["--", "--cap-lints=allow"])
            // Compile time matters more than run time.
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
        "the sources of the Hermit kernel",
    )
}

/// Copies the kernel's library, giving other names to all symbols that it does not offer to the
/// application.
fn hide_symbols(from: &Path, to: &Path) -> Result<()> {
    let needs = "renaming the kernel's symbols takes binutils";
    let listing =
        output_of(Command::new("nm").args(["-g", "--defined-only", "--format=posix"]).arg(from));
    let names = renamed(&listing.context(needs)?)?;
    let list = to.with_extension("symbols");
    fs::write(&list, names).with_context(|| format!("cannot write {}", list.display()))?;
    let mut objcopy = Command::new("objcopy");
    output_of(objcopy.arg(format!("--redefine-syms={}", list.display())).arg(from).arg(to))
        .context(needs)?;
    Ok(())
}

/// Old and new names, a pair a line, from what `nm` says.
fn renamed(listing: &str) -> Result<String> {
    let symbols: BTreeSet<&str> = listing
        .lines()
        .filter(|line| !line.ends_with(':'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let offered =
        |symbol: &str| matches!(symbol, "_start" | "runtime_entry") || symbol.starts_with("sys_");
    ensure!(symbols.contains("_start"), "the kernel's library has no entry point");
    let mut lines = String::new();
    for symbol in symbols.into_iter().filter(|symbol| !offered(symbol)) {
        // A suffix after a dot leaves a mangled name readable in crash reports.
        let mangled = symbol.starts_with("_R") || symbol.starts_with("_ZN");
        let new =
            if mangled { format!("{symbol}.kernel") } else { format!("hermit_kernel_{symbol}") };
        writeln!(lines, "{symbol} {new}")?;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_application_calls_keeps_its_name() {
        let listing = "lib.a[a.o]:\n_start T 0 1\nsys_read T 0 1\nmemcpy W 0 1\n\nlib.a[b.o]:\n_RNv1a T 0\n\
                       _ZN1aE T 0\nmemcpy W 0 1\n";
        let expected = "_RNv1a _RNv1a.kernel\n_ZN1aE _ZN1aE.kernel\nmemcpy hermit_kernel_memcpy\n";
        assert_eq!(renamed(listing).unwrap(), expected);
        assert!(renamed("memcpy T 0 1\n").is_err());
    }

    #[test]
    fn replacing_goes_through_all_folders() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a.rs"), "x #[naked] y #[naked]").unwrap();
        fs::write(dir.path().join("b.rs"), "nothing").unwrap();
        assert_eq!(replace(dir.path(), "#[naked]", "#[unsafe(naked)]").unwrap(), 1);
        let text = fs::read_to_string(dir.path().join("sub/a.rs")).unwrap();
        assert_eq!(text, "x #[unsafe(naked)] y #[unsafe(naked)]");
    }
}
