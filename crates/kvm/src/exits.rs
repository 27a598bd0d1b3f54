//! From what `KVM_RUN` returned to the neutral [`Exit`].

use std::ptr::NonNull;

use kvm_bindings::{
    KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_IO, KVM_INTERNAL_ERROR_EMULATION, KVM_SYSTEM_EVENT_CRASH,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, kvm_run,
};
use kvm_ioctls::{MsrExitReason, ReadMsrExit, VcpuExit, VcpuFd, WriteMsrExit};
use nerite_hypervisor::{Entry, Exit, InstructionBytes, InternalError, SystemEvent};

use crate::convert;

/// `kvm_run.emulation_failure.flags`: the instruction bytes are there (KVM API, 5,
/// `KVM_EXIT_INTERNAL_ERROR`).
const INSTRUCTION_BYTES_GIVEN: u64 = 1;

/// Those of an x2APIC (Intel SDM table 12-6), which KVM refuses when it has no local APICs.
const X2APIC_MSRS: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// A guest access that waits for its answer, or whose further elements have yet to be reported.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) enum Pending {
    /// Nothing waits.
    #[default]
    None,
    /// A port access of `count` elements of `width` bytes, of which `done` are dealt with.
    Port { port: u16, width: u8, is_read: bool, count: usize, done: usize },
    /// An MMIO read.
    Mmio,
    /// A hypercall.
    Hypercall,
    /// An MSR access.
    Msr { is_read: bool },
}

/// Result of `KVM_RUN`, copied out of the borrow that `kvm_ioctls` returns it in.
pub(crate) enum Raw {
    /// A finished exit, and what waits for its answer.
    Exit(Exit, Pending),
    /// A port access of that many bytes in all; the width of an element is in `kvm_run`.
    Port { port: u16, is_read: bool, bytes: usize },
    /// An access of a model-specific register that KVM knows, and refuses: the guest gets its fault
    /// from KVM itself.
    Invalid,
    /// Details of an internal error are in `kvm_run`.
    InternalError,
    /// The reason is in `kvm_run`.
    Other,
}

/// Copies a `VcpuExit`.
pub(crate) fn copy(exit: &VcpuExit<'_>) -> Raw {
    let done = |exit| Raw::Exit(exit, Pending::None);
    match exit {
        VcpuExit::IoIn(port, data) => Raw::Port { port: *port, is_read: true, bytes: data.len() },
        VcpuExit::IoOut(port, data) => Raw::Port { port: *port, is_read: false, bytes: data.len() },
        VcpuExit::MmioRead(address, data) => {
            Raw::Exit(Exit::MmioRead { address: *address, width: length(data) }, Pending::Mmio)
        }
        VcpuExit::MmioWrite(address, data) => done(Exit::MmioWrite {
            address: *address,
            width: length(data),
            value: little_endian(data),
        }),
        VcpuExit::Hypercall(call) => {
            Raw::Exit(Exit::Hypercall { number: call.nr, arguments: call.args }, Pending::Hypercall)
        }
        VcpuExit::X86Rdmsr(ReadMsrExit { reason, index, .. })
        | VcpuExit::X86Wrmsr(WriteMsrExit { reason, index, .. })
            if reason.contains(MsrExitReason::Inval) && !X2APIC_MSRS.contains(index) =>
        {
            Raw::Invalid
        }
        VcpuExit::X86Rdmsr(msr) => {
            Raw::Exit(Exit::MsrRead { index: msr.index }, Pending::Msr { is_read: true })
        }
        VcpuExit::X86Wrmsr(msr) => Raw::Exit(
            Exit::MsrWrite { index: msr.index, value: msr.data },
            Pending::Msr { is_read: false },
        ),
        VcpuExit::Hlt => done(Exit::Halt),
        VcpuExit::Shutdown => done(Exit::Shutdown),
        VcpuExit::IrqWindowOpen => done(Exit::InterruptWindow),
        VcpuExit::SetTpr => done(Exit::TprBelowThreshold),
        VcpuExit::Debug(debug) => {
            let cause = convert::debug_cause(debug.exception, debug.dr6);
            done(Exit::Debug { rip: debug.pc, cause })
        }
        VcpuExit::FailEntry(hardware_reason, _) => {
            done(Exit::EntryFailed { hardware_reason: *hardware_reason })
        }
        VcpuExit::SystemEvent(event, _) => done(Exit::System(match *event {
            KVM_SYSTEM_EVENT_SHUTDOWN => SystemEvent::PowerOff,
            KVM_SYSTEM_EVENT_RESET => SystemEvent::Reset,
            KVM_SYSTEM_EVENT_CRASH => SystemEvent::Crash,
            other => SystemEvent::Other(other),
        })),
        VcpuExit::InternalError => Raw::InternalError,
        _ => Raw::Other,
    }
}

/// Finishes what [`copy`] could not know without `kvm_run`.
pub(crate) fn finish(raw: Raw, fd: &mut VcpuFd) -> (Exit, Pending) {
    match raw {
        Raw::Exit(exit, pending) => (exit, pending),
        Raw::Port { port, is_read, bytes } => {
            // SAFETY: the exit reason was KVM_EXIT_IO, so that `io` is the member KVM filled in.
            let width = unsafe { fd.get_kvm_run().__bindgen_anon_1.io.size };
            let count = bytes.checked_div(usize::from(width)).unwrap_or(0);
            let pending = Pending::Port { port, width, is_read, count, done: 0 };
            let exit = pending.next(fd).unwrap_or(Exit::Unknown { reason: KVM_EXIT_IO });
            (exit, pending)
        }
        Raw::InternalError => {
            (Exit::InternalError(internal_error(fd.get_kvm_run())), Pending::None)
        }
        Raw::Invalid | Raw::Other => {
            (Exit::Unknown { reason: fd.get_kvm_run().exit_reason }, Pending::None)
        }
    }
}

/// Refuses the access of a model-specific register that is pending.
pub(crate) fn refuse_msr(fd: &mut VcpuFd) {
    fd.get_kvm_run().__bindgen_anon_1.msr.error = 1;
}

impl Pending {
    /// The exit that reports the next element of a port access, if there is one.
    fn next(&self, fd: &mut VcpuFd) -> Option<Exit> {
        let Self::Port { port, width, is_read, count, done } = *self else { return None };
        if done >= count {
            return None;
        }
        if is_read {
            return Some(Exit::PortIn { port, width });
        }
        let length = usize::from(width).min(4);
        let element = port_element(fd, usize::from(width), done)?;
        let mut bytes = [0_u8; 4];
        // SAFETY: `element` points to `width` bytes in the `kvm_run` mapping, `bytes` has 4, and
        // `length` is the smaller of both.
        unsafe { element.copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), length) };
        Some(Exit::PortOut { port, width, value: u32::from_le_bytes(bytes) })
    }

    /// Stores the answer. If the access has a further element, returns the exit that reports it.
    pub(crate) fn answer(&mut self, fd: &mut VcpuFd, entry: Entry) -> Option<Exit> {
        match self {
            Self::None => return None,
            Self::Port { width, is_read, done, .. } => {
                if *is_read {
                    let value = entry.data().to_le_bytes();
                    let length = usize::from(*width).min(value.len());
                    let element = port_element(fd, usize::from(*width), *done)?;
                    // SAFETY: `element` points to `width` bytes in the `kvm_run` mapping, `value`
                    // has 8, and `length` is the smaller of both.
                    unsafe {
                        element.copy_from_nonoverlapping(NonNull::from(&value).cast(), length)
                    };
                }
                *done = done.saturating_add(1);
                let next = self.next(fd);
                if next.is_some() {
                    return next;
                }
            }
            Self::Mmio => fd.get_kvm_run().__bindgen_anon_1.mmio.data = entry.data().to_le_bytes(),
            Self::Hypercall => fd.get_kvm_run().__bindgen_anon_1.hypercall.ret = entry.data(),
            Self::Msr { is_read } => {
                let run = fd.get_kvm_run();
                run.__bindgen_anon_1.msr.error = u8::from(entry == Entry::Fault);
                if *is_read {
                    run.__bindgen_anon_1.msr.data = entry.data();
                }
            }
        }
        *self = Self::None;
        None
    }
}

/// Address of element number `index` of the pending port access.
fn port_element(fd: &mut VcpuFd, width: usize, index: usize) -> Option<NonNull<u8>> {
    let run = fd.get_kvm_run();
    // SAFETY: a pending port access means that the exit reason was KVM_EXIT_IO and `io` is the
    // member KVM filled in.
    let offset = unsafe { run.__bindgen_anon_1.io.data_offset };
    let offset = usize::try_from(offset).ok()?.checked_add(width.checked_mul(index)?)?;
    // SAFETY: KVM put `count` elements at `data_offset` within the mapping that `run` starts (KVM
    // API, 5, KVM_EXIT_IO), and every caller has checked `index` against `count`.
    Some(unsafe { NonNull::from(run).cast::<u8>().add(offset) })
}

fn length(data: &[u8]) -> u8 {
    u8::try_from(data.len()).unwrap_or(u8::MAX)
}

fn little_endian(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(data) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}

/// Reads the details of a `KVM_EXIT_INTERNAL_ERROR`.
fn internal_error(run: &kvm_run) -> InternalError {
    debug_assert_eq!(run.exit_reason, KVM_EXIT_INTERNAL_ERROR);
    // SAFETY: the exit reason says that `internal` is the member KVM filled in; it is integers
    // only.
    let internal = unsafe { run.__bindgen_anon_1.internal };
    let given = usize::try_from(internal.ndata).unwrap_or(usize::MAX);
    let mut error = InternalError { suberror: internal.suberror, ..InternalError::default() };
    for (to, from) in error.data.iter_mut().zip(internal.data.iter().take(given)) {
        *to = *from;
    }
    if internal.suberror == KVM_INTERNAL_ERROR_EMULATION && given > 0 {
        // SAFETY: for this suberror `emulation_failure` describes the same words; it is integers
        // only.
        let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
        if failure.flags & INSTRUCTION_BYTES_GIVEN != 0 {
            // SAFETY: the flag says that the inner union holds size and bytes; they are integers.
            let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
            let size = usize::from(instruction.insn_size).min(instruction.insn_bytes.len());
            error.instruction =
                InstructionBytes::new(instruction.insn_bytes.get(..size).unwrap_or_default());
        }
    }
    error
}
