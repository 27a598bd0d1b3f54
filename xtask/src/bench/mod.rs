//! `cargo xtask bench`: measures `vmm`, beside its peer where there is one.
//!
//! Both run alternately on the same machine, in one boot of the lab where guests run there. Times
//! are good for the ratio of the two; counts are good for themselves.

mod cases;
mod clone;
mod cpu;
mod data;
mod findings;
mod html;
mod instructions;
mod net;
mod setting;
mod stats;
mod table;
mod trace;
pub(crate) mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use self::data::{Case, Line, Report};
use self::findings::Findings;
use self::setting::Setting;
use crate::job::{Job, Stream};
use crate::lab::{self, Session};
use crate::platform::Platform;
use crate::{build, exec, kernels, paths, progress};

/// The peer and its version.
const PEER: (&str, &str) = ("uhyve", "0.10.0");
/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    of: Option<Of>,
    /// Run only benches with this text in their name
    name: Option<String>,
    /// The program to compare with; by default uhyve 0.10.0, which is installed under target/peer.
    /// A file called vmm is an earlier one of ours. "none" for no comparison
    #[arg(long, value_name = "PATH")]
    peer: Option<PathBuf>,
    /// A Hermit image, or a folder in which (or in whose folders) images are called hello_world.
    /// With a name that begins with "net", an image that serves echo, discard and characters (RFC
    /// 862 to 864). Can be given several times
    #[arg(long, value_name = "PATH")]
    image: Vec<PathBuf>,
    /// Write all samples to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with a file that --json wrote; the status is 1 if a count has become worse
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Time each start so often
    #[arg(long, default_value_t = 11, value_name = "N")]
    rounds: usize,
    /// Let the lab's clock count executed instructions, 2 ns each: times then repeat to a few per
    /// cent on a busy host, and take longer. They are good for ratios alone
    #[arg(long)]
    icount: bool,
    /// Print the names of the benches and run nothing
    #[arg(long)]
    list: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Of {
    /// Compare the processor in software with others, in instructions a second
    Cpu(cpu::Args),
    /// Compare clones and restores of a guest with its start, on this host
    Clone(clone::Args),
}

/// Measures, prints, and writes the report.
pub(crate) fn main(args: &Args) -> Result<i32> {
    match &args.of {
        Some(Of::Cpu(args)) => return cpu::main(args),
        Some(Of::Clone(args)) => return clone::main(args),
        None => {}
    }
    let before = args.compare.as_deref().map(read).transpose()?;
    let mut images = Vec::new();
    for path in &args.image {
        images.extend(cases::images(&std::path::absolute(path)?)?);
    }
    let filter = args.name.as_deref().unwrap_or_default();
    let servers = if filter.starts_with("net") { std::mem::take(&mut images) } else { Vec::new() };
    let setting = |myself, vmm, kernels, empty, loops, peer| Setting {
        vmm,
        peer,
        kernels,
        empty,
        loops,
        images: &images,
        servers: &servers,
        myself,
        rounds: args.rounds,
    };
    // Before anything is built or installed for it.
    let nothing = Path::new("");
    let mut names: Vec<String> =
        cases::all(&setting("", nothing, nothing, nothing, nothing, None), filter)?
            .into_iter()
            .map(|case| case.bench)
            .collect();
    names.dedup();
    names.extend(instructions::NAME.contains(filter).then(|| instructions::NAME.to_owned()));
    ensure!(!names.is_empty(), "no bench has \"{filter}\" in its name; --list shows them");
    if args.list {
        names.iter().for_each(|name| progress::print(name));
        return Ok(0);
    }

    let platform = Platform::choose()?;
    ensure!(
        !args.icount || platform == Platform::Lab,
        "--icount is for the lab, and this host's KVM runs guests itself"
    );
    let myself = platform.tools()?.xtask;
    let mut skipped = Vec::new();
    if images.is_empty() && servers.is_empty() {
        skipped.push("hermit: no image was given (--image FILE or FOLDER)".to_owned());
    }
    let peer = peer(args.peer.as_deref(), &mut skipped)?;
    let (vmm, kernels) = (build::vmm()?, kernels::build()?);
    let empty = stripped(&kernels.join("empty"))?;
    let loops = paths::target().join("release/examples/loops");
    let cases =
        cases::all(&setting(&myself, &vmm, &kernels, &empty, &loops, peer.as_deref()), filter)?;
    if cases.iter().any(|case| case.bench.starts_with(cases::LOOP)) {
        build_loops()?;
    }
    let counts_instructions = instructions::NAME.contains(filter);

    let mut findings = Findings::new(&cases);
    let kernel = if cases.is_empty() {
        "nothing run there".to_owned()
    } else {
        let machine = lab::Machine { counts_instructions: args.icount, ..Default::default() };
        run(platform, machine, &myself, &cases, &mut |line| findings.take(line))?
    };
    skipped.append(&mut findings.failed);
    let mut measures = findings.measures();
    if counts_instructions {
        match instructions::measure(&vmm, peer.as_deref(), &empty) {
            Ok(measure) => measures.push(measure),
            Err(why) => skipped.push(format!("{}: {why}", instructions::NAME)),
        }
    }
    let report = Report {
        version: data::VERSION,
        source: source(),
        platform: match platform {
            Platform::Hardware => format!("hardware, {kernel}, {}", setting::circumstances()),
            Platform::Lab => format!("lab, {kernel}, {}", setting::circumstances()),
        },
        peer: peer
            .as_ref()
            .map(|_| args.peer.as_ref().map_or(PEER.0, |_| "the given program").to_owned()),
        measures,
        skipped,
    };
    progress::print(&table::print(&report, before.as_ref()));
    let folder = paths::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    write(&folder.join("report.html"), &html::report(&report))?;
    write(&folder.join("report.svg"), &html::plots(&report.measures))?;
    let json = serde_json::to_string_pretty(&report)?;
    write(&folder.join("report.json"), &json)?;
    if let Some(path) = &args.json {
        write(path, &json)?;
    }
    progress::say(&format!("the report is in {}", folder.join("report.html").display()));
    let worse = before.is_some_and(|before| table::counts_are_worse(&before, &report));
    Ok(i32::from(worse))
}

/// Builds what runs a guest in a bare run loop.
fn build_loops() -> Result<()> {
    let mut cargo = build::cargo();
    cargo.args([
        "build",
        "--release",
        "-p",
        "nerite-machine",
        "--features",
        "exercise",
        "--example",
        "loops",
    ]);
    build::quiet(cargo.arg("--target-dir").arg(paths::target())).context("the example `loops`")
}

/// A copy of a guest without its symbols, which nothing needs to run it.
fn stripped(guest: &Path) -> Result<PathBuf> {
    let folder = paths::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let copy = folder.join("empty");
    build::quiet(Command::new("strip").arg("-o").arg(&copy).arg(guest))
        .context("strip (package binutils)")?;
    Ok(copy)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> Result<Report> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let report: Report = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of a bench", path.display()))?;
    ensure!(
        report.version == data::VERSION,
        "{} is of another version of the bench",
        path.display()
    );
    Ok(report)
}

/// The state of the source, for the report.
fn source() -> String {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(paths::root())
        .output();
    let text = git
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    if text.is_empty() { "not known".to_owned() } else { text }
}

/// Path of the peer; installs it if it is to be there and is not.
fn peer(given: Option<&Path>, skipped: &mut Vec<String>) -> Result<Option<PathBuf>> {
    if let Some(path) = given {
        if path == Path::new("none") {
            skipped.push("the peer: not wanted".to_owned());
            return Ok(None);
        }
        ensure!(path.is_file(), "{} is not there", path.display());
        return Ok(Some(std::path::absolute(path)?));
    }
    let (name, version) = PEER;
    let folder = paths::target().join("peer");
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        let step = progress::step(&format!(
            "installing {name} {version} with cargo, for this comparison only"
        ));
        let mut install = build::cargo();
        install
            .args(["install", "--quiet", "--locked", "--version", version, name, "--root"])
            .arg(&folder);
        match build::quiet(&mut install) {
            Ok(()) => step.done(),
            Err(error) => {
                skipped.push(format!("the peer: {name} {version} cannot be installed: {error:#}"));
                return Ok(None);
            }
        }
    }
    Ok(Some(program))
}

/// Has the worker go through the cases; gives the kernel's release.
fn run(
    platform: Platform,
    machine: lab::Machine,
    myself: &str,
    cases: &[Case],
    each: &mut dyn FnMut(Line),
) -> Result<String> {
    let folder = paths::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let list = folder.join("cases.json");
    write(&list, &serde_json::to_string(cases)?)?;
    let runs_of = |case: &Case| case.rounds + 1 + usize::from(case.counted);
    let runs: usize = cases.iter().map(runs_of).sum();
    let time: u64 = cases.iter().map(|case| runs_of(case) as u64 * case.timeout / 3).sum();
    let mut files = vec![list.clone()];
    files.extend(
        cases
            .iter()
            .flat_map(|case| &case.command)
            .map(PathBuf::from)
            .filter(|path| path.is_file()),
    );
    // With it programs find their libraries as on any other machine.
    files.extend([PathBuf::from("/etc/ld.so.cache")].into_iter().filter(|path| path.is_file()));
    let job = Job {
        name: "bench".to_owned(),
        command: vec![myself.to_owned(), "bench-worker".to_owned(), list.display().to_string()],
        dir: Some("/tmp".into()),
        timeout: 60 + time,
        files,
        ..Job::default()
    };
    let (mut rest, mut errors, mut done) = (String::new(), String::new(), 0_usize);
    let mut output = |stream, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        if stream == Stream::Err {
            errors.push_str(&text);
            return;
        }
        rest.push_str(&text);
        while let Some((line, after)) = rest.split_once('\n') {
            if let Ok(line) = serde_json::from_str(line) {
                done += 1;
                show(done, runs, cases, &line);
                each(line);
            }
            rest = after.to_owned();
        }
    };
    let (ending, kernel) = match platform {
        Platform::Hardware => {
            let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
            (exec::execute(&job, &mut output).0, release.trim().to_owned())
        }
        Platform::Lab => {
            let mut session = Session::new(machine)?;
            let outcome = session.run_one(&job, &mut output)?;
            (outcome.ending, session.release().to_owned())
        }
    };
    if ending.code() != 0 {
        bail!("the bench ended early: {ending}\n{errors}");
    }
    Ok(kernel)
}

/// A line of progress each time a case is through.
fn show(done: usize, runs: usize, cases: &[Case], line: &Line) {
    let case = |at: usize| {
        cases.get(at).map_or(String::new(), |case| format!("{}, {}", case.bench, case.who.name()))
    };
    let percent = done * 100 / runs.max(1);
    match line {
        Line::Timed { .. } if done.is_multiple_of(10) => progress::say(&format!("{percent} %")),
        Line::Timed { .. } => {}
        Line::Counted { case: at, counts } => progress::say(&format!(
            "{percent} %: {}: {} exits, {} system calls, {} KiB",
            case(*at),
            counts.exits.values().sum::<u64>(),
            counts.syscalls,
            counts.rss
        )),
        Line::Failed { case: at, why } => {
            progress::say(&format!("{percent} %: {}: {why}", case(*at)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::data::{Kind, Measure};
    use super::*;

    #[test]
    fn a_report_survives_its_file() {
        let measure = Measure {
            bench: "b".to_owned(),
            what: "w".to_owned(),
            unit: String::new(),
            kind: Kind::Count,
            ours: vec![1.0],
            peer: Vec::new(),
        };
        let report = Report {
            version: data::VERSION,
            source: "s".to_owned(),
            platform: "p".to_owned(),
            peer: None,
            measures: vec![measure],
            skipped: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.json");
        write(&file, &serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(read(&file).unwrap(), report);
        write(&file, "{}").unwrap();
        assert!(read(&file).is_err());
    }
}
