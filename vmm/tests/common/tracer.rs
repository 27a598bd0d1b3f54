//! Counting the system calls of a process that runs already, by ptrace(2).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libc::{c_int, c_long, pid_t};

const PATIENCE: Duration = Duration::from_secs(300);

/// Follows all threads of a process from now on, from the calling thread alone.
pub struct Tracer {
    /// Threads, and whether each is in a system call.
    threads: HashMap<pid_t, bool>,
}

fn request(request: libc::c_uint, thread: pid_t, data: c_long) {
    // SAFETY: none of the requests that are made here writes to this process's memory.
    let done = unsafe { libc::ptrace(request, thread, 0, data) };
    assert_eq!(done, 0, "ptrace {request:#x}: {}", std::io::Error::last_os_error());
}

/// The registers of a thread that is stopped.
fn registers(thread: pid_t) -> libc::user_regs_struct {
    // SAFETY: for a structure of integers all zeros are a valid value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure there.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETREGS, thread, 0, &raw mut registers) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    registers
}

impl Tracer {
    pub fn seize(process: i32) -> Self {
        let mut threads = HashMap::new();
        for entry in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let thread = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
            request(libc::PTRACE_SEIZE, thread, libc::PTRACE_O_TRACESYSGOOD.into());
            request(libc::PTRACE_INTERRUPT, thread, 0);
            assert!(wait(thread, false).is_some());
            request(libc::PTRACE_SYSCALL, thread, 0);
            // It is in the call in which it waits, which ends.
            threads.insert(thread, true);
        }
        Self { threads }
    }

    /// Gives each call, with its second argument, until one is `last`.
    pub fn calls_until(mut self, last: c_long) -> Vec<(c_long, u64)> {
        let begin = Instant::now();
        let mut calls = Vec::new();
        let mut threads = std::mem::take(&mut self.threads);
        loop {
            assert!(begin.elapsed() < PATIENCE, "{calls:?}");
            let mut is_quiet = true;
            for (thread, inside) in &mut threads {
                let thread = *thread;
                let Some(status) = wait(thread, true) else { continue };
                is_quiet = false;
                assert!(libc::WIFSTOPPED(status), "thread {thread} has ended");
                let signal = libc::WSTOPSIG(status);
                if signal == libc::SIGTRAP | 0x80 {
                    let registers = registers(thread);
                    // As it begins, there is no result yet.
                    let begins = registers.rax.cast_signed() == -i64::from(libc::ENOSYS);
                    if begins && !*inside {
                        let call = registers.orig_rax.cast_signed();
                        if call == last {
                            leave(threads.keys().copied(), thread);
                            return calls;
                        }
                        calls.push((call, registers.rsi));
                    }
                    *inside = begins;
                    request(libc::PTRACE_SYSCALL, thread, 0);
                } else {
                    // A stop of ptrace's own has an event; others are signals, which go on.
                    let is_event = status >> 16 != 0;
                    let signal = if is_event { 0 } else { signal };
                    request(libc::PTRACE_SYSCALL, thread, signal.into());
                }
            }
            if is_quiet {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Follows the threads no more, of which one is stopped.
fn leave(threads: impl Iterator<Item = pid_t>, stopped: pid_t) {
    for thread in threads {
        if thread != stopped {
            request(libc::PTRACE_INTERRUPT, thread, 0);
            wait(thread, false);
        }
        request(libc::PTRACE_DETACH, thread, 0);
    }
}

/// Waits for a stop of a thread, or looks whether there is one.
fn wait(thread: pid_t, only_looks: bool) -> Option<c_int> {
    let mut status = 0;
    let flags = libc::__WALL | if only_looks { libc::WNOHANG } else { 0 };
    // SAFETY: the kernel writes one integer there.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, flags) };
    assert!(waited >= 0, "{}", std::io::Error::last_os_error());
    (waited == thread).then_some(status)
}
