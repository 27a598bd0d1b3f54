//! The parts of QEMU's `pc-testdev` that test kernels use: ports that are interrupt lines, and
//! registers and memory that keep what is written.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use nerite_bus::{Device, Width};
use nerite_saved::{RestoreError, refuse};

/// Interrupt lines as ports: a write to the port of a line raises it, and a write of zero lowers
/// it.
pub struct TestLines {
    set: Box<dyn Fn(u32, bool) + Send + Sync>,
}

impl TestLines {
    /// The port of line 0.
    pub const PORT: u16 = 0x2000;
    /// Number of lines.
    pub const PORTS: u16 = 24;

    /// Ports that call `set` with the number of a line and whether it is raised.
    pub fn new(set: Box<dyn Fn(u32, bool) + Send + Sync>) -> Self {
        Self { set }
    }
}

impl Device for TestLines {
    fn read(&self, _offset: u64, width: Width) -> u64 {
        width.all_ones()
    }

    fn write(&self, offset: u64, _width: Width, value: u64) {
        if let Ok(line) = u32::try_from(offset) {
            (self.set)(line, value != 0);
        }
    }
}

impl fmt::Debug for TestLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestLines").finish_non_exhaustive()
    }
}

/// A register of four bytes that keeps what is written, each byte for itself.
#[derive(Debug, Default)]
pub struct TestRegister(AtomicU32);

impl TestRegister {
    /// Port of the plain register.
    pub const PORT: u16 = 0xe0;
    /// Port that unmaps a page of memory from the host in QEMU; a plain register here.
    pub const FLUSH_PORT: u16 = 0xe4;
    /// Port of the register for byte accesses.
    pub const BYTE_PORT: u16 = 0xe8;
    /// Number of ports of each register.
    pub const PORTS: u16 = 4;

    /// Value of the register.
    pub fn save(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a saved value.
    pub fn restore(&self, saved: u32) {
        self.0.store(saved, Ordering::Relaxed);
    }
}

impl Device for TestRegister {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let shift = u32::try_from(offset & 3).unwrap_or_default().saturating_mul(8);
        width.truncate(u64::from(self.0.load(Ordering::Relaxed)).wrapping_shr(shift))
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let shift = u32::try_from(offset & 3).unwrap_or_default().saturating_mul(8);
        let word = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or_default();
        let mask = word(width.all_ones().wrapping_shl(shift));
        let bits = word(width.truncate(value).wrapping_shl(shift));
        // The closure never refuses.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            Some(old & !mask | bits & mask)
        });
    }
}

/// Memory that is none: each access leaves the guest, so that instructions have to be emulated.
#[derive(Debug)]
pub struct TestMemory(Mutex<Vec<u8>>);

impl TestMemory {
    /// Guest-physical address.
    pub const ADDRESS: u64 = 0xff00_0000;
    /// Size in bytes.
    pub const SIZE: u64 = 0x1_0000;
}

impl Default for TestMemory {
    fn default() -> Self {
        Self(Mutex::new(vec![0; 0x1_0000]))
    }
}

impl TestMemory {
    /// All bytes.
    pub fn save(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes saved bytes.
    ///
    /// # Errors
    /// Fails if they are not as many.
    pub fn restore(&self, saved: &[u8]) -> Result<(), RestoreError> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refuse("test memory", "size", saved.len() != bytes.len())?;
        bytes.copy_from_slice(saved);
        Ok(())
    }

    /// Calls `each` with the bytes of an access that are there, in order.
    fn bytes(&self, offset: u64, width: Width, each: impl FnMut(&mut u8)) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        bytes.iter_mut().skip(start).take(width.bytes().into()).for_each(each);
    }
}

impl Device for TestMemory {
    fn read(&self, offset: u64, width: Width) -> u64 {
        let (mut value, mut shift) = (0_u64, 0_u32);
        self.bytes(offset, width, |byte| {
            value |= u64::from(*byte).wrapping_shl(shift);
            shift = shift.saturating_add(8);
        });
        value
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        let mut from = value.to_le_bytes().into_iter();
        self.bytes(offset, width, |byte| *byte = from.next().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn width(bytes: u8) -> Width {
        Width::new(bytes).unwrap()
    }

    #[test]
    fn ports_raise_and_lower_their_lines() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let to = seen.clone();
        let lines =
            TestLines::new(Box::new(move |line, level| to.lock().unwrap().push((line, level))));
        lines.write(11, width(4), 1);
        lines.write(11, width(1), 0);
        lines.write(23, width(1), 0x80);
        assert_eq!(*seen.lock().unwrap(), [(11, true), (11, false), (23, true)]);
        assert_eq!(lines.read(0, width(1)), 0xff);
    }

    #[test]
    fn a_register_keeps_each_byte() {
        let register = TestRegister::default();
        register.write(0, width(4), 0x1234_5678);
        register.write(1, width(1), 0xaa);
        register.write(2, width(2), 0xbeef);
        assert_eq!(register.read(0, width(4)), 0xbeef_aa78);
        assert_eq!((register.read(1, width(1)), register.read(2, width(2))), (0xaa, 0xbeef));
        // Beyond its end nothing wraps.
        register.write(3, width(4), u64::MAX);
        assert_eq!(register.read(0, width(4)), 0xffef_aa78);
        register.write(0, width(8), 7);
        assert_eq!(register.read(0, width(8)), 7);
    }

    #[test]
    fn memory_keeps_what_is_written_and_ends() {
        let memory = TestMemory::default();
        memory.write(8, width(8), 0x0102_0304_0506_0708);
        assert_eq!(memory.read(8, width(8)), 0x0102_0304_0506_0708);
        assert_eq!(memory.read(10, width(2)), 0x0506);
        memory.write(TestMemory::SIZE - 2, width(4), u64::MAX);
        assert_eq!(memory.read(TestMemory::SIZE - 2, width(4)), 0xffff);
        assert_eq!(memory.read(u64::MAX, width(8)), 0);
    }
}
