//! Loads the filters that the build script made (seccomp(2)).

use std::io;

use vmm_sys_util::signal::register_signal_handler;

use crate::Error;
use crate::rules::{Features, Kind, OWN_PROCESS};

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// `struct sock_filter` of `<linux/filter.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct sock_fprog` of `<linux/filter.h>`.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// `BPF_RET | BPF_K` of `<linux/bpf_common.h>`.
const RETURN: u16 = 0x06;
/// What a process ends with that made a forbidden call: as if the host had failed.
const EXIT_CODE: libc::c_int = 243;

/// The filters of one process.
#[derive(Debug)]
pub(crate) struct Filters {
    features: Features,
    /// Whether forbidden calls are only written down.
    log: bool,
    /// The number of this process.
    process: u32,
}

impl Filters {
    pub(crate) fn new(features: Features, log: bool) -> Self {
        Self { features, log, process: std::process::id() }
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

    /// The filter of a kind of threads, with what only this process knows.
    fn adapted(&self, kind: Kind) -> Vec<Instruction> {
        let mut program = self.program(kind).to_vec();
        for instruction in &mut program {
            if instruction.code == RETURN && instruction.k == libc::SECCOMP_RET_TRAP && self.log {
                instruction.k = libc::SECCOMP_RET_LOG;
            } else if instruction.k == OWN_PROCESS {
                instruction.k = self.process;
            }
        }
        program
    }

    /// Loads the main thread's filter for all threads there are, and says what will happen to forbidden calls.
    pub(crate) fn load_for_process(&self) -> Result<(), Error> {
        if !self.log {
            register_signal_handler(libc::SIGSYS, on_forbidden)
                .map_err(|error| Error::Seccomp(io::Error::from_raw_os_error(error.errno())))?;
        }
        load(&self.adapted(Kind::Main), libc::SECCOMP_FILTER_FLAG_TSYNC)
    }

    /// Loads a filter for the calling thread, on top of those it has.
    pub(crate) fn load(&self, kind: Kind) -> Result<(), Error> {
        load(&self.adapted(kind), 0)
    }
}

fn load(instructions: &[Instruction], flags: libc::c_ulong) -> Result<(), Error> {
    let length = u16::try_from(instructions.len())
        .map_err(|_| Error::Seccomp(io::Error::from(io::ErrorKind::InvalidInput)))?;
    let program = Program { length, instructions: instructions.as_ptr() };
    // SAFETY: the program's pointer and length are those of a slice that outlives the call, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program))
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
    let mut message = Message::default();
    if !context.is_null() {
        // SAFETY: the kernel passes a handler with SA_SIGINFO the context of the interrupted thread, which nobody else changes.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let register = |index: libc::c_int| {
            usize::try_from(index).ok().and_then(|index| registers.get(index)).copied().unwrap_or(-1)
        };
        message.text(b"vmm: system call ");
        message.decimal(register(libc::REG_RAX).cast_unsigned());
        message.text(b" (arguments ");
        for (index, name) in [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX].into_iter().enumerate() {
            message.text(if index == 0 { b"0x" } else { b", 0x" });
            message.hexadecimal(register(name).cast_unsigned());
        }
        message.text(b") is not one that this thread should make, and was not made. This is an attack or a bug, please report it; \
                       --seccomp log goes on instead\n");
    }
    let text = message.bytes.get(..message.length).unwrap_or_default();
    // SAFETY: the pointer and length are those of a slice, which write(2) only reads.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    // SAFETY: it ends the process at once, and runs nothing that a signal handler must not.
    unsafe { libc::_exit(EXIT_CODE) }
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
