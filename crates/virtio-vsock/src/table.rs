//! All connections of a device, and what the guest is to get of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nerite_event::Ready;
use rustix::io::Errno;

use crate::connection::{Connection, Verdict};
use crate::limits::{Limits, Totals};
use crate::line::Line;
use crate::listener::Listener;
use crate::packet::{HOST_CID, Header, STREAM, op};
use crate::ports::Ports;
use crate::source::{FIRST_ID, Source};
use crate::spec::Cid;

/// Ports of the host's ends of connections that clients have asked for, from here on.
pub(crate) const FIRST_PORT: u32 = 1 << 30;
/// Answers without a connection that wait for the guest: with so many, it gets no more of its
/// packets looked at.
const MAX_REPLIES: usize = 256;
/// Clients that are accepted in a turn.
const ACCEPTS: usize = 16;
/// Time without new clients after one could not be accepted, as when the process has no descriptor
/// left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// All connections of a device.
#[derive(Debug)]
pub(crate) struct Table {
    cid: Cid,
    limits: Limits,
    connections: BTreeMap<u64, Connection>,
    by_ports: BTreeMap<Ports, u64>,
    /// Connections that may have a packet for the guest, in turn.
    queued: VecDeque<u64>,
    /// Resets that belong to no connection.
    replies: VecDeque<Header>,
    deadlines: BTreeSet<(Instant, u64)>,
    next_id: u64,
    pub(crate) next_port: u32,
    /// A client may be waiting.
    may_accept: bool,
    /// Time at which clients are accepted again.
    pause: Option<Instant>,
    pub(crate) totals: Totals,
}

impl Table {
    pub(crate) fn new(cid: Cid, limits: Limits) -> Self {
        Self {
            cid,
            limits,
            connections: BTreeMap::new(),
            by_ports: BTreeMap::new(),
            queued: VecDeque::new(),
            replies: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_id: FIRST_ID,
            next_port: FIRST_PORT,
            may_accept: true,
            pause: None,
            totals: Totals::default(),
        }
    }

    pub(crate) fn cid(&self) -> Cid {
        self.cid
    }

    /// Number of connections.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Ends all connections, of which the guest knows by itself.
    pub(crate) fn clear(&mut self) {
        self.connections.clear();
        self.by_ports.clear();
        self.queued.clear();
        self.replies.clear();
        self.deadlines.clear();
    }

    /// Takes note of an event, without doing anything for the guest.
    pub(crate) fn note(&mut self, ready: &Ready<Source>) {
        match ready.source {
            Source::Listener => self.may_accept = true,
            Source::Connection(id) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let (reads, writes) = (ready.is_readable(), ready.is_writable());
                connection.ready(reads, writes, ready.has_hung_up());
                self.queue(id);
            }
        }
    }

    /// Has the host's side of a connection looked at soon.
    fn queue(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !std::mem::replace(&mut connection.is_queued, true)
        {
            self.queued.push_back(id);
        }
    }

    /// `true` if clients that wait are accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.may_accept && self.pause.is_none() && !self.is_full()
    }

    /// Accepts some clients.
    pub(crate) fn accept(&mut self, listener: &Listener, now: Instant) {
        self.pause = self.pause.filter(|time| *time > now);
        for _ in 0..ACCEPTS {
            if !self.accepts() {
                return;
            }
            match listener.accept() {
                Ok(socket) => self.insert(listener, Connection::accepted, socket, now),
                Err(Errno::AGAIN) => self.may_accept = false,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    log::debug!("accepting on the vsock socket: {error}");
                    self.pause = now.checked_add(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn is_full(&self) -> bool {
        self.connections.len() >= self.limits.connections
    }

    /// Adds a connection, whose socket is watched.
    fn insert(
        &mut self,
        listener: &Listener,
        make: impl FnOnce(OwnedFd) -> Connection,
        socket: OwnedFd,
        now: Instant,
    ) {
        let id = self.next_id;
        if let Err(error) = listener.watch(&socket, id) {
            log::debug!("watching a connection of the vsock device: {error}");
            return;
        }
        self.next_id = id.wrapping_add(1);
        let connection = make(socket);
        if let Some(ports) = connection.ports {
            self.by_ports.insert(ports, id);
        }
        self.connections.insert(id, connection);
        self.update_deadline(id, now);
        self.queue(id);
    }

    /// Sets or removes the time at which a connection ends.
    fn update_deadline(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let is_half_open = connection.is_half_open();
        if is_half_open == connection.deadline.is_some() {
            return;
        }
        if let Some(time) = connection.deadline.take() {
            self.deadlines.remove(&(time, id));
        }
        connection.deadline = now.checked_add(self.limits.patience).filter(|_| is_half_open);
        self.deadlines.extend(connection.deadline.map(|time| (time, id)));
    }

    /// Ends the connections whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(&(time, id)) = self.deadlines.first() {
            if time > now {
                return;
            }
            self.deadlines.pop_first();
            self.settle(id, Verdict::Reset, now);
        }
    }

    /// Time of the next thing that is due by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(time, _)| *time).into_iter().chain(self.pause).min()
    }

    /// Does what is due for a connection.
    fn settle(&mut self, id: u64, verdict: Verdict, now: Instant) {
        if verdict == Verdict::Keep {
            self.update_deadline(id, now);
            self.queue(id);
            return;
        }
        let Some(connection) = self.connections.remove(&id) else { return };
        if let Some(time) = connection.deadline {
            self.deadlines.remove(&(time, id));
        }
        let Some(ports) = connection.ports else { return };
        self.by_ports.remove(&ports);
        if verdict == Verdict::Reset && connection.is_known_to_guest() {
            self.reset(ports.header(self.cid, op::RST), !connection.has_ended());
        }
    }

    /// Has the guest get a reset, which counts unless it is a connection's end in good order.
    fn reset(&mut self, header: Header, counts: bool) {
        // Besides those in answer to packets, there is at most one for each connection.
        if self.replies.len() < MAX_REPLIES.saturating_add(self.limits.connections) {
            self.replies.push_back(header);
        }
        self.totals.resets = self.totals.resets.saturating_add(counts.into());
    }

    /// `true` if the guest has to take answers before more of its packets are looked at.
    pub(crate) fn is_congested(&self) -> bool {
        self.replies.len() >= MAX_REPLIES
    }

    /// A packet of the guest whose length is not that of its data.
    pub(crate) fn malformed(&mut self, header: &Header, now: Instant) {
        match self.by_ports.get(&Ports::of(header)) {
            Some(&id) if self.is_ours(header) => self.settle(id, Verdict::Reset, now),
            _ if header.op != op::RST => self.reset(header.reset(), true),
            _ => {}
        }
    }

    /// Returns `true` if a packet is one of the guest's to the host, and of a stream.
    fn is_ours(&self, header: &Header) -> bool {
        header.kind == STREAM
            && header.dst_cid == HOST_CID
            && header.src_cid == u64::from(self.cid.get())
    }

    /// A packet of the guest, with its data.
    pub(crate) fn packet(
        &mut self,
        listener: &Listener,
        header: &Header,
        data: &[u8],
        now: Instant,
    ) {
        let known = self.by_ports.get(&Ports::of(header)).copied();
        let known = known.filter(|_| self.is_ours(header));
        match (known, header.op) {
            (Some(id), op::RST) => self.end(id, now),
            (None, op::RST) => {}
            (Some(id), _) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let was_waiting = connection.is_half_open();
                let verdict = connection.packet(header, data);
                let totals = &mut self.totals;
                if verdict == Verdict::Keep && header.op == op::RW {
                    totals.to_host_bytes = totals.to_host_bytes.saturating_add(data.len() as u64);
                } else if was_waiting && verdict == Verdict::Keep && header.op == op::RESPONSE {
                    totals.from_host = totals.from_host.saturating_add(1);
                }
                self.settle(id, verdict, now);
            }
            (None, op::REQUEST) if self.is_ours(header) && !self.is_full() => {
                self.connect(listener, header, now);
            }
            (None, _) => self.reset(header.reset(), true),
        }
    }

    /// Connects the guest to a socket of the host.
    fn connect(&mut self, listener: &Listener, header: &Header, now: Instant) {
        match listener.connect(header.dst_port) {
            Ok(socket) => {
                let ports = Ports::of(header);
                let make = |socket| Connection::connected(socket, ports, header);
                self.insert(listener, make, socket, now);
            }
            Err(error) => log::debug!("connecting to port {}: {error}", header.dst_port),
        }
        if self.by_ports.contains_key(&Ports::of(header)) {
            self.totals.from_guest = self.totals.from_guest.saturating_add(1);
        } else {
            self.reset(header.reset(), true);
        }
    }

    /// The guest has reset a connection.
    fn end(&mut self, id: u64, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if let Some(ports) = connection.ports {
            self.by_ports.remove(&ports);
        }
        if let Some(time) = connection.deadline {
            self.deadlines.remove(&(time, id));
        }
        if !connection.linger() {
            self.settle(id, Verdict::Remove, now);
        }
    }

    /// `true` if there may be a packet for the guest, or something to do for the host.
    pub(crate) fn has_work(&self) -> bool {
        !self.replies.is_empty() || !self.queued.is_empty()
    }

    /// Does what a connection's host side is due, and says if it may have a packet for the guest.
    fn serve(&mut self, id: u64, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        connection.is_queued = false;
        if connection.wants_line() {
            match connection.read_line() {
                Line::Partial => return false,
                Line::Bad => {
                    self.settle(id, Verdict::Remove, now);
                    return false;
                }
                Line::Port(guest) => {
                    let ports = self.free_ports(guest);
                    self.by_ports.insert(ports, id);
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.request(ports);
                    }
                    return true;
                }
            }
        }
        match connection.flush() {
            Verdict::Keep => connection.has_packet(),
            verdict => {
                self.settle(id, verdict, now);
                false
            }
        }
    }

    /// A port of the host that has no connection to this port of the guest.
    fn free_ports(&mut self, guest: u32) -> Ports {
        loop {
            let host = self.next_port;
            // The last port number means any (vsock(7)).
            let next = host.checked_add(1).filter(|next| *next < u32::MAX);
            self.next_port = next.unwrap_or(FIRST_PORT);
            let ports = Ports { host, guest };
            // There are far more ports than connections.
            if !self.by_ports.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// The next packet for the guest, if there is one, with its data in `room`. Looks at no more
    /// connections than there are.
    pub(crate) fn next_packet(&mut self, room: &mut [u8], now: Instant) -> Option<Header> {
        if let Some(reply) = self.replies.pop_front() {
            return Some(reply);
        }
        for _ in 0..self.queued.len() {
            let id = self.queued.pop_front()?;
            if !self.serve(id, now) {
                if let Some(reply) = self.replies.pop_front() {
                    return Some(reply);
                }
                continue;
            }
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            let Some(outgoing) = connection.next_packet(room) else {
                if connection.has_packet() {
                    self.queue(id);
                }
                continue;
            };
            let ports = connection.ports.unwrap_or(Ports { host: 0, guest: 0 });
            let mut header = ports.header(self.cid, outgoing.op);
            (header.length, header.flags) = (outgoing.length, outgoing.flags);
            connection.stamp(&mut header);
            let totals = &mut self.totals;
            totals.to_guest_bytes = totals.to_guest_bytes.saturating_add(outgoing.length.into());
            self.settle(id, Verdict::Keep, now);
            return Some(header);
        }
        None
    }

    /// Does for the host what needs no room at the guest, for a device that has none.
    pub(crate) fn serve_host(&mut self, now: Instant) {
        for _ in 0..self.queued.len() {
            let Some(id) = self.queued.pop_front() else { return };
            if self.serve(id, now) {
                self.queue(id);
            }
        }
    }
}
