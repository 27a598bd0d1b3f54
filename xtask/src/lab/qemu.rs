//! Starts QEMU as the lab's machine: one emulated CPU with nested AMD SVM and two serial ports.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::CpuSet;

use super::forward;
use crate::host;

/// Properties of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Memory in MiB. The root file system lives in it.
    pub(crate) memory_mib: u64,
    /// CPUs; more than one only where parallelism is the point, since interrupts are then sometimes
    /// delivered twice.
    pub(crate) cpus: u32,
    /// `true` makes the clock count executed instructions, at 2 ns each, so that times are the same
    /// whatever else the host does. It takes two to three times as long, and one CPU.
    pub(crate) counts_instructions: bool,
    /// Address on the host of a port that leads to the one of the same number in the lab.
    pub(crate) port: Option<SocketAddr>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { memory_mib: 4096, cpus: 1, counts_instructions: false, port: None }
    }
}

/// A machine's second serial port: what is written there, and what comes from it.
pub(crate) type Port = (ChildStdin, ChildStdout);

/// Command line of the lab's kernel, but for the rate of its time-stamp counter. An emulated
/// machine that waits for its host's processor fails the kernel's tests of its timer, which ends
/// the boot, and of its time-stamp counter, which KVM then corrects each time that a vCPU is
/// scheduled; both are sound.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 mitigations=off random.trust_cpu=on \
     no_timer_check tsc=reliable";

/// Rate of the time-stamp counter where the clock counts instructions: QEMU's then has nanoseconds.
const COUNTED_TSC_KHZ: u64 = 1_000_000;

/// Whole command line of the lab's kernel. The time-stamp counter is the host's, and so is its
/// rate. Left to measure it against an emulated PIT, the kernel took a sixth to a quarter of it in
/// one boot of six on a busy host: the lab's clock, which all time limits of tests go by, then ran
/// four to six times too fast.
fn command_line(tsc_khz: u64) -> String {
    format!("{COMMAND_LINE} tsc_early_khz={tsc_khz}")
}

/// Questions to the monitor about a machine that seems to be frozen.
const QUESTIONS: [&str; 4] = ["info status", "info registers", "info lapic", "info pic"];
/// The longest wait for more of the monitor's answers.
const ANSWER: Duration = Duration::from_secs(2);

/// A running QEMU. It is killed when dropped.
pub(crate) struct Qemu {
    child: Child,
    console: PathBuf,
    errors: PathBuf,
    monitor: PathBuf,
}

impl Qemu {
    /// Starts the machine. `folder` is for its logs; the first serial port (console) goes to a file
    /// there, since a file is written without buffering, and the second one is what is returned.
    pub(crate) fn start(
        program: &Path,
        kernel: &Path,
        initramfs: &Path,
        machine: Machine,
        folder: &Path,
    ) -> Result<(Self, Port)> {
        let console = folder.join("console.log");
        let errors = folder.join("qemu.log");
        let monitor = folder.join("monitor");
        let (clock, tsc_khz): (&[&str], _) = match machine.counts_instructions {
            true => (&["-icount", "shift=1"], COUNTED_TSC_KHZ),
            false => (&[], host::tsc_khz()?),
        };
        // setpriv: the lab does not outlive xtask, even if that is killed. thread=single: with
        // more, nested SVM freezes.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list"])
            .arg(host_cpu()?.to_string())
            .arg(program)
            .args([
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max,+svm",
                "-nodefaults",
                "-no-user-config",
            ])
            .args(clock)
            .args(["-display", "none", "-nic", &card(machine.port)])
            .arg("-no-reboot")
            .args(["-monitor", &format!("unix:{},server=on,wait=off", escaped(&monitor))])
            .args(["-m", &format!("{}M", machine.memory_mib), "-smp", &machine.cpus.to_string()])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", &command_line(tsc_khz)])
            .arg("-serial")
            .arg(format!("file:{}", escaped(&console)))
            .args(["-chardev", "stdio,id=results,signal=off", "-serial", "chardev:results"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors)?)
            .spawn()
            .context("cannot start QEMU through setpriv and taskset (package util-linux)")?;
        let commands = child.stdin.take().context("QEMU has no input")?;
        let results = child.stdout.take().context("QEMU has no output")?;
        Ok((Self { child, console, errors, monitor }, (commands, results)))
    }
}

/// The host's processor for all threads of one machine; machines of one run take turns.
///
/// At each entry and exit of a nested guest, the thread that emulates the processor clears a bit of
/// the word in which QEMU's main thread sets another one for an interrupt. On two processors one of
/// the writes can undo the other. A timer's interrupt was lost in this way about once in 100
/// seconds of exits, and the lab's kernel, which waits for it to set the next one, had no clock
/// until a device interrupted: for seconds, or for good. Each write is one instruction, so that on
/// one processor none comes in between.
fn host_cpu() -> Result<usize> {
    static MACHINES: AtomicUsize = AtomicUsize::new(0);
    let allowed = rustix::thread::sched_getaffinity(None).context("the host's processors")?;
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    // Runs that begin at the same time begin with different ones.
    let first = std::process::id() as usize;
    let turn = first.wrapping_add(MACHINES.fetch_add(1, Ordering::Relaxed));
    turn.checked_rem(cpus.len())
        .and_then(|turn| cpus.get(turn).copied())
        .context("this process may run on no processor")
}

/// QEMU's text for the lab's card: none, or one that leads a port of the host into the lab, and
/// nothing out of it.
fn card(port: Option<SocketAddr>) -> String {
    let Some(host) = port else { return "none".to_owned() };
    let (lab, port) = (forward::LAB, forward::relay_port(host.port()));
    format!(
        "user,model=virtio-net-pci,restrict=on,hostfwd=tcp:{}:{}-{lab}:{port}",
        host.ip(),
        host.port()
    )
}

/// A path as QEMU's options take it.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// View of a running machine from outside.
pub(crate) trait Console {
    /// Output of the lab's kernel and first process so far, and of QEMU itself.
    fn log(&self) -> String;
    /// Length of the console's output: a sign of life.
    fn length(&self) -> u64;
    /// State of the processor and its interrupts, as QEMU's monitor prints it, and the processor
    /// time of QEMU.
    fn state(&self) -> String;
}

impl Console for Qemu {
    fn log(&self) -> String {
        let mut text = read_lossy(&self.console);
        let errors = read_lossy(&self.errors);
        if !errors.is_empty() {
            text.push_str("\nQEMU said: ");
            text.push_str(errors.trim_end());
        }
        text
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.console).map_or(0, |meta| meta.len())
    }

    fn state(&self) -> String {
        let answers = ask(&self.monitor, &QUESTIONS)
            .unwrap_or_else(|error| format!("the monitor does not answer: {error}"));
        let times = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        format!("{answers}\n/proc/PID/stat of QEMU: {}", times.unwrap_or_default().trim_end())
    }
}

/// Answers of the monitor at `socket`.
fn ask(socket: &Path, questions: &[&str]) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(format!("{}\n", questions.join("\n")).as_bytes())?;
    let (mut answers, mut buffer) = (Vec::new(), [0; 4096]);
    // There is no sign of the last answer's end but the prompt, which each has.
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        answers.extend_from_slice(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answers).into_owned())
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
