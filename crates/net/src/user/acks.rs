//! Repeated acknowledgements on their way to passt.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::tcp::{ACK, Acknowledgement, Connection, Header};

/// Minimum time between two repetitions of an acknowledgement. What the first one brought may be
/// behind much else, and the second one would bring all of it again; passt repeats it by itself
/// after two seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of connections that are known.
const CONNECTIONS: usize = 1024;

/// Filter for acknowledgements that repeat the one before them (RFC 5681, 3.2).
///
/// Passt sends again all that is not acknowledged, up to the whole window, for *each* of them. A
/// guest answers each segment that it already has, or that comes after a gap, with one. So one lost
/// frame makes a window of repetitions, each of these another window, and so on: both sides are
/// busy with nothing else until buffers overflow, which loses more. The first repetition says all
/// that there is to say, and goes through at once.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    /// The last acknowledgement, and when it was last repeated.
    last: HashMap<Connection, (Acknowledgement, Option<Instant>)>,
}

impl Acknowledgements {
    /// `true` if a segment repeats the acknowledgement before it, and is to be dropped.
    pub(super) fn is_idle(&self, header: &Header, now: Instant) -> bool {
        let Some((last, Some(at))) = self.last.get(&header.connection) else { return false };
        is_bare(header)
            && *last == header.acknowledgement
            && now.saturating_duration_since(*at) < PAUSE
    }

    /// Notes a segment that was sent.
    pub(super) fn note(&mut self, header: &Header, now: Instant) {
        if !is_bare(header) {
            return;
        }
        match self.last.get_mut(&header.connection) {
            Some((last, at)) if *last == header.acknowledgement => *at = Some(now),
            Some(known) => *known = (header.acknowledgement, None),
            None => {
                if self.last.len() >= CONNECTIONS {
                    self.last.clear();
                }
                self.last.insert(header.connection, (header.acknowledgement, None));
            }
        }
    }
}

/// `true` for an acknowledgement that says nothing else.
fn is_bare(header: &Header) -> bool {
    !header.has_data && header.flags == ACK
}

#[cfg(test)]
#[path = "acks_test.rs"]
mod tests;
