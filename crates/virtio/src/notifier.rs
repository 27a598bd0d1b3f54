//! Interrupts of a virtio device (virtio 1.2, 4.1.5.3 and 4.1.5.4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nerite_saved::{RestoreError, refuse};
use serde::{Deserialize, Serialize};

use crate::Event;
use crate::common::{NO_VECTOR, status};

/// ISR status: a queue has something for the driver (4.1.4.5).
const ISR_QUEUE: u8 = 1;
/// ISR status: the device's configuration has changed.
const ISR_CONFIG: u8 = 2;

/// Interrupts by pin that a driver may end in a row without reading ISR status before they come
/// more slowly, and the wait before each one then.
const IGNORED: u32 = 16;
const IGNORED_PAUSE: Duration = Duration::from_millis(1);

/// Saved state of a [`Notifier`]. Vectors are among the registers of the common configuration, and
/// pending messages in the MSI-X table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifierState {
    /// ISR status (4.1.4.5).
    pub isr: u8,
    /// Generation of the device's configuration.
    pub generation: u8,
    /// `true` if the configuration has changed since the driver read any of it.
    pub has_changed: bool,
    /// `true` if the device needs a reset.
    pub needs_reset: bool,
}

impl NotifierState {
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        refuse("virtio function", "ISR status", self.isr & !(ISR_QUEUE | ISR_CONFIG) != 0)
    }
}

/// Raises a device's interrupts, from any thread and without a lock.
///
/// With MSI-X on, each interrupt is the signal of one event, whose route delivers it. Otherwise
/// there is the interrupt pin: its event is signalled while ISR status is not zero.
#[derive(Debug)]
pub struct Notifier {
    isr: AtomicU8,
    generation: AtomicU8,
    /// The configuration has changed since the driver read any of it.
    has_changed: AtomicBool,
    needs_reset: AtomicBool,
    is_live: AtomicBool,
    msix: AtomicBool,
    pin_disabled: AtomicBool,
    config_vector: AtomicU16,
    queue_vectors: Box<[AtomicU16]>,
    vectors: Arc<[Event]>,
    pin: Event,
    lowered: Event,
    /// Interrupts by pin in a row that the driver has ended without reading ISR status.
    ignored: AtomicU32,
}

impl Notifier {
    /// For a device with `queues` queues. `vectors` are the events of its MSI-X vectors.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new(queues: usize, vectors: Arc<[Event]>) -> std::io::Result<Self> {
        Ok(Self {
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            has_changed: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            is_live: AtomicBool::new(false),
            msix: AtomicBool::new(false),
            pin_disabled: AtomicBool::new(false),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            vectors,
            pin: Event::new()?,
            lowered: Event::new()?,
            ignored: AtomicU32::new(0),
        })
    }

    /// Queue `index` has given something back (2.7.7): interrupts the driver. Returns whether it
    /// could.
    pub fn queue(&self, index: u16) -> bool {
        let vector = self
            .queue_vectors
            .get(usize::from(index))
            .map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire));
        self.raise(vector, ISR_QUEUE)
    }

    /// The device's configuration has changed (2.5): drivers that read it at this moment read it
    /// again.
    pub fn config_changed(&self) {
        self.has_changed.store(true, Ordering::Release);
        if self.is_live.load(Ordering::Acquire) {
            self.raise(self.config_vector.load(Ordering::Acquire), ISR_CONFIG);
        }
    }

    /// The driver has broken a rule: the device does nothing until it is reset (2.1.2).
    pub fn fail(&self) {
        self.needs_reset.store(true, Ordering::Release);
        if self.is_live.load(Ordering::Acquire) {
            self.raise(self.config_vector.load(Ordering::Acquire), ISR_CONFIG);
        }
    }

    /// `true` if the device needs a reset.
    pub fn has_failed(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// The event whose signal is the interrupt of queue `index`, if MSI-X is on: for a backend that
    /// works on a queue without this process, such as the host's kernel.
    pub fn queue_event(&self, index: u16) -> Option<&Event> {
        if !self.msix.load(Ordering::Acquire) {
            return None;
        }
        let vector = self.queue_vectors.get(usize::from(index))?.load(Ordering::Acquire);
        self.vectors.get(usize::from(vector))
    }

    /// The event that raises the interrupt pin, for a level interrupt with resampling.
    pub fn pin(&self) -> &Event {
        &self.pin
    }

    /// Signalled by the hypervisor when the guest has ended an interrupt by pin and the line was
    /// lowered. A thread that waits for it calls [`Self::resample`] then.
    pub fn lowered(&self) -> &Event {
        &self.lowered
    }

    /// Raises the pin again if there is still something to tell: at once, or after a millisecond
    /// if the driver has ended the last 16 interrupts without looking at what they are about.
    pub fn resample(&self) {
        self.lowered.take();
        if !self.wants_pin() {
            return;
        }
        // A guest whose handler is not there yet would get the next interrupt before its next
        // instruction, and never install one.
        if self.ignored.fetch_add(1, Ordering::Relaxed) >= IGNORED {
            thread::sleep(IGNORED_PAUSE);
        }
        self.raise_pin();
    }

    fn raise(&self, vector: u16, bit: u8) -> bool {
        if self.msix.load(Ordering::Acquire) {
            // With messages the status says nothing about queues (4.1.4.5.1).
            self.isr.fetch_or(bit & ISR_CONFIG, Ordering::AcqRel);
            let event = self.vectors.get(usize::from(vector));
            event.inspect(|event| event.signal());
            return event.is_some();
        }
        self.isr.fetch_or(bit, Ordering::AcqRel);
        self.raise_pin();
        true
    }

    fn raise_pin(&self) {
        if !self.pin_disabled.load(Ordering::Acquire) {
            self.pin.signal();
        }
    }

    /// ISR status as the driver reads it: that clears it (4.1.4.5.1).
    pub(crate) fn take_isr(&self) -> u8 {
        self.ignored.store(0, Ordering::Relaxed);
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// `true` if the function wants its pin raised.
    pub(crate) fn wants_pin(&self) -> bool {
        self.isr.load(Ordering::Acquire) != 0 && !self.msix.load(Ordering::Acquire)
    }

    /// The driver reads the device's configuration. The generation goes up with the first read
    /// after a change (4.1.4.3.1): were it to count changes, 256 of them would look like none.
    pub(crate) fn config_read(&self) {
        if self.has_changed.swap(false, Ordering::AcqRel) {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// The status bit that is the device's own.
    pub(crate) fn status(&self) -> u8 {
        if self.has_failed() { status::DEVICE_NEEDS_RESET } else { 0 }
    }

    pub(crate) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(vector, Ordering::Release);
    }

    pub(crate) fn set_queue_vector(&self, index: u16, vector: u16) {
        if let Some(slot) = self.queue_vectors.get(usize::from(index)) {
            slot.store(vector, Ordering::Release);
        }
    }

    /// Selects the kind of interrupts: by message, or by a pin that may be disabled.
    pub(crate) fn set_mode(&self, msix: bool, pin_disabled: bool) {
        let was_msix = self.msix.swap(msix, Ordering::AcqRel);
        let was_disabled = self.pin_disabled.swap(pin_disabled, Ordering::AcqRel);
        if (was_disabled && !pin_disabled) || (was_msix && !msix) {
            self.resample();
        }
    }

    pub(crate) fn set_live(&self, live: bool) {
        self.is_live.store(live, Ordering::Release);
    }

    pub(crate) fn save(&self) -> NotifierState {
        NotifierState {
            isr: self.isr.load(Ordering::Acquire),
            generation: self.generation(),
            has_changed: self.has_changed.load(Ordering::Acquire),
            needs_reset: self.has_failed(),
        }
    }

    /// Takes a saved state, with the vectors for the configuration and for each queue. The pin is
    /// not raised yet.
    pub(crate) fn restore(
        &self,
        saved: NotifierState,
        config_vector: u16,
        queue_vectors: impl Iterator<Item = u16>,
    ) {
        let NotifierState { isr, generation, has_changed, needs_reset } = saved;
        self.isr.store(isr, Ordering::Release);
        self.generation.store(generation, Ordering::Release);
        self.has_changed.store(has_changed, Ordering::Release);
        self.needs_reset.store(needs_reset, Ordering::Release);
        self.set_config_vector(config_vector);
        for (slot, vector) in self.queue_vectors.iter().zip(queue_vectors) {
            slot.store(vector, Ordering::Release);
        }
    }

    /// As after a reset of the device. How interrupts go is the PCI function's matter and stays.
    pub(crate) fn reset(&self) {
        self.set_live(false);
        self.needs_reset.store(false, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.set_config_vector(NO_VECTOR);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
    }
}
