//! Ports of a connection.

use crate::packet::{HOST_CID, Header, STREAM};
use crate::spec::Cid;

/// Ports of a connection. Its context identifiers are those of the host and of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ports {
    pub(crate) host: u32,
    pub(crate) guest: u32,
}

impl Ports {
    /// Ports of a packet of the guest.
    pub(crate) const fn of(header: &Header) -> Self {
        Self { host: header.dst_port, guest: header.src_port }
    }

    /// Header of a packet to a guest that is `cid`.
    pub(crate) fn header(self, cid: Cid, op: u16) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: cid.get().into(),
            src_port: self.host,
            dst_port: self.guest,
            kind: STREAM,
            op,
            ..Header::default()
        }
    }
}
