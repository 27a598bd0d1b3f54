//! The host bridge: configuration ports (PCI 3.0, 3.2.2.3.2) and the window of memory addresses.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nerite_bus::{Device, Width};
use nerite_saved::{RestoreError, refuse};

use crate::ConfigPortsState;

/// First configuration port: the address register.
pub const FIRST_PORT: u16 = 0xcf8;
/// Last configuration port: the last byte of the data register.
pub const LAST_PORT: u16 = 0xcff;
/// Maximum number of functions: one in each slot of bus 0.
pub const SLOTS: usize = 32;
/// The memory addresses that base addresses can be placed at: from the end of low RAM at 3 GiB to
/// the first interrupt controller.
pub const WINDOW: RangeInclusive<u64> = 0xc000_0000..=0xfebf_ffff;

/// Offset of the registers of interrupt line and pin (PCI 3.0, 6.2.4).
const INTERRUPT_LINE: u8 = 0x3c;
/// Bits of the address register that can be set: enable, bus, device, function, register.
const ADDRESS_BITS: u32 = 0x80ff_fffc;
const ENABLE: u32 = 1 << 31;
/// Bus and function of an address: both must be 0, all else is absent.
const BUS_AND_FUNCTION: u32 = 0x00ff_0700;

/// One function of a device. vCPUs call it at the same time from several threads.
pub trait Function: Send + Sync {
    /// Reads 1, 2 or 4 bytes of configuration space; they do not cross a multiple of four.
    fn read_config(&self, offset: u8, width: u8) -> u32;

    /// Writes 1, 2 or 4 bytes of configuration space; they do not cross a multiple of four.
    fn write_config(&self, offset: u8, width: u8, value: u32);

    /// Reads `width` bytes (1 to 8) at a memory address, if all of them are behind one of the
    /// function's base addresses.
    fn read_memory(&self, address: u64, width: u8) -> Option<u64>;

    /// Writes `width` bytes (1 to 8) at a memory address. Returns whether all of them are behind
    /// one of the function's base addresses.
    fn write_memory(&self, address: u64, width: u8, value: u64) -> bool;
}

/// The functions on bus 0, each in function 0 of its slot.
#[derive(Clone, Default)]
pub struct Bridge {
    slots: Vec<Arc<dyn Function>>,
}

impl Bridge {
    /// A bridge with nothing behind it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a function into the next free slot. Returns the slot, or `None` if all are taken.
    pub fn add(&mut self, function: Arc<dyn Function>) -> Option<u8> {
        let slot = u8::try_from(self.slots.len()).ok().filter(|slot| usize::from(*slot) < SLOTS)?;
        self.slots.push(function);
        Some(slot)
    }

    /// `true` if there is no function.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Interrupt lines that the pins of functions are wired to.
    pub fn lines(&self) -> impl Iterator<Item = u8> {
        self.slots.iter().filter_map(|function| {
            let [line, pin, ..] = function.read_config(INTERRUPT_LINE, 4).to_le_bytes();
            (pin != 0).then_some(line)
        })
    }

    /// Device at the ports [`FIRST_PORT`] to [`LAST_PORT`].
    pub fn ports(&self) -> ConfigPorts {
        ConfigPorts { address: AtomicU32::new(0), slots: self.slots.clone() }
    }

    /// The functions, by slot.
    pub(crate) fn slots(&self) -> &[Arc<dyn Function>] {
        &self.slots
    }

    /// Device at the memory addresses of [`WINDOW`].
    pub fn window(&self) -> Window {
        Window { slots: self.slots.clone() }
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("functions", &self.slots.len()).finish()
    }
}

/// The ports of configuration mechanism #1. Without functions, a read costs one comparison.
pub struct ConfigPorts {
    address: AtomicU32,
    slots: Vec<Arc<dyn Function>>,
}

impl ConfigPorts {
    /// The address register.
    pub fn save(&self) -> ConfigPortsState {
        ConfigPortsState { address: self.address.load(Ordering::Relaxed) }
    }

    /// Sets the address register.
    ///
    /// # Errors
    /// Fails if reserved bits are set.
    pub fn restore(&self, saved: ConfigPortsState) -> Result<(), RestoreError> {
        let ConfigPortsState { address } = saved;
        refuse("PCI host", "address", address & !ADDRESS_BITS != 0)?;
        self.address.store(address, Ordering::Relaxed);
        Ok(())
    }

    /// The function and register that a data access of `width` bytes at `offset` (4 to 7) is for.
    fn target(&self, offset: u64, width: Width) -> Option<(&dyn Function, u8, u8)> {
        if self.slots.is_empty() {
            return None;
        }
        let address = self.address.load(Ordering::Relaxed);
        let byte = u8::try_from(offset.checked_sub(4)?).ok()?;
        let width = width.bytes();
        let crosses = byte.checked_add(width)? > 4 || width == 3;
        if crosses || address & (ENABLE | BUS_AND_FUNCTION) != ENABLE {
            return None;
        }
        let slot = usize::try_from(address >> 11 & 0x1f).ok()?;
        let [register, ..] = address.to_le_bytes();
        Some((self.slots.get(slot)?.as_ref(), register | byte, width))
    }
}

impl Device for ConfigPorts {
    fn read(&self, offset: u64, width: Width) -> u64 {
        // Only a dword access reaches the address register.
        if let (0, 4) = (offset, width.bytes()) {
            return u64::from(self.address.load(Ordering::Relaxed));
        }
        match self.target(offset, width) {
            Some((function, register, width)) => u64::from(function.read_config(register, width)),
            None => width.all_ones(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let Ok(value) = u32::try_from(value) else { return };
        if let (0, 4) = (offset, width.bytes()) {
            self.address.store(value & ADDRESS_BITS, Ordering::Relaxed);
        } else if let Some((function, register, width)) = self.target(offset, width) {
            function.write_config(register, width, value);
        }
    }
}

impl fmt::Debug for ConfigPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigPorts").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The memory addresses behind all base addresses. An access that no function claims reads all
/// ones.
pub struct Window {
    slots: Vec<Arc<dyn Function>>,
}

impl Device for Window {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let Some(address) = WINDOW.start().checked_add(offset) else { return width.all_ones() };
        let found =
            self.slots.iter().find_map(|function| function.read_memory(address, width.bytes()));
        found.unwrap_or_else(|| width.all_ones())
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let Some(address) = WINDOW.start().checked_add(offset) else { return };
        let taken =
            self.slots.iter().any(|function| function.write_memory(address, width.bytes(), value));
        if !taken {
            log::debug!("guest write at {address:#x}, where no PCI function is");
        }
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("functions", &self.slots.len()).finish()
    }
}

#[cfg(test)]
#[path = "bridge_test.rs"]
mod tests;
