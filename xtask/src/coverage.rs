//! `cargo xtask coverage`: lines of the crates that bytes of a guest or an image reach, and which
//! of them the crates' own tests execute.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::build::{cargo, works};
use crate::{crates, paths, progress};

/// Folders of the crates that a guest or an image reaches. That of KVM is not among them: its
/// tests need a real one, and run in the lab.
const REACHED: [&str; 27] = [
    "arch",
    "bus",
    "devices",
    "hermit",
    "hostfs",
    "hypercall",
    "image",
    "inspect",
    "irqchip",
    "loader",
    "machine",
    "memory",
    "net",
    "pc",
    "pci",
    "snapshot",
    "software",
    "user-net",
    "virtio",
    "virtio-balloon",
    "virtio-blk",
    "virtio-console",
    "virtio-net",
    "virtio-rng",
    "virtio-vsock",
    "x86",
    "x86-vector",
];
/// Code of a guest, which no test on the host can execute.
const GUESTS: &str = "hypercall/src/guest.rs";
/// Percentage of lines below which a crate is named in the last line.
const WANTED: u64 = 85;

/// `cargo xtask coverage`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders in crates/, such as `virtio` [default: all that a guest or an image reaches]
    crates: Vec<String>,
}

/// llvm-cov's report.
#[derive(Deserialize)]
struct Report {
    data: Vec<Data>,
}

#[derive(Deserialize)]
struct Data {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    filename: String,
    summary: Summary,
}

#[derive(Deserialize)]
struct Summary {
    lines: Lines,
}

/// Lines with code, and those that were executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct Lines {
    count: u64,
    covered: u64,
}

impl Lines {
    /// Percentage, rounded down. Nothing is covered whole.
    fn percent(self) -> u64 {
        (self.covered * 100).checked_div(self.count).unwrap_or(100)
    }
}

/// Runs the crates' tests and prints a table; the status is 1 if a crate is below what is wanted.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let folders: Vec<&str> = if args.crates.is_empty() {
        REACHED.to_vec()
    } else {
        args.crates.iter().map(String::as_str).collect()
    };
    ensure!(
        works(cargo().args(["llvm-cov", "--version"])),
        "cargo-llvm-cov is not installed (cargo install cargo-llvm-cov --locked)"
    );
    let libraries = crates::libraries()?;
    let file = tempfile::NamedTempFile::new().context("cannot make a file")?;
    let mut command = cargo();
    // The program of a test that fails is named, and for other commands to judge.
    command.args(["llvm-cov", "--ignore-run-fail", "--all-features", "--json", "--summary-only"]);
    command.arg("--output-path").arg(file.path()).stdout(Stdio::null());
    for folder in &folders {
        let library = libraries.iter().find(|library| library.folder.ends_with(folder));
        let library = library.with_context(|| format!("there is no crate crates/{folder}"))?;
        command.args(["--package", &library.name]);
    }
    let step = progress::step("running tests that count lines");
    let status = command.status().context("cannot run cargo")?;
    step.done();
    ensure!(status.success(), "no report (rustup component add llvm-tools)");
    let text = fs::read_to_string(file.path()).context("cannot read the report")?;
    let report = serde_json::from_str(&text).context("bad report of llvm-cov")?;
    let lines = by_crate(&report, &paths::root().join("crates"));
    progress::print(&format!("{:<16} {:>7} {:>9}", "crate", "lines", "executed"));
    let mut low = Vec::new();
    for folder in folders {
        let lines = lines.get(folder).copied().unwrap_or_default();
        progress::print(&format!("{folder:<16} {:>7} {:>8}%", lines.count, lines.percent()));
        if lines.percent() < WANTED {
            low.push(folder);
        }
    }
    if low.is_empty() {
        return Ok(0);
    }
    progress::print(&format!("below {WANTED} %: {}", low.join(", ")));
    Ok(1)
}

/// Lines of each folder of `crates`, without those of its tests in files of their own and of
/// guests.
fn by_crate(report: &Report, crates: &Path) -> BTreeMap<String, Lines> {
    let mut sums: BTreeMap<String, Lines> = BTreeMap::new();
    for file in report.data.iter().flat_map(|data| &data.files) {
        let Ok(path) = Path::new(&file.filename).strip_prefix(crates) else { continue };
        let is_other = path == Path::new(GUESTS)
            || path.components().any(|part| part.as_os_str() == "tests")
            || file.filename.ends_with("_test.rs");
        let Some(folder) = path.iter().next().filter(|_| !is_other) else { continue };
        let sum = sums.entry(folder.to_string_lossy().into_owned()).or_default();
        sum.count += file.summary.lines.count;
        sum.covered += file.summary.lines.covered;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_summed_by_crate_without_tests() {
        let file = |name: &str, count: u64, covered: u64| serde_json::json!({ "filename": name, "summary": { "lines": { "count": count, "covered": covered } } });
        let files = [
            file("/r/crates/pci/src/lib.rs", 100, 80),
            file("/r/crates/pci/src/msix.rs", 100, 99),
            file("/r/crates/pci/src/msix_test.rs", 100, 1),
            file("/r/crates/pci/src/tests/one.rs", 100, 1),
            file("/r/crates/hypercall/src/guest.rs", 100, 1),
            file("/r/vmm/src/main.rs", 100, 1),
        ];
        let report =
            serde_json::from_value(serde_json::json!({ "data": [{ "files": files }] })).unwrap();
        let sums = by_crate(&report, Path::new("/r/crates"));
        let pci = Lines { count: 200, covered: 179 };
        assert_eq!(sums, BTreeMap::from([("pci".to_owned(), pci)]));
        assert_eq!(pci.percent(), 89);
        assert_eq!(Lines::default().percent(), 100);
    }

    #[test]
    fn each_crate_of_the_list_is_there() {
        for folder in REACHED {
            assert!(paths::root().join("crates").join(folder).is_dir(), "{folder}");
        }
    }
}
