//! Connects virtio devices to a VM: interrupts, doorbells and guest memory.

use std::io;
use std::sync::Arc;

use nerite_hypervisor::{InterruptController, MessageId, Vm};
use nerite_pci::{Event, Message, MessageRoutes};
use nerite_virtio::{DoorbellError, Doorbells, VirtioDevice, VirtioPci, Wiring};

use crate::Error;

/// Makes `device` a PCI function with its registers at `address`, whose pin drives interrupt line
/// `line` of `vm`. It is in no slot yet.
///
/// # Errors
/// Fails if the interrupt controllers are not the hypervisor's, or the host has no descriptor left.
pub(crate) fn attach<D: VirtioDevice + 'static>(
    device: Arc<D>,
    vm: &dyn Vm,
    address: u32,
    line: u8,
) -> Result<Arc<VirtioPci<D>>, Error> {
    let interrupts = vm.interrupt_controller().ok_or(Error::UserIrqchip)?;
    // One for each queue, and one for the configuration.
    let vectors = u32::try_from(device.queue_sizes().len()).unwrap_or(u32::MAX).saturating_add(1);
    let host = Arc::new(Wires::new(interrupts.clone(), vm.doorbells(), vectors));
    let wiring = Wiring { ram: vm.ram().clone(), doorbells: host.clone(), messages: host, address, line };
    let function = VirtioPci::new(device, wiring).map_err(Error::host("making a virtio device"))?;
    let function = Arc::new(function);
    let notifier = function.notifier();
    interrupts.connect_level(line.into(), notifier.pin(), notifier.lowered())?;
    Ok(function)
}

/// Connects one device to the VM.
struct Wires {
    interrupts: Arc<dyn InterruptController>,
    doorbells: Arc<dyn nerite_hypervisor::Doorbells>,
    messages: Vec<MessageId>,
}

impl Wires {
    /// For a device with so many message vectors.
    fn new(
        interrupts: Arc<dyn InterruptController>,
        doorbells: Arc<dyn nerite_hypervisor::Doorbells>,
        vectors: u32,
    ) -> Self {
        let messages = (0..vectors).map_while(|_| interrupts.reserve_message()).collect();
        Self { interrupts, doorbells, messages }
    }
}

impl MessageRoutes for Wires {
    fn connect(&self, vector: u16, event: &Event, message: Option<Message>) -> io::Result<()> {
        let Some(id) = self.messages.get(usize::from(vector)).copied() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let done = match message {
            Some(Message { address, data }) => self.interrupts.connect_message(id, event, address, data),
            None => self.interrupts.disconnect_message(id, event),
        };
        done.map_err(io::Error::other)
    }
}

impl Doorbells for Wires {
    fn attach(&self, address: u64, event: &Event) -> Result<(), DoorbellError> {
        self.doorbells.attach(address, event).map_err(|error| DoorbellError(error.to_string()))
    }

    fn detach(&self, address: u64, event: &Event) {
        if let Err(error) = self.doorbells.detach(address, event) {
            log::warn!("taking a doorbell back: {error}");
        }
    }
}
