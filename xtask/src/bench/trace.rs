//! Counts what a program does, by following it with ptrace(2): system calls, exits of its guests,
//! memory, threads.
//!
//! It counts the same for any program that runs guests on KVM, because it looks at what the program
//! gets from the kernel: after each `KVM_RUN` the reason is read from the program's `kvm_run`.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

use super::data::Counts;

/// `KVM_RUN` (linux/kvm.h).
const KVM_RUN: u64 = 0xae80;
/// Offsets in `kvm_run` of the exit reason and of the port (linux/kvm.h).
const EXIT_REASON: u64 = 8;
const EXIT_IO: u64 = 32;
/// Value of RAX when a system call begins: no result yet.
const NO_RESULT: u64 = (-(libc::ENOSYS as i64)).cast_unsigned();

/// Runs `command` to its end and counts.
pub(crate) fn count(command: &[String], timeout: Duration) -> Result<Counts> {
    // It stops before it becomes what is to be counted, so that it can be followed from there on.
    let child = Command::new("sh")
        .args(["-c", r#"kill -STOP $$; exec "$@""#, "sh"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run sh")?;
    waitpid(Some(rustix::process::Pid::from_child(&child)), WaitOptions::UNTRACED)
        .context("waiting for the program to stop")?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(pid, options).context("cannot follow the program with ptrace")?;
    kill(pid, Signal::SIGCONT)?;
    let mut tracer = Tracer {
        first: pid,
        counts: Counts::default(),
        counting: false,
        inside: HashMap::new(),
        all: (libc::__WALL | libc::__WNOTHREAD).cast_unsigned(),
    };
    tracer.follow(Instant::now() + timeout)
}

/// Reason for which a thread is in the kernel.
enum Inside {
    Call,
    /// In the guest, with its `kvm_run` at this address.
    Guest(Option<u64>),
}

struct Tracer {
    first: Pid,
    counts: Counts,
    /// `true` once the program has replaced the shell that started it.
    counting: bool,
    /// The threads that are in a system call.
    inside: HashMap<Pid, Inside>,
    /// The flags by which waitpid looks at all threads of what this thread follows, and at nothing
    /// else.
    all: u32,
}

impl Tracer {
    fn follow(&mut self, deadline: Instant) -> Result<Counts> {
        let options = WaitOptions::from_bits_retain(self.all) | WaitOptions::NOHANG;
        loop {
            if Instant::now() > deadline {
                // It is followed, so that its number is still its own.
                let _ = kill(self.first, Signal::SIGKILL);
                bail!("it did not end in time");
            }
            let Some((pid, status)) = waitpid(None, options).context("following the program")?
            else {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            };
            let pid = Pid::from_raw(pid.as_raw_nonzero().get());
            if !status.stopped() {
                if pid != self.first {
                    continue;
                }
                ensure!(self.counting, "it ended before it was started");
                ensure!(status.exited(), "it was ended by a signal");
                return Ok(std::mem::take(&mut self.counts));
            }
            self.stopped(pid, status.as_raw())?;
        }
    }

    /// `status` is as ptrace(2) describes it: the signal in the second byte, the event in the
    /// third.
    fn stopped(&mut self, pid: Pid, status: i32) -> Result<()> {
        let (signal, event) = (status >> 8 & 0xff, status >> 16);
        let mut deliver = None;
        if signal == libc::SIGTRAP | 0x80 {
            self.syscall(pid)?;
        } else if event != 0 {
            self.event(pid, event);
        } else {
            // A real-time signal, which nix does not know, has interrupted already what it was to
            // interrupt.
            deliver = Signal::try_from(signal).ok();
        }
        match ptrace::syscall(pid, deliver) {
            // It has been killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).context("resuming the program"),
        }
    }

    fn event(&mut self, pid: Pid, event: i32) {
        match event {
            libc::PTRACE_EVENT_EXEC if self.counting => {
                self.inside.insert(pid, Inside::Call);
            }
            libc::PTRACE_EVENT_EXEC => {
                self.counting = true;
                // execve itself, which is not over yet, and the thread that did it.
                self.counts = Counts { syscalls: 1, threads: 1, ..Counts::default() };
                self.inside = [(pid, Inside::Call)].into();
            }
            libc::PTRACE_EVENT_CLONE => self.counts.threads += 1,
            libc::PTRACE_EVENT_EXIT => self.note_memory(pid),
            _ => {}
        }
    }

    fn syscall(&mut self, pid: Pid) -> Result<()> {
        if !self.counting {
            return Ok(());
        }
        let Ok(regs) = ptrace::getregs(pid) else { return Ok(()) };
        match self.inside.remove(&pid) {
            Some(Inside::Call) => return Ok(()),
            Some(Inside::Guest(run)) => {
                let reason =
                    if regs.rax == 0 { reason(pid, run) } else { "interrupted".to_owned() };
                *self.counts.exits.entry(reason).or_default() += 1;
                return Ok(());
            }
            // A new thread comes back from the call that made it.
            None if regs.rax != NO_RESULT => return Ok(()),
            None => {}
        }
        let call = i64::try_from(regs.orig_rax)?;
        if call == libc::SYS_ioctl && regs.rsi == KVM_RUN {
            self.inside.insert(pid, Inside::Guest(kvm_run_of(pid, regs.rdi)));
            return Ok(());
        }
        self.inside.insert(pid, Inside::Call);
        self.counts.syscalls += 1;
        if call == libc::SYS_exit_group {
            self.note_memory(pid);
        }
        Ok(())
    }

    /// The peak so far, while there is still something to look at.
    fn note_memory(&mut self, pid: Pid) {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
        self.counts.rss = self.counts.rss.max(kib.unwrap_or(0));
    }
}

/// Address of the `kvm_run` of the vCPU behind descriptor `fd` of the program.
fn kvm_run_of(pid: Pid, fd: u64) -> Option<u64> {
    let name = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mapping = maps.lines().find(|line| {
        // The offset, third of the fields, is 0 where the mapping begins with kvm_run.
        line.ends_with(&*name.to_string_lossy()) && line.split(' ').nth(2) == Some("00000000")
    })?;
    u64::from_str_radix(mapping.split('-').next()?, 16).ok()
}

/// The reason of the exit, in words.
fn reason(pid: Pid, run: Option<u64>) -> String {
    let word = |offset: u64| {
        let word = ptrace::read(pid, (run? + offset) as ptrace::AddressType).ok()?;
        Some(word.to_le_bytes())
    };
    let Some([a, b, c, d, ..]) = word(EXIT_REASON) else { return "not known".to_owned() };
    match u32::from_le_bytes([a, b, c, d]) {
        2 => {
            let [direction, _, low, high, ..] = word(EXIT_IO).unwrap_or_default();
            let direction = if direction == 0 { "in" } else { "out" };
            format!("port {direction} {:#x}", u16::from_le_bytes([low, high]))
        }
        5 => "halt".to_owned(),
        6 => "mmio".to_owned(),
        7 => "interrupt window".to_owned(),
        8 => "shutdown".to_owned(),
        10 => "interrupted".to_owned(),
        17 => "internal error".to_owned(),
        24 => "system event".to_owned(),
        other => format!("reason {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(words: &[&str]) -> Result<Counts> {
        let command: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        count(&command, Duration::from_secs(20))
    }

    #[test]
    fn a_program_is_counted_from_its_start_to_its_end() {
        let counts = match counted(&["/bin/true"]) {
            Ok(counts) => counts,
            Err(error) if format!("{error:#}").contains("EPERM") => {
                return nerite_testkit::skip("ptrace is not allowed here");
            }
            Err(error) => panic!("{error:#}"),
        };
        // execve, exit_group, and what it takes to link.
        assert!((2..2000).contains(&counts.syscalls), "{counts:?}");
        assert!(counts.rss > 100 && counts.rss < 100_000, "{counts:?}");
        assert_eq!((counts.threads, counts.exits.len()), (1, 0));
        assert_eq!(counts, Counts { rss: counts.rss, ..counted(&["/bin/true"]).unwrap() });
        // A shell that starts two programs: processes are followed, and counted, too.
        let two = counted(&["/bin/sh", "-c", "/bin/true; /bin/true; exit 0"]).unwrap();
        assert!(two.syscalls > 2 * counts.syscalls, "{two:?}");
    }
}
