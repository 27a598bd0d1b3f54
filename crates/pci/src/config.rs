//! The configuration space of one function: a type 0 header (PCI 3.0, 6.1 and 6.2) as registers and
//! a mask of the bits that software can change.

use nerite_saved::{RestoreError, refuse, require_same};

use crate::ConfigSpaceState;

/// Offset of the command register.
pub const COMMAND: u8 = 0x04;
const STATUS: usize = 0x06;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
/// Offset of the first capability: right after the header.
const FIRST_CAPABILITY: usize = 0x40;
/// Status register: there is a list of capabilities.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Number of base addresses.
const BAR_COUNT: usize = 6;
/// The bits of a memory base address that say what it is: 32 or 64 bits wide, prefetchable or not
/// (6.2.5.1).
const BAR_FLAGS: u32 = 0xf;
const BITS_64: u32 = 1 << 2;
const PREFETCHABLE: u32 = 1 << 3;

/// Bits of the command register (PCI 3.0, 6.2.2).
pub mod command {
    /// Accesses behind the memory base addresses are answered.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may read and write memory and send messages.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// The interrupt pin stays silent.
    pub const INTX_DISABLE: u16 = 1 << 10;
    /// The bits that can be set.
    pub(crate) const WRITABLE: u16 = MEMORY | BUS_MASTER | INTX_DISABLE;
}

/// A function that cannot be described like this. All of these are mistakes in a device's code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A base address register that does not exist or has another use.
    #[error(
        "base address {0} cannot be used: there are 0 to 5, each can be taken once, and one of 64 bits takes two"
    )]
    BarTaken(usize),
    /// A region that a base address register cannot describe.
    #[error(
        "a region of {0:#x} bytes behind a base address: it must be a power of two from 16 to 2 GiB"
    )]
    BarSize(u32),
    /// The capabilities do not fit into 256 bytes.
    #[error("no room in configuration space for a capability of {0} bytes")]
    NoRoom(usize),
}

/// Identity of a function (PCI 3.0, 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID, assigned by the vendor.
    pub device: u16,
    /// Its revision.
    pub revision: u8,
    /// Class, subclass and programming interface: 0x020000 is an Ethernet controller.
    pub class: u32,
    /// Vendor of the subsystem.
    pub subsystem_vendor: u16,
    /// The subsystem, of that vendor.
    pub subsystem: u16,
}

/// A region of memory addresses that software can place with a base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Its size in bytes: a power of two, at least 16.
    pub size: u32,
    /// `true` if it is marked prefetchable.
    pub prefetchable: bool,
    /// `true` if its address has 64 bits, of which the next register has the upper half.
    pub is_64_bit: bool,
}

/// A capability: an identifier, and registers that follow identifier and link (PCI 3.0, 6.7).
#[derive(Debug, Clone, Copy)]
pub struct Capability<'a> {
    /// Capability ID: 0x09 vendor-specific, 0x11 MSI-X.
    pub id: u8,
    /// The registers after the identifier and the link.
    pub body: &'a [u8],
    /// Which bits of `body` software can change; what is missing counts as zero.
    pub writable: &'a [u8],
}

/// The registers of one function.
///
/// Accesses that run over the end read all ones and change nothing; reserved and read-only bits
/// stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSpace {
    registers: [u8; 256],
    writable: [u8; 256],
    bars: [Option<Bar>; BAR_COUNT],
    next_capability: usize,
    /// Offset at which the link to the next capability is to be written.
    link: usize,
}

impl ConfigSpace {
    /// A function without base addresses, capabilities and interrupt.
    pub fn new(identity: &Identity) -> Self {
        let mut config = Self {
            registers: [0; 256],
            writable: [0; 256],
            bars: [None; BAR_COUNT],
            next_capability: FIRST_CAPABILITY,
            link: CAPABILITIES,
        };
        config.put(0x00, &identity.vendor.to_le_bytes());
        config.put(0x02, &identity.device.to_le_bytes());
        let [interface, subclass, class, _] = identity.class.to_le_bytes();
        config.put(0x08, &[identity.revision, interface, subclass, class]);
        config.put(0x2c, &identity.subsystem_vendor.to_le_bytes());
        config.put(0x2e, &identity.subsystem.to_le_bytes());
        config.allow(usize::from(COMMAND), &command::WRITABLE.to_le_bytes());
        // Cache line size and latency timer mean nothing here, but a driver may keep a value in
        // them.
        config.allow(0x0c, &[0xff, 0xff]);
        config.allow(INTERRUPT_LINE, &[0xff]);
        config
    }

    /// Gives the function a region of memory addresses, at address 0 until [`Self::place`] or
    /// software puts it elsewhere.
    ///
    /// # Errors
    /// If register `index` does not exist or is taken, or cannot describe such a region.
    pub fn add_bar(&mut self, index: usize, bar: Bar) -> Result<(), Error> {
        if !bar.size.is_power_of_two() || bar.size < 16 {
            return Err(Error::BarSize(bar.size));
        }
        let last = if bar.is_64_bit { index.saturating_add(1) } else { index };
        if !(index..=last).all(|register| self.is_bar_free(register)) {
            return Err(Error::BarTaken(index));
        }
        let slot = self.bars.get_mut(index).ok_or(Error::BarTaken(index))?;
        *slot = Some(bar);
        let mut flags = if bar.prefetchable { PREFETCHABLE } else { 0 };
        let register = bar_register(index);
        self.allow(register, &(bar.size.wrapping_neg() & !BAR_FLAGS).to_le_bytes());
        if bar.is_64_bit {
            flags |= BITS_64;
            self.allow(bar_register(last), &[0xff; 4]);
        }
        self.put(register, &flags.to_le_bytes());
        Ok(())
    }

    /// `true` if base address register `index` exists, and is neither one of a region nor the upper
    /// half of one.
    fn is_bar_free(&self, index: usize) -> bool {
        let below = index.checked_sub(1).and_then(|below| self.bars.get(below).copied().flatten());
        self.bars.get(index).is_some_and(Option::is_none) && !below.is_some_and(|bar| bar.is_64_bit)
    }

    /// Puts the region behind base address `index` at `address`, as firmware would, and turns the
    /// decoding of memory addresses on. A base address of 32 bits takes the lower half.
    pub fn place(&mut self, index: usize, address: u64) {
        let is_64_bit = self.bars.get(index).copied().flatten().is_some_and(|bar| bar.is_64_bit);
        let bytes = address.to_le_bytes();
        let length = if is_64_bit { 8 } else { 4 };
        self.write_masked(bar_register(index), bytes.get(..length).unwrap_or(&bytes));
        let command = self.command() | command::MEMORY;
        self.write_masked(usize::from(COMMAND), &command.to_le_bytes());
    }

    /// Adds a capability to the end of the list. Returns the offset of its identifier.
    ///
    /// # Errors
    /// If there is no room.
    pub fn add_capability(&mut self, capability: &Capability<'_>) -> Result<u8, Error> {
        let length = capability.body.len().saturating_add(2);
        let start = self.next_capability;
        let end = start.saturating_add(length);
        let offset = u8::try_from(start).ok().filter(|_| end <= self.registers.len());
        let offset = offset.ok_or(Error::NoRoom(length))?;
        self.put(start, &[capability.id, 0]);
        self.put(start.saturating_add(2), capability.body);
        let writable =
            capability.writable.get(..capability.body.len()).unwrap_or(capability.writable);
        self.allow(start.saturating_add(2), writable);
        self.put(self.link, &[offset]);
        self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
        self.link = start.saturating_add(1);
        // Capabilities begin at multiples of four (6.7).
        self.next_capability = end.next_multiple_of(4);
        Ok(offset)
    }

    /// Gives the function an interrupt pin (1 is INTA#), and says which line of the interrupt
    /// controller it is wired to.
    pub fn set_interrupt(&mut self, pin: u8, line: u8) {
        self.put(INTERRUPT_PIN, &[pin]);
        self.put(INTERRUPT_LINE, &[line]);
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.registers.get(4..6).and_then(|word| word.try_into().ok()).map_or(0, u16::from_le_bytes)
    }

    /// Address of the region behind base address `index`, if memory addresses are decoded.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let bar = self.bars.get(index).copied().flatten()?;
        let register = bar_register(index);
        let low = u64::from(self.double_word(register)? & !BAR_FLAGS);
        let high = if bar.is_64_bit { self.double_word(register.checked_add(4)?)? } else { 0 };
        (self.command() & command::MEMORY != 0).then_some(low | u64::from(high) << 32)
    }

    fn double_word(&self, start: usize) -> Option<u32> {
        let bytes = self.registers.get(start..start.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    }

    /// Which base address an access of `width` bytes at `address` is behind, and how far.
    pub fn decode(&self, address: u64, width: u8) -> Option<(usize, u64)> {
        let last = address.checked_add(u64::from(width.saturating_sub(1)))?;
        self.bars.iter().enumerate().find_map(|(index, bar)| {
            let start = self.bar_address(index)?;
            let end = start.saturating_add(u64::from((*bar)?.size));
            (start <= address && last < end).then(|| (index, address.saturating_sub(start)))
        })
    }

    /// Reads 1, 2 or 4 bytes at `offset`, as software does.
    pub fn read(&self, offset: u8, width: u8) -> u32 {
        let start = usize::from(offset);
        let mut bytes = [0xff; 4];
        if let Some(registers) = self.registers.get(start..start.saturating_add(usize::from(width)))
        {
            bytes = [0; 4];
            for (to, from) in bytes.iter_mut().zip(registers) {
                *to = *from;
            }
        }
        u32::from_le_bytes(bytes)
    }

    /// Writes 1, 2 or 4 bytes at `offset`, as software does.
    pub fn write(&mut self, offset: u8, width: u8, value: u32) {
        let start = usize::from(offset);
        let end = start.saturating_add(usize::from(width));
        if let Some(bytes) = value.to_le_bytes().get(..usize::from(width))
            && end <= self.registers.len()
        {
            self.write_masked(start, bytes);
        }
    }

    /// Contents of the registers.
    pub fn save(&self) -> ConfigSpaceState {
        ConfigSpaceState { registers: self.registers.to_vec() }
    }

    /// The same function with saved registers.
    ///
    /// # Errors
    /// Fails if they are those of another function: a bit differs that software cannot change.
    pub fn restored(&self, saved: &ConfigSpaceState) -> Result<Self, RestoreError> {
        const PART: &str = "PCI configuration space";
        let mut restored = self.clone();
        refuse(PART, "length", saved.registers.len() != restored.registers.len())?;
        restored.write_masked(0, &saved.registers);
        require_same(PART, "read-only bits", restored.registers[..] == saved.registers[..])?;
        Ok(restored)
    }

    fn write_masked(&mut self, start: usize, bytes: &[u8]) {
        let registers = self.registers.iter_mut().zip(&self.writable).skip(start);
        for ((register, mask), byte) in registers.zip(bytes) {
            *register = (*register & !mask) | (byte & mask);
        }
    }

    fn put(&mut self, start: usize, bytes: &[u8]) {
        for (register, byte) in self.registers.iter_mut().skip(start).zip(bytes) {
            *register = *byte;
        }
    }

    fn allow(&mut self, start: usize, masks: &[u8]) {
        for (writable, mask) in self.writable.iter_mut().skip(start).zip(masks) {
            *writable = *mask;
        }
    }
}

fn bar_register(index: usize) -> usize {
    BARS.saturating_add(index.saturating_mul(4))
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
