//! The local APICs of a machine whose interrupt controllers are not the hypervisor's.

use std::sync::Arc;
use std::time::Instant;

use nerite_irqchip::{ApicConfig, LocalApic, LocalApics as Apics, Message, Time, deliver};
use nerite_vcpu::Control;
use parking_lot::Mutex;

/// The local APIC of one vCPU, and the way to wake it.
#[derive(Debug)]
pub(super) struct Processor {
    pub(super) apic: Mutex<LocalApic>,
    pub(super) control: Arc<Control>,
}

/// The local APICs of a machine.
#[derive(Debug)]
pub(crate) struct LocalApics {
    pub(super) processors: Vec<Processor>,
    pub(super) start: Instant,
}

impl LocalApics {
    /// One for each vCPU; the id is the vCPU's index.
    pub(crate) fn new(controls: &[Arc<Control>]) -> Self {
        let processor = |(id, control): (u32, &Arc<Control>)| {
            // CPUID does not offer the deadline mode: deadlines would need the guest's time-stamp
            // counter here.
            let config = ApicConfig { has_tsc_deadline: false, ..ApicConfig::of(id) };
            Processor { apic: Mutex::new(LocalApic::new(id, config)), control: control.clone() }
        };
        Self { processors: (0..).zip(controls).map(processor).collect(), start: Instant::now() }
    }

    pub(super) fn now(&self) -> Time {
        Time::from_nanoseconds(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Delivers a message and wakes the vCPUs that accept it. Returns `true` if one does.
    pub(crate) fn deliver(&self, message: &Message) -> bool {
        deliver(&mut &*self, message)
    }

    pub(super) fn processor(&self, vcpu: u32) -> Option<&Processor> {
        self.processors.get(usize::try_from(vcpu).ok()?)
    }
}

impl Apics for &LocalApics {
    fn count(&self) -> u32 {
        u32::try_from(self.processors.len()).unwrap_or(u32::MAX)
    }

    fn with<T>(&mut self, vcpu: u32, act: impl FnOnce(&mut LocalApic) -> T) -> Option<T> {
        self.processor(vcpu).map(|processor| act(&mut processor.apic.lock()))
    }

    fn wake(&mut self, vcpu: u32) {
        if let Some(processor) = self.processor(vcpu) {
            processor.control.wake();
        }
    }
}
