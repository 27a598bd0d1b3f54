//! The guest, and smoltcp's side of its packets.

use std::net::Ipv4Addr;
use std::time::Instant;

use smoltcp::iface::{Interface, PollResult, SocketSet};

use crate::link::Link;

/// The guest, as far as its frames have shown it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) address: Ipv4Addr,
    /// A frame came since its driver was started.
    pub(crate) is_ready: bool,
}

/// smoltcp's interface and sockets, and the link under them.
pub(crate) struct Ip {
    pub(crate) interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    pub(crate) link: Link,
    pub(crate) started: Instant,
}

impl Ip {
    /// Takes a packet of the guest.
    pub(crate) fn feed(&mut self, packet: &[u8]) {
        self.link.offer(packet);
        let now = self.now();
        self.interface.poll_ingress_single(now, &mut self.link, &mut self.sockets);
    }

    /// Queues what sockets have for the guest. Returns `true` if there was something.
    pub(crate) fn emit(&mut self) -> bool {
        let now = self.now();
        let result = self.interface.poll_egress(now, &mut self.link, &mut self.sockets);
        result == PollResult::SocketStateChanged
    }

    fn now(&self) -> smoltcp::time::Instant {
        let time = self.started.elapsed().as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(time).unwrap_or(i64::MAX))
    }

    /// Time at which sockets have something to do. None while the link has no room: there will be
    /// once the guest has taken frames.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if !self.link.has_room() {
            return None;
        }
        let time = self.interface.poll_delay(self.now(), &self.sockets)?;
        now.checked_add(time.into())
    }
}
