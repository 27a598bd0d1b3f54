//! `cargo xtask fuzz`: runs fuzz targets for a while each.

mod corpus;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::build::{TARGET, cargo, quiet, sanitizer_obstacle, sanitizing, works};
use crate::job::Summary;
use crate::{paths, progress};

/// Memory of a target in MiB, and seconds for one input: what needs more is a find.
const MEMORY_MIB: u32 = 2048;
const SLOW: u32 = 10;

/// `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run each target so many seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
    /// Then keep a small part of the inputs that are known in fuzz/corpus: the fewest that reach
    /// the same code
    #[arg(long)]
    keep: bool,
    /// Run only the targets with this text in their name
    target: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Runs the targets, prints a line for each and the closing line; the status is 1 if one found
/// something.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let filter = args.target.as_deref().unwrap_or_default();
    let targets: Vec<String> =
        targets()?.into_iter().filter(|name| name.contains(filter)).collect();
    ensure!(
        !targets.is_empty(),
        "no fuzz target has \"{filter}\" in its name; fuzz/Cargo.toml lists them"
    );
    let mut summary = Summary::default();
    if let Some(reason) = missing() {
        for name in targets {
            progress::print(&format!("SKIP {name}: {reason}"));
            summary.skipped += 1;
        }
    } else {
        for name in targets {
            let done = run(&name, args.seconds)?;
            if args.keep && done.failed == 0 {
                keep(&name)?;
            }
            summary += done;
        }
    }
    progress::print(&summary.to_string());
    Ok(i32::from(summary.failed > 0))
}

/// Compiles the targets as far as lints need it, which takes neither a sanitizer nor a C++
/// compiler.
pub(crate) fn check() -> Result<()> {
    let mut command = cargo();
    command.current_dir(folder()).args(["clippy", "--quiet", "--locked", "--all-targets"]);
    command.arg("--target-dir").arg(paths::target());
    // With a path to the library, libfuzzer-sys does not compile it. Nothing is linked here.
    command.env("CUSTOM_LIBFUZZER_PATH", folder().join("libfuzzer.a"));
    quiet(command.args(["--", "-D", "warnings"]))
}

/// Reason why the targets cannot be compiled, if it is no fault of theirs: some of the crates that
/// they depend on are neither here nor can be downloaded.
pub(crate) fn obstacle() -> Option<String> {
    let mut command = cargo();
    command.current_dir(folder()).args(["fetch", "--quiet", "--locked", "--target", TARGET]);
    let output = command.output().ok()?;
    if output.status.success() { None } else { absent(&String::from_utf8_lossy(&output.stderr)) }
}

/// Reason why dependencies cannot be had, from what `cargo fetch --locked` says; `None` if the
/// sources are at fault, in which the lock file does not fit the manifests.
fn absent(error: &str) -> Option<String> {
    if error.contains("--locked was passed") || error.contains("failed to parse") {
        return None;
    }
    let first = error.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Some(format!(
        "its dependencies cannot be had (cargo fetch --manifest-path fuzz/Cargo.toml): {first}"
    ))
}

fn folder() -> PathBuf {
    paths::root().join("fuzz")
}

fn targets() -> Result<Vec<String>> {
    let path = folder().join("Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    names(&text).with_context(|| format!("bad manifest {}", path.display()))
}

fn names(manifest: &str) -> Result<Vec<String>> {
    let manifest: Manifest = toml::from_str(manifest)?;
    Ok(manifest.bin.into_iter().map(|target| target.name).collect())
}

/// Names what is needed and not there.
fn missing() -> Option<&'static str> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if !works(cargo().args(["fuzz", "--version"])) {
        Some("cargo-fuzz is not installed (cargo install cargo-fuzz --locked)")
    } else if !works(Command::new(compiler).arg("--version")) {
        Some("there is no C++ compiler for libFuzzer (Debian: g++, Fedora: gcc-c++)")
    } else {
        sanitizer_obstacle()
    }
}

/// The folders of a target in `target/fuzz`.
struct Folders {
    /// Inputs that runs have found, so that the next run continues from there.
    corpus: PathBuf,
    /// Inputs that are in the tree.
    kept: PathBuf,
    /// Inputs that fail.
    artifacts: PathBuf,
}

impl Folders {
    fn of(name: &str) -> Result<Self> {
        let target = paths::target().join("fuzz");
        let folder = |kind: &str| -> Result<PathBuf> {
            let folder = target.join(kind).join(name);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            Ok(folder)
        };
        let folders = Self {
            corpus: folder("corpus")?,
            kept: folder("kept")?,
            artifacts: folder("artifacts")?,
        };
        corpus::unpack(name, &folders.kept)?;
        Ok(folders)
    }
}

/// cargo-fuzz on one target.
fn fuzz(subcommand: &str, name: &str) -> Command {
    let mut command = sanitizing();
    command.args(["fuzz", subcommand, "--fuzz-dir"]).arg(folder());
    command.arg("--target-dir").arg(paths::target().join("fuzz")).arg(name);
    command
}

/// Runs one target, with the corpus in the tree as its beginning and what it finds out in
/// `target/fuzz`.
fn run(name: &str, seconds: u64) -> Result<Summary> {
    let folders = Folders::of(name)?;
    let step = progress::step(&format!("building the fuzz target {name}"));
    let built = fuzz("build", name).stdout(Stdio::null()).output().context("cannot run cargo")?;
    step.done();
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr);
        progress::print(&format!("FAIL {name}: it does not build\n{said}"));
        return Ok(Summary { failed: 1, ..Summary::default() });
    }
    let start = Instant::now();
    let mut command = fuzz("run", name);
    command.args([&folders.corpus, &folders.kept]);
    command
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg(format!("-timeout={SLOW}")).arg("-print_final_stats=1").arg("-max_len=65536");
    command.arg(format!("-artifact_prefix={}/", folders.artifacts.display()));
    let step = progress::step(&format!("running the fuzz target {name}"));
    let output = command.output().context("cannot run cargo")?;
    drop(step);
    let text = String::from_utf8_lossy(&output.stderr);
    let took = start.elapsed().as_secs();
    if output.status.success() {
        let runs = executed(&text).unwrap_or_default();
        progress::print(&format!("ok   {name} ({runs} inputs in {took} s)"));
        return Ok(Summary { passed: 1, ..Summary::default() });
    }
    progress::print(&format!(
        "FAIL {name} after {took} s; the input is in {}",
        folders.artifacts.display()
    ));
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(60));
    last.for_each(|line| progress::print(&format!("     {line}")));
    Ok(Summary { failed: 1, ..Summary::default() })
}

/// Keeps the fewest of the known inputs that reach the same code, as far as there is room, in the
/// tree.
fn keep(name: &str) -> Result<()> {
    let folders = Folders::of(name)?;
    let merged = tempfile::tempdir().context("cannot make a folder")?;
    let mut command = fuzz("run", name);
    command.arg(merged.path()).args([&folders.kept, &folders.corpus]).args(["--", "-merge=1"]);
    let step = progress::step(&format!("choosing inputs of {name}"));
    let output = command.output().context("cannot run cargo")?;
    step.done();
    ensure!(output.status.success(), "merging: {}", String::from_utf8_lossy(&output.stderr));
    let count = corpus::keep(name, merged.path())?;
    progress::say(&format!("{name}: kept {count} inputs in {}", corpus::file(name).display()));
    Ok(())
}

/// Number of inputs that a target was run on, as libFuzzer says.
fn executed(text: &str) -> Option<u64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_those_of_the_manifest() {
        assert_eq!(names("[[bin]]\nname = 'a'\n[[bin]]\nname = 'b'").unwrap(), ["a", "b"]);
        assert!(targets().unwrap().contains(&"elf".to_owned()));
    }

    #[test]
    fn absent_dependencies_are_an_obstacle_and_bad_manifests_are_not() {
        let absent_crate = "error: no matching package named `libfuzzer-sys` found\n\
                            location searched: crates.io index\nrequired by package `nerite-fuzz`";
        let reason = absent(absent_crate).unwrap();
        assert!(reason.ends_with(": no matching package named `libfuzzer-sys` found"), "{reason}");
        assert!(absent("error: failed to download `bit_field v0.10.3`\n\nCaused by:\n").is_some());
        let old_lock = "error: cannot update the lock file /n/fuzz/Cargo.lock because --locked was \
                        passed to prevent this";
        assert_eq!(absent(old_lock), None);
        assert_eq!(absent("error: failed to parse manifest at `/n/fuzz/Cargo.toml`"), None);
    }

    #[test]
    fn the_number_of_inputs_is_read() {
        let text =
            "Done 12 runs\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec: 1";
        assert_eq!(executed(text), Some(1234));
        assert_eq!(executed("nothing"), None);
    }
}
