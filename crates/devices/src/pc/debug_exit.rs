//! The port by which test kernels end themselves, as QEMU's `isa-debug-exit`.

use std::sync::Arc;

use nerite_bus::{Device, Width};

use super::{Request, Requests};

/// A write of `value` ends the machine with the exit code `(value << 1) | 1`, of which a process
/// has the low eight bits.
#[derive(Debug)]
pub struct DebugExit {
    requests: Arc<Requests>,
}

impl DebugExit {
    /// The port QEMU's users give it.
    pub const DEFAULT_PORT: u16 = 0xf4;
    /// Number of ports.
    pub const PORTS: u16 = 4;

    /// A port that ends the machine.
    pub fn new(requests: Arc<Requests>) -> Self {
        Self { requests }
    }
}

impl Device for DebugExit {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        0
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        let [code, ..] = (value << 1 | 1).to_le_bytes();
        self.requests.raise(Request::Exit(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_odd() {
        for (value, expected) in [(0, 1), (1, 3), (0x10, 33), (0x80, 1), (u64::MAX, 255)] {
            let requests = Arc::new(Requests::default());
            DebugExit::new(requests.clone()).write(0, Width::new(4).unwrap(), value);
            assert!(
                matches!(requests.take(), Some(Request::Exit(code)) if code == expected),
                "{value}"
            );
        }
    }
}
