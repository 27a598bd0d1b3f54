//! The keyboard controller (i8042), as far as machines without a keyboard have one: its reset line.

use std::sync::Arc;

use nerite_bus::{Device, Width};

use super::{Request, Requests, ResetKind};

/// The command port of the keyboard controller.
///
/// Its status reads 0: no input, and ready for a command. The command 0xFE pulses the processor's
/// reset line.
#[derive(Debug)]
pub struct KeyboardController {
    requests: Arc<Requests>,
}

impl KeyboardController {
    /// The command and status port.
    pub const PORT: u16 = 0x64;
    /// Pulses output line 0 low, which is the reset line.
    const PULSE_RESET: u64 = 0xfe;

    /// A controller that asks for a reset there.
    pub fn new(requests: Arc<Requests>) -> Self {
        Self { requests }
    }
}

impl Device for KeyboardController {
    fn read(&self, _offset: u64, _width: Width) -> u64 {
        0
    }

    fn write(&self, _offset: u64, _width: Width, value: u64) {
        if value & 0xff == Self::PULSE_RESET {
            self.requests.raise(Request::Reset(ResetKind::Keyboard));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pulse_resets() {
        let requests = Arc::new(Requests::default());
        let keyboard = KeyboardController::new(requests.clone());
        let byte = Width::new(1).unwrap();
        assert_eq!(keyboard.read(0, byte), 0);
        keyboard.write(0, byte, 0xd1);
        assert!(requests.take().is_none());
        keyboard.write(0, byte, 0xfe);
        assert!(matches!(requests.take(), Some(Request::Reset(ResetKind::Keyboard))));
    }
}
