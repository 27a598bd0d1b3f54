//! Segments of TCP over IPv4 (RFC 9293, 3.1), as far as passt needs help with them.

/// Flags: the sender ends its side, the connection begins, and the acknowledgement is valid.
pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options, and of a TCP header without options.
const FIXED: usize = 20;
/// Bytes at the beginning of a frame that hold all headers: Ethernet, IPv4 and TCP, with all their
/// options.
pub(super) const HEADERS: usize = ETHERNET + 60 + 60;
/// Bytes of [`Header::beyond`]: the headers without options, and one byte of data.
pub(super) const BEYOND: usize = ETHERNET + FIXED + FIXED + 1;
/// Distance of a segment that is behind a gap. Passt takes what is 16 MiB or more ahead, its
/// largest window, for old data, and closes the connection as it cannot send that on. It keeps
/// nothing that is behind a gap, and reads less than this distance at once.
const GAP: u32 = 12 << 20;

/// Fields of a segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) connection: Connection,
    pub(super) sequence: u32,
    pub(super) acknowledgement: Acknowledgement,
    /// FIN, SYN, RST, PSH, ACK and URG.
    pub(super) flags: u8,
    /// Bytes of data.
    pub(super) data: u32,
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
    /// Header of the segment in a frame of `length` bytes, if it is one and not a fragment. `head`
    /// is the frame's beginning, [`HEADERS`] bytes of it if there are as many.
    pub(super) fn parse(head: &[u8], length: usize) -> Option<Self> {
        const IPV4: [u8; 2] = [8, 0];
        const TCP: u8 = 6;
        let packet = head.get(ETHERNET..).filter(|_| head.get(12..14) == Some(&IPV4))?;
        let [first, _, total_high, total_low, _, _, fragment_high, fragment_low, _, protocol, ..] =
            *packet.first_chunk::<FIXED>()?;
        let is_fragment = (fragment_high & 0x3f, fragment_low) != (0, 0);
        if first >> 4 != 4 || protocol != TCP || is_fragment {
            return None;
        }
        let header = usize::from(first & 0xf).checked_mul(4)?;
        let total = usize::from(u16::from_be_bytes([total_high, total_low]));
        if total > length.checked_sub(ETHERNET)? {
            return None;
        }
        let segment = packet.get(header..)?.first_chunk::<16>()?;
        let [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1] = *segment;
        let peer = (*packet.get(16..20)?.first_chunk::<4>()?, [q0, q1]);
        let before = header.checked_add(usize::from(offset >> 4).checked_mul(4)?)?;
        Some(Self {
            connection: Connection { port: [p0, p1], peer },
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            acknowledgement: Acknowledgement { number: [a0, a1, a2, a3], window: [w0, w1] },
            flags: flags & 0x3f,
            data: total.checked_sub(before)?.try_into().ok()?,
        })
    }

    /// Sequence number after the data.
    pub(super) fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.data)
    }

    /// Frame of a segment like this one, whose frame begins with `head`, but with one byte that is
    /// far beyond the data. Its receiver drops it, and acknowledges what it has (RFC 9293,
    /// 3.10.7.4).
    pub(super) fn beyond(&self, head: &[u8]) -> Option<[u8; BEYOND]> {
        let (ethernet, packet) = head.split_first_chunk::<ETHERNET>()?;
        let addresses = packet.get(12..20)?;
        let mut frame = [0; BEYOND];
        let (to_ethernet, ip) = frame.split_first_chunk_mut::<ETHERNET>()?;
        *to_ethernet = *ethernet;
        let (ip, segment) = ip.split_first_chunk_mut::<FIXED>()?;
        // Version and length of the header, total length, lifetime, protocol.
        *ip = [0x45, 0, 0, 41, 0, 0, 0, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        ip.get_mut(12..)?.copy_from_slice(addresses);
        let checksum = checksum(0, ip);
        ip.get_mut(10..12)?.copy_from_slice(&checksum);
        let Connection { port, peer: (_, peer_port) } = self.connection;
        let Acknowledgement { number, window } = self.acknowledgement;
        let sequence = self.end().wrapping_add(GAP).to_be_bytes();
        // Length of the header in 32-bit words, in the upper half; flags.
        let fields = [&port[..], &peer_port, &sequence, &number, &[0x50, ACK], &window];
        for (to, from) in segment.iter_mut().zip(fields.concat()) {
            *to = from;
        }
        // The pseudo-header is addresses, protocol and length of the segment (3.1).
        let pseudo = add_words(add_words(0, addresses), &[0, 6, 0, 21]);
        let checksum = self::checksum(pseudo, segment);
        segment.get_mut(16..18)?.copy_from_slice(&checksum);
        Some(frame)
    }
}

/// Adds the 16-bit words of `bytes` to a sum (RFC 1071).
fn add_words(sum: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(sum, |sum, word| {
        let [high, low] = [word.first(), word.get(1)].map(|byte| byte.copied().unwrap_or(0));
        sum.saturating_add(u16::from_be_bytes([high, low]).into())
    })
}

/// Checksum of `bytes` and of what is in a sum already.
fn checksum(sum: u32, bytes: &[u8]) -> [u8; 2] {
    let mut sum = add_words(sum, bytes);
    while let carry @ 1.. = sum >> 16 {
        sum = (sum & 0xffff).saturating_add(carry);
    }
    let [_, _, high, low] = sum.to_be_bytes();
    [!high, !low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with data, behind options of both headers.
    fn frame() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x46, 0, 0, 55, 9, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 5, 3, 10, 0, 5, 1]);
        frame.extend([1, 1, 1, 1]);
        frame.extend([0, 7, 0x1f, 0x90, 0xff, 0xff, 0xff, 0xfe, 1, 2, 3, 4]);
        frame.extend([0x60, 0x18, 5, 6, 0, 0, 0, 0, 1, 1, 1, 1]);
        frame.extend(b"seven b");
        frame
    }

    #[test]
    fn a_header_is_found_behind_options() {
        let frame = frame();
        let header = Header::parse(&frame, frame.len()).unwrap();
        assert_eq!((header.sequence, header.data, header.flags), (0xffff_fffe, 7, 0x18));
        assert_eq!(header.end(), 5);
        assert_eq!(header.connection.peer, ([10, 0, 5, 1], [0x1f, 0x90]));
        // The headers are enough, if the rest of the frame is there.
        assert_eq!(Header::parse(&frame[..62], frame.len()), Some(header));
        assert_eq!(Header::parse(&frame, frame.len() - 1), None);
        assert_eq!(Header::parse(&frame[..50], frame.len()), None);
    }

    #[test]
    fn a_segment_beyond_the_data_is_the_connections_and_has_right_checksums() {
        let frame = frame();
        let header = Header::parse(&frame, frame.len()).unwrap();
        let beyond = header.beyond(&frame[..62]).unwrap();
        let parsed = Header::parse(&beyond, BEYOND).unwrap();
        let sequence = 5 + GAP;
        assert_eq!(parsed, Header { sequence, flags: ACK, data: 1, ..header });
        assert_eq!(beyond[..14], frame[..14]);
        assert_eq!(checksum(0, &beyond[14..34]), [0, 0]);
        let pseudo = [&beyond[26..34], &[0, 6, 0, 21], &beyond[34..]].concat();
        assert_eq!(checksum(0, &pseudo), [0, 0]);
    }
}
