//! Networking without privileges: the guest's connections become connections of a process of the
//! user, passt.
//!
//! Passt speaks Ethernet frames on a stream socket, each after its length (four bytes, big-endian),
//! as QEMU's `-netdev stream` does. It is DHCP server, ARP responder and name server's relay for
//! the guest, confines itself, and ends when the socket is closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nerite_memory::GuestRam;
use nerite_virtio::{Event, Segment};
use nerite_virtio_net::{Backend, HEADER, MAX_FRAME, Mac, write_across};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketFlags, SocketType, recv, send, sendmsg, shutdown, socketpair,
};

use crate::{Error, Forward, ioctl, vectors};

mod flows;
mod passt;
mod tcp;

use flows::Flows;
use passt::{Process, introduction};
use tcp::{HEADERS, Header, SYN};

/// The guest's address, as Hermit's kernel has it without DHCP, too.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 3);
/// Its gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 1);
/// The bits of its network.
pub(crate) const PREFIX: u8 = 24;
/// The largest packet that passt carries.
pub(crate) const MTU: u16 = 65_520;

/// An Ethernet header: what is shorter is no frame.
const SHORTEST: usize = 14;
/// The longest frame that passt takes.
const LONGEST: usize = SHORTEST + MTU as usize;
/// Bytes that are kept until the guest has room for them: the windows of a few connections.
const INPUT: usize = 2 << 20;
/// Bytes that are read at once, if there is room.
const READ: usize = 512 << 10;
/// Unread bytes of a socket whose last message is just being taken away: its buffer counts for one
/// until it is freed.
const NOTHING: u32 = 1;
/// Bytes of the length before each frame.
const LENGTH: usize = 4;
/// Header flag: the checksum is right (5.1.6). Frames come from a process of this host, which has
/// made it itself.
const DATA_VALID: u8 = 2;
/// The socket to passt, and the process.
#[derive(Debug)]
pub struct User {
    socket: OwnedFd,
    /// Received bytes that are not yet a frame that was taken: those from `start` to `end`.
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes that could not be written yet. Nothing else is sent before them.
    output: VecDeque<u8>,
    checksums: bool,
    flows: Flows,
    /// A segment that begins a connection was sent, and nothing is until passt has read it.
    is_opening: bool,
    /// A descriptor to send along with such a segment.
    boundary: Event,
    process: Option<Process>,
}

impl User {
    /// Starts passt, which must be installed.
    ///
    /// # Errors
    /// If it cannot be started or ends at once, as when a port is taken.
    pub fn start(
        forwards: &[Forward],
        reach_host: bool,
        mtu: u16,
        mac: Mac,
    ) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(Error::host("making a socket"))?;
        // Passt drops what does not fit, and sends the first segment of a connection only once.
        widen(&theirs);
        // Passt sends to all until it knows the guest's Ethernet address, and stacks drop such a
        // segment: the first connection, if it comes before the guest has sent a frame, would hang.
        send(&ours, &introduction(mac), SendFlags::NOSIGNAL)
            .map_err(Error::host("writing to a socket"))?;
        let process = Process::start(theirs, forwards, reach_host, mtu)?;
        Self::with(ours, Some(process))
    }

    /// Number of the process, if one was started.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Connects to a backend at the other end of `socket`.
    ///
    /// # Errors
    /// If it cannot be made non-blocking.
    pub fn on_socket(socket: OwnedFd) -> Result<Self, Error> {
        Self::with(socket, None)
    }

    fn with(socket: OwnedFd, process: Option<Process>) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true)
            .map_err(Error::host("making a socket non-blocking"))?;
        widen(&socket);
        Ok(Self {
            socket,
            input: vec![0; INPUT].into_boxed_slice(),
            start: 0,
            end: 0,
            output: VecDeque::new(),
            checksums: false,
            flows: Flows::default(),
            is_opening: false,
            boundary: Event::new().map_err(Error::host("making an event"))?,
            process,
        })
    }

    /// The next frame that is here whole: where it is in `input`.
    fn next_frame(&mut self) -> io::Result<Option<std::ops::Range<usize>>> {
        let have = self.end.saturating_sub(self.start);
        let Some(length) =
            self.input.get(self.start..self.end).and_then(|bytes| bytes.first_chunk::<LENGTH>())
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            // There is no way to find the next frame.
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("a frame of {length} bytes from passt"),
            ));
        }
        let whole = length.saturating_add(LENGTH);
        if have < whole {
            return Ok(None);
        }
        let first = self.start.saturating_add(LENGTH);
        self.start = self.start.saturating_add(whole);
        Ok(Some(first..first.saturating_add(length)))
    }

    /// Reads what is there. `WouldBlock` if nothing is, and `OutOfMemory` if there is no room for
    /// anything.
    fn fill(&mut self) -> io::Result<()> {
        // Many bytes move only where that gains as much.
        let is_short = self.input.len().saturating_sub(self.end) < READ;
        if self.start == self.end || is_short && self.start >= READ {
            self.input.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(ErrorKind::OutOfMemory.into());
        }
        match recv(&self.socket, room, RecvFlags::empty())? {
            (0, _) => Err(ErrorKind::UnexpectedEof.into()),
            (read, _) => {
                self.end = self.end.saturating_add(read);
                Ok(())
            }
        }
    }
}

/// Reads the beginning of a frame: as many bytes as there are, or fit.
fn read_head<'a>(ram: &GuestRam, pieces: &[Segment], bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut length = 0_usize;
    for piece in pieces {
        let end = length.saturating_add(piece.length as usize).min(bytes.len());
        ram.read(piece.address, bytes.get_mut(length..end)?).ok()?;
        length = end;
    }
    bytes.get(..length)
}

/// Gives `socket` room for what is read at once. For a Unix socket that is the sender's.
fn widen(socket: &OwnedFd) {
    if let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(socket, READ) {
        log::debug!("the buffer of a socket stays as it is: {error}");
    }
}

impl Backend for User {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        let total =
            pieces.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.length as usize));
        let frame = total.saturating_sub(HEADER);
        // Passt closes the socket, and the guest's card is dead, at what cannot be a frame.
        if !(SHORTEST..=LONGEST).contains(&frame) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if self.is_opening {
            if ioctl::unread(&self.socket)? > NOTHING {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.is_opening = false;
        }
        if !self.output.is_empty() {
            self.flush()?;
        }
        let mut bytes = [0; HEADER + HEADERS];
        let head = read_head(ram, pieces, &mut bytes);
        let head = head.and_then(|head| head.get(HEADER..)).unwrap_or_default();
        let (header, now) = (Header::parse(head, frame), Instant::now());
        if header.is_some_and(|header| self.flows.is_idle(&header, now)) {
            return Ok(());
        }
        let prefix = u32::try_from(frame).map_err(|_| ErrorKind::InvalidInput)?.to_be_bytes();
        if header.is_some_and(|header| header.flags & SYN != 0) && frame == head.len() {
            self.send_opening(&prefix, head)?;
        } else {
            let written = vectors::write(&self.socket, &prefix, ram, pieces, HEADER as u64)?;
            if written < frame.saturating_add(LENGTH) {
                self.keep(&prefix, ram, pieces, written)?;
            }
        }
        if let Some(header) = header
            && self.flows.note(&header, now)
        {
            self.request_acknowledgement(&header, head);
        }
        Ok(())
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        let frame = loop {
            match self.next_frame()? {
                Some(frame) => break frame,
                None => self.fill()?,
            }
        };
        let flags = if self.checksums { DATA_VALID } else { 0 };
        let mut header = [0; HEADER];
        let [first, ..] = &mut header;
        *first = flags;
        let outside = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let frame = self.input.get(frame).unwrap_or_default();
        write_across(ram, room, 0, &header).map_err(outside)?;
        write_across(ram, room, HEADER as u64, frame).map_err(outside)?;
        let room =
            room.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.length as usize));
        // What did not fit: the end of the frame, and of the header if there was hardly any room.
        let rest = header.iter().chain(frame).skip(room);
        for (to, from) in spill.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(frame.len().saturating_add(HEADER))
    }

    fn gather(&mut self) {
        // An error comes again when a frame is received.
        while self.fill().is_ok() {}
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            let written = rustix::io::write(&self.socket, front)?;
            self.output.drain(..written.min(self.output.len()));
        }
        Ok(())
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.checksums = features & nerite_virtio_net::feature::GUEST_CSUM != 0;
        Ok(())
    }

    fn close(&mut self) {
        // Passt ends at the end of the stream, and may be out of reach for signals.
        if let Err(error) = shutdown(&self.socket, Shutdown::Both) {
            log::debug!("closing the connection to passt: {error}");
        }
        drop(self.process.take());
    }
}

impl User {
    /// Keeps what the socket did not take of a frame: the guest may take its memory back at once.
    fn keep(
        &mut self,
        prefix: &[u8],
        ram: &GuestRam,
        pieces: &[Segment],
        written: usize,
    ) -> io::Result<()> {
        self.output.extend(prefix.iter().skip(written));
        let mut skip = written.saturating_sub(prefix.len()).saturating_add(HEADER);
        for piece in pieces {
            let length = piece.length as usize;
            let now = skip.min(length);
            skip = skip.saturating_sub(now);
            let mut bytes = vec![0; length.saturating_sub(now)];
            ram.read(piece.address.saturating_add(now as u64), &mut bytes)
                .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
            self.output.extend(bytes);
        }
        Ok(())
    }

    /// Sends a segment that begins a connection, so that passt reads nothing else of that
    /// connection together with it.
    ///
    /// The passt of Debian 12 (March 2023) goes round in a loop without end when it reads the
    /// guest's answer to a new connection and another segment of that connection at once: the
    /// answer once more, or the first data of a guest that speaks first. What is sent after this
    /// waits until it is read, and reading stops after the message that a descriptor comes with
    /// (unix(7)).
    fn send_opening(&mut self, prefix: &[u8], frame: &[u8]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let boundary = [self.boundary.as_fd()];
        along.push(SendAncillaryMessage::ScmRights(&boundary));
        let pieces = [IoSlice::new(prefix), IoSlice::new(frame)];
        sendmsg(&self.socket, &pieces, &mut along, SendFlags::NOSIGNAL)?;
        self.is_opening = true;
        Ok(())
    }

    /// Makes passt answer a segment whose data it has already, which it does not by itself: a
    /// segment that it cannot take follows. `head` is the beginning of the first one's frame.
    fn request_acknowledgement(&mut self, header: &Header, head: &[u8]) {
        let Some(frame) = header.beyond(head) else { return };
        let Ok(length) = u32::try_from(frame.len()) else { return };
        self.output.extend(length.to_be_bytes());
        self.output.extend(frame);
        // What does not fit now is sent when there is room.
        if let Err(error) = self.flush() {
            log::trace!("sending to passt: {error}");
        }
    }

    /// Number of the socket's descriptor, for a sandbox.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "user_test.rs"]
mod tests;
