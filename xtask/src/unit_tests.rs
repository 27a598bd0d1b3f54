//! `cargo xtask unit-tests`: runs a build of kvm-unit-tests, which lies elsewhere, under `vmm`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::job::{Ending, Job, Outcome, Summary};
use crate::lab::Machine;
use crate::platform::{Platform, Runner};
use crate::repeat::Repeat;
use crate::results::{Failure, Results};
use crate::retry;
use crate::{build, progress, report, software};

/// Some tests have 4 GiB.
const LAB_MEMORY_MIB: u64 = 6144;
/// The memory of a test that does not say.
const MEMORY: &str = "256M";
/// Exit codes of `vmm` when a test kernel says that it has passed, or has nothing to test here.
const PASSED: i32 = 1;
const SKIPPED: i32 = 77;

/// `cargo xtask unit-tests`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder in which kvm-unit-tests was built, with `x86/unittests.cfg` and the images in `x86`
    dir: PathBuf,
    /// Run only tests with this text in their name; without it all but those of Intel's VMX
    filter: Option<String>,
    /// Seconds for each test
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Run them on this host, on the processor in software
    #[arg(long)]
    software: bool,
}

/// A section of `unittests.cfg`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct UnitTest {
    name: String,
    file: String,
    cpus: Option<String>,
    memory: Option<String>,
    arguments: String,
    arch: Option<String>,
    groups: String,
}

/// Runs the tests and prints a line for each; the status is 1 if one failed.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let config = args.dir.join("x86/unittests.cfg");
    let text =
        fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let dir = fs::canonicalize(&args.dir)?;
    let image = |test: &UnitTest| dir.join("x86").join(&test.file);
    let tests: Vec<UnitTest> =
        parse(&text).into_iter().filter(|test| test.is_wanted(args)).collect();
    let (there, missing): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|test| image(test).is_file());
    for test in &missing {
        progress::print(&format!("SKIP {}: {} is not built", test.name, test.file));
    }
    ensure!(!there.is_empty(), "no test in {} is built and meant", config.display());
    let mut vmm = build::vmm()?;
    if args.software {
        vmm = software::wrap(&vmm)?;
    }
    let jobs: Vec<Job> =
        there.iter().map(|test| test.job(&vmm, &image(test), args.timeout)).collect();
    let machine = Machine { memory_mib: LAB_MEMORY_MIB, ..Machine::default() };
    let platform = if args.software { Platform::Hardware } else { Platform::choose()? };
    let repeat = Repeat::default();
    let runner = Runner { platform, workers: 1, machine, repeat };
    let mut results: Results = Summary { skipped: missing.len(), ..Summary::default() }.into();
    let mut failed = Vec::new();
    runner.run(&jobs, &mut |index, outcome| {
        let Some(job) = jobs.get(index) else { return };
        results.times.push((job.name.clone(), outcome.time));
        let verdict = match outcome.ending {
            Ending::Exited(PASSED) => "ok  ",
            Ending::Exited(SKIPPED) => "SKIP",
            _ => "fail",
        };
        match verdict {
            "ok  " => results.summary.passed += 1,
            "SKIP" => results.summary.skipped += 1,
            _ => {
                let output = report::text(job, outcome, &[ending(outcome)]);
                failed.push((job.clone(), Failure::new(&job.name, output)));
            }
        }
        let seconds = outcome.time.as_secs_f64();
        progress::print(&format!("{verdict} {} ({seconds:.1} s): {}", job.name, ending(outcome)));
    })?;
    results += retry::jobs_again(&runner, failed, &|_, outcome| {
        if outcome.ending == Ending::Exited(PASSED) { Vec::new() } else { vec![ending(outcome)] }
    })?;
    Ok(results.close())
}

/// Describes how a test ended, and what it counted.
fn ending(outcome: &Outcome) -> String {
    let text = String::from_utf8_lossy(&outcome.stdout);
    let count = |word: &str| text.lines().filter(|line| line.starts_with(word)).count();
    format!("{}; {} lines PASS, {} lines FAIL", outcome.ending, count("PASS"), count("FAIL"))
}

/// The sections of a `unittests.cfg`: a name in brackets, then `key = value` lines.
fn parse(text: &str) -> Vec<UnitTest> {
    let mut tests: Vec<UnitTest> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            tests.push(UnitTest { name: name.to_owned(), ..UnitTest::default() });
        }
        let (Some(test), Some((key, value))) = (tests.last_mut(), line.split_once('=')) else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "file" => value.clone_into(&mut test.file),
            "smp" => test.cpus = Some(value.to_owned()),
            "arch" => test.arch = Some(value.to_owned()),
            "groups" => value.clone_into(&mut test.groups),
            "test_args" => value.trim_matches(['"', '\'']).clone_into(&mut test.arguments),
            "qemu_params" => test.memory = memory(value),
            _ => {}
        }
    }
    tests
}

/// Size after `-m` among QEMU's options, as `vmm` takes it: a number alone is in MiB.
fn memory(options: &str) -> Option<String> {
    let size = options.split_whitespace().skip_while(|word| *word != "-m").nth(1)?;
    let is_number = size.bytes().all(|byte| byte.is_ascii_digit());
    Some(if is_number { format!("{size}M") } else { size.to_owned() })
}

impl UnitTest {
    fn is_wanted(&self, args: &Args) -> bool {
        let group = |name: &str| self.groups.split_whitespace().any(|group| group == name);
        let fits = self.arch.as_deref() != Some("i386");
        fits && match &args.filter {
            Some(filter) => self.name.contains(filter),
            None => !group("vmx") && !group("nodefault"),
        }
    }

    fn job(&self, vmm: &Path, image: &Path, timeout: u64) -> Job {
        let cpus = self.cpus.as_deref().unwrap_or("1");
        let memory = self.memory.as_deref().unwrap_or(MEMORY);
        let mut command = vec![vmm.display().to_string()];
        command.extend(["run", "-c", cpus, "-m", memory].map(str::to_owned));
        command.push(image.display().to_string());
        // The time is what a shell would put there.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seconds = now.map_or(0, |now| now.as_secs()).to_string();
        let arguments = self.arguments.replace("`date +%s`", &seconds);
        if !arguments.is_empty() {
            command.push("--".to_owned());
            command.extend(arguments.split_whitespace().map(str::to_owned));
        }
        let files = vec![vmm.to_owned(), image.to_owned()];
        Job { name: self.name.clone(), command, timeout, files, ..Job::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "# comment\n[one]\nfile = a.flat\nsmp = 2\nqemu_params = -cpu max -m 2048\n\n[two]\n\
                          file = b.flat\ntest_args = \"-x 1 `date +%s`\"\narch = i386\n#smp = 9\n\
                          [three]\nfile = c.flat\ngroups = vmx\nqemu_params = -m 4g\n";

    #[test]
    fn sections_become_commands() {
        let tests = parse(CONFIG);
        assert_eq!(
            tests.iter().map(|test| test.name.as_str()).collect::<Vec<_>>(),
            ["one", "two", "three"]
        );
        let job = tests[0].job(Path::new("/vmm"), Path::new("/x86/a.flat"), 9);
        assert_eq!(job.command, ["/vmm", "run", "-c", "2", "-m", "2048M", "/x86/a.flat"]);
        let job = tests[1].job(Path::new("/vmm"), Path::new("/b"), 9);
        assert_eq!(job.command[5..9], ["256M", "/b", "--", "-x"]);
        assert!(job.command[10].parse::<u64>().is_ok());
        assert_eq!(tests[2].memory.as_deref(), Some("4g"));
    }

    #[test]
    fn what_cannot_run_here_is_left_out() {
        let wanted = |filter: Option<&str>| {
            let args = Args {
                dir: PathBuf::new(),
                filter: filter.map(str::to_owned),
                timeout: 1,
                software: false,
            };
            let tests = parse(CONFIG).into_iter().filter(|test| test.is_wanted(&args));
            tests.map(|test| test.name).collect::<Vec<_>>()
        };
        assert_eq!(wanted(None), ["one"]);
        assert_eq!(wanted(Some("t")), ["three"]);
    }
}
