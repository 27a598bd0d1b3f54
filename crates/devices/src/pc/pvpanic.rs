//! pvpanic (QEMU's specification of it, with an I/O port): a port by which a guest says that its
//! kernel has panicked.

use std::sync::Arc;

use nerite_bus::{Device, Width};

use super::{Request, Requests};

/// The port of the event register. A read is a mask of the events that the guest can report, a
/// write reports some.
#[derive(Debug)]
pub struct PvPanic {
    requests: Arc<Requests>,
}

impl PvPanic {
    /// The port.
    pub const PORT: u16 = 0x505;
    /// The kernel has panicked, and does nothing any more.
    const PANICKED: u64 = 1 << 0;
    /// It has panicked, and boots a crash kernel that was loaded for this.
    const CRASH_LOADED: u64 = 1 << 1;

    /// A register whose panics are requests.
    pub fn new(requests: Arc<Requests>) -> Self {
        Self { requests }
    }
}

impl Device for PvPanic {
    fn read(&self, _offset: u64, width: Width) -> u64 {
        width.truncate(Self::PANICKED | Self::CRASH_LOADED)
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        if value & Self::PANICKED != 0 {
            self.requests.raise(Request::Panicked);
        }
        // A guest that boots its crash kernel writes its own dump, and reboots or powers off then.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_panic_without_a_crash_kernel_is_one() {
        let requests = Arc::new(Requests::default());
        let panic = PvPanic::new(requests.clone());
        let byte = Width::new(1).unwrap();
        assert_eq!(panic.read(0, byte), 3);
        for harmless in [0, 2, 4, 0xfe] {
            panic.write(0, byte, harmless);
            assert!(requests.take().is_none(), "{harmless}");
        }
        panic.write(0, byte, 1);
        assert!(matches!(requests.take(), Some(Request::Panicked)));
    }
}
