//! Port writes that KVM collects while the guest keeps running, and their handling.
//!
//! Such a write reaches its device at the next exit of any vCPU, before that exit is answered, or
//! when [`OutputClock`] says that it is time to look, or when all vCPUs have stopped. Three things
//! follow: nothing is reordered, nothing waits for long, and nothing gets lost when the guest
//! crashes or hangs.

use std::ops::ControlFlow;

use nerite_bus::Width;
use nerite_hypercall::v1;
use nerite_loader::Interface;
use nerite_platform::OutputClock;
use nerite_vcpu::CoalescedWrite;

use crate::dispatch::Shared;
use crate::hypercalls::Next;

/// The PCI address register (PCI 3.0, 3.2.2.3.2): it only matters to the access to the data
/// register that follows. KVM collects narrow writes in this range, too: not for machines with a
/// reset register at 0xCF9, which must act at once.
const PCI_ADDRESS: (u16, u16) = (0xcf8, 4);
/// The serial port of hypercall interface v1, in every width. The one of v2 is not among these: its
/// data is in RDI, which is not part of the write.
const SERIAL_V1: (u16, u16) = (nerite_hypercall::SERIAL_PORT_V1, 4);

/// The ports, first and how many, whose writes a guest with this interface need not wait for.
pub(crate) const fn ports(interface: Interface) -> &'static [(u16, u16)] {
    match interface {
        Interface::V1 => &[PCI_ADDRESS, SERIAL_V1],
        Interface::V2 => &[PCI_ADDRESS],
    }
}

/// The clock for guests with this interface, if there is anything to look for.
pub(crate) fn clock(interface: Interface) -> Option<OutputClock> {
    // A PCI address has no effect of its own, so that it can wait for as long as it likes.
    (interface == Interface::V1).then(OutputClock::default)
}

impl Shared {
    /// Lets all posted writes take effect, as the exits that they did not cause would have: on a
    /// vCPU's thread, which may be made to wait.
    pub(crate) fn settle_coalesced(&self) -> Result<(), Next> {
        let Some(writes) = self.coalesced.as_ref().filter(|writes| !writes.is_empty()) else {
            return Ok(());
        };
        let mut result = Ok(());
        writes.take(&mut |write| match self.apply(write, |byte| self.calls.put(byte)) {
            Next::Resume => ControlFlow::Continue(()),
            other => {
                result = Err(other);
                ControlFlow::Break(())
            }
        });
        result
    }

    /// `true` if any writes are posted.
    pub(crate) fn has_coalesced(&self) -> bool {
        self.coalesced.as_ref().is_some_and(|writes| !writes.is_empty())
    }

    /// Moves posted output to where the console's [`flush`](nerite_devices::Console::flush) finds
    /// it, and lets other posted writes take effect. Never waits: what does not fit stays where it
    /// is, as does what would exceed the guest's rate, unless this is `final_call`. Returns whether
    /// there was anything.
    pub(crate) fn collect_coalesced(&self, final_call: bool) -> bool {
        let Some(writes) = self.coalesced.as_ref().filter(|writes| !writes.is_empty()) else {
            return false;
        };
        let may_hold =
            |byte| (final_call || self.calls.has_rate_left()) && self.calls.console.hold(byte);
        writes.try_take(&mut |write| {
            let held =
                self.apply(write, |byte| if may_hold(byte) { Next::Resume } else { Next::Stopped });
            if matches!(held, Next::Resume) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        true
    }

    fn apply(&self, write: CoalescedWrite, put: impl FnOnce(u8) -> Next) -> Next {
        let CoalescedWrite { port, width, value } = write;
        if v1::Call::from_port(port) == Some(v1::Call::SerialWriteByte) {
            let [byte, ..] = value.to_le_bytes();
            return put(byte);
        }
        if let Some(width) = Width::new(width) {
            self.ports.write(port.into(), width, value.into());
        }
        Next::Resume
    }
}

#[cfg(test)]
#[path = "coalesced_test.rs"]
mod tests;
