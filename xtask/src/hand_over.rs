//! Guest tests under hand-over: guests that move between KVM and the processor in software all the
//! time.

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::getppid;
use serde::Deserialize;
use serde_json::json;

use crate::job::{Job, Outcome};
use crate::suite::Test;
use crate::{progress, wrapper};

/// Options of `vmm run` that need one hypervisor alone, or a control socket of their own.
const ALONE: [&str; 9] = [
    "--accel",
    "--api-socket",
    "--clock",
    "--count",
    "--gdb",
    "--insn-limit",
    "--irqchip",
    "--restore",
    "{goes-on}",
];
/// Tests that look at what a control socket or time takes away from them, and one without `vmm`.
const LEFT_OUT: [(&str, &str); 4] = [
    ("halted", "a guest is not ended for that while it has a control socket"),
    ("linux group: halted", "a guest is not ended for that while it has a control socket"),
    ("time limit", "its time may be up before it begins"),
    ("linux, the VMM of 100 lines", "it has one hypervisor"),
];
/// Beginning of the line that says how often a guest was handed over.
const COUNTED: &str = "hand-over: ";
/// End of a refusal by a guest that is about to end.
const STOPPED: &str = "has stopped";
/// Factor by which a test may take longer than on KVM: half of it runs in software.
const PATIENCE: u64 = 2;

/// `xtask hand-over`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Control socket of the guest, whose `vmm` is the parent of this process
    socket: PathBuf,
    /// Mean time between hand-overs in milliseconds
    #[arg(long, default_value_t = 5)]
    every: u64,
}

/// Answer to a request.
#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    message: String,
}

/// Hands the guest over and back until it ends, and says how often.
pub(crate) fn main(args: &Args) -> Result<i32> {
    let (mut switched, mut refused) = (0_u64, 0_u64);
    if let Some(stream) = connect(&args.socket) {
        let mut answers = BufReader::new(stream.try_clone().context("cannot copy a socket")?);
        loop {
            // Moments that have nothing to do with those of the guest.
            let count = switched.wrapping_add(refused);
            thread::sleep(Duration::from_micros(count.wrapping_mul(7919) % (args.every * 2000)));
            let name = if switched % 2 == 0 { "software" } else { "kvm" };
            let request = json!({ "version": 1, "command": "accel", "accelerator": name });
            let mut line = String::new();
            let asked = writeln!(&stream, "{request}").and_then(|()| answers.read_line(&mut line));
            if !matches!(asked, Ok(1..)) {
                break;
            }
            let answer: Answer = serde_json::from_str(&line).context("cannot read an answer")?;
            match answer.error {
                None => switched += 1,
                Some(error) if error.message.ends_with(STOPPED) => break,
                Some(error) => {
                    refused += 1;
                    progress::say(&format!("hand-over refused: {}", error.message));
                }
            }
        }
    }
    progress::say(&format!("{COUNTED}{switched} times, {refused} refused"));
    Ok(0)
}

/// Connects to the control socket; `None` if the process that makes it has ended.
fn connect(socket: &Path) -> Option<UnixStream> {
    let parent = getppid();
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return Some(stream);
        }
        if getppid() != parent {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Reason why `test` cannot run with a guest that is handed over, if there is one.
pub(crate) fn refuses(test: &Test) -> Option<String> {
    let alone = ALONE.into_iter().find(|word| test.mentions(word));
    let alone = alone.map(|word| format!("{word} is for one hypervisor, or has its own socket"));
    let left_out = LEFT_OUT.into_iter().find(|(name, _)| test.name.starts_with(name));
    let left_out = left_out.map(|(_, reason)| reason.to_owned());
    test.kvm_only().map(str::to_owned).or(alone).or(left_out)
}

/// A program that runs `vmm` and hands its guest over, for tests that know only its path. `myself`
/// is this program where guests run.
pub(crate) fn wrap(vmm: &Path, myself: &str) -> Result<PathBuf> {
    let myself = shlex::try_quote(myself)?;
    let before = format!("socket=/tmp/hand-over.$$\n{myself} hand-over $socket >/dev/null &\n");
    let options = "--accel kvm,software --api-socket $socket";
    wrapper::write("vmm-handed-over", vmm, &before, options)
}

/// The job of a test that runs the program of [`wrap`], which needs `vmm`.
pub(crate) fn adapt(vmm: &Path, mut job: Job) -> Job {
    job.files.push(vmm.to_owned());
    job.timeout = job.timeout.saturating_mul(PATIENCE);
    job
}

/// Number of hand-overs of all tests.
#[derive(Debug, Default)]
pub(crate) struct Total(Cell<u64>);

impl Total {
    /// Adds those of an outcome. A guest that ends at once ends before they are counted.
    pub(crate) fn add(&self, outcome: &Outcome) {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        let count = |line: &str| {
            let (_, rest) = line.split_once(COUNTED)?;
            rest.split(' ').next()?.parse::<u64>().ok()
        };
        let counts = stderr.lines().filter_map(count);
        self.0.set(self.0.get().saturating_add(counts.sum()));
    }

    /// Says how many there were.
    ///
    /// # Errors
    /// If there was none.
    pub(crate) fn check(&self) -> Result<()> {
        let total = self.0.get();
        progress::print(&format!("{total} hand-overs"));
        ensure!(total > 0, "no guest was handed over");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Ending;
    use crate::suite::Suite;

    #[test]
    fn hand_overs_are_counted() {
        let total = Total::default();
        let outcome = |stderr: &str| Outcome {
            ending: Ending::Exited(0),
            stdout: Vec::new(),
            stderr: stderr.into(),
            time: Duration::ZERO,
        };
        assert!(total.check().is_err());
        let two = "a\nxtask: hand-over: 3 times, 1 refused\nhand-over: 4 times, 0 refused\n";
        total.add(&outcome(two));
        total.add(&outcome("hand-over: many\n"));
        assert_eq!(total.0.get(), 7);
        assert!(total.check().is_ok());
    }

    #[test]
    fn tests_that_need_one_hypervisor_are_refused() {
        let tests = Suite::load().unwrap().tests;
        let refused = |name: &str| refuses(tests.iter().find(|test| test.name == name).unwrap());
        assert_eq!(refused("hello"), None);
        assert_eq!(refused("net over vhost").as_deref(), Some("vhost needs KVM"));
        // That is about the processor in software on this host.
        assert!(tests.iter().all(|test| test.not_on_host.is_none() || refuses(test).is_none()));
        for name in ["irqchip user: hello", "outside: NMIs, lines and messages"] {
            assert!(refused(name).is_some(), "{name}");
        }
        let most = tests.iter().filter(|test| refuses(test).is_none()).count();
        assert!(most * 2 > tests.len(), "{most} of {}", tests.len());
    }
}
