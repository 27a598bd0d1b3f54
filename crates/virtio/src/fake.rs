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
use nerite_pci::{COMMAND, Function, NotConnected, command};

use crate::{
    Activation, Event, LogBudget, NoDoorbells, Notifier, VirtioDevice, VirtioPci, Wiring,
    common_cfg, feature, region, status,
};

mod bench;
mod hostile;
mod queue;

pub use bench::Bench;
pub use hostile::{SCRATCH, Step};
pub use queue::{Buffer, FakeQueue, Rings, write_descriptor};

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

/// Start of [`ram`].
pub const RAM: u64 = 1 << 20;

/// A function of `device`, which no hypervisor is behind: notifications and interrupts stay in
/// their events.
///
/// # Panics
/// If the process has no descriptor left.
#[must_use]
pub fn function<D: VirtioDevice>(device: D, ram: &Arc<GuestRam>) -> Arc<VirtioPci<D>> {
    let wiring = Wiring {
        ram: ram.clone(),
        doorbells: Arc::new(NoDoorbells),
        messages: Arc::new(NotConnected),
        address: 0xc000_0000,
        line: 11,
    };
    Arc::new(VirtioPci::new(Arc::new(device), wiring).expect("a function"))
}

/// Looks until something is found.
///
/// # Panics
/// If that takes more than ten seconds.
pub fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "nothing has come");
        std::thread::yield_now();
    }
}

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
        let half = |register| u64::from(self.function.read_config(register, 4));
        half(0x10) & !0xf | half(0x14) << 32
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
        assert!(
            self.function.write_memory(self.bar() + offset, width, value),
            "a base address that answers"
        );
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
        wait(|| (self.status() == 0).then_some(()));
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
    let events =
        |count| (0..count).map(|_| Event::new().expect("an event")).collect::<Arc<[Event]>>();
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
