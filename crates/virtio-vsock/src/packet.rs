//! Packets (virtio 1.2, 5.10.6).

/// Bytes of a header.
pub const HEADER: usize = 44;
/// The host's context identifier.
pub const HOST_CID: u64 = 2;
/// Type of a stream socket's packets.
pub const STREAM: u16 = 1;

/// Operations of packets.
#[allow(missing_docs, reason = "they are the specification's")]
pub mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`].
pub mod shutdown {
    /// The sender receives no more.
    pub const RECEIVE: u32 = 1;
    /// The sender sends no more.
    pub const SEND: u32 = 2;
    /// Both.
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// Header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Context identifier of the sender.
    pub src_cid: u64,
    /// Context identifier of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Number of bytes that follow the header.
    pub length: u32,
    /// Type of the socket.
    pub kind: u16,
    /// Operation.
    pub op: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// Bytes that the sender has room for in all.
    pub buf_alloc: u32,
    /// Bytes that the sender has received and passed on so far, modulo 2³².
    pub fwd_cnt: u32,
}

impl Header {
    /// The header as it is in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.length.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// The header that these bytes are.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            length: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// A reset in answer to this packet: from where it went to where it came from, with its type.
    pub(crate) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}

/// The next bytes of a field.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((field, after)) = rest.split_first_chunk() else { return [0; N] };
    *rest = after;
    *field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_laid_out_as_specified() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x1000,
            dst_port: 52,
            length: 5,
            kind: STREAM,
            op: op::RW,
            flags: 0x0403_0201,
            buf_alloc: 0x10000,
            fwd_cnt: 7,
        };
        let bytes = header.to_bytes();
        assert_eq!(Header::from_bytes(&bytes), header);
        for (at, byte) in [(0, 3), (8, 2), (17, 0x10), (20, 52), (24, 5), (28, 1), (30, 5)] {
            assert_eq!(bytes[at], byte, "{at}");
        }
        assert_eq!((&bytes[32..36], bytes[38], bytes[40]), (&[1, 2, 3, 4][..], 1, 7));
    }

    #[test]
    fn a_reset_goes_back_where_the_packet_came_from() {
        let header = Header {
            src_cid: 3,
            dst_cid: 9,
            src_port: 1,
            dst_port: 2,
            kind: 7,
            ..Header::default()
        };
        let reset = header.reset();
        assert_eq!((reset.src_cid, reset.src_port), (9, 2));
        assert_eq!((reset.dst_cid, reset.dst_port), (3, 1));
        assert_eq!((reset.kind, reset.op, reset.length), (7, op::RST, 0));
    }
}
