#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod unclaimed;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

pub use unclaimed::MAX_LOGGED;
use unclaimed::Unclaimed;

/// Something that answers accesses to a range of addresses.
///
/// vCPUs call it at the same time from several threads: a device keeps its own state behind the
/// lock or atomics that suit it.
pub trait Device: Send + Sync {
    /// Answers a read of `width` bytes at `offset` into the device's range. Bits beyond the width
    /// are ignored.
    fn read(&self, offset: u64, width: Width) -> u64;

    /// Takes a write of `width` bytes at `offset` into the device's range; `value` is
    /// zero-extended.
    fn write(&self, offset: u64, width: Width, value: u64);
}

/// Width of an access in bytes: 1 to 8.
///
/// Ports know 1, 2 and 4. An MMIO access that crosses a page is split, so that any length can
/// occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Width(u8);

impl Width {
    /// A width of `bytes`, or `None` if that is not 1 to 8.
    pub const fn new(bytes: u8) -> Option<Self> {
        match bytes {
            1..=8 => Some(Self(bytes)),
            _ => None,
        }
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u8 {
        self.0
    }

    /// All ones, this wide: what a read gets where nothing answers.
    pub const fn all_ones(self) -> u64 {
        // 1 to 8 bytes are 8 to 64 bits, so the shift is 0 to 56.
        u64::MAX.wrapping_shr(64_u32.saturating_sub((self.0 as u32).saturating_mul(8)))
    }

    /// `value`, cut to this width.
    pub const fn truncate(self, value: u64) -> u64 {
        value & self.all_ones()
    }
}

/// The range cannot be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another device has part of the range.
    #[error("{bus} range {start:#x}..={end:#x} of {device} overlaps {other}; move one of them")]
    Overlap {
        /// Name of the bus.
        bus: &'static str,
        /// First address asked for.
        start: u64,
        /// Last address asked for.
        end: u64,
        /// The device that asks.
        device: &'static str,
        /// The device that is there.
        other: &'static str,
    },
    /// The range holds no address.
    #[error("{bus} range {start:#x}..={end:#x} of {device} is empty")]
    Empty {
        /// Name of the bus.
        bus: &'static str,
        /// First address asked for.
        start: u64,
        /// Last address asked for.
        end: u64,
        /// The device that asks.
        device: &'static str,
    },
}

struct Claim {
    name: &'static str,
    start: u64,
    end: u64,
    device: Arc<dyn Device>,
}

impl Claim {
    fn has(&self, address: u64) -> bool {
        self.start <= address && address <= self.end
    }
}

/// An address space and the devices in it.
pub struct Bus {
    name: &'static str,
    /// Sorted by start; no two overlap.
    claims: Vec<Claim>,
    /// The claim that had the last access: most go where the one before went.
    recent: AtomicUsize,
    unclaimed: Unclaimed,
}

impl Bus {
    /// An empty address space. `name` is used in messages: "port" or "MMIO".
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            claims: Vec::new(),
            recent: AtomicUsize::new(0),
            unclaimed: Unclaimed::default(),
        }
    }

    /// Gives `range` to `device`, under a `name` for messages.
    ///
    /// # Errors
    /// If the range is empty, or overlaps one that is already given.
    pub fn insert(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        device: Arc<dyn Device>,
    ) -> Result<(), Error> {
        let (start, end) = (*range.start(), *range.end());
        if start > end {
            return Err(Error::Empty { bus: self.name, start, end, device: name });
        }
        let at = self.claims.partition_point(|claim| claim.end < start);
        if let Some(other) = self.claims.get(at).filter(|claim| claim.start <= end) {
            return Err(Error::Overlap {
                bus: self.name,
                start,
                end,
                device: name,
                other: other.name,
            });
        }
        self.claims.insert(at, Claim { name, start, end, device });
        Ok(())
    }

    /// Reads `width` bytes at `address`: from the device there, or all ones.
    pub fn read(&self, address: u64, width: Width) -> u64 {
        match self.find(address, width) {
            Some((device, offset)) => width.truncate(device.read(offset, width)),
            None => {
                self.unclaimed.log(self.name, "read", address, width);
                width.all_ones()
            }
        }
    }

    /// Writes `width` bytes at `address` to the device there, or nowhere.
    pub fn write(&self, address: u64, width: Width, value: u64) {
        match self.find(address, width) {
            Some((device, offset)) => device.write(offset, width, width.truncate(value)),
            None => self.unclaimed.log(self.name, "write", address, width),
        }
    }

    /// The device that has *all* of the access, and the offset into its range.
    fn find(&self, address: u64, width: Width) -> Option<(&dyn Device, u64)> {
        let last = address.checked_add(u64::from(width.bytes()).saturating_sub(1))?;
        let recent = self.recent.load(Relaxed);
        let claim = match self.claims.get(recent).filter(|claim| claim.has(address)) {
            Some(claim) => claim,
            None => {
                let at = self.claims.partition_point(|claim| claim.end < address);
                let claim = self.claims.get(at).filter(|claim| claim.has(address))?;
                self.recent.store(at, Relaxed);
                claim
            }
        };
        (last <= claim.end).then(|| (claim.device.as_ref(), address.saturating_sub(claim.start)))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for claim in &self.claims {
            map.entry(&format_args!("{:#x}..={:#x}", claim.start, claim.end), &claim.name);
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests;
