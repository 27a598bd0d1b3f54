//! The moment of a snapshot, as the threads of vCPUs notice it.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use nerite_arch::{Regs, SpecialRegs};
use nerite_devices::Console;
use nerite_event::Event;
use nerite_inspect::read_virtual;
use nerite_memory::GuestRam;
use nerite_platform::{End, Stop};
use nerite_vcpu::{Control, Entry, Exit, SystemEvent, Vcpu};
use parking_lot::Mutex;

use crate::config::SnapshotMoment;

/// Paging is on (Intel SDM vol. 3, 2.5).
const CR0_PG: u64 = 1 << 31;

/// The moment of a snapshot.
#[derive(Debug)]
pub(crate) struct Trigger {
    moment: SnapshotMoment,
    /// Signalled when it has come.
    event: Event,
    console: Arc<Console>,
    held: Mutex<Held>,
}

/// vCPUs that are held for the snapshot.
#[derive(Debug, Default)]
struct Held {
    vcpus: Vec<u32>,
    /// `true` when the snapshot is made: no further one is held.
    is_over: bool,
}

impl Trigger {
    /// The moment in the life of a guest that has not run yet.
    pub(crate) fn new(moment: SnapshotMoment, console: &Arc<Console>) -> io::Result<Self> {
        let event = Event::new()?;
        if moment == SnapshotMoment::FirstOutput {
            console.on_first_output(event.clone());
        }
        Ok(Self { moment, event, console: console.clone(), held: Mutex::default() })
    }

    /// Readable when the moment has come.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Returns `true` if it has come since the last call.
    pub(crate) fn take(&self) -> bool {
        self.event.take()
    }

    /// Holds a vCPU that has come to the moment with `exit`, whose answer is `next`.
    pub(crate) fn look(
        &self,
        vcpu: &mut dyn Vcpu,
        (control, ram): (&Control, &GuestRam),
        exit: Exit,
        next: ControlFlow<Stop, Entry>,
    ) -> ControlFlow<Stop, Entry> {
        let has_come = match (self.moment, &next) {
            (SnapshotMoment::FirstOutput, ControlFlow::Continue(_)) => self.console.has_output(),
            (SnapshotMoment::Exit, ControlFlow::Break(Ok(end))) => {
                matches!(end, End::Exited(_) | End::System(SystemEvent::PowerOff))
            }
            _ => false,
        };
        if !has_come {
            return next;
        }
        let mut held = self.held.lock();
        if held.is_over {
            return next;
        }
        let next = match (next, exit) {
            (ControlFlow::Continue(entry), _) => ControlFlow::Continue(entry),
            (next, Exit::PortOut { port, width, .. }) => match undo_write(vcpu, ram, port, width) {
                Ok(true) => ControlFlow::Continue(Entry::Resume),
                Ok(false) => return next,
                Err(error) => return ControlFlow::Break(Err(error.into())),
            },
            // There is no instruction that would be executed again.
            (next, _) => return next,
        };
        control.hold_self();
        held.vcpus.push(vcpu.index());
        self.event.signal();
        next
    }

    /// Lets the held vCPUs go on. From now on none is held.
    pub(crate) fn end(&self, controls: &[Arc<Control>]) {
        let mut held = self.held.lock();
        held.is_over = true;
        for index in std::mem::take(&mut held.vcpus) {
            if let Some(control) = usize::try_from(index).ok().and_then(|at| controls.get(at)) {
                control.release();
            }
        }
    }
}

/// Puts a vCPU back before the port write that it left the guest for. Returns `false` if the
/// instruction is not found; then it is past.
fn undo_write(
    vcpu: &mut dyn Vcpu,
    ram: &GuestRam,
    port: u16,
    width: u8,
) -> Result<bool, nerite_vcpu::Error> {
    let before = vcpu.regs()?;
    if vcpu.complete(Entry::Resume)?.is_some() {
        return Ok(false);
    }
    let mut regs = vcpu.regs()?;
    // Some hypervisors leave the guest with the instruction executed.
    let rip = if before.rip == regs.rip {
        let code = code_before(ram, &regs, &vcpu.special_regs()?);
        let length = code.and_then(|code| length_of_write(code, regs.rdx, port, width));
        length.map(|length| regs.rip.wrapping_sub(length))
    } else {
        Some(before.rip)
    };
    if let Some(rip) = rip {
        regs.rip = rip;
        vcpu.set_regs(&regs)?;
    }
    Ok(rip.is_some())
}

/// The last bytes of code before the next instruction.
fn code_before(ram: &GuestRam, regs: &Regs, special: &SpecialRegs) -> Option<[u8; 3]> {
    let mut code = [0; 3];
    let start = special.cs.base.wrapping_add(regs.rip).wrapping_sub(code.len() as u64);
    let is_read = if special.cr0 & CR0_PG == 0 {
        ram.read(start, &mut code).is_ok()
    } else {
        read_virtual(ram, special, start, &mut code) == code.len()
    };
    is_read.then_some(code)
}

/// Length of the OUT that `code` ends with, without prefixes that make no difference (Intel SDM
/// vol. 2, OUT).
fn length_of_write(code: [u8; 3], rdx: u64, port: u16, width: u8) -> Option<u64> {
    const OPERAND_SIZE: u8 = 0x66;
    let (opcode, length, prefix) = match code {
        [_, prefix, opcode @ (0xee | 0xef)] if rdx & 0xffff == u64::from(port) => {
            (opcode, 1_u64, prefix)
        }
        [prefix, opcode @ (0xe6 | 0xe7), immediate] if u16::from(immediate) == port => {
            (opcode, 2, prefix)
        }
        _ => return None,
    };
    match (opcode & 1, width) {
        (0, 1) | (1, 4) => Some(length),
        (1, 2) if prefix == OPERAND_SIZE => Some(length.saturating_add(1)),
        // In 16-bit code.
        (1, 2) => Some(length),
        _ => None,
    }
}

#[cfg(test)]
#[path = "trigger_test.rs"]
mod tests;
