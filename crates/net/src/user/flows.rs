//! Connections of the guest with passt, where passt needs help with acknowledgements.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::tcp::{ACK, Acknowledgement, Connection, FIN, Header, SYN};

/// Minimum time between two repetitions of an acknowledgement. What the first one brought may be
/// behind much else, and the second one would bring all of it again; passt repeats it by itself
/// after two seconds.
const PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of connections that are known.
const CONNECTIONS: usize = 1024;

/// A connection, as far as the guest has sent segments of it.
#[derive(Debug)]
struct Flow {
    /// The last acknowledgement, and the time at which a segment without data last repeated it.
    acknowledgement: Acknowledgement,
    repeated: Option<Instant>,
    /// Sequence number after the last data.
    end: Option<u32>,
    /// The guest has ended its side.
    is_ended: bool,
}

/// Segments of the guest that passt needs help with.
///
/// Passt sends again all that is not acknowledged, up to the whole window, for *each*
/// acknowledgement that repeats the one before it (RFC 5681, 3.2). A guest answers each segment
/// that it already has, or that comes after a gap, with one. So one lost frame makes a window of
/// repetitions, each of these another window, and so on: both sides are busy with nothing else
/// until buffers overflow, which loses more. The first repetition says all that there is to say,
/// and goes through at once; others are dropped ([`Self::is_idle`]).
///
/// Passt of March 2023 forgets to send an acknowledgement if its socket becomes writable while the
/// acknowledgement is due, and does not answer the data that the guest then sends again and again.
/// Such repetitions are found ([`Self::note`]), so that passt can be made to answer.
#[derive(Debug, Default)]
pub(super) struct Flows {
    known: HashMap<Connection, Flow>,
}

impl Flows {
    /// `true` if a segment repeats the acknowledgement before it, and is to be dropped.
    pub(super) fn is_idle(&self, header: &Header, now: Instant) -> bool {
        let Some(flow) = self.known.get(&header.connection) else { return false };
        is_bare(header)
            && flow.acknowledgement == header.acknowledgement
            && flow.repeated.is_some_and(|at| now.saturating_duration_since(at) < PAUSE)
    }

    /// Notes a segment that was sent. Returns `true` if its data had been sent before, and the end
    /// of the guest's side had not: passt always acknowledges that, with all before it.
    pub(super) fn note(&mut self, header: &Header, now: Instant) -> bool {
        if header.flags & SYN != 0 {
            self.known.remove(&header.connection);
            return false;
        }
        if header.flags & ACK == 0 {
            return false;
        }
        let is_full = self.known.len() >= CONNECTIONS;
        if is_full && !self.known.contains_key(&header.connection) {
            self.known.clear();
        }
        let acknowledgement = header.acknowledgement;
        let mut is_new = false;
        let flow = self.known.entry(header.connection).or_insert_with(|| {
            is_new = true;
            Flow { acknowledgement, repeated: None, end: None, is_ended: false }
        });
        if flow.acknowledgement != acknowledgement {
            (flow.acknowledgement, flow.repeated) = (acknowledgement, None);
        } else if is_bare(header) && !is_new {
            flow.repeated = Some(now);
        }
        flow.is_ended |= header.flags & FIN != 0;
        if header.data == 0 {
            return false;
        }
        let end = header.end();
        // Sequence numbers are modulo 2^32 (RFC 9293, 3.4).
        let is_repeated = flow.end.is_some_and(|known| known.wrapping_sub(end) < 1 << 31);
        if !is_repeated {
            flow.end = Some(end);
        }
        is_repeated && !flow.is_ended
    }
}

/// `true` for an acknowledgement that says nothing else.
fn is_bare(header: &Header) -> bool {
    header.data == 0 && header.flags == ACK
}

#[cfg(test)]
#[path = "flows_test.rs"]
mod tests;
