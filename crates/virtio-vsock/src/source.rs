//! Names of what a device waits for.

/// Number of the first connection.
pub(crate) const FIRST_ID: u64 = 1;

/// Source of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A client has connected.
    Listener,
    /// A connection, by its number from [`FIRST_ID`] on.
    Connection(u64),
}

impl From<Source> for u64 {
    fn from(source: Source) -> Self {
        match source {
            Source::Listener => 0,
            Source::Connection(id) => id,
        }
    }
}

impl From<u64> for Source {
    fn from(number: u64) -> Self {
        match number {
            0 => Self::Listener,
            id => Self::Connection(id),
        }
    }
}
