//! The host bridge as a function of its own, by which kernels that distrust configuration mechanism
//! #1 know that it is there.

use crate::{ConfigSpace, Function, Identity};

/// A host bridge in configuration space: it says what it is, and nothing of it can be changed.
#[derive(Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    /// A bridge from the host's bus to PCI (PCI 3.0, appendix D.7).
    const CLASS: u32 = 0x06_0000;
    /// Red Hat's number for virtual devices, and the one that it gave to a host bridge without
    /// registers.
    const VENDOR: u16 = 0x1b36;
    const DEVICE: u16 = 0x0008;

    /// A host bridge, for slot 0.
    #[must_use]
    pub fn new() -> Self {
        let identity = Identity {
            vendor: Self::VENDOR,
            device: Self::DEVICE,
            class: Self::CLASS,
            ..Identity::default()
        };
        Self { config: ConfigSpace::new(&identity) }
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for HostBridge {
    fn read_config(&self, offset: u8, width: u8) -> u32 {
        self.config.read(offset, width)
    }

    fn write_config(&self, _offset: u8, _width: u8, _value: u32) {}

    fn read_memory(&self, _address: u64, _width: u8) -> Option<u64> {
        None
    }

    fn write_memory(&self, _address: u64, _width: u8, _value: u64) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_is_and_stays_so() {
        let host = HostBridge::new();
        let before = (0..64).map(|register| host.read_config(register * 4, 4)).collect::<Vec<_>>();
        assert_eq!((before[0], before[2] >> 16), (0x0008_1b36, 0x0600));
        for register in 0..64 {
            host.write_config(register * 4, 4, u32::MAX);
        }
        let after = (0..64).map(|register| host.read_config(register * 4, 4)).collect::<Vec<_>>();
        assert_eq!(before, after);
        assert_eq!(host.read_memory(0xc000_0000, 4), None);
        assert!(!host.write_memory(0xc000_0000, 4, 0));
    }
}
