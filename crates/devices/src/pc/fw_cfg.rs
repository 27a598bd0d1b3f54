//! The essentials of QEMU's firmware configuration device (QEMU, docs/specs/fw_cfg.rst): what test
//! kernels ask for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use nerite_bus::{Device, Width};
use serde::{Deserialize, Serialize};

const SIGNATURE: u16 = 0;
const FEATURES: u16 = 1;
const RAM_SIZE: u16 = 3;
const CPUS: u16 = 5;
const MAX_CPUS: u16 = 15;
const FILES: u16 = 0x19;

/// A selector port and a data port, which gives the selected item byte by byte, then zeros.
#[derive(Debug)]
pub struct FwCfg {
    items: [(u16, Vec<u8>); 6],
    selected: Mutex<FwCfgState>,
}

/// Saved state of a [`FwCfg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FwCfgState {
    /// Selected item.
    pub key: u16,
    /// Number of its bytes that were read.
    pub offset: u64,
}

impl FwCfg {
    /// The selector port, 16 bits wide; the data port follows.
    pub const SELECTOR: u16 = 0x510;
    /// The data port, 8 bits wide.
    pub const DATA: u16 = 0x511;

    /// A device that tells of `memory` bytes of RAM and `cpus` processors.
    pub fn new(memory: u64, cpus: u16) -> Self {
        let cpus = u64::from(cpus).to_le_bytes()[..2].to_vec();
        let items = [
            (SIGNATURE, b"QEMU".to_vec()),
            // The traditional interface only: no DMA.
            (FEATURES, 1_u32.to_le_bytes().to_vec()),
            (RAM_SIZE, memory.to_le_bytes().to_vec()),
            (CPUS, cpus.clone()),
            (MAX_CPUS, cpus),
            // No files.
            (FILES, 0_u32.to_be_bytes().to_vec()),
        ];
        Self { items, selected: Mutex::new(FwCfgState { key: SIGNATURE, offset: 0 }) }
    }

    /// Selected item and position.
    pub fn save(&self) -> FwCfgState {
        *self.lock()
    }

    /// Takes a saved state: any will do, as items that do not exist read as zeros.
    pub fn restore(&self, saved: FwCfgState) {
        *self.lock() = saved;
    }

    fn lock(&self) -> MutexGuard<'_, FwCfgState> {
        self.selected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for FwCfg {
    fn read(&self, offset: u64, width: Width) -> u64 {
        if (offset, width.bytes()) != (1, 1) {
            return width.all_ones();
        }
        let mut selected = self.lock();
        let FwCfgState { key, offset } = *selected;
        let item = self.items.iter().find(|(known, _)| *known == key);
        selected.offset = offset.saturating_add(1);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        item.and_then(|(_, bytes)| bytes.get(at).copied()).unwrap_or(0).into()
    }

    fn write(&self, offset: u64, width: Width, value: u64) {
        if let (0, 2, Ok(key)) = (offset, width.bytes(), u16::try_from(value)) {
            *self.lock() = FwCfgState { key, offset: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(device: &FwCfg, key: u16, length: usize) -> Vec<u64> {
        device.write(0, Width::new(2).unwrap(), key.into());
        (0..length).map(|_| device.read(1, Width::new(1).unwrap())).collect()
    }

    #[test]
    fn items_are_read_byte_by_byte_and_from_the_start() {
        let device = FwCfg::new(0x1_2340_0000, 3);
        assert_eq!(item(&device, RAM_SIZE, 9), [0, 0, 0x40, 0x23, 1, 0, 0, 0, 0]);
        assert_eq!(item(&device, CPUS, 3), [3, 0, 0]);
        assert_eq!(item(&device, SIGNATURE, 4), b"QEMU".map(u64::from));
        assert_eq!(item(&device, 0x4321, 2), [0, 0]);
    }

    #[test]
    fn other_widths_reach_nothing() {
        let device = FwCfg::new(16 << 20, 1);
        device.write(0, Width::new(2).unwrap(), CPUS.into());
        device.write(0, Width::new(4).unwrap(), RAM_SIZE.into());
        assert_eq!(device.read(1, Width::new(4).unwrap()), 0xffff_ffff);
        assert_eq!(device.read(1, Width::new(1).unwrap()), 1);
    }
}
