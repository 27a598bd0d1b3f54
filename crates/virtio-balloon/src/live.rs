//! Work on the queues that a driver has set up.

use std::error::Error;
use std::sync::Arc;

use nerite_memory::GuestRam;
use nerite_virtio::{Activation, Chain, LogBudget, Notifier, Queue, QueueState, StartError};

use crate::statistics::{ENTRIES, ENTRY, GuestStatistics};

/// Bytes of a page of the balloon, whatever those of the guest's processor are (virtio 1.2,
/// 5.5.6).
pub const PAGE: u64 = 4096;

/// The driver gives pages on this queue (5.5.2).
const INFLATE: u16 = 0;
/// The driver takes pages back on this queue.
const DEFLATE: u16 = 1;
/// The driver reports statistics on this queue.
const STATISTICS: u16 = 2;
/// Number of page numbers that are looked at in a turn.
const PAGES: usize = 256;
/// Bytes of a page number.
const NUMBER: usize = 4;
const NUMBER_BYTES: u64 = NUMBER as u64;

/// Pages that have passed through a balloon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of pages that the driver has given.
    pub given: u64,
    /// Number of pages of those that are no RAM, or that the host has not taken.
    pub refused: u64,
    /// Number of pages that the driver has taken back.
    pub taken_back: u64,
}

/// Queues of a driver, and how far the device is with them.
pub(crate) struct Live {
    inflate: Queue,
    deflate: Queue,
    statistics: Option<Queue>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) log: Arc<LogBudget>,
    ram: Arc<GuestRam>,
    /// A buffer of the inflate queue, and how many of its bytes are done, while there is one.
    given: Chain,
    done: Option<u64>,
    /// A buffer of another queue.
    chain: Chain,
    /// The driver's buffer for statistics, which it fills again when it gets it back.
    held: Option<u16>,
}

/// Result of a turn.
pub(crate) struct Turn {
    /// `true` if there may be more to do.
    pub(crate) has_more: bool,
    /// Statistics that the driver has reported.
    pub(crate) statistics: Option<GuestStatistics>,
}

impl Live {
    pub(crate) fn new(activation: Activation) -> Result<Self, StartError> {
        Ok(Self {
            inflate: activation.queue(INFLATE)?,
            deflate: activation.queue(DEFLATE)?,
            statistics: activation.enabled_queue(STATISTICS)?,
            notifier: activation.notifier,
            log: activation.log,
            ram: activation.ram,
            given: Chain::new(),
            done: None,
            chain: Chain::new(),
            held: None,
        })
    }

    /// Progress of the queues. A buffer that is not done is taken again from the beginning, which
    /// does no harm: its pages are the device's until it is given back.
    pub(crate) fn states(&self) -> Vec<Option<QueueState>> {
        let statistics =
            self.statistics.as_ref().map(|queue| queue.state(self.held.is_some().into()));
        vec![
            Some(self.inflate.state(self.done.is_some().into())),
            Some(self.deflate.state(0)),
            statistics,
        ]
    }

    /// Does a piece of work.
    pub(crate) fn turn(
        &mut self,
        wants_statistics: &mut bool,
        totals: &mut Totals,
    ) -> Result<Turn, Box<dyn Error>> {
        let mut turn = Turn { has_more: true, statistics: None };
        if self.inflate(totals)? || self.deflate(totals)? {
            return Ok(turn);
        }
        if *wants_statistics && self.give_back_statistics()? {
            *wants_statistics = false;
        }
        turn.statistics = self.read_statistics()?;
        turn.has_more = turn.statistics.is_some() || self.enable_kicks()?;
        Ok(turn)
    }

    /// Returns `true` if there is something on a queue that was not looked at.
    fn enable_kicks(&mut self) -> Result<bool, Box<dyn Error>> {
        let has_more = self.inflate.enable_kicks()? | self.deflate.enable_kicks()?;
        // A buffer that is added while one is held waits until that is given back.
        match self.statistics.as_mut().filter(|_| self.held.is_none()) {
            Some(queue) => Ok(queue.enable_kicks()? | has_more),
            None => Ok(has_more),
        }
    }

    /// Gives some pages back to the host. Returns `false` if there are none.
    fn inflate(&mut self, totals: &mut Totals) -> Result<bool, Box<dyn Error>> {
        let done = match self.done {
            Some(done) => done,
            None if self.inflate.pop(&mut self.given)? => 0,
            None => return Ok(false),
        };
        let mut bytes = [0; PAGES.saturating_mul(NUMBER)];
        let length = self.given.copy_out(&self.ram, done, &mut bytes);
        let (numbers, _) = bytes.get(..length).unwrap_or_default().as_chunks::<NUMBER>();
        let mut run = Run::default();
        for number in numbers {
            let number = u64::from(u32::from_le_bytes(*number));
            if !run.extend(number) {
                self.discard(run, totals);
                run = Run { first: number, pages: 1 };
            }
        }
        self.discard(run, totals);
        totals.given = totals.given.saturating_add(numbers.len() as u64);
        let done = done.saturating_add(length as u64);
        if length > 0 && done < self.given.readable_bytes() {
            self.done = Some(done);
            return Ok(true);
        }
        self.done = None;
        give_back(&mut self.inflate, &self.notifier, self.given.head())?;
        Ok(true)
    }

    fn discard(&self, run: Run, totals: &mut Totals) {
        if run.pages == 0 {
            return;
        }
        let (start, size) = (run.first.saturating_mul(PAGE), run.pages.saturating_mul(PAGE));
        if let Err(error) = self.ram.discard(start, size) {
            totals.refused = totals.refused.saturating_add(run.pages);
            self.log.warn(format_args!(
                "{size} bytes at {start:#x} from the guest's balloon are not given back: {error}"
            ));
        }
    }

    /// Takes note that the driver takes pages back: it may do that at any time. Returns `false` if
    /// it does not.
    fn deflate(&mut self, totals: &mut Totals) -> Result<bool, Box<dyn Error>> {
        if !self.deflate.pop(&mut self.chain)? {
            return Ok(false);
        }
        let pages = self.chain.readable_bytes() / NUMBER_BYTES;
        totals.taken_back = totals.taken_back.saturating_add(pages);
        give_back(&mut self.deflate, &self.notifier, self.chain.head())?;
        Ok(true)
    }

    /// Asks for new statistics by giving the driver its buffer back. Returns `false` if it has it.
    fn give_back_statistics(&mut self) -> Result<bool, Box<dyn Error>> {
        let Some(queue) = &mut self.statistics else { return Ok(false) };
        let Some(head) = self.held.take() else { return Ok(false) };
        give_back(queue, &self.notifier, head)?;
        Ok(true)
    }

    /// Reads a buffer with statistics, and holds it.
    fn read_statistics(&mut self) -> Result<Option<GuestStatistics>, Box<dyn Error>> {
        let Some(queue) = &mut self.statistics else { return Ok(None) };
        // A driver has one buffer (5.5.6.3).
        if self.held.is_some() || !queue.pop(&mut self.chain)? {
            return Ok(None);
        }
        self.held = Some(self.chain.head());
        let mut bytes = [0; ENTRIES.saturating_mul(ENTRY)];
        let length = self.chain.copy_out(&self.ram, 0, &mut bytes);
        Ok(Some(GuestStatistics::read(bytes.get(..length).unwrap_or_default())))
    }
}

/// Gives the driver a buffer back, in which nothing is written.
fn give_back(queue: &mut Queue, notifier: &Notifier, head: u16) -> Result<(), Box<dyn Error>> {
    queue.push(head, 0)?;
    if queue.wants_interrupt()? {
        notifier.queue(queue.index());
    }
    Ok(())
}

/// Adjoining pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Run {
    first: u64,
    pages: u64,
}

impl Run {
    /// Adds a page at either end. Returns `false` if it is elsewhere.
    fn extend(&mut self, number: u64) -> bool {
        if self.pages == 0 || number.checked_add(1) == Some(self.first) {
            self.first = number;
        } else if self.first.checked_add(self.pages) != Some(number) {
            return false;
        }
        self.pages = self.pages.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_adjoin_at_both_ends() {
        let mut run = Run::default();
        for number in [7, 8, 6, 9] {
            assert!(run.extend(number));
        }
        assert_eq!(run, Run { first: 6, pages: 4 });
        for number in [0, 4, 8, 11, u64::MAX] {
            assert!(!run.extend(number), "{number}");
        }
        let mut low = Run { first: 0, pages: 1 };
        assert!(!low.extend(u64::MAX) && low.extend(1));
    }
}
