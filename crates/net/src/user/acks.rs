//! Repeated acknowledgements on their way to passt.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Bytes at the beginning of a frame that tell all of a segment without data: Ethernet, IPv4 and TCP, with all their options.
pub(super) const HEADERS: usize = 14 + 60 + 60;
/// Minimum time between two repetitions of an acknowledgement: longer than a round trip in one host, so that a segment that is sent
/// again is acknowledged before it is asked for once more.
const PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of connections that are known.
const CONNECTIONS: usize = 1024;

/// Filter for acknowledgements that repeat the one before them (RFC 5681, 3.2).
///
/// Passt sends again all that is not acknowledged, up to the whole window, for *each* of them. A guest answers each segment that it
/// already has, or that comes after a gap, with one. So one lost frame makes a window of repetitions, each of these another window, and
/// so on: both sides are busy with nothing else until buffers overflow, which loses more. The first repetition says all that there is
/// to say, and goes through at once.
#[derive(Debug, Default)]
pub(super) struct Acknowledgements {
    /// The last acknowledgement, and when it was last repeated.
    last: HashMap<Connection, (Acknowledgement, Option<Instant>)>,
}

/// A connection of the guest: its port, and the other side's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Connection {
    port: [u8; 2],
    peer: ([u8; 4], [u8; 2]),
}

/// Acknowledged sequence number, and window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Acknowledgement {
    number: [u8; 4],
    window: [u8; 2],
}

impl Acknowledgements {
    /// `true` if `frame` is a repetition that is to be dropped.
    pub(super) fn is_idle_repetition(&mut self, frame: &[u8], now: Instant) -> bool {
        let Some((connection, acknowledgement)) = parse(frame) else { return false };
        match self.last.get_mut(&connection) {
            Some((last, Some(at)))
                if *last == acknowledgement && now.saturating_duration_since(*at) < PAUSE =>
            {
                return true;
            }
            Some((last, at)) if *last == acknowledgement => *at = Some(now),
            Some(known) => *known = (acknowledgement, None),
            None => {
                if self.last.len() >= CONNECTIONS {
                    self.last.clear();
                }
                self.last.insert(connection, (acknowledgement, None));
            }
        }
        false
    }
}

/// The acknowledgement in a frame that is nothing else: a TCP segment over IPv4 without data and without any other flag.
fn parse(frame: &[u8]) -> Option<(Connection, Acknowledgement)> {
    const IPV4: [u8; 2] = [8, 0];
    const TCP: u8 = 6;
    const ACK: u8 = 0x10;
    let packet = frame.get(14..).filter(|_| frame.get(12..14) == Some(&IPV4))?;
    let [first, _, length_high, length_low, _, _, fragment_high, fragment_low, _, protocol, ..] =
        *packet.first_chunk::<20>()?;
    let is_fragment = (fragment_high & 0x3f, fragment_low) != (0, 0);
    if first >> 4 != 4 || protocol != TCP || is_fragment {
        return None;
    }
    let header = usize::from(first & 0xf).checked_mul(4)?;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let segment = packet.get(header..length)?;
    let [p0, p1, q0, q1, _, _, _, _, a0, a1, a2, a3, offset, flags, w0, w1] = *segment.first_chunk::<16>()?;
    let options = usize::from(offset >> 4).checked_mul(4)?;
    let is_bare = length == header.checked_add(options)?;
    (is_bare && flags & 0x3f == ACK).then_some(())?;
    let peer = (*packet.get(16..20)?.first_chunk::<4>()?, [q0, q1]);
    let acknowledgement = Acknowledgement { number: [a0, a1, a2, a3], window: [w0, w1] };
    Some((Connection { port: [p0, p1], peer }, acknowledgement))
}

#[cfg(test)]
#[path = "acks_test.rs"]
mod tests;
