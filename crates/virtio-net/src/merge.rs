//! Frames of one TCP connection that follow each other, as one frame that the other side cuts again
//! if it has to.
//!
//! A driver that does not hand over large segments itself (`HOST_TSO4`) gives a frame for each 1500
//! bytes. What lies in the queue together goes to the host's network stack as one: that stack's
//! work, its acknowledgements, and the interrupts these make are per frame. The payload stays where
//! it is in guest memory; only headers are copied, and only once.

use nerite_memory::GuestRam;
use nerite_virtio::Segment;

use crate::backend::HEADER;

/// Ethernet and IPv4 without options: where TCP begins in a frame.
const TCP: usize = 34;
/// Header, Ethernet, IPv4 and the longest TCP header.
const LONGEST: usize = HEADER + TCP + 60;
/// Header flag: the checksum is still to be made (5.1.6).
const NEEDS_CSUM: u8 = 1;
/// Kind of segmentation: TCP over IPv4.
const GSO_TCPV4: u8 = 1;
/// TCP flags.
const PUSH: u8 = 8;
const ACK: u8 = 16;
/// The largest IPv4 packet.
const MAX_PACKET: usize = 65_535;
/// Frames that become one, and pieces of memory they may have.
const MAX_FRAMES: usize = 64;
const MAX_PIECES: usize = 512;

/// The headers of a frame that may be part of another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers {
    bytes: [u8; LONGEST],
    /// Number of them.
    length: usize,
    payload: usize,
}

impl Headers {
    /// The headers of the frame in `pieces`, if it is a TCP segment that can be merged: IPv4
    /// without options or fragments, no flags but ACK and PUSH, and a checksum that is left to this
    /// side.
    pub(crate) fn read(ram: &GuestRam, pieces: &[Segment], bytes: u64) -> Option<Self> {
        let frame = usize::try_from(bytes).ok()?;
        let mut headers = [0; LONGEST];
        let mut rest = headers.get_mut(..frame.min(LONGEST))?;
        for piece in pieces {
            let length = usize::try_from(piece.length).ok()?.min(rest.len());
            let (now, later) = rest.split_at_mut_checked(length)?;
            ram.read(piece.address, now).ok()?;
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        let mut this = Self { bytes: headers, length: 0, payload: 0 };
        // Flags, no segmentation, and the checksum of TCP right behind IPv4.
        let is_plain =
            this.byte(0) == NEEDS_CSUM && this.byte(1) == 0 && this.field(6) == [34, 0, 16, 0];
        let is_tcp = this.at(12) == [8, 0]
            && this.field(HEADER.checked_add(14)?)[0] == 0x45
            && this.frame_byte(23) == 6;
        let is_whole = this.frame_byte(20) & 0xbf == 0 && this.frame_byte(21) == 0;
        let tcp_length = usize::from(this.frame_byte(46) >> 4).checked_mul(4)?;
        let flags = this.frame_byte(47);
        this.length = HEADER.checked_add(TCP)?.checked_add(tcp_length)?;
        this.payload = frame.checked_sub(this.length)?;
        let packet = usize::from(u16::from_be_bytes(this.at(16)));
        let fits = packet.checked_add(14)?.checked_add(HEADER)? == frame;
        let is_data = tcp_length >= 20 && flags & !PUSH == ACK && this.payload > 0;
        (is_plain && is_tcp && is_whole && fits && is_data).then_some(this)
    }

    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or_default()
    }

    /// A byte of the frame itself.
    fn frame_byte(&self, at: usize) -> u8 {
        self.byte(at.saturating_add(HEADER))
    }

    /// Two bytes of the frame itself.
    fn at(&self, at: usize) -> [u8; 2] {
        [self.frame_byte(at), self.frame_byte(at.saturating_add(1))]
    }

    fn field(&self, at: usize) -> [u8; 4] {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
    }

    fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.field(HEADER.saturating_add(38)))
    }

    fn has_push(&self) -> bool {
        self.frame_byte(47) & PUSH != 0
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        let at = at.saturating_add(HEADER);
        if let Some(to) = at.checked_add(bytes.len()).and_then(|end| self.bytes.get_mut(at..end)) {
            to.copy_from_slice(bytes);
        }
    }

    /// `true` if all that merging does not change is the same: addresses, ports, acknowledgement,
    /// window, options.
    fn is_alike(&self, other: &Self) -> bool {
        // Length, identification and checksum of IPv4; sequence number, flags and checksum of TCP.
        let differs = |at: usize| matches!(at, 16..=19 | 24..=25 | 38..=41 | 47 | 50..=51);
        let alike = |(at, (a, b)): (usize, (&u8, &u8))| differs(at) || a == b;
        let frames = self.bytes.iter().zip(&other.bytes).take(self.length).skip(HEADER);
        self.length == other.length && frames.enumerate().all(alike)
    }
}

/// Frames that go out as one.
#[derive(Debug, Default)]
pub(crate) struct Group {
    first: Option<Headers>,
    last_push: bool,
    next: u32,
    payload: usize,
    frames: usize,
    is_closed: bool,
    pieces: Vec<Segment>,
}

impl Group {
    /// Takes the frame in `pieces`, with these headers, if it follows those that are here.
    pub(crate) fn add(&mut self, headers: &Headers, pieces: &[Segment]) -> bool {
        if let Some(first) = &self.first {
            let payload = self.payload.saturating_add(headers.payload);
            let packet = payload.saturating_add(first.length);
            let fits = packet <= MAX_PACKET
                && self.frames < MAX_FRAMES
                && self.pieces.len().saturating_add(pieces.len()) <= MAX_PIECES;
            let follows = headers.sequence() == self.next && headers.payload <= first.payload;
            if self.is_closed || !fits || !follows || !first.is_alike(headers) {
                return false;
            }
        }
        let size = self.first.get_or_insert(*headers).payload;
        self.next =
            headers.sequence().wrapping_add(u32::try_from(headers.payload).unwrap_or_default());
        self.payload = self.payload.saturating_add(headers.payload);
        self.frames = self.frames.saturating_add(1);
        self.last_push = headers.has_push();
        // Only the last one may be shorter than the others, or ask to be handed on.
        self.is_closed = headers.payload < size || self.last_push;
        let mut skip = headers.length;
        for piece in pieces {
            let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
            let now = skip.min(length);
            skip = skip.saturating_sub(now);
            let (Ok(offset), Ok(length)) =
                (u64::try_from(now), u32::try_from(length.saturating_sub(now)))
            else {
                continue;
            };
            if length > 0 {
                self.pieces.push(Segment { address: piece.address.saturating_add(offset), length });
            }
        }
        true
    }

    /// The payload's pieces.
    pub(crate) fn pieces(&self) -> &[Segment] {
        &self.pieces
    }

    /// The headers of all as one frame, virtio's first, and how many bytes they have. Of one frame,
    /// they are its own.
    pub(crate) fn headers(&self) -> Option<([u8; LONGEST], usize)> {
        let mut headers = self.first?;
        if self.frames == 1 {
            return Some((headers.bytes, headers.length));
        }
        let tcp = headers.length.checked_sub(HEADER.checked_add(TCP)?)?;
        let size = u16::try_from(headers.payload).ok()?;
        let segment = u16::try_from(tcp.checked_add(self.payload)?).ok()?;
        let packet = segment.checked_add(20)?;
        let start = u16::try_from(headers.length.checked_sub(HEADER)?).ok()?;
        let [s0, s1] = size.to_le_bytes();
        let [h0, h1] = start.to_le_bytes();
        let fixed = [NEEDS_CSUM, GSO_TCPV4, h0, h1, s0, s1, 34, 0, 16, 0, 0, 0];
        headers.bytes.get_mut(..HEADER)?.copy_from_slice(&fixed);
        headers.set(16, &packet.to_be_bytes());
        headers.set(24, &[0, 0]);
        let ip = checksum(headers.bytes.get(HEADER.checked_add(14)?..HEADER.checked_add(TCP)?)?, 0);
        headers.set(24, &(!ip).to_be_bytes());
        // Of TCP, that of the pseudo-header: addresses, protocol and length (5.1.6.2).
        let sum = checksum(
            headers.bytes.get(HEADER.checked_add(26)?..HEADER.checked_add(TCP)?)?,
            u32::from(segment).saturating_add(6),
        );
        headers.set(50, &sum.to_be_bytes());
        if self.last_push {
            let flags = headers.frame_byte(47) | PUSH;
            headers.set(47, &[flags]);
        }
        Some((headers.bytes, headers.length))
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        *self = Self { pieces: std::mem::take(&mut self.pieces), ..Self::default() };
    }
}

/// The ones' complement sum of 16-bit words, and of `sum` (RFC 1071), not inverted. At most a
/// header's bytes.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes(pair.try_into().unwrap_or_default())));
    let sum = words.fold(sum, u32::saturating_add);
    let sum = (sum & 0xffff).saturating_add(sum >> 16);
    let sum = (sum & 0xffff).saturating_add(sum >> 16);
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[path = "merge_test.rs"]
#[allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]
pub(crate) mod tests;
