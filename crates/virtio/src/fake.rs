//! A guest's side of virtio, to test devices with: a driver that talks to a [`Function`] as a
//! kernel would, and queues in guest memory that can also be filled with what no driver may write.
//!
//! It is for tests: it panics where a guest would be at its end.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test support; what the guest does wrong on purpose is not checked here"
)]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use nerite_memory::GuestRam;
use nerite_memory::{Backing, Region};
use nerite_pci::{COMMAND, Function, command};

use crate::{
    Activation, Event, LogBudget, Notifier, QueueConfig, QueueState, common_cfg, feature, region, status,
};

mod hostile;

pub use hostile::{SCRATCH, Step};

/// Descriptor flag: there is a next one.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;
/// Descriptor flag: a table of descriptors.
pub const INDIRECT: u16 = 4;

/// RAM of `size` bytes (a multiple of 4 KiB) at 1 MiB.
///
/// # Panics
/// If the host has no memory.
#[must_use]
pub fn ram(size: u64) -> Arc<GuestRam> {
    let region = Region { start: RAM, size };
    Arc::new(GuestRam::new(&[region], &Backing::default()).expect("memory for a test"))
}

/// Where [`ram`] begins.
pub const RAM: u64 = 1 << 20;

/// A driver of one function.
#[derive(Clone)]
pub struct Driver {
    function: Arc<dyn Function>,
}

impl Driver {
    /// A driver of `function`, whose base address 0 the firmware has placed.
    #[must_use]
    pub fn new(function: Arc<dyn Function>) -> Self {
        Self { function }
    }

    fn bar(&self) -> u64 {
        u64::from(self.function.read_config(0x10, 4) & !0xf)
    }

    /// Reads behind base address 0.
    ///
    /// # Panics
    /// If the function does not answer there.
    #[must_use]
    pub fn read(&self, offset: u64, width: u8) -> u64 {
        self.function.read_memory(self.bar() + offset, width).expect("a base address that answers")
    }

    /// Writes behind base address 0.
    ///
    /// # Panics
    /// If the function does not answer there.
    pub fn write(&self, offset: u64, width: u8, value: u64) {
        assert!(self.function.write_memory(self.bar() + offset, width, value), "a base address that answers");
    }

    /// The device status.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.read(common_cfg::DEVICE_STATUS, 1) as u8
    }

    /// Writes the device status.
    pub fn set_status(&self, status: u8) {
        self.write(common_cfg::DEVICE_STATUS, 1, status.into());
    }

    /// Resets the device, as 4.1.4.3.2 wants it: writes zero and waits until it is read.
    ///
    /// # Panics
    /// If it is not within ten seconds.
    pub fn reset(&self) {
        self.set_status(0);
        let began = Instant::now();
        while self.status() != 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "a reset that does not end");
            std::thread::yield_now();
        }
    }

    /// Makes the function a bus master, or not.
    pub fn set_bus_master(&self, on: bool) {
        let command = self.function.read_config(COMMAND, 2) & !u32::from(command::BUS_MASTER);
        let bit = if on { command::BUS_MASTER } else { 0 };
        self.function.write_config(COMMAND, 2, command | u32::from(bit));
    }

    /// The features that are offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.write(common_cfg::DEVICE_FEATURE_SELECT, 4, 0);
        let low = self.read(common_cfg::DEVICE_FEATURE, 4);
        self.write(common_cfg::DEVICE_FEATURE_SELECT, 4, 1);
        low | self.read(common_cfg::DEVICE_FEATURE, 4) << 32
    }

    /// Accepts features.
    pub fn accept(&self, features: u64) {
        for (select, word) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(common_cfg::DRIVER_FEATURE_SELECT, 4, select);
            self.write(common_cfg::DRIVER_FEATURE, 4, word);
        }
    }

    /// Makes the function a bus master, and goes through the handshake up to the features: those of
    /// `wanted` that are offered, and VERSION_1. Returns which.
    ///
    /// # Panics
    /// If the device does not agree.
    pub fn negotiate(&self, wanted: u64) -> u64 {
        self.set_bus_master(true);
        self.reset();
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let features = self.offered() & (wanted | feature::VERSION_1);
        self.accept(features);
        let agreed = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        self.set_status(agreed);
        assert_eq!(self.status(), agreed);
        features
    }

    /// Says that the driver is ready.
    pub fn ready(&self) {
        self.set_status(self.status() | status::DRIVER_OK);
    }

    /// The largest size of queue `index`; 0 if it is not there.
    #[must_use]
    pub fn queue_size(&self, index: u16) -> u16 {
        self.write(common_cfg::QUEUE_SELECT, 2, index.into());
        self.read(common_cfg::QUEUE_SIZE, 2) as u16
    }

    /// Sets up and enables queue `index` as `rings` describes it.
    pub fn set_queue(&self, index: u16, rings: &Rings) {
        self.write(common_cfg::QUEUE_SELECT, 2, index.into());
        self.write(common_cfg::QUEUE_SIZE, 2, rings.size.into());
        for (register, address) in [
            (common_cfg::QUEUE_DESC, rings.descriptors),
            (common_cfg::QUEUE_DRIVER, rings.available),
            (common_cfg::QUEUE_DEVICE, rings.used),
        ] {
            self.write(register, 4, address & 0xffff_ffff);
            self.write(register + 4, 4, address >> 32);
        }
        self.write(common_cfg::QUEUE_MSIX_VECTOR, 2, u64::from(index) + 1);
        self.write(common_cfg::QUEUE_ENABLE, 2, 1);
    }

    /// Notifies queue `index`.
    pub fn kick(&self, index: u16) {
        self.write(region::NOTIFY + 4 * u64::from(index), 2, index.into());
    }

    /// Reads, and so clears, ISR status.
    #[must_use]
    pub fn isr(&self) -> u8 {
        self.read(region::ISR, 1) as u8
    }

    /// Turns MSI-X on or off.
    ///
    /// # Panics
    /// If the function has none.
    pub fn set_msix(&self, on: bool) {
        let mut at = self.function.read_config(0x34, 1) as u8;
        while self.function.read_config(at, 1) != 0x11 {
            at = self.function.read_config(at + 1, 1) as u8;
            assert_ne!(at, 0, "a function with MSI-X");
        }
        self.function.write_config(at + 2, 2, if on { 0x8000 } else { 0 });
    }

    /// Unmasks a vector, with this message.
    pub fn set_message(&self, vector: u16, address: u64, data: u32) {
        let entry = region::MSIX_TABLE + 16 * u64::from(vector);
        self.write(entry, 8, address);
        self.write(entry + 8, 8, data.into());
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

/// Where a queue lies, and how large it is said to be.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "guest-physical addresses, and the number of entries")]
pub struct Rings {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

impl Rings {
    /// Rings of `size` entries one after the other from `address` on, which is a multiple of 4096.
    /// They take [`Rings::bytes`].
    #[must_use]
    pub fn at(address: u64, size: u16) -> Self {
        let available = address + 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        Self { size, descriptors: address, available, used }
    }

    /// Queue number `index` of at most `max_size` entries, enabled and new.
    #[must_use]
    pub fn config(&self, index: u16, max_size: u16) -> QueueConfig {
        let Self { size, descriptors, available, used } = *self;
        let progress = QueueState::default();
        QueueConfig { index, size, max_size, descriptors, available, used, progress }
    }

    /// How many bytes rings of `size` entries take, in whole pages.
    #[must_use]
    pub fn bytes(size: u16) -> u64 {
        (26 * u64::from(size) + 16).next_multiple_of(4096)
    }
}

/// A descriptor: address, length, flags; [`NEXT`] is added where another one follows.
pub type Buffer = (u64, u32, u16);

/// A queue in guest memory, seen from the guest.
#[derive(Debug)]
pub struct FakeQueue {
    /// Where it is.
    pub rings: Rings,
    ram: Arc<GuestRam>,
    next_descriptor: u16,
    next_available: u16,
    next_used: u16,
}

impl FakeQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(ram: Arc<GuestRam>, rings: Rings) -> Self {
        Self { rings, ram, next_descriptor: 0, next_available: 0, next_used: 0 }
    }

    /// Writes descriptor `index` as it is.
    pub fn set_descriptor(&self, index: u16, (address, length, flags): Buffer, next: u16) {
        write_descriptor(
            &self.ram,
            self.rings.descriptors + 16 * u64::from(index),
            address,
            length,
            flags,
            next,
        );
    }

    /// Writes a chain and makes it available. Descriptors are taken in turn, so that there must not
    /// be more in use than there are. Returns the first one's number.
    pub fn add(&mut self, buffers: &[Buffer]) -> u16 {
        let size = self.rings.size;
        let head = self.next_descriptor % size;
        for (position, (address, length, flags)) in buffers.iter().enumerate() {
            let index = self.next_descriptor % size;
            self.next_descriptor = (self.next_descriptor + 1) % size;
            let next = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.set_descriptor(index, (*address, *length, flags | next), self.next_descriptor);
        }
        self.publish(head);
        head
    }

    /// Makes the chain at `head` available.
    pub fn publish(&mut self, head: u16) {
        let slot = u64::from(self.next_available % self.rings.size);
        self.store(self.rings.available + 4 + 2 * slot, head);
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available_index(self.next_available);
    }

    /// Writes the available ring's index as it is.
    pub fn set_available_index(&self, index: u16) {
        self.store(self.rings.available + 2, index);
    }

    /// Says that no interrupts are wanted, or that they are.
    pub fn set_no_interrupt(&self, no: bool) {
        self.store(self.rings.available, no.into());
    }

    /// Says at which index of the used ring an interrupt is wanted (with EVENT_IDX).
    pub fn set_used_event(&self, index: u16) {
        self.store(self.rings.available + 4 + 2 * u64::from(self.rings.size), index);
    }

    /// The next request that the device has given back: first descriptor and bytes written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.load(self.rings.used + 2) == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.rings.size);
        self.next_used = self.next_used.wrapping_add(1);
        let mut element = [0; 8];
        self.ram.read(self.rings.used + 4 + 8 * slot, &mut element).expect("a used ring in RAM");
        let [a, b, c, d, e, f, g, h] = element;
        Some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }

    /// Whether the device wants to be notified of new requests (without EVENT_IDX).
    #[must_use]
    pub fn wants_kick(&self) -> bool {
        self.load(self.rings.used) & 1 == 0
    }

    /// The index of the available ring at which the device wants to be notified (with EVENT_IDX).
    #[must_use]
    pub fn available_event(&self) -> u16 {
        self.load(self.rings.used + 4 + 8 * u64::from(self.rings.size))
    }

    fn load(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.ram.read(address, &mut bytes).expect("a ring in RAM");
        u16::from_le_bytes(bytes)
    }

    fn store(&self, address: u64, value: u16) {
        self.ram.write(address, &value.to_le_bytes()).expect("a ring in RAM");
    }
}

/// An activation by a driver with `queues`, without a transport: notifications and interrupts stay
/// in their events.
///
/// # Panics
/// If the process has no descriptor left.
#[must_use]
pub fn activation(
    queues: &[&FakeQueue],
    max_size: u16,
    features: u64,
    notifier: &Arc<Notifier>,
) -> Activation {
    let events = |count| (0..count).map(|_| Event::new().expect("an event")).collect::<Arc<[Event]>>();
    let config = |(index, queue): (u16, &&FakeQueue)| Some(queue.rings.config(index, max_size));
    Activation {
        features,
        queues: (0..).zip(queues).map(config).collect(),
        kicks: events(queues.len()),
        notifier: notifier.clone(),
        ram: queues[0].ram.clone(),
        log: Arc::new(LogBudget::new("a test", 0)),
    }
}

/// Writes a descriptor anywhere, as in an indirect table.
///
/// # Panics
/// If that is not RAM.
pub fn write_descriptor(ram: &GuestRam, at: u64, address: u64, length: u32, flags: u16, next: u16) {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    ram.write(at, &bytes).expect("a descriptor in RAM");
}
