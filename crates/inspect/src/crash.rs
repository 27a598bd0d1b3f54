//! Crash reports.

use std::fmt;

use nerite_arch::paging::{self, Root};
use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_hypervisor::{Exit, SystemEvent};
use nerite_loader::{Kernel, LoadedKernel};
use nerite_memory::GuestRam;

/// Maximum number of frames of a backtrace.
const MAX_FRAMES: usize = 32;
/// Maximum number of words of a stack that are searched for return addresses when there are no
/// frame pointers.
const MAX_STACK_WORDS: u64 = 512;

/// Reset state of a processor: the instruction pointer and the base of CS, and real mode.
const RESET_RIP: u64 = 0xfff0;
const RESET_CS: u64 = 0xffff_0000;
const CR0_PE: u64 = 1;

/// The state of a vCPU when the machine stopped.
#[derive(Debug, Clone)]
pub struct VcpuState {
    /// The vCPU's index.
    pub index: u32,
    /// Its general registers.
    pub regs: Regs,
    /// Its segments, descriptor tables and control registers.
    pub special_regs: SpecialRegs,
    /// Its x87, SSE and AVX registers, if there is a core file that they go to.
    pub fpu: Option<Fpu>,
    /// Backtrace, innermost frame first.
    pub backtrace: Vec<Frame>,
}

impl VcpuState {
    /// Returns `true` if its registers are those after INIT (Intel SDM vol. 3, 10.1.1): real mode,
    /// at the reset vector. KVM puts a vCPU into that state after a triple fault on AMD, where the
    /// hardware leaves its state undefined (AMD APM vol. 2, 15.14.3).
    pub fn is_reset(&self) -> bool {
        self.regs.rip == RESET_RIP
            && self.special_regs.cs.base == RESET_CS
            && self.special_regs.cr0 & CR0_PE == 0
    }
}

/// One step of a backtrace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Guest-virtual address: of the next instruction, or the one a call returns to.
    pub address: u64,
    /// The function it is in, and the offset into it, where the image has symbols.
    pub symbol: Option<(String, u64)>,
    /// `true` if it was found by following frame pointers; otherwise it only lies on the stack.
    pub certain: bool,
}

/// Report of a guest's crash.
#[derive(Debug, Clone)]
pub struct CrashReport {
    /// The vCPU that crashed.
    pub vcpu: u32,
    /// The exit it crashed with.
    pub exit: Exit,
    /// All vCPUs, in order of their index.
    pub vcpus: Vec<VcpuState>,
    /// The guest-virtual range of the loaded kernel.
    pub kernel: std::ops::Range<u64>,
}

impl fmt::Display for CrashReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "guest crashed on vCPU {}: {}", self.vcpu, Reason(&self.exit))?;
        writeln!(f, "kernel at {:#x}..{:#x}", self.kernel.start, self.kernel.end)?;
        for vcpu in &self.vcpus {
            writeln!(f, "\nvCPU {}", vcpu.index)?;
            if vcpu.is_reset() {
                f.write_str(
                    "(on AMD, a triple fault leaves no state behind: these are the registers of the processor after its reset, \
                     and what they were before is lost)\n",
                )?;
            }
            write!(f, "{}\n{}\n", vcpu.regs, vcpu.special_regs)?;
            if vcpu.is_reset() {
                // It leads from nowhere to nowhere.
                continue;
            }
            f.write_str("backtrace:\n")?;
            for (number, frame) in vcpu.backtrace.iter().enumerate() {
                writeln!(f, "  {number:2} {frame}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.address)?;
        match &self.symbol {
            Some((name, offset)) => write!(f, " {name}+{offset:#x}")?,
            None => f.write_str(" ?")?,
        }
        f.write_str(if self.certain { "" } else { " (found on the stack)" })
    }
}

/// Displays in words why a guest cannot be resumed.
#[derive(Debug)]
pub struct Reason<'a>(pub &'a Exit);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Exit::Shutdown => f.write_str(
                "triple fault (an exception could not be delivered, nor the double fault that followed)",
            ),
            Exit::EntryFailed { hardware_reason } => {
                write!(f, "the processor refused to enter the guest, hardware reason {hardware_reason:#x}")
            }
            Exit::InternalError(error) => {
                let meaning = match error.suberror {
                    1 => "an instruction could not be emulated",
                    2 => "exceptions at the same time",
                    3 => "an event could not be delivered",
                    4 => "an unexpected exit of the processor",
                    _ => "not known",
                };
                write!(
                    f,
                    "KVM internal error {} ({meaning}), instruction bytes {}",
                    error.suberror, error.instruction
                )
            }
            Exit::Unknown { reason } => write!(f, "unhandled KVM exit reason {reason}"),
            Exit::System(SystemEvent::Crash) => f.write_str("its kernel says that it has panicked"),
            Exit::Halt => f.write_str("it halted, and nothing can wake it"),
            other => write!(f, "unhandled exit: {other:?}"),
        }
    }
}

/// Unwinds the stack of a vCPU.
#[derive(Debug)]
pub struct Unwinder<'a> {
    /// RAM of the guest.
    pub ram: &'a GuestRam,
    /// The kernel, with its symbols.
    pub kernel: &'a Kernel,
    /// Location of the loaded kernel.
    pub loaded: &'a LoadedKernel,
}

impl Unwinder<'_> {
    /// Returns the frame of the vCPU, then its callers: by frame pointers, or, where there are
    /// none, whatever on the stack looks like a return address.
    pub fn backtrace(&self, regs: &Regs, special: &SpecialRegs) -> Vec<Frame> {
        let mut frames = vec![self.frame(regs.rip)];
        // Outside of 64-bit mode it is not the kernel that runs.
        let Some(root) = Root::of(special) else { return frames };
        self.follow_frame_pointers(regs, root, &mut frames);
        if frames.len() < 2 {
            self.search_stack(regs.rsp, root, &mut frames);
        }
        frames
    }

    fn follow_frame_pointers(&self, regs: &Regs, root: Root, frames: &mut Vec<Frame>) {
        let mut pointer = regs.rbp;
        while frames.len() < MAX_FRAMES {
            let caller = self.word(root, pointer);
            let return_address = pointer.checked_add(8).and_then(|at| self.word(root, at));
            let (Some(caller), Some(return_address)) = (caller, return_address) else { return };
            if !self.is_code(return_address) {
                return;
            }
            frames.push(self.caller(return_address, true));
            // Stacks grow down: a caller's frame lies higher. A guest cannot make this run in
            // circles.
            if caller <= pointer {
                return;
            }
            pointer = caller;
        }
    }

    fn search_stack(&self, rsp: u64, root: Root, frames: &mut Vec<Frame>) {
        for position in 0..MAX_STACK_WORDS {
            let word = rsp.checked_add(position.wrapping_mul(8)).and_then(|at| self.word(root, at));
            let Some(word) = word else { return };
            if frames.len() >= MAX_FRAMES {
                return;
            }
            if self.is_code(word) {
                frames.push(self.caller(word, false));
            }
        }
    }

    /// `true` if `address` lies in an executable segment of the kernel.
    fn is_code(&self, address: u64) -> bool {
        let Some(linked) = self.linked(address) else { return false };
        self.kernel.segments().iter().any(|segment| {
            segment.flags.execute && segment.address <= linked && linked < segment.end()
        })
    }

    /// `address` as the kernel was linked.
    fn linked(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.loaded.start)?.checked_add(self.kernel.link_start())
    }

    fn frame(&self, address: u64) -> Frame {
        self.located(address, address, true)
    }

    /// A frame that a call returns to. The call is before that address, which may be another
    /// function's already if the call never returns.
    fn caller(&self, address: u64, certain: bool) -> Frame {
        self.located(address, address.saturating_sub(1), certain)
    }

    fn located(&self, address: u64, inside: u64, certain: bool) -> Frame {
        let location = self.linked(inside).and_then(|linked| self.kernel.symbols().lookup(linked));
        let into = address.saturating_sub(inside);
        let symbol = location.map(|location| (location.name, location.offset.saturating_add(into)));
        Frame { address, symbol, certain }
    }

    /// Reads a word at a guest-virtual address. Only if it does not cross a page.
    fn word(&self, root: Root, address: u64) -> Option<u64> {
        if !address.is_multiple_of(8) {
            return None;
        }
        let translation =
            paging::walk(root, address, |entry| self.ram.read_obj::<u64>(entry).ok()).ok()?;
        self.ram.read_obj::<u64>(translation.phys).ok()
    }
}

#[cfg(test)]
#[path = "crash_test.rs"]
mod tests;
