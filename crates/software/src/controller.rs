//! Interrupts of devices.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nerite_event::Event;
use nerite_hypervisor::{Error, InterruptController, LINES, MessageId};
use nerite_irqchip::{LineSource, SharedChips};
use parking_lot::RwLock;

use crate::signal::Signals;

/// Maximum number of messages, as in KVM.
const MAX_MESSAGES: u32 = 4000;
/// Source of lines that are set by hand, and the first one of devices.
const BY_HAND: u8 = 0;
const FIRST_DEVICE: u8 = 1;

/// The interrupt controllers of a VM, for devices.
pub(crate) struct Controller {
    chips: Arc<SharedChips<Signals>>,
    messages: AtomicU32,
    /// Devices whose interrupts are level-triggered.
    levels: RwLock<Vec<Arc<Level>>>,
}

/// A device that holds a line until the guest has ended the interrupt.
struct Level {
    line: u8,
    source: LineSource,
    raised: AtomicBool,
    lowered: Event,
}

impl Controller {
    pub(crate) fn new(chips: Arc<SharedChips<Signals>>) -> Self {
        Self { chips, messages: AtomicU32::new(0), levels: RwLock::default() }
    }

    /// Lowers the lines that devices hold, and asks these whether they still want the interrupt:
    /// the guest has ended one. A line of which it was not is raised again by its device.
    pub(crate) fn ended(&self) {
        let raised: Vec<_> = {
            let levels = self.levels.read();
            levels.iter().filter(|level| level.raised.swap(false, Ordering::AcqRel)).cloned().collect()
        };
        for level in raised {
            self.chips.set_line(level.line, level.source, false);
            level.lowered.signal();
        }
    }

    fn source(&self) -> Result<LineSource, Error> {
        let number = u8::try_from(self.levels.read().len()).ok().and_then(|n| n.checked_add(FIRST_DEVICE));
        number.and_then(LineSource::new).ok_or_else(|| refused("connecting an interrupt line"))
    }
}

fn line(line: u32) -> Result<u8, Error> {
    u8::try_from(line)
        .ok()
        .filter(|line| u32::from(*line) < LINES)
        .ok_or_else(|| refused("using an interrupt line"))
}

fn refused(operation: &'static str) -> Error {
    Error::Call { operation, source: io::ErrorKind::InvalidInput.into() }
}

impl InterruptController for Controller {
    fn lines(&self) -> u32 {
        LINES
    }

    fn set_line(&self, number: u32, level: bool) -> Result<(), Error> {
        let source = LineSource::new(BY_HAND).ok_or_else(|| refused("using an interrupt line"))?;
        self.chips.set_line(line(number)?, source, level);
        Ok(())
    }

    fn send_message(&self, address: u64, data: u32) -> Result<bool, Error> {
        Ok(self.chips.send_message(address, data))
    }

    fn connect_edge(&self, number: u32, event: &Event) -> Result<(), Error> {
        let (line, source, chips) = (line(number)?, self.source()?, self.chips.clone());
        event.connect(Arc::new(move || {
            chips.set_line(line, source, true);
            chips.set_line(line, source, false);
        }));
        Ok(())
    }

    fn connect_level(&self, number: u32, raise: &Event, lowered: &Event) -> Result<(), Error> {
        let (line, source) = (line(number)?, self.source()?);
        let level = Level { line, source, raised: AtomicBool::new(false), lowered: lowered.clone() };
        let level = Arc::new(level);
        self.levels.write().push(level.clone());
        let chips = self.chips.clone();
        raise.connect(Arc::new(move || {
            level.raised.store(true, Ordering::Release);
            chips.set_line(line, source, true);
        }));
        Ok(())
    }

    fn reserve_message(&self) -> Option<MessageId> {
        let next = |count: u32| count.checked_add(1).filter(|next| *next <= MAX_MESSAGES);
        self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(MessageId)
    }

    fn connect_message(&self, _id: MessageId, event: &Event, address: u64, data: u32) -> Result<(), Error> {
        let chips = self.chips.clone();
        event.connect(Arc::new(move || {
            chips.send_message(address, data);
        }));
        Ok(())
    }

    fn disconnect_message(&self, _id: MessageId, event: &Event) -> Result<(), Error> {
        event.disconnect();
        Ok(())
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").finish_non_exhaustive()
    }
}
