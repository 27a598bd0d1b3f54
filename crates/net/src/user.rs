//! Networking without privileges: the guest's connections become connections of this process.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use nerite_memory::GuestRam;
use nerite_user_net::{Config, Stack};
use nerite_virtio::Segment;
use nerite_virtio_net::{Backend, HEADER, MAX_FRAME, Mac, feature, write_across};

use crate::{Error, Forward};

/// Ethernet address of the guest unless another one is asked for.
pub(crate) const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x00, 0x05, 0x03]);
/// MTU of the card: the largest packet.
pub(crate) const MTU: u16 = nerite_user_net::MAX_MTU;
/// The largest packet that the stack takes part in, unless another MTU is asked for. Some drivers
/// send only frames shorter than the MTU, Ethernet header included; the segments that they make for
/// this stack are.
pub(crate) const STACK_MTU: u16 = MTU - 16;
/// Checksums that the guest may leave out: the stack looks at none, and computes all of its own.
pub(crate) const OFFLOADS: u64 = feature::CSUM | feature::GUEST_CSUM;
/// Header flag: the checksum is right (5.1.6).
const DATA_VALID: u8 = 2;

/// A network stack of this process, [`nerite_user_net`].
#[derive(Debug)]
pub struct User {
    stack: Stack,
    /// The driver takes the word for checksums.
    trusts_checksums: bool,
    /// The frame in hand.
    frame: Vec<u8>,
}

impl User {
    /// Starts a stack. With `reach_host` the gateway leads to the loopback interface of the host.
    ///
    /// # Errors
    /// If a forwarded port is taken, or may not be listened on.
    pub fn start(
        forwards: &[Forward],
        reach_host: bool,
        mtu: u16,
        Mac(mac): Mac,
    ) -> Result<Self, Error> {
        let forwards = forwards.iter().map(|forward| nerite_user_net::Forward {
            protocol: forward.protocol,
            host: SocketAddr::new(
                forward.address.unwrap_or(Ipv4Addr::LOCALHOST.into()),
                forward.host_port,
            ),
            guest_port: forward.guest_port,
        });
        let stack = Stack::new(Config {
            mac,
            mtu,
            forwards: forwards.collect(),
            reach_host,
            name_server: nerite_user_net::name_server(),
        })?;
        Ok(Self { stack, trusts_checksums: false, frame: Vec::new() })
    }
}

impl Backend for User {
    fn fd(&self) -> BorrowedFd<'_> {
        self.stack.fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        self.frame.clear();
        for piece in pieces {
            let start = self.frame.len();
            let end = start.saturating_add(piece.length as usize).min(MAX_FRAME);
            self.frame.resize(end, 0);
            ram.read(piece.address, self.frame.get_mut(start..).unwrap_or_default())
                .map_err(outside)?;
        }
        self.stack.send(self.frame.get(HEADER..).ok_or(ErrorKind::InvalidInput)?);
        Ok(())
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        let flags = if self.trusts_checksums { DATA_VALID } else { 0 };
        let mut header = [0; HEADER];
        let [first, ..] = &mut header;
        *first = flags;
        let received = self.stack.receive(|frame| {
            write_across(ram, room, 0, &header).map_err(outside)?;
            write_across(ram, room, HEADER as u64, frame).map_err(outside)?;
            let room =
                room.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.length as usize));
            // What did not fit: the end of the frame, and of the header if there was hardly any
            // room.
            let rest = header.iter().chain(frame).skip(room);
            for (to, from) in spill.iter_mut().zip(rest) {
                *to = *from;
            }
            Ok(frame.len().saturating_add(HEADER))
        });
        received.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn has_frames(&self) -> bool {
        self.stack.has_frames()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stack.flush();
        Ok(())
    }

    fn discard(&mut self) {
        self.stack.discard();
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.trusts_checksums = features & feature::GUEST_CSUM != 0;
        Ok(())
    }
}

/// Error of guest memory that is not there.
fn outside<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, error)
}

#[cfg(test)]
#[path = "user_test.rs"]
mod tests;
