//! Logging of accesses to unclaimed addresses, without letting a guest flood the log.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::Width;

/// Maximum number of unclaimed addresses that a bus logs. Further ones get the same answer, in
/// silence.
pub const MAX_LOGGED: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Unclaimed {
    seen: Mutex<BTreeSet<u64>>,
}

impl Unclaimed {
    pub(crate) fn log(&self, bus: &str, what: &str, address: u64, width: Width) {
        if !log::log_enabled!(log::Level::Warn) {
            return;
        }
        let first = self.first_time(address);
        match first {
            First::Yes => {
                log::warn!(
                    "guest {what} of {} byte(s) at {bus} address {address:#x}, where no device is",
                    width.bytes()
                );
            }
            First::Last => {
                log::warn!(
                    "guest {what} at {bus} address {address:#x}, where no device is; further such addresses \
                     are not logged"
                );
            }
            First::No => {}
        }
    }

    fn first_time(&self, address: u64) -> First {
        // The set holds plain numbers, which a panicking thread cannot leave half changed.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_LOGGED || !seen.insert(address) {
            First::No
        } else if seen.len() == MAX_LOGGED {
            First::Last
        } else {
            First::Yes
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum First {
    Yes,
    Last,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_once_and_their_number_is_bounded() {
        let unclaimed = Unclaimed::default();
        assert_eq!(unclaimed.first_time(7), First::Yes);
        assert_eq!(unclaimed.first_time(7), First::No);
        for address in 1_000..1_000 + MAX_LOGGED as u64 - 2 {
            assert_eq!(unclaimed.first_time(address), First::Yes);
        }
        assert_eq!(unclaimed.first_time(1), First::Last);
        assert_eq!(unclaimed.first_time(2), First::No);
        assert_eq!(unclaimed.seen.lock().unwrap().len(), MAX_LOGGED);
    }
}
