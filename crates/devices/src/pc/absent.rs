//! Ports where kernels look for a device that many PCs have and this machine has not.

use nerite_bus::{Device, Width};

/// Ports of a device that is absent: they read all ones, and ignore writes. Accesses are a kernel's
/// search, and no mistake of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Absent;

impl Absent {
    /// First ports of the second to fourth serial port of a PC, each with [`Self::SERIAL_PORTS`]
    /// ports.
    pub const SERIAL: [u16; 3] = [0x2f8, 0x3e8, 0x2e8];
    /// Number of ports of a serial port.
    pub const SERIAL_PORTS: u16 = 8;
    /// Port of a PC's display of POST codes. Kernels write to it to pass the time: such a write
    /// takes about a microsecond on hardware.
    pub const POST_DISPLAY: u16 = 0x80;
}

impl Device for Absent {
    fn read(&self, _offset: u64, width: Width) -> u64 {
        width.all_ones()
    }

    fn write(&self, _offset: u64, _width: Width, _value: u64) {}
}
