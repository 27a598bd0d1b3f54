//! Accesses of more than 8 bytes.

use super::{Place, page_offset};
use crate::core::{Core, Run};
use crate::tlb::PAGE;

impl Core {
    /// Reads bytes, in pieces of up to 8.
    pub(crate) fn read_bytes(&mut self, linear: u64, bytes: &mut [u8]) -> Run {
        let mut at = linear;
        for part in bytes.chunks_mut(8) {
            let value = self.load_slow(at, part.len() as u64)?;
            for (to, from) in part.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
            at = at.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    /// Checks that bytes can be written.
    pub(crate) fn check_write(&mut self, linear: u64, size: u64) -> Run {
        let last = linear.wrapping_add(size.wrapping_sub(1));
        self.resolve(self.wrap(linear), true)?;
        // The address of a fault is that of the first byte that is not there.
        if last & PAGE != linear & PAGE {
            self.resolve(self.wrap(last & PAGE), true)?;
        }
        Ok(())
    }

    /// Writes bytes, none of them if one faults.
    pub(crate) fn write_bytes(&mut self, linear: u64, bytes: &[u8]) -> Run {
        self.check_write(linear, bytes.len() as u64)?;
        let mut at = linear;
        for part in bytes.chunks(8) {
            let mut value = [0; 8];
            for (to, from) in value.iter_mut().zip(part) {
                *to = *from;
            }
            self.store_slow(at, u64::from_le_bytes(value), part.len() as u64)?;
            at = at.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    /// Replaces 16 aligned bytes atomically; returns what was there.
    pub(crate) fn exchange_16(&mut self, linear: u64, old: u128, new: u128) -> Run<u128> {
        self.check_access(linear, 16, true)?;
        let place = self.resolve(linear, true)?;
        self.check_code(&place, 16)?;
        if let Place::Ram(target, address) = &place
            && let Some(found) = target.page.compare_exchange_16(page_offset(*address), old, new)
        {
            return Ok(found);
        }
        let low = self.load::<u64>(linear)?;
        let high = self.load::<u64>(linear.wrapping_add(8))?;
        let found = u128::from(low) | u128::from(high) << 64;
        let value = if found == old { new } else { found };
        self.write_bytes(linear, &value.to_le_bytes())?;
        Ok(found)
    }
}
