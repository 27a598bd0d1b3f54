//! Interrupts and doorbells of devices, without the help of a vCPU thread.

use std::fmt;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::sync::Arc;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use nerite_event::Event;
use nerite_hypervisor::{Doorbells, Error, InterruptController, LINES, MessageId};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use crate::error::failed;

/// Pins of one 8259 interrupt controller.
const PIC_PINS: u32 = 8;
/// The most messages: with the pins, what KVM_MAX_IRQ_ROUTES (4096) allows.
const MAX_MESSAGES: usize = 4000;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// Address and data, while an event is connected.
    message: Option<(u64, u32)>,
}

/// KvmInterrupts and notifications of a VM's devices.
pub struct KvmInterrupts {
    fd: Arc<VmFd>,
    messages: Mutex<Vec<Slot>>,
}

impl KvmInterrupts {
    pub(crate) fn new(fd: Arc<VmFd>) -> Self {
        Self { fd, messages: Mutex::new(Vec::new()) }
    }

    /// Gives KVM its table anew: the pins as they are when there is no table, and the messages.
    fn set_routes(&self, messages: &[Slot]) -> Result<(), Error> {
        let mut routes: Vec<_> = (0..LINES).flat_map(pin_routes).collect();
        for (index, slot) in (0..).zip(messages) {
            if let Some((address, data)) = slot.message {
                routes.push(message_route(gsi(MessageId(index)), address, data));
            }
        }
        let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
        let table = KvmIrqRouting::from_entries(&routes).map_err(too_many);
        table
            .and_then(|table| self.fd.set_gsi_routing(&table))
            .map_err(failed("KVM_SET_GSI_ROUTING"))
    }
}

impl InterruptController for KvmInterrupts {
    fn lines(&self) -> u32 {
        LINES
    }

    fn set_line(&self, line: u32, level: bool) -> Result<(), Error> {
        self.fd.set_irq_line(line, level).map_err(failed("KVM_IRQ_LINE"))
    }

    fn send_message(&self, address: u64, data: u32) -> Result<bool, Error> {
        let [low, high] = halves(address);
        let message = kvm_msi { address_lo: low, address_hi: high, data, ..Default::default() };
        Ok(self.fd.signal_msi(message).map_err(failed("KVM_SIGNAL_MSI"))? > 0)
    }

    fn connect_edge(&self, line: u32, event: &Event) -> Result<(), Error> {
        self.fd.register_irqfd(&eventfd(event)?, line).map_err(failed("KVM_IRQFD"))
    }

    fn connect_level(&self, line: u32, raise: &Event, lowered: &Event) -> Result<(), Error> {
        self.fd
            .register_irqfd_with_resample(&eventfd(raise)?, &eventfd(lowered)?, line)
            .map_err(failed("KVM_IRQFD(RESAMPLE)"))
    }

    fn reserve_message(&self) -> Option<MessageId> {
        let mut messages = self.messages.lock();
        if messages.len() >= MAX_MESSAGES {
            return None;
        }
        let id = u32::try_from(messages.len()).ok()?;
        messages.push(Slot { message: None });
        Some(MessageId(id))
    }

    fn connect_message(
        &self,
        id: MessageId,
        event: &Event,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
        // Before anything is changed: there may be no descriptor left.
        let event = eventfd(event)?;
        let mut messages = self.messages.lock();
        let before = slot(&mut messages, id)?.message.replace((address, data));
        if let Err(error) = self.set_routes(&messages) {
            slot(&mut messages, id)?.message = before;
            return Err(error);
        }
        if before.is_some() {
            // The event is connected to this number already.
            return Ok(());
        }
        let connected = self.fd.register_irqfd(&event, gsi(id)).map_err(failed("KVM_IRQFD"));
        if connected.is_err() {
            slot(&mut messages, id)?.message = None;
        }
        connected
    }

    fn disconnect_message(&self, id: MessageId, event: &Event) -> Result<(), Error> {
        let event = eventfd(event)?;
        let mut messages = self.messages.lock();
        if slot(&mut messages, id)?.message.take().is_none() {
            return Ok(());
        }
        self.fd.unregister_irqfd(&event, gsi(id)).map_err(failed("KVM_IRQFD(DEASSIGN)"))
    }
}

impl Doorbells for KvmInterrupts {
    fn attach(&self, address: u64, event: &Event) -> Result<(), Error> {
        self.fd
            .register_ioevent(&eventfd(event)?, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(failed("KVM_IOEVENTFD"))
    }

    fn detach(&self, address: u64, event: &Event) -> Result<(), Error> {
        self.fd
            .unregister_ioevent(&eventfd(event)?, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(failed("KVM_IOEVENTFD(DEASSIGN)"))
    }
}

/// The slot of a message.
fn slot(messages: &mut [Slot], id: MessageId) -> Result<&mut Slot, Error> {
    let at = usize::try_from(id.0).unwrap_or(usize::MAX);
    let source = || std::io::ErrorKind::NotFound.into();
    messages
        .get_mut(at)
        .ok_or_else(|| Error::Call { operation: "connecting a message", source: source() })
}

impl fmt::Debug for KvmInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmInterrupts").field("messages", &self.messages).finish_non_exhaustive()
    }
}

fn gsi(id: MessageId) -> u32 {
    id.0.saturating_add(LINES)
}

/// Interrupt number `gsi` is the pin of that number of the I/O APIC, and, below 16, of the 8259
/// pair.
fn pin_routes(gsi: u32) -> impl Iterator<Item = kvm_irq_routing_entry> {
    let pic = match gsi / PIC_PINS {
        0 => Some(KVM_IRQCHIP_PIC_MASTER),
        1 => Some(KVM_IRQCHIP_PIC_SLAVE),
        _ => None,
    };
    let entry = move |irqchip, pin| {
        let mut entry =
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
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
fn eventfd(event: &Event) -> Result<EventFd, Error> {
    let copy = event
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| Error::Call { operation: "duplicating an eventfd", source })?;
    // SAFETY: the descriptor was just made, is open, and nothing else owns it. Should it be no
    // eventfd, KVM refuses it.
    Ok(unsafe { EventFd::from_raw_fd(copy.into_raw_fd()) })
}
