//! Start, reset and pause of the device (virtio 1.2, 2.4 and 3.1; PCI 3.0, 6.2.2).

use super::{State, VirtioPci};
use crate::{Device, Event, Session};

impl<D: Device> VirtioPci<D> {
    /// The driver is ready.
    pub(super) fn start(&self, state: &mut State) {
        let frozen = state.common.freeze(&self.ram);
        self.notifier.set_live(true);
        let queues = match frozen {
            Ok(queues) => queues.into(),
            Err(fault) => {
                self.log.warn(format_args!("the guest's virtio driver: {fault}; the device needs a reset"));
                return self.notifier.fail();
            }
        };
        let session = Session {
            features: state.common.features(),
            queues,
            kicks: self.kicks.clone(),
            notifier: self.notifier.clone(),
            ram: self.ram.clone(),
            log: self.log.clone(),
        };
        if let Err(error) = self.device.start(session) {
            self.log.warn(format_args!("a virtio device cannot start: {error}; it needs a reset"));
            self.device.stop();
            return self.notifier.fail();
        }
        self.place_doorbells(state);
    }

    /// The driver resets the device. That is done at once, or, while the device still works on a
    /// request, later: the device status is not 0 until then (4.1.4.3.1), and no vCPU waits.
    pub(super) fn reset(&self, state: &mut State) {
        if !state.is_resetting {
            state.is_resetting = true;
            self.device.stop();
            self.notifier.set_live(false);
            self.place_doorbells(state);
        }
        self.finish_reset(state);
    }

    /// Ends a reset, if there is one and the device has stopped.
    pub(super) fn finish_reset(&self, state: &mut State) {
        if !state.is_resetting || !self.device.is_stopped() {
            return;
        }
        state.is_resetting = false;
        state.common.reset();
        self.notifier.reset();
        for kick in self.kicks.iter() {
            Event::take(kick);
        }
    }

    /// Sets whether the function may access memory: a device that may not touches no queue, and
    /// sends no message.
    pub(super) fn set_bus_master(&self, state: &mut State, is_bus_master: bool) {
        if state.is_bus_master == is_bus_master {
            return;
        }
        state.is_bus_master = is_bus_master;
        if is_bus_master {
            state.msix.set_bus_master(true);
            self.device.resume();
        } else {
            self.device.pause();
            state.msix.set_bus_master(false);
        }
    }
}
