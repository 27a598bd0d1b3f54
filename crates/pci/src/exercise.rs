//! Any accesses to an MSI-X table, against a model, for the fuzz target and the property test.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test support; a failure is what it looks for"
)]

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_log_budget::LogBudget;

use crate::{ENTRY_SIZE, Event, Message, MessageRoutes, Msix};

/// Vectors of the table.
const VECTORS: usize = 5;
/// The most steps.
const STEPS: usize = 300;
/// Bits of message control.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

/// One thing to do: what, where, and with what.
pub type Step = (u8, u16, u64);

/// Messages with this bit in their data are refused, and so are all while `refuses` is set.
const REFUSED: u32 = 1 << 31;

/// Connected messages, by vector.
#[derive(Default)]
struct Routes {
    connected: [Option<Message>; VECTORS],
    refuses: bool,
}

struct Shared(Mutex<Routes>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MessageRoutes for Shared {
    fn connect(&self, vector: u16, _: &Event, message: Option<Message>) -> io::Result<()> {
        let mut routes = self.lock();
        if message.is_some_and(|message| routes.refuses || message.data & REFUSED != 0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        routes.connected[usize::from(vector)] = message;
        Ok(())
    }
}

/// Does these steps, and looks after each whether the messages that are connected are those of the
/// table.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(steps: &[Step]) {
    let events: Arc<[Event]> = (0..VECTORS).map(|_| Event::new().expect("an event")).collect();
    let routes = Arc::new(Shared(Mutex::default()));
    let log = Arc::new(LogBudget::new("a test", 0));
    let mut msix = Msix::new(events.clone(), routes.clone(), log);
    let (mut control, mut is_bus_master) = (0, false);
    for (kind, at, value) in steps.iter().copied().take(STEPS) {
        let vector = usize::from(at) % VECTORS;
        let width = kind >> 4;
        match kind & 15 {
            0..5 => msix.write_table(
                (u64::from(at) % (ENTRY_SIZE * VECTORS as u64 + 8)) & !3,
                4 << (width & 1),
                value,
            ),
            5 => msix.write_table(value, width, u64::from(at)),
            6 => drop((msix.read_table(value, width), msix.read_pending(value, width))),
            7 | 8 => {
                control = at;
                msix.set_control(at);
            }
            9 => {
                is_bus_master = at % 4 != 0;
                msix.set_bus_master(is_bus_master);
            }
            10 => events[vector].signal(),
            11 => drop(events[vector].take()),
            12 => routes.lock().refuses = at % 4 == 0,
            // Unmasks.
            _ => msix.write_table(ENTRY_SIZE * vector as u64 + 12, 4, 0),
        }
        assert_eq!(msix.is_enabled(), control & ENABLE != 0);
        let is_open = is_bus_master && control & (ENABLE | MASK_ALL) == ENABLE;
        let mut pending = 0;
        for (vector, event) in events.iter().enumerate() {
            let entry = ENTRY_SIZE * vector as u64;
            let [address, rest] = [msix.read_table(entry, 8), msix.read_table(entry + 8, 8)];
            let (message, is_masked) =
                (Message { address, data: rest as u32 }, rest >> 32 & 1 == 1);
            let connected = routes.lock().connected[vector];
            if let Some(connected) = connected {
                assert!(
                    is_open && !is_masked && connected == message,
                    "vector {vector}: {connected:x?}"
                );
            }
            pending |= u64::from(connected.is_none() && event.is_signalled()) << vector;
        }
        assert_eq!(msix.read_pending(0, 8), pending);
    }
    // As a driver that knows its trade.
    routes.lock().refuses = false;
    msix.set_bus_master(true);
    msix.set_control(0);
    for vector in 0..VECTORS as u64 {
        msix.write_table(ENTRY_SIZE * vector, 8, 0xfee0_0000);
        msix.write_table(ENTRY_SIZE * vector + 8, 8, vector);
    }
    msix.set_control(ENABLE);
    let expected = |data| Some(Message { address: 0xfee0_0000, data });
    assert_eq!(routes.lock().connected, [0, 1, 2, 3, 4].map(expected));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_connected_is_what_the_table_says(steps in prop::collection::vec(any::<Step>(), 0..STEPS)) {
            exercise(&steps);
        }
    }
}
