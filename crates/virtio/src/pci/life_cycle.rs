//! Start, reset and pause of the device (virtio 1.2, 2.4 and 3.1; PCI 3.0, 6.2.2).

use super::{State, VirtioPci};
use crate::{Activation, Causes, Event, QueueConfig, StartError, VirtioDevice};

impl<D: VirtioDevice> VirtioPci<D> {
    /// The driver is ready.
    pub(super) fn start(&self, state: &mut State) {
        let frozen = state.common.freeze(&self.ram);
        self.notifier.set_live(true);
        let queues = match frozen {
            Ok(queues) => queues,
            Err(fault) => {
                self.log.warn(format_args!(
                    "the guest's virtio driver: {fault}; the device needs a reset"
                ));
                return self.notifier.fail();
            }
        };
        if let Err(error) = self.start_device(state, queues) {
            let error = Causes(&error);
            self.log.warn(format_args!("a virtio device cannot start: {error}; it needs a reset"));
            self.device.stop();
            return self.notifier.fail();
        }
        self.place_doorbells(state);
    }

    /// Starts the device with these queues.
    pub(super) fn start_device(
        &self,
        state: &State,
        queues: Vec<Option<QueueConfig>>,
    ) -> Result<(), StartError> {
        self.device.start(Activation {
            features: state.common.features(),
            queues: queues.into(),
            kicks: self.kicks.clone(),
            notifier: self.notifier.clone(),
            ram: self.ram.clone(),
            log: self.log.clone(),
        })
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

    /// Pauses the function, whatever its driver does: when this returns, the device touches no
    /// queue and no guest memory, and messages stay pending.
    pub fn pause(&self) {
        let mut state = self.lock();
        state.is_paused = true;
        self.update_access(&mut state);
    }

    /// Ends [`Self::pause`]: the device resumes where it was, and pending messages are sent.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.is_paused = false;
        self.update_access(&mut state);
    }

    /// Lets the function access memory if it is a bus master and not paused: a device that may not
    /// touches no queue, and sends no message.
    pub(super) fn update_access(&self, state: &mut State) {
        let is_active = state.is_bus_master && !state.is_paused;
        if state.is_active == is_active {
            return;
        }
        state.is_active = is_active;
        if is_active {
            state.msix.set_bus_master(true);
            self.device.resume();
        } else {
            self.device.pause();
            state.msix.set_bus_master(false);
        }
    }
}
