//! The local APICs of a machine whose interrupt controllers are not the hypervisor's.

use std::sync::Arc;
use std::time::Instant;

use nerite_devices::apic::{Delivery, LocalApic, Message};
use nerite_vcpu::Control;
use parking_lot::Mutex;

/// Interrupts and requests that wait for one vCPU.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) apic: LocalApic,
    pub(super) nmi: bool,
    pub(super) init: bool,
    pub(super) startup: Option<u8>,
}

#[derive(Debug)]
pub(super) struct Processor {
    pub(super) waiting: Mutex<Waiting>,
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
        let processor = |(id, control): (u32, &Arc<Control>)| Processor {
            waiting: Mutex::new(Waiting { apic: LocalApic::new(id), nmi: false, init: false, startup: None }),
            control: control.clone(),
        };
        Self { processors: (0..).zip(controls).map(processor).collect(), start: Instant::now() }
    }

    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Delivers a message and wakes its targets. Returns `true` if there are any.
    pub(crate) fn deliver(&self, message: Message, from: u32) -> bool {
        let mut taken = false;
        for processor in &self.processors {
            {
                let mut waiting = processor.waiting.lock();
                if !waiting.apic.is_meant(message.target, from) {
                    continue;
                }
                match message.delivery {
                    Delivery::Fixed(vector) => waiting.apic.request(vector),
                    Delivery::Nmi => waiting.nmi = true,
                    Delivery::Init => waiting.init = true,
                    Delivery::Startup(page) => waiting.startup = Some(page),
                }
            }
            taken = true;
            processor.control.wake();
        }
        taken
    }
}
