//! The header of a TCP segment over IPv4 (RFC 9293, 3.1), as far as passt needs help with it.

/// Flags: the connection begins, and the acknowledgement is valid.
pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

/// Bytes at the beginning of a frame that hold all headers: Ethernet, IPv4 and TCP, with all their
/// options.
pub(super) const HEADERS: usize = 14 + 60 + 60;

/// Fields of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) connection: Connection,
    pub(super) acknowledgement: Acknowledgement,
    /// FIN, SYN, RST, PSH, ACK and URG.
    pub(super) flags: u8,
    pub(super) has_data: bool,
}

/// A connection of the guest: its port, and the other side's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Connection {
    port: [u8; 2],
    peer: ([u8; 4], [u8; 2]),
}

/// Acknowledged sequence number, and window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledgement {
    number: [u8; 4],
    window: [u8; 2],
}

impl Header {
    /// Header of the segment in `frame`, if it is one and not a fragment.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        const IPV4: [u8; 2] = [8, 0];
        const TCP: u8 = 6;
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
        let [p0, p1, q0, q1, _, _, _, _, a0, a1, a2, a3, offset, flags, w0, w1] =
            *segment.first_chunk::<16>()?;
        let peer = (*packet.get(16..20)?.first_chunk::<4>()?, [q0, q1]);
        Some(Self {
            connection: Connection { port: [p0, p1], peer },
            acknowledgement: Acknowledgement { number: [a0, a1, a2, a3], window: [w0, w1] },
            flags: flags & 0x3f,
            has_data: segment.len() > usize::from(offset >> 4).checked_mul(4)?,
        })
    }
}
