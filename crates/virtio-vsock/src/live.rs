//! Work on the queues that a driver has set up.

use std::sync::Arc;
use std::time::Instant;

use nerite_virtio::{
    Activation, Chain, LogBudget, Notifier, Queue, QueueError, QueueState, StartError,
};

use crate::connection::BUFFER;
use crate::listener::Listener;
use crate::packet::{HEADER, Header};
use crate::table::Table;

/// The guest receives on this queue (5.10.2).
const RECEIVE: u16 = 0;
/// The guest sends on this queue.
const TRANSMIT: u16 = 1;
/// Events for the driver.
const EVENTS: u16 = 2;
/// Packets of each direction that are moved in a turn.
const PACKETS: usize = 32;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (5.10.6.7).
const TRANSPORT_RESET: [u8; 4] = 0_u32.to_le_bytes();

/// Violation of the rules by the driver. The device needs a reset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A buffer for packets or events is too small.
    #[error("queue {queue}: a buffer of {length} bytes is too small")]
    Room { queue: u16, length: u64 },
}

/// Queues of a driver.
pub(crate) struct Live {
    receive: Queue,
    transmit: Queue,
    events: Option<Queue>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) log: Arc<LogBudget>,
    chain: Chain,
    /// A packet: its header and data.
    packet: Vec<u8>,
}

impl Live {
    pub(crate) fn new(activation: Activation) -> Result<Self, StartError> {
        Ok(Self {
            receive: activation.queue(RECEIVE)?,
            transmit: activation.queue(TRANSMIT)?,
            events: activation.enabled_queue(EVENTS)?,
            notifier: activation.notifier,
            log: activation.log,
            chain: Chain::new(),
            packet: vec![0; HEADER.saturating_add(BUFFER)],
        })
    }

    /// Progress of the queues: between two turns there is no buffer under way.
    pub(crate) fn states(&self) -> Vec<Option<QueueState>> {
        let events = self.events.as_ref().map(|queue| queue.state(0));
        vec![Some(self.receive.state(0)), Some(self.transmit.state(0)), events]
    }

    /// Moves some packets. Returns `true` if there may be more.
    pub(crate) fn turn(
        &mut self,
        table: &mut Table,
        listener: &Listener,
        has_reset: &mut bool,
        now: Instant,
    ) -> Result<bool, Fault> {
        if *has_reset && self.tell_reset()? {
            *has_reset = false;
        }
        let sent = self.transmit(table, listener, now)?;
        let was_congested = table.is_congested();
        let received = self.receive(table, now)?;
        // Packets may have waited for the driver to take answers.
        Ok(sent || received || was_congested && !table.is_congested())
    }

    /// Tells the driver that all connections are gone. Returns `false` if it has no buffer for
    /// that.
    fn tell_reset(&mut self) -> Result<bool, Fault> {
        // A driver without this queue does not want to know.
        let Some(queue) = &mut self.events else { return Ok(true) };
        if !queue.pop(&mut self.chain)?
            && (!queue.enable_kicks()? || !queue.pop(&mut self.chain)?)
        {
            return Ok(false);
        }
        let written = self.chain.copy_in(queue.ram(), 0, &TRANSPORT_RESET);
        if written < TRANSPORT_RESET.len() {
            return Err(Fault::Room { queue: EVENTS, length: self.chain.writable_bytes() });
        }
        give_back(queue, &self.notifier, self.chain.head(), written)?;
        Ok(true)
    }

    /// Takes packets of the guest, unless it has too many answers to take first. Returns `true` if
    /// there may be more.
    fn transmit(
        &mut self,
        table: &mut Table,
        listener: &Listener,
        now: Instant,
    ) -> Result<bool, Fault> {
        let queue = &mut self.transmit;
        let mut given = false;
        let mut has_more = true;
        for _ in 0..PACKETS {
            if table.is_congested() {
                // It goes on when answers have been taken.
                has_more = false;
                break;
            }
            if !queue.pop(&mut self.chain)? {
                has_more = queue.enable_kicks()?;
                break;
            }
            let mut header = [0; HEADER];
            if self.chain.copy_out(queue.ram(), 0, &mut header) == HEADER {
                let header = Header::from_bytes(&header);
                let room = self.packet.get_mut(..BUFFER).unwrap_or_default();
                let wanted = usize::try_from(header.length).unwrap_or(usize::MAX);
                let data = room.get_mut(..wanted).unwrap_or_default();
                let offset = HEADER as u64;
                if self.chain.copy_out(queue.ram(), offset, data) == wanted {
                    table.packet(listener, &header, data, now);
                } else {
                    table.malformed(&header, now);
                }
            } else {
                let length = self.chain.readable_bytes();
                self.log
                    .warn(format_args!("the guest's socket driver: a packet of {length} bytes"));
            }
            queue.push(self.chain.head(), 0)?;
            given = true;
        }
        if given && queue.wants_interrupt()? {
            self.notifier.queue(TRANSMIT);
        }
        Ok(has_more)
    }

    /// Gives the guest its packets. Returns `true` if there may be more.
    fn receive(&mut self, table: &mut Table, now: Instant) -> Result<bool, Fault> {
        let queue = &mut self.receive;
        let mut given = false;
        let mut has_more = true;
        for _ in 0..PACKETS {
            if !table.has_work() {
                has_more = false;
                break;
            }
            if !queue.pop(&mut self.chain)? {
                table.serve_host(now);
                has_more = table.has_work() && queue.enable_kicks()?;
                break;
            }
            // A packet of data has a byte of it at least.
            let length = self.chain.writable_bytes();
            let room = usize::try_from(length).unwrap_or(usize::MAX);
            if room <= HEADER {
                return Err(Fault::Room { queue: RECEIVE, length });
            }
            let (front, data) = self.packet.split_at_mut(HEADER);
            let room = room.saturating_sub(HEADER).min(data.len());
            let Some(header) = table.next_packet(data.get_mut(..room).unwrap_or_default(), now)
            else {
                queue.undo_pop(1);
                has_more = false;
                break;
            };
            front.copy_from_slice(&header.to_bytes());
            let length = usize::try_from(header.length).unwrap_or(0).saturating_add(HEADER);
            let packet = self.packet.get(..length).unwrap_or_default();
            let written = self.chain.copy_in(queue.ram(), 0, packet);
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            queue.push(self.chain.head(), written)?;
            given = true;
        }
        if given && queue.wants_interrupt()? {
            self.notifier.queue(RECEIVE);
        }
        Ok(has_more)
    }
}

/// Gives the driver a buffer back.
fn give_back(
    queue: &mut Queue,
    notifier: &Notifier,
    head: u16,
    written: usize,
) -> Result<(), QueueError> {
    queue.push(head, u32::try_from(written).unwrap_or(u32::MAX))?;
    if queue.wants_interrupt()? {
        notifier.queue(queue.index());
    }
    Ok(())
}
