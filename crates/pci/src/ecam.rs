//! Configuration space in memory: the enhanced configuration access mechanism (PCI Express 4.0,
//! 7.2.2).

use std::fmt;
use std::sync::Arc;

use nerite_bus::{Device, Width};

use crate::{Bridge, Function};

/// Configuration spaces of bus 0 in memory, 4 KiB for each function. Of these the first 256 bytes
/// are a function's, as by configuration mechanism #1; the rest, and functions that are absent,
/// read all ones.
pub struct Ecam {
    slots: Vec<Arc<dyn Function>>,
}

impl Ecam {
    /// Bytes of the memory: for 32 slots of 8 functions.
    pub const SIZE: u64 = 1 << 20;
    /// Lowest bit of the slot and of the function in an offset.
    const SLOT: u32 = 15;
    const FUNCTION: u32 = 12;

    /// Those of the functions of `bridge`.
    pub fn new(bridge: &Bridge) -> Self {
        Self { slots: bridge.slots().to_vec() }
    }

    /// The function and register that an access of `width` bytes is for.
    fn target(&self, offset: u64, width: Width) -> Option<(&dyn Function, u8)> {
        let byte = u8::try_from(offset & 3).ok()?;
        let crosses = byte.checked_add(width.bytes())? > 4 || width.bytes() == 3;
        if crosses || offset >> Self::FUNCTION & 7 != 0 {
            return None;
        }
        let slot = usize::try_from(offset >> Self::SLOT).ok()?;
        let register = u8::try_from(offset & 0xfff).ok()?;
        Some((self.slots.get(slot)?.as_ref(), register))
    }
}

impl Device for Ecam {
    fn read(&self, offset: u64, width: Width) -> u64 {
        match self.target(offset, width) {
            Some((function, register)) => function.read_config(register, width.bytes()).into(),
            None => width.all_ones(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let (Some((function, register)), Ok(value)) =
            (self.target(offset, width), u32::try_from(value))
        {
            function.write_config(register, width.bytes(), value);
        }
    }
}

impl fmt::Debug for Ecam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ecam").field("functions", &self.slots.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Reads its registers' numbers, and keeps what is written.
    #[derive(Default)]
    struct Registers(Mutex<Vec<(u8, u8, u32)>>);

    impl Function for Registers {
        fn read_config(&self, offset: u8, _: u8) -> u32 {
            offset.into()
        }

        fn write_config(&self, offset: u8, width: u8, value: u32) {
            self.0.lock().unwrap().push((offset, width, value));
        }

        fn read_memory(&self, _: u64, _: u8) -> Option<u64> {
            None
        }

        fn write_memory(&self, _: u64, _: u8, _: u64) -> bool {
            false
        }
    }

    fn width(bytes: u8) -> Width {
        Width::new(bytes).unwrap()
    }

    #[test]
    fn each_slot_has_its_place() {
        let (mut bridge, second) = (Bridge::new(), Arc::new(Registers::default()));
        bridge.add(Arc::new(Registers::default())).unwrap();
        bridge.add(second.clone()).unwrap();
        let ecam = Ecam::new(&bridge);
        assert_eq!((ecam.read(0x3c, width(4)), ecam.read(0x80ff, width(1))), (0x3c, 0xff));
        for (offset, bytes, value) in [(0x8004, 2, 6), (0x8010, 4, 0xc000_0000), (0x80ff, 1, 1)] {
            ecam.write(offset, width(bytes), value);
        }
        assert_eq!(*second.0.lock().unwrap(), [(4, 2, 6), (0x10, 4, 0xc000_0000), (0xff, 1, 1)]);
    }

    #[test]
    fn what_is_absent_reads_all_ones_and_ignores_writes() {
        let (mut bridge, only) = (Bridge::new(), Arc::new(Registers::default()));
        bridge.add(only.clone()).unwrap();
        let ecam = Ecam::new(&bridge);
        // Extended registers, other functions, slots without one, accesses that cross a dword.
        for (offset, bytes) in [
            (0x100, 4),
            (0xffc, 4),
            (0x1000, 4),
            (0x7000, 1),
            (0x8000, 4),
            (Ecam::SIZE - 4, 4),
            (u64::MAX, 1),
            (3, 2),
            (1, 4),
            (0, 3),
            (0, 8),
            (4, 5),
        ] {
            assert_eq!(ecam.read(offset, width(bytes)), width(bytes).all_ones(), "{offset:#x}");
            ecam.write(offset, width(bytes), 0);
        }
        assert!(only.0.lock().unwrap().is_empty());
    }
}
