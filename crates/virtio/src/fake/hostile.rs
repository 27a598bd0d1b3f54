//! Violations of a queue's rules, for property tests and fuzz targets.

use super::{FakeQueue, INDIRECT, WRITE, write_descriptor};

/// One thing to do: what, where, and with what.
pub type Step = (u8, u16, u64);

/// Bytes of buffers that [`FakeQueue::scribble`] uses.
pub const SCRATCH: u64 = 0x8000;
/// Offset in them of indirect tables, of 64 descriptors.
const TABLES: u64 = 0x7000;

impl FakeQueue {
    /// Does the thing that `kind` modulo 8 names, allowed or not: writes to rings and descriptors,
    /// indices, well-made chains and indirect tables. Buffers are in the [`SCRATCH`] bytes at
    /// `scratch`, for the most part.
    pub fn scribble(&mut self, (kind, at, value): Step, scratch: u64) {
        let size = self.rings.size;
        let near = |value: u64| scratch + value % SCRATCH;
        match kind % 8 {
            0 => {
                let offset = u64::from(at) % super::Rings::bytes(size);
                let _ = self.ram.write(self.rings.descriptors + offset, &value.to_le_bytes());
            }
            1 => {
                self.set_descriptor(
                    at % size,
                    (value, (value >> 16) as u32, at >> 12),
                    value as u16 % (size + 4),
                );
            }
            2 => {
                let buffer = (near(value), (value >> 32) as u32 % 9000, at >> 12);
                self.set_descriptor(at % size, buffer, (at >> 4) % size);
            }
            3 => self.publish(at % (size + 1)),
            4 if value % 2 == 0 => self.set_available_index(at),
            4 => self.set_no_interrupt(at % 2 == 1),
            5 => self.set_used_event(at),
            6 => {
                let entry = scratch + TABLES + 16 * (u64::from(at) % 64);
                write_descriptor(
                    &self.ram,
                    entry,
                    near(value),
                    (value >> 32) as u32 % 5000,
                    at >> 13,
                    at >> 5 & 63,
                );
                self.add(&[(scratch + TABLES, u32::from(at >> 7) % 66 * 16, INDIRECT)]);
            }
            _ => {
                let (first, second) = (u32::from(at) % 3000 + 1, (value >> 48) as u32 % 9000);
                let buffers = [(near(value), first, 0), (near(value >> 16), second, WRITE)];
                self.add(&buffers[usize::from(at >> 14 == 1)..2 - usize::from(at >> 14 == 2)]);
            }
        }
    }
}
