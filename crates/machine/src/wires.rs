//! Connects virtio devices to a VM: interrupts, doorbells and guest memory.

use std::io;
use std::sync::Arc;

use nerite_hypervisor::{InterruptController, MessageId, Vm};
use nerite_log_budget::Causes;
use nerite_pci::{Bridge, Event, Message, MessageRoutes, WINDOW};
use nerite_virtio::{BAR_SIZE, DoorbellError, Doorbells, VirtioDevice, VirtioPci, Wiring};

use crate::Error;

/// Adds virtio devices to the PCI bus of a VM: the one place where any is made a function.
pub(crate) struct PciBuilder<'a> {
    bridge: Bridge,
    vm: &'a dyn Vm,
    /// Address of the next device's registers.
    address: u64,
}

impl<'a> PciBuilder<'a> {
    /// A builder for `bridge`, which has no virtio device yet.
    pub(crate) fn new(bridge: Bridge, vm: &'a dyn Vm) -> Self {
        Self { bridge, vm, address: *WINDOW.start() }
    }

    /// Makes `device` the function in the next free slot, whose pin drives interrupt line `line`.
    ///
    /// # Errors
    /// Fails if the interrupt controllers are not the hypervisor's, there is no slot left, or the
    /// host has no descriptor left.
    pub(crate) fn add<D: VirtioDevice + 'static>(
        &mut self,
        device: D,
        line: u8,
    ) -> Result<Arc<VirtioPci<D>>, Error> {
        let failed = || Error::host("making a virtio device");
        let interrupts = self.vm.interrupt_controller().ok_or(Error::UserIrqchip)?;
        // One for each queue, and one for the configuration.
        let vectors =
            u32::try_from(device.queue_sizes().len()).unwrap_or(u32::MAX).saturating_add(1);
        let host = Arc::new(Wires::new(interrupts.clone(), self.vm.doorbells(), vectors));
        let wiring = Wiring {
            ram: self.vm.ram().clone(),
            doorbells: host.clone(),
            messages: host,
            address: self.address,
            line,
        };
        let function = Arc::new(VirtioPci::new(Arc::new(device), wiring).map_err(failed())?);
        interrupts.connect_level(
            line.into(),
            function.notifier().pin(),
            function.notifier().lowered(),
        )?;
        let slot = self.bridge.add(function.clone());
        slot.ok_or(io::Error::from(io::ErrorKind::StorageFull)).map_err(failed())?;
        self.address = self.address.saturating_add(BAR_SIZE.into());
        Ok(function)
    }

    /// The bus with all devices.
    pub(crate) fn into_bridge(self) -> Bridge {
        self.bridge
    }
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
            Some(Message { address, data }) => {
                self.interrupts.connect_message(id, event, address, data)
            }
            None => self.interrupts.disconnect_message(id, event),
        };
        done.map_err(io::Error::other)
    }
}

impl Doorbells for Wires {
    fn attach(&self, address: u64, event: &Event) -> Result<(), DoorbellError> {
        self.doorbells
            .attach(address, event)
            .map_err(|error| DoorbellError(Causes(&error).to_string()))
    }

    fn detach(&self, address: u64, event: &Event) {
        if let Err(error) = self.doorbells.detach(address, event) {
            log::warn!("taking a doorbell back: {}", Causes(&error));
        }
    }
}
