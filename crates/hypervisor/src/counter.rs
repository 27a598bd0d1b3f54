//! Counters of the processor for guests.

use std::fmt;
use std::io;

/// Quantity that a [`GuestCounter`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterKind {
    /// Instructions that the guest has completed.
    Instructions,
    /// Cycles of the processor in the guest.
    Cycles,
}

/// A counter of what the processor does in guests of the thread that opened it and of threads
/// started later.
pub trait GuestCounter: fmt::Debug + Send + Sync {
    /// Reads the counter.
    ///
    /// # Errors
    /// Fails if the processor has had no room for the counter.
    fn read(&self) -> io::Result<u64>;

    /// Directs the signals of a counter with a period to the calling thread.
    ///
    /// # Errors
    /// Fails if the host refuses.
    fn signal_this_thread(&self) -> io::Result<()>;
}
