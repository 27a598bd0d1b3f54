//! Events that are interrupts, and writes that are events: what devices need so that no vCPU thread takes part.

use std::fmt;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::Error;

/// Pins of KVM's I/O APIC. Interrupt numbers below are theirs, and messages get those from here on.
const PINS: u32 = 24;
/// Pins of one 8259 interrupt controller.
const PIC_PINS: u32 = 8;
/// The most messages: with the pins, what KVM_MAX_IRQ_ROUTES (4096) allows.
const MAX_MESSAGES: usize = 4000;

/// The number under which KVM knows a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId(usize);

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Address and data, while an event is connected.
    message: Option<(u64, u32)>,
}

/// Interrupts and notifications of a VM's devices.
pub struct Interrupts {
    fd: Arc<VmFd>,
    messages: Mutex<Vec<Slot>>,
}

impl Interrupts {
    pub(crate) fn new(fd: Arc<VmFd>) -> Self {
        Self { fd, messages: Mutex::new(Vec::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Each slot is whole at every moment.
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a number aside for a message. There are 4000.
    pub fn reserve_message(&self) -> Option<MessageId> {
        let mut messages = self.lock();
        if messages.len() >= MAX_MESSAGES {
            return None;
        }
        messages.push(Slot { message: None });
        messages.len().checked_sub(1).map(MessageId)
    }

    /// From now on each signal of `event`, also one that is there already, sends `data` to `address`, as a device's message does
    /// (Intel SDM vol. 3, 12.11).
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn connect_message(
        &self,
        id: MessageId,
        event: BorrowedFd<'_>,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
        let mut messages = self.lock();
        let Some(slot) = messages.get_mut(id.0) else { return Err(no_such_message()) };
        let before = slot.message.replace((address, data));
        if let Err(error) = self.set_routes(&messages) {
            if let Some(slot) = messages.get_mut(id.0) {
                slot.message = before;
            }
            return Err(error);
        }
        if before.is_some() {
            // The event is connected to this number already.
            return Ok(());
        }
        let connected = self.fd.register_irqfd(&eventfd(event)?, gsi(id));
        connected.map_err(Error::call("KVM_IRQFD")).inspect_err(|_| {
            if let Some(slot) = messages.get_mut(id.0) {
                slot.message = None;
            }
        })
    }

    /// Ends what [`Self::connect_message`] began: signals stay in the event.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn disconnect_message(&self, id: MessageId, event: BorrowedFd<'_>) -> Result<(), Error> {
        let mut messages = self.lock();
        let Some(slot) = messages.get_mut(id.0) else { return Err(no_such_message()) };
        if slot.message.take().is_none() {
            return Ok(());
        }
        self.fd.unregister_irqfd(&eventfd(event)?, gsi(id)).map_err(Error::call("KVM_IRQFD(DEASSIGN)"))
    }

    /// From now on a signal of `raise` raises line `line` (0 to 23) of the interrupt controllers until the guest has ended
    /// the interrupt. Then the line is lowered and `lowered` signalled: whoever still wants the interrupt signals `raise` again.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn connect_line(
        &self,
        line: u8,
        raise: BorrowedFd<'_>,
        lowered: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        self.fd
            .register_irqfd_with_resample(&eventfd(raise)?, &eventfd(lowered)?, line.into())
            .map_err(Error::call("KVM_IRQFD(RESAMPLE)"))
    }

    /// Raises (`true`) or lowers a line (0 to 23) of the interrupt controllers. A line that a device has, too, is raised as long as one
    /// of them raises it.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn set_line(&self, line: u32, level: bool) -> Result<(), Error> {
        self.fd.set_irq_line(line, level).map_err(Error::call("KVM_IRQ_LINE"))
    }

    /// Sends a message once. Returns whether a processor took it.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn send_message(&self, address: u64, data: u32) -> Result<bool, Error> {
        let [low, high] = halves(address);
        let message = kvm_msi { address_lo: low, address_hi: high, data, ..Default::default() };
        Ok(self.fd.signal_msi(message).map_err(Error::call("KVM_SIGNAL_MSI"))? > 0)
    }

    /// From now on a write of any width at the guest-physical `address`, where there is no RAM, signals `event`, and nothing
    /// else.
    ///
    /// # Errors
    /// If KVM refuses, as it does if there is one already.
    pub fn attach_doorbell(&self, address: u64, event: BorrowedFd<'_>) -> Result<(), Error> {
        self.fd
            .register_ioevent(&eventfd(event)?, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(Error::call("KVM_IOEVENTFD"))
    }

    /// Ends what [`Self::attach_doorbell`] began.
    ///
    /// # Errors
    /// If there is none.
    pub fn detach_doorbell(&self, address: u64, event: BorrowedFd<'_>) -> Result<(), Error> {
        self.fd
            .unregister_ioevent(&eventfd(event)?, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(Error::call("KVM_IOEVENTFD(DEASSIGN)"))
    }

    /// Gives KVM its table anew: the pins as they are when there is no table, and the messages.
    fn set_routes(&self, messages: &[Slot]) -> Result<(), Error> {
        let mut routes: Vec<_> = (0..PINS).flat_map(pin_routes).collect();
        for (index, slot) in messages.iter().enumerate() {
            if let Some((address, data)) = slot.message {
                routes.push(message_route(gsi(MessageId(index)), address, data));
            }
        }
        let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
        let table = KvmIrqRouting::from_entries(&routes).map_err(too_many);
        table.and_then(|table| self.fd.set_gsi_routing(&table)).map_err(Error::call("KVM_SET_GSI_ROUTING"))
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts").field("messages", &self.messages).finish_non_exhaustive()
    }
}

fn no_such_message() -> Error {
    Error::Call { operation: "connecting a message", source: std::io::ErrorKind::NotFound.into() }
}

fn gsi(id: MessageId) -> u32 {
    u32::try_from(id.0).unwrap_or(u32::MAX).saturating_add(PINS)
}

/// Interrupt number `gsi` is the pin of that number of the I/O APIC, and, below 16, of the 8259 pair.
fn pin_routes(gsi: u32) -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pic = match gsi / PIC_PINS {
        0 => Some(KVM_IRQCHIP_PIC_MASTER),
        1 => Some(KVM_IRQCHIP_PIC_SLAVE),
        _ => None,
    };
    let entry = move |irqchip, pin| {
        let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry
    };
    let pic = pic.map(move |chip| entry(chip, gsi % PIC_PINS));
    pic.into_iter().chain([entry(KVM_IRQCHIP_IOAPIC, gsi)])
}

fn message_route(gsi: u32, address: u64, data: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    let [address_lo, address_hi] = halves(address);
    entry.u.msi = kvm_irq_routing_msi { address_lo, address_hi, data, ..Default::default() };
    entry
}

fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// The same event as the type that `kvm_ioctls` takes. KVM keeps the event, not the descriptor.
pub(crate) fn eventfd(event: BorrowedFd<'_>) -> Result<EventFd, Error> {
    let copy = event
        .try_clone_to_owned()
        .map_err(|source| Error::Call { operation: "duplicating an eventfd", source })?;
    // SAFETY: the descriptor was just made, is open, and nothing else owns it. Should it be no eventfd, KVM refuses it.
    Ok(unsafe { EventFd::from_raw_fd(copy.into_raw_fd()) })
}
