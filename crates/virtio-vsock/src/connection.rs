//! A connection between a Unix socket and a port of the guest.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use crate::line::{self, Line};
use crate::packet::{Header, op, shutdown};
use crate::ports::Ports;

/// Bytes from the guest that wait for a client, at most; also the most of one packet.
pub const BUFFER: usize = 64 << 10;
/// [`BUFFER`] as the guest hears of it.
pub(crate) const BUF_ALLOC: u32 = 64 << 10;
/// Room for bytes of the guest that is new, from which on it is announced.
const UPDATE: u32 = BUF_ALLOC / 4;

/// Progress of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// A client has connected; this much of its line has come.
    Line(Vec<u8>),
    /// The guest has been asked, or is about to be.
    Requested,
    /// Both ends are connected.
    Established,
    /// The guest has ended it; the client has not taken all bytes yet.
    Lingering,
}

/// Result of a packet, or of a step of the host's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection goes on.
    Keep,
    /// It is over, and the guest gets a reset.
    Reset,
    /// It is over for the guest as well.
    Remove,
}

/// A packet for the guest, to which addresses are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) op: u16,
    pub(crate) flags: u32,
    /// Bytes of data that were read.
    pub(crate) length: u32,
}

/// A connection.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "they are independent")]
pub(crate) struct Connection {
    socket: OwnedFd,
    stage: Stage,
    pub(crate) ports: Option<Ports>,
    /// Reading or writing has not failed for want of bytes or room since the last event.
    may_read: bool,
    may_write: bool,
    /// The client has closed its socket.
    has_hung_up: bool,
    /// Bytes from the guest that the client has not taken.
    to_host: VecDeque<u8>,
    /// Bytes that the guest has sent, those of them that were passed on, and those that the guest
    /// knows of, modulo 2³².
    received: u32,
    forwarded: u32,
    announced: u32,
    /// Bytes that were sent to the guest, and what the guest has said of its buffer.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// The guest was asked for room, and has not said anything since.
    has_asked: bool,
    /// Directions that the guest has ended, that the client has, and that the guest knows of:
    /// flags of [`shutdown`].
    guest_ended: u32,
    host_ended: u32,
    told: u32,
    /// The client has been shown that the guest sends no more.
    is_shut: bool,
    /// A request, an answer or a credit update that the guest is to get.
    owes_request: bool,
    owes_response: bool,
    owes_update: bool,
    /// Time at which it is ended, unless there is progress.
    pub(crate) deadline: Option<Instant>,
    /// It is in the queue for packets to the guest.
    pub(crate) is_queued: bool,
}

impl Connection {
    fn new(socket: OwnedFd, stage: Stage, ports: Option<Ports>) -> Self {
        Self {
            socket,
            stage,
            ports,
            may_read: true,
            may_write: true,
            has_hung_up: false,
            to_host: VecDeque::new(),
            received: 0,
            forwarded: 0,
            announced: 0,
            sent: 0,
            peer_buf_alloc: 0,
            peer_fwd_cnt: 0,
            has_asked: false,
            guest_ended: 0,
            host_ended: 0,
            told: 0,
            is_shut: false,
            owes_request: false,
            owes_response: false,
            owes_update: false,
            deadline: None,
            is_queued: false,
        }
    }

    /// A client that has connected.
    pub(crate) fn accepted(socket: OwnedFd) -> Self {
        Self::new(socket, Stage::Line(Vec::new()), None)
    }

    /// A connection that the guest has asked for by `header`.
    pub(crate) fn connected(socket: OwnedFd, ports: Ports, header: &Header) -> Self {
        let mut connection = Self::new(socket, Stage::Established, Some(ports));
        connection.owes_response = true;
        connection.take_credit(header);
        connection
    }

    /// Has the guest asked, for a client whose line has come.
    pub(crate) fn request(&mut self, ports: Ports) {
        (self.stage, self.ports, self.owes_request) = (Stage::Requested, Some(ports), true);
    }

    /// `true` while the client's line is to come.
    pub(crate) fn wants_line(&self) -> bool {
        matches!(self.stage, Stage::Line(_))
    }

    /// `true` if the guest may know of the connection.
    pub(crate) fn is_known_to_guest(&self) -> bool {
        match self.stage {
            Stage::Line(_) | Stage::Lingering => false,
            Stage::Requested => !self.owes_request,
            Stage::Established => true,
        }
    }

    /// `true` if the guest has ended both directions, so that a reset is the answer to that.
    pub(crate) fn has_ended(&self) -> bool {
        self.guest_ended == shutdown::BOTH
    }

    /// `true` if both sides are to do something within a time.
    pub(crate) fn is_half_open(&self) -> bool {
        matches!(self.stage, Stage::Line(_) | Stage::Requested) || self.told == shutdown::BOTH
    }

    /// Takes note of events of the socket.
    pub(crate) fn ready(&mut self, is_readable: bool, is_writable: bool, has_hung_up: bool) {
        self.may_read |= is_readable;
        self.may_write |= is_writable;
        self.has_hung_up |= has_hung_up;
        self.note_hang_up();
    }

    /// A client that is gone takes nothing. What it has sent before is read first.
    fn note_hang_up(&mut self) {
        let reads = self.guest_ended & shutdown::RECEIVE == 0;
        if self.has_hung_up && (self.host_ended & shutdown::SEND != 0 || !reads) {
            self.host_ended = shutdown::BOTH;
        }
    }

    /// Reads the client's line, and nothing behind it.
    pub(crate) fn read_line(&mut self) -> Line {
        let Stage::Line(line) = &mut self.stage else { return Line::Bad };
        let read = line::read(&self.socket, line);
        self.may_read &= read != Line::Partial;
        read
    }

    /// Takes what a packet says of the guest's buffer.
    fn take_credit(&mut self, header: &Header) {
        (self.peer_buf_alloc, self.peer_fwd_cnt) = (header.buf_alloc, header.fwd_cnt);
        self.has_asked = false;
    }

    /// Bytes that the guest has room for.
    fn credit(&self) -> u32 {
        let in_flight = self.sent.wrapping_sub(self.peer_fwd_cnt);
        self.peer_buf_alloc.saturating_sub(in_flight)
    }

    /// Takes a packet of the guest that is no reset, with its data.
    pub(crate) fn packet(&mut self, header: &Header, data: &[u8]) -> Verdict {
        self.take_credit(header);
        match (&self.stage, header.op) {
            (Stage::Requested, op::RESPONSE) if !self.owes_request => self.answer_client(),
            (Stage::Established, op::RW) => self.take_data(data),
            (Stage::Established, op::CREDIT_UPDATE) => Verdict::Keep,
            (Stage::Established, op::CREDIT_REQUEST) => {
                self.owes_update = true;
                Verdict::Keep
            }
            (Stage::Established, op::SHUTDOWN) => {
                self.guest_ended |= header.flags & shutdown::BOTH;
                if self.guest_ended & shutdown::RECEIVE != 0 {
                    // The client's next write fails. If it is gone already, that is known.
                    let _ = rustix::net::shutdown(&self.socket, Shutdown::Read);
                }
                self.note_hang_up();
                self.flush()
            }
            _ => Verdict::Reset,
        }
    }

    /// The guest has accepted a client.
    fn answer_client(&mut self) -> Verdict {
        self.stage = Stage::Established;
        let port = self.ports.map_or(0, |ports| ports.host);
        let answer = format!("OK {port}\n");
        // Nothing has been written before, so there is room, unless the client is gone.
        match rustix::net::send(&self.socket, answer.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(length) if length == answer.len() => Verdict::Keep,
            _ => Verdict::Reset,
        }
    }

    /// Takes data of the guest, which must have room for it (5.10.6.3).
    fn take_data(&mut self, data: &[u8]) -> Verdict {
        let Ok(length) = u32::try_from(data.len()) else { return Verdict::Reset };
        let waiting = self.received.wrapping_sub(self.forwarded);
        let has_room = waiting.checked_add(length).is_some_and(|sum| sum <= BUF_ALLOC);
        if !has_room || self.guest_ended & shutdown::SEND != 0 {
            return Verdict::Reset;
        }
        self.received = self.received.wrapping_add(length);
        self.to_host.extend(data);
        self.flush()
    }

    /// Writes to the client what it takes.
    pub(crate) fn flush(&mut self) -> Verdict {
        let writes = matches!(self.stage, Stage::Established | Stage::Lingering);
        while writes && !self.to_host.is_empty() {
            if self.host_ended & shutdown::RECEIVE != 0 {
                self.forward(self.to_host.len());
                break;
            }
            if !self.may_write {
                return Verdict::Keep;
            }
            let (bytes, _) = self.to_host.as_slices();
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(length) => self.forward(length),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.may_write = false,
                Err(_) => self.host_ended |= shutdown::RECEIVE,
            }
        }
        if !self.to_host.is_empty() {
            return Verdict::Keep;
        }
        if self.guest_ended & shutdown::SEND != 0 && !self.is_shut {
            self.is_shut = true;
            // A client that is gone does not look.
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
        if self.stage == Stage::Lingering {
            return Verdict::Remove;
        }
        // All that the guest has sent is out (5.10.6.5).
        if self.has_ended() { Verdict::Reset } else { Verdict::Keep }
    }

    /// Bytes have gone to the client.
    fn forward(&mut self, length: usize) {
        self.to_host.drain(..length.min(self.to_host.len()));
        // It was at most a buffer.
        self.forwarded = self.forwarded.wrapping_add(u32::try_from(length).unwrap_or(0));
        if self.to_host.is_empty() {
            self.to_host = VecDeque::new();
        }
        self.owes_update |= self.forwarded.wrapping_sub(self.announced) >= UPDATE;
    }

    /// The guest has reset the connection. What it had sent before it said that this was all goes
    /// to the client yet. Returns `true` if there is some.
    pub(crate) fn linger(&mut self) -> bool {
        let lingers = self.stage == Stage::Established
            && self.guest_ended & shutdown::SEND != 0
            && !self.to_host.is_empty();
        (self.stage, self.ports, self.deadline) = (Stage::Lingering, None, None);
        lingers
    }

    /// `true` if there may be a packet for the guest.
    pub(crate) fn has_packet(&self) -> bool {
        match self.stage {
            Stage::Line(_) | Stage::Lingering => false,
            Stage::Requested => self.owes_request,
            Stage::Established => {
                self.owes_response
                    || self.owes_update
                    || self.host_ended != self.told
                    || self.may_be_read() && (self.credit() > 0 || !self.has_asked)
            }
        }
    }

    fn may_be_read(&self) -> bool {
        let is_open = self.host_ended & shutdown::SEND == 0;
        self.may_read && is_open && self.guest_ended & shutdown::RECEIVE == 0
    }

    /// The next packet for the guest, if there is one, with its data in `room`.
    pub(crate) fn next_packet(&mut self, room: &mut [u8]) -> Option<Outgoing> {
        let control = |op, flags| Some(Outgoing { op, flags, length: 0 });
        if std::mem::take(&mut self.owes_request) {
            return control(op::REQUEST, 0);
        }
        if self.stage != Stage::Established {
            return None;
        }
        if std::mem::take(&mut self.owes_response) {
            return control(op::RESPONSE, 0);
        }
        if self.may_be_read() {
            match self.credit() {
                0 if self.has_asked => {}
                0 => {
                    self.has_asked = true;
                    return control(op::CREDIT_REQUEST, 0);
                }
                credit => {
                    let most = usize::try_from(credit).unwrap_or(usize::MAX).min(room.len());
                    if let Some(length) = self.read(room.get_mut(..most).unwrap_or_default()) {
                        return Some(Outgoing { op: op::RW, flags: 0, length });
                    }
                }
            }
        }
        if self.host_ended != self.told {
            self.told = self.host_ended;
            return control(op::SHUTDOWN, self.told);
        }
        if self.owes_update { control(op::CREDIT_UPDATE, 0) } else { None }
    }

    /// Reads from the client. Returns `None` if there is nothing now, or no more.
    fn read(&mut self, room: &mut [u8]) -> Option<u32> {
        match rustix::io::read(&self.socket, room) {
            Ok(0) => {
                (self.may_read, self.host_ended) = (false, self.host_ended | shutdown::SEND);
                self.note_hang_up();
                None
            }
            Ok(length) => {
                let length = u32::try_from(length).ok()?;
                self.sent = self.sent.wrapping_add(length);
                Some(length)
            }
            Err(Errno::INTR) => None,
            Err(Errno::AGAIN) => {
                self.may_read = false;
                None
            }
            Err(_) => {
                self.host_ended = shutdown::BOTH;
                None
            }
        }
    }

    /// Adds the state of the buffer to a packet that the guest gets now.
    pub(crate) fn stamp(&mut self, header: &mut Header) {
        (header.buf_alloc, header.fwd_cnt) = (BUF_ALLOC, self.forwarded);
        (self.announced, self.owes_update) = (self.forwarded, false);
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
