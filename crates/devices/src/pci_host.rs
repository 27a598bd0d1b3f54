//! PCI configuration mechanism #1 (PCI 3.0, 3.2.2.3.2) on a machine without PCI devices.

use std::sync::atomic::{AtomicU32, Ordering};

use nerite_bus::{Device, Width};

/// The configuration ports 0xCF8 (address) and 0xCFC (data) of a PCI host with nothing behind it: every function
/// reads all ones, which is how a guest learns that it is absent.
#[derive(Debug, Default)]
pub struct EmptyPciHost {
    address: AtomicU32,
}

impl EmptyPciHost {
    /// First port of the range.
    pub const FIRST_PORT: u16 = 0xcf8;
    /// Last port of the range.
    pub const LAST_PORT: u16 = 0xcff;
    /// Bits of the address register that can be set: enable, bus, device, function, register.
    const ADDRESS_BITS: u32 = 0x80ff_fffc;
}

impl Device for EmptyPciHost {
    fn read(&self, offset: u64, width: Width) -> u64 {
        // Only a dword access reaches the address register.
        match (offset, width.bytes()) {
            (0, 4) => u64::from(self.address.load(Ordering::Relaxed)),
            _ => width.all_ones(),
        }
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let (0, 4, Ok(value)) = (offset, width.bytes(), u32::try_from(value)) {
            self.address.store(value & Self::ADDRESS_BITS, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(bytes: u8) -> Width {
        Width::new(bytes).unwrap()
    }

    #[test]
    fn every_function_is_absent_in_every_width() {
        let host = EmptyPciHost::default();
        for (bus, device, function) in [(0, 0, 0), (0, 31, 7), (255, 3, 1)] {
            let address = 0x8000_0000 | bus << 16 | device << 11 | function << 8;
            host.write(0, width(4), address);
            assert_eq!(host.read(0, width(4)), address);
            assert_eq!(host.read(4, width(4)), 0xffff_ffff);
            assert_eq!(host.read(6, width(2)), 0xffff);
            assert_eq!(host.read(7, width(1)), 0xff);
        }
    }

    #[test]
    fn the_address_register_takes_dwords_only_and_keeps_reserved_bits_clear() {
        let host = EmptyPciHost::default();
        host.write(0, width(4), 0xffff_ffff);
        assert_eq!(host.read(0, width(4)), 0x80ff_fffc);
        host.write(0, width(1), 0);
        host.write(2, width(2), 0);
        assert_eq!(host.read(0, width(4)), 0x80ff_fffc);
        assert_eq!(host.read(0, width(2)), 0xffff);
    }
}
