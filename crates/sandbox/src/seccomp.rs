//! Loads the filters that the build script made (seccomp(2)).

use std::io;
use std::sync::OnceLock;

use vmm_sys_util::signal::register_signal_handler;

use crate::program::Instruction;
use crate::rules::{Features, Kind, OWN_PROCESS};
use crate::{Error, Policy, Program, Violation};

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// `struct sock_fprog` of `<linux/filter.h>`.
#[repr(C)]
struct RawProgram {
    length: u16,
    instructions: *const Instruction,
}

/// `BPF_RET | BPF_K` of `<linux/bpf_common.h>`.
const RETURN: u16 = 0x06;

/// The [`Violation`] of this process, for the signal handler.
static VIOLATION: OnceLock<Violation> = OnceLock::new();

/// The filters of one process.
#[derive(Debug)]
pub(crate) struct Filters {
    features: Features,
    /// The caller's own program of the main thread.
    own: Option<Program>,
    /// `true` if forbidden calls are only logged.
    log: bool,
    /// The number of this process.
    process: u32,
    violation: Violation,
}

impl Filters {
    pub(crate) fn new(features: Features, policy: &Policy, log: bool) -> Self {
        let Policy { calls, violation, .. } = policy.clone();
        Self { features, own: calls, log, process: std::process::id(), violation }
    }

    /// The filter of a kind of threads as the build script made it.
    fn program(&self, kind: Kind) -> &'static [Instruction] {
        let [main, vcpu, control, device] = &PROGRAMS;
        let programs = match kind {
            Kind::Main => main,
            Kind::Vcpu => vcpu,
            Kind::Control => control,
            Kind::Device => device,
        };
        // Both are as many as there are combinations.
        programs.get(self.features.index()).copied().unwrap_or_default()
    }

    /// A filter with what only this process knows.
    fn adapted(&self, program: &[Instruction]) -> Vec<Instruction> {
        let mut program = program.to_vec();
        for instruction in &mut program {
            if instruction.code == RETURN && instruction.k == libc::SECCOMP_RET_TRAP && self.log {
                instruction.k = libc::SECCOMP_RET_LOG;
            } else if instruction.k == OWN_PROCESS {
                instruction.k = self.process;
            }
        }
        program
    }

    /// Loads the main thread's filter for all threads there are, and says what will happen to
    /// forbidden calls.
    pub(crate) fn load_for_process(&self) -> Result<(), Error> {
        if !self.log {
            // Only the first sandbox of a process decides; there is no more than one.
            let _ = VIOLATION.set(self.violation);
            register_signal_handler(libc::SIGSYS, on_forbidden)
                .map_err(|error| Error::Seccomp(io::Error::from_raw_os_error(error.errno())))?;
        }
        let main = self.own.as_ref().map_or(self.program(Kind::Main), |own| own.instructions());
        load(&self.adapted(main), libc::SECCOMP_FILTER_FLAG_TSYNC)
    }

    /// Loads the filter of a kind of threads for the calling thread, on top of those it has.
    pub(crate) fn load(&self, kind: Kind) -> Result<(), Error> {
        load(&self.adapted(self.program(kind)), 0)
    }

    /// Loads a program of the caller's for the calling thread, on top of those it has.
    pub(crate) fn load_program(&self, program: &Program) -> Result<(), Error> {
        load(&self.adapted(program.instructions()), 0)
    }
}

fn load(instructions: &[Instruction], flags: libc::c_ulong) -> Result<(), Error> {
    let length = u16::try_from(instructions.len())
        .map_err(|_| Error::Seccomp(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let program = RawProgram { length, instructions: instructions.as_ptr() };
    // SAFETY: the program's pointer and length are those of a slice that outlives the call, and the
    // kernel only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    match result {
        0 => Ok(()),
        // With TSYNC: the thread that has a filter of its own already.
        thread if thread > 0 => {
            Err(Error::Seccomp(io::Error::other(format!("thread {thread} cannot follow"))))
        }
        _ => Err(Error::Seccomp(io::Error::last_os_error())),
    }
}

/// Says which call it was, and ends the process: the call has not been made.
extern "C" fn on_forbidden(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let violation = VIOLATION.get().copied().unwrap_or_default();
    let mut message = Message::default();
    if !context.is_null() {
        // SAFETY: the kernel passes a handler with SA_SIGINFO the context of the interrupted
        // thread, which nothing else changes while the handler runs.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |index: libc::c_int| {
            usize::try_from(index)
                .ok()
                .and_then(|index| registers.get(index))
                .copied()
                .unwrap_or(-1)
        };
        message.text(violation.before.as_bytes());
        message.text(b"system call ");
        message.decimal(register(libc::REG_RAX).cast_unsigned());
        message.text(b" (arguments ");
        for (index, name) in [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX].into_iter().enumerate() {
            message.text(if index == 0 { b"0x" } else { b", 0x" });
            message.hexadecimal(register(name).cast_unsigned());
        }
        message.text(b")");
        message.text(violation.after.as_bytes());
    }
    let text = message.bytes.get(..message.length).unwrap_or_default();
    let mut standard_error =
        libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one live structure; with no timeout it waits for nothing.
    if unsafe { libc::poll(&raw mut standard_error, 1, 0) } > 0 {
        // SAFETY: the pointer and length are those of a slice, which write(2) only reads.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    }
    // SAFETY: it ends the process at once, and runs nothing that a signal handler must not.
    unsafe { libc::_exit(violation.exit_code.into()) }
}

/// A text that is made without the allocator, which may be in any state.
struct Message {
    bytes: [u8; 320],
    length: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self { bytes: [0; 320], length: 0 }
    }
}

impl Message {
    fn text(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = *byte;
                self.length = self.length.saturating_add(1);
            }
        }
    }

    fn decimal(&mut self, number: u64) {
        self.digits(number, 10);
    }

    fn hexadecimal(&mut self, number: u64) {
        self.digits(number, 16);
    }

    fn digits(&mut self, number: u64, base: u64) {
        let Some(rest) = number.checked_div(base) else { return };
        if rest > 0 {
            self.digits(rest, base);
        }
        let digit = usize::try_from(number.checked_rem(base).unwrap_or(0)).unwrap_or(0);
        self.text(b"0123456789abcdef".get(digit..=digit).unwrap_or_default());
    }
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod tests;
