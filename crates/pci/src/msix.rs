//! MSI-X (PCI 3.0, 6.8.2): an interrupt is a message whose address and data software writes into a
//! table.

use std::fmt;
use std::io;
use std::sync::Arc;

use nerite_log_budget::{Causes, LogBudget};
use nerite_saved::{RestoreError, refuse, require_same};

use crate::{Event, MsixEntryState, MsixState};

/// The largest number of vectors (6.8.2.3).
pub const MAX_VECTORS: u16 = 2048;
/// Bytes of one entry of the table.
pub const ENTRY_SIZE: u64 = 16;
/// Vector control: the vector is masked.
const MASKED: u32 = 1;
/// Message control, bit 15: MSI-X is on.
const ENABLE: u16 = 1 << 15;
/// Message control, bit 14: all vectors are masked.
const MASK_ALL: u16 = 1 << 14;

/// A message that raises an interrupt: what a function writes where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message {
    /// Address of the write.
    pub address: u64,
    /// Value of the write.
    pub data: u32,
}

/// Carries messages: delivers interrupts to the guest.
pub trait MessageRoutes: Send + Sync {
    /// From now on, each signal of `event` is an interrupt by `message`, also one that is there
    /// already. With `None` signals stay in the event. `vector` tells the events of a function
    /// apart.
    ///
    /// # Errors
    /// If the hypervisor refuses; what was connected before then stays.
    fn connect(&self, vector: u16, event: &Event, message: Option<Message>) -> io::Result<()>;
}

/// No way for messages: signals stay in their events, where tests find them.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotConnected;

impl MessageRoutes for NotConnected {
    fn connect(&self, _: u16, _: &Event, _: Option<Message>) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    message: Message,
    control: u32,
    connected: Option<Message>,
}

/// The table and the pending bits of one function.
///
/// A vector's pending bit is its event: a signal that cannot be delivered now stays there, and is
/// delivered when the vector is connected.
pub struct Msix {
    entries: Vec<Entry>,
    events: Arc<[Event]>,
    control: u16,
    is_bus_master: bool,
    routes: Arc<dyn MessageRoutes>,
    log: Arc<LogBudget>,
}

impl Msix {
    /// The capability's identifier.
    pub const CAPABILITY: u8 = 0x11;
    /// Which bits of the capability's body software can change: enable and function mask.
    pub const WRITABLE: [u8; 2] = [0, ((ENABLE | MASK_ALL) >> 8) as u8];

    /// A table of one vector per event (at most [`MAX_VECTORS`] count), all masked, with MSI-X off,
    /// of a function that is no bus master. Refusals of `routes` are logged through `log`.
    pub fn new(events: Arc<[Event]>, routes: Arc<dyn MessageRoutes>, log: Arc<LogBudget>) -> Self {
        let entry = Entry { message: Message::default(), control: MASKED, connected: None };
        let count = events.len().min(usize::from(MAX_VECTORS));
        Self { entries: vec![entry; count], events, control: 0, is_bus_master: false, routes, log }
    }

    /// The body of the capability (6.8.2.3 to 6.8.2.5), for a table at `table` and pending bits at
    /// `pending` behind base address `bar`; both are multiples of 8.
    pub fn capability(&self, bar: u8, table: u32, pending: u32) -> [u8; 10] {
        let last = u16::try_from(self.entries.len().saturating_sub(1)).unwrap_or(MAX_VECTORS);
        let mut body = [0; 10];
        let words = last.to_le_bytes().into_iter();
        let bar = u32::from(bar & 7);
        let words = words
            .chain(((table & !7) | bar).to_le_bytes())
            .chain(((pending & !7) | bar).to_le_bytes());
        for (to, from) in body.iter_mut().zip(words) {
            *to = from;
        }
        body
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(MAX_VECTORS)
    }

    /// `true` if MSI-X is on, which turns the interrupt pin off.
    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Takes the capability's message control register as software has written it.
    pub fn set_control(&mut self, control: u16) {
        if self.control != control {
            self.control = control;
            self.update_all();
        }
    }

    /// Sets whether the function may write to memory, which a message is (PCI 3.0, 6.2.2). While it
    /// may not, signals are pending.
    pub fn set_bus_master(&mut self, is_bus_master: bool) {
        if self.is_bus_master != is_bus_master {
            self.is_bus_master = is_bus_master;
            self.update_all();
        }
    }

    /// Reads the table. Software reads aligned double or quad words (6.8.2); anything else reads
    /// all ones.
    pub fn read_table(&self, offset: u64, width: u8) -> u64 {
        let word = |at| u64::from(self.word(at));
        match width {
            4 if offset.is_multiple_of(4) => word(offset),
            8 if offset.is_multiple_of(8) => word(offset) | word(offset.saturating_add(4)) << 32,
            _ => u64::MAX,
        }
    }

    /// Writes the table, by aligned double or quad words; anything else is ignored.
    pub fn write_table(&mut self, offset: u64, width: u8, value: u64) {
        let [low, high] = halves(value);
        match width {
            4 if offset.is_multiple_of(4) => self.set_word(offset, low),
            8 if offset.is_multiple_of(8) => {
                self.set_word(offset, low);
                self.set_word(offset.saturating_add(4), high);
            }
            _ => return,
        }
        if let Ok(vector) = u16::try_from(offset / ENTRY_SIZE) {
            self.update(vector);
        }
    }

    /// Reads the pending bits, by aligned double or quad words; anything else reads all ones.
    pub fn read_pending(&self, offset: u64, width: u8) -> u64 {
        if !matches!(width, 4 | 8) || !offset.is_multiple_of(width.into()) {
            return u64::MAX;
        }
        let first = offset.saturating_mul(8);
        let bits = u64::from(width).saturating_mul(8);
        (0..bits)
            .filter(|bit| self.is_pending(first.saturating_add(*bit)))
            .fold(0, |bits, bit| bits | 1 << bit)
    }

    /// Table and pending bits. Signals of connected vectors are on their way already, so the
    /// function must be no bus master meanwhile.
    pub fn save(&self) -> MsixState {
        let entry = |Entry { message, control, .. }: &Entry| MsixEntryState {
            address: message.address,
            data: message.data,
            masked: control & MASKED != 0,
        };
        let pending =
            (0..self.vectors()).filter(|vector| self.is_pending(u64::from(*vector))).collect();
        MsixState { entries: self.entries.iter().map(entry).collect(), pending }
    }

    /// Takes a saved table and pending bits. Message control and bus mastering are the
    /// configuration space's and stay.
    ///
    /// # Errors
    /// Fails if the table has another number of vectors, or an entry that software cannot write.
    pub fn restore(&mut self, saved: &MsixState) -> Result<(), RestoreError> {
        const PART: &str = "MSI-X table";
        require_same(PART, "number of vectors", saved.entries.len() == self.entries.len())?;
        refuse(PART, "address", saved.entries.iter().any(|entry| entry.address & 3 != 0))?;
        let is_in_order = saved.pending.is_sorted_by(|one, other| one < other);
        let is_there = saved.pending.last().is_none_or(|last| *last < self.vectors());
        refuse(PART, "pending vector", !is_in_order || !is_there)?;
        for (entry, saved) in self.entries.iter_mut().zip(&saved.entries) {
            entry.message = Message { address: saved.address, data: saved.data };
            entry.control = if saved.masked { MASKED } else { 0 };
        }
        for (vector, event) in (0..).zip(self.events.iter()) {
            event.take();
            if saved.pending.binary_search(&vector).is_ok() {
                event.signal();
            }
        }
        self.update_all();
        Ok(())
    }

    fn is_pending(&self, vector: u64) -> bool {
        let Ok(at) = usize::try_from(vector) else { return false };
        let waits = self.entries.get(at).is_some_and(|entry| entry.connected.is_none());
        waits && self.events.get(at).is_some_and(Event::is_signalled)
    }

    fn word(&self, offset: u64) -> u32 {
        let entry = usize::try_from(offset / ENTRY_SIZE).ok().and_then(|at| self.entries.get(at));
        let Some(entry) = entry else { return 0 };
        let [low, high] = halves(entry.message.address);
        match offset % ENTRY_SIZE {
            0 => low,
            4 => high,
            8 => entry.message.data,
            _ => entry.control,
        }
    }

    fn set_word(&mut self, offset: u64, value: u32) {
        let entry =
            usize::try_from(offset / ENTRY_SIZE).ok().and_then(|at| self.entries.get_mut(at));
        let Some(entry) = entry else { return };
        let [low, high] = halves(entry.message.address);
        match offset % ENTRY_SIZE {
            0 => entry.message.address = join(value & !3, high),
            4 => entry.message.address = join(low, value),
            8 => entry.message.data = value,
            _ => entry.control = value & MASKED,
        }
    }

    fn update_all(&mut self) {
        for vector in 0..self.vectors() {
            self.update(vector);
        }
    }

    /// Connects or disconnects the event of `vector`, if what software wants has changed.
    fn update(&mut self, vector: u16) {
        let is_open = self.is_bus_master && self.control & (ENABLE | MASK_ALL) == ENABLE;
        let at = usize::from(vector);
        let (Some(entry), Some(event)) = (self.entries.get_mut(at), self.events.get(at)) else {
            return;
        };
        let wanted = (is_open && entry.control & MASKED == 0).then_some(entry.message);
        if wanted == entry.connected {
            return;
        }
        let connect = |message| {
            self.routes.connect(vector, event, message).inspect_err(|error| {
                self.log.warn(format_args!(
                    "MSI-X vector {vector} cannot be connected to {message:x?}: {}",
                    Causes(error)
                ));
            })
        };
        if connect(wanted).is_ok() {
            entry.connected = wanted;
        } else if entry.connected.is_some() && wanted.is_some() && connect(None).is_ok() {
            // The message that is no longer in the table is not sent either.
            entry.connected = None;
        }
    }
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix")
            .field("control", &self.control)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod tests;
