//! Interrupts of devices.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nerite_event::Event;
use nerite_hypervisor::{Error, InterruptController, LINES, MessageId};
use nerite_irqchip::{Effect, LineSource, PIC_PORTS, SharedChips};
use parking_lot::{Mutex, RwLock};

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
    /// `true` while the device holds the line. Locked until the line follows: a line that is raised
    /// and thought to be lowered would interrupt again after each end of its interrupt.
    raised: Mutex<bool>,
    lowered: Event,
}

impl Level {
    /// Raises or lowers the device's line. Returns `true` if it was the other way before.
    fn set(&self, chips: &SharedChips<Signals>, is_raised: bool) -> bool {
        let mut raised = self.raised.lock();
        let has_changed = std::mem::replace(&mut *raised, is_raised) != is_raised;
        // A restore may have lowered a line that the device still holds.
        if has_changed || is_raised {
            chips.set_line(self.line, self.source, is_raised);
        }
        has_changed
    }
}

impl Controller {
    pub(crate) fn new(chips: Arc<SharedChips<Signals>>) -> Self {
        Self { chips, messages: AtomicU32::new(0), levels: RwLock::default() }
    }

    /// Carries out the consequence of a guest's access of a local APIC.
    pub(crate) fn carry_out(&self, effect: Effect) {
        let Effect::EndOfInterrupt(vector) = effect else { return self.chips.carry_out(effect) };
        // Lowered before the end, after which an asserted line interrupts again.
        let lowered = self.lower(self.chips.lines_with(vector));
        self.chips.carry_out(effect);
        lowered.iter().for_each(|level| level.lowered.signal());
    }

    /// Writes a byte to a port of the 8259 pair or the 8254 at `now`, in nanoseconds.
    pub(crate) fn write_port(&self, port: u16, value: u8, now: u64) {
        let is_pic = PIC_PORTS.contains(&port);
        let lowered = self.lower(if is_pic { self.chips.lines_ended_by(port, value) } else { 0 });
        self.chips.write_port(port, value, now);
        lowered.iter().for_each(|level| level.lowered.signal());
    }

    /// Lowers the lines among `lines`, one bit for each, that devices hold until the guest has
    /// ended their interrupt. Returns these devices: each may raise its line again.
    fn lower(&self, lines: u32) -> Vec<Arc<Level>> {
        let has = |level: &&Arc<Level>| lines.wrapping_shr(level.line.into()) & 1 != 0;
        let levels = self.levels.read();
        let ended = levels.iter().filter(has).filter(|level| level.set(&self.chips, false));
        ended.cloned().collect()
    }

    fn source(&self) -> Result<LineSource, Error> {
        let number =
            u8::try_from(self.levels.read().len()).ok().and_then(|n| n.checked_add(FIRST_DEVICE));
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
        let level = Level { line, source, raised: Mutex::new(false), lowered: lowered.clone() };
        let level = Arc::new(level);
        self.levels.write().push(level.clone());
        let chips = self.chips.clone();
        raise.connect(Arc::new(move || {
            level.set(&chips, true);
        }));
        Ok(())
    }

    fn reserve_message(&self) -> Option<MessageId> {
        let next = |count: u32| count.checked_add(1).filter(|next| *next <= MAX_MESSAGES);
        self.messages.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok().map(MessageId)
    }

    fn connect_message(
        &self,
        _id: MessageId,
        event: &Event,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use nerite_irqchip::{ChipsConfig, Time};

    use super::*;

    const NOW: Time = Time::from_nanoseconds(0);

    /// A write to a register of vCPU 0's local APIC.
    fn store(controller: &Controller, offset: u64, value: u32) {
        let write = |apic: &mut nerite_irqchip::LocalApic| apic.write_mmio(offset, 4, value, NOW);
        let effect = controller.chips.with_apic(0, write).unwrap();
        effect.into_iter().for_each(|effect| controller.carry_out(effect));
    }

    /// A machine whose lines 9 and 10 have a device each, with vectors 0x52 and 0x61, and these
    /// devices' events: to raise the line, and that it was lowered.
    fn machine() -> (Controller, [(Event, Event); 2]) {
        let chips = Arc::new(SharedChips::new(&ChipsConfig::of(1), Signals::new(1)));
        let controller = Controller::new(chips);
        store(&controller, 0xf0, 0x1ff);
        for port in [0x21, 0xa1] {
            controller.write_port(port, 0xff, 0);
        }
        for (line, entry) in [(9, 0x8052), (10, 0x8061)] {
            for (index, value) in [(0x11 + 2 * line, 0), (0x10 + 2 * line, entry)] {
                controller.chips.write_ioapic(0, index);
                controller.chips.write_ioapic(0x10, value);
            }
        }
        let devices = [9, 10].map(|line| {
            let (raise, lowered) = (Event::new().unwrap(), Event::new().unwrap());
            controller.connect_level(line, &raise, &lowered).unwrap();
            (raise, lowered)
        });
        (controller, devices)
    }

    #[test]
    fn the_end_of_an_interrupt_lowers_its_own_line() {
        let (controller, [(raise, lowered), (raise_other, lowered_other)]) = machine();
        raise.signal();
        raise_other.signal();
        assert_eq!(controller.chips.acknowledge(0), Some(0x61));
        store(&controller, 0xb0, 0);
        assert_eq!((lowered.take(), lowered_other.take()), (false, true));
        // The line was lowered before the end: the interrupt does not come again.
        assert_eq!(controller.chips.acknowledge(0), Some(0x52));
        store(&controller, 0xb0, 0);
        assert_eq!((lowered.take(), lowered_other.take()), (true, false));
        assert_eq!(controller.chips.acknowledge(0), None);
        raise.signal();
        assert_eq!(controller.chips.acknowledge(0), Some(0x52));
    }

    #[test]
    fn a_line_that_is_raised_while_it_is_lowered_is_not_stuck() {
        const ROUNDS: u32 = 20_000;
        let (controller, [(raise, _), _]) = machine();
        let serve = || {
            let is_served = controller.chips.acknowledge(0).is_some();
            if is_served {
                store(&controller, 0xb0, 0);
            }
            is_served
        };
        let (begun, ended) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    while begun.load(Ordering::Acquire) < round {
                        std::thread::yield_now();
                    }
                    raise.signal();
                    ended.store(round, Ordering::Release);
                }
            });
            let mut stuck = 0;
            for round in 1..=ROUNDS {
                raise.signal();
                assert!(controller.chips.acknowledge(0).is_some());
                begun.store(round, Ordering::Release);
                store(&controller, 0xb0, 0);
                while ended.load(Ordering::Acquire) < round {
                    std::thread::yield_now();
                }
                // The other thread's, if it came after the end, and no more.
                stuck += u32::from(serve() && serve());
            }
            assert_eq!(stuck, 0, "lines that nothing holds");
        });
    }

    #[test]
    fn the_8259_pair_ends_interrupts_as_well() {
        let (controller, [_, (raise, lowered)]) = machine();
        // ICW1 to ICW4, masks, and level-triggered lines.
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0x21, 0xfb)] {
            controller.write_port(port, value, 0);
        }
        for (port, value) in
            [(0xa0, 0x11), (0xa1, 0x38), (0xa1, 2), (0xa1, 1), (0xa1, 0xfb), (0x4d1, 4)]
        {
            controller.write_port(port, value, 0);
        }
        controller.chips.write_ioapic(0, 0x24);
        controller.chips.write_ioapic(0x10, 1 << 16);
        raise.signal();
        assert_eq!(controller.chips.acknowledge(0), Some(0x3a));
        controller.write_port(0x20, 0x62, 0);
        assert!(!lowered.take(), "only the cascade's interrupt has ended");
        controller.write_port(0xa0, 0x20, 0);
        assert!(lowered.take());
        assert_eq!(controller.chips.acknowledge(0), None);
    }
}
