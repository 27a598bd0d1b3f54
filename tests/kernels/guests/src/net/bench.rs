//! Setup and judgement of hostile cases: a card that is set up, a question whose answer shows that
//! frames go out and come in, and memory that must stay as it is.

use runtime::mmio;
use runtime::paging::PAGE;
use runtime::prelude::*;

use crate::raw::{
    EVENT_IDX, INDIRECT_DESC, NEEDS_RESET, READY, Registers, Ring, SIZE, VERSION_1, WRITE, pages,
    wait,
};

/// Bytes before each frame.
const HEADER: u64 = 12;
/// A frame that is as long as the shortest, with its header.
pub(crate) const FRAME: u32 = 72;
/// Receive buffers of the exchange: descriptors from this one on, and how many.
const FIRST_BUFFER: u16 = 8;
const BUFFERS: u16 = 4;
/// The descriptor that asks.
const ASKS: u16 = 12;
/// Content of memory that must not be written to.
const UNTOUCHED: u64 = 0x5a5a_5a5a_5a5a_5a5a;
/// The gateway, and this guest.
const GATEWAY: [u8; 4] = [10, 0, 5, 1];
const GUEST: [u8; 4] = [10, 0, 5, 3];

/// Required outcome of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The card needs a reset, and does nothing until then.
    Broken,
    /// So many requests were given back, and the card goes on.
    Goes(u16),
    /// One or the other; in any case a reset helps.
    Any,
}

pub(crate) struct Bench {
    pub(crate) card: Registers,
    pub(crate) rx: Ring,
    pub(crate) tx: Ring,
    /// Two pages for a case's own use; the first begins with a frame.
    pub(crate) data: u64,
    buffers: u64,
    guards: [u64; 2],
    /// `true` if the host's kernel works on the queues.
    pub(crate) by_kernel: bool,
}

impl Bench {
    pub(crate) fn new(card: Registers, by_kernel: bool) -> Self {
        let before = pages(1);
        let (rx, tx, data, buffers) = (Ring::new(), Ring::new(), pages(2), pages(2));
        let bench = Self { card, rx, tx, data, buffers, guards: [before, pages(1)], by_kernel };
        for page in bench.guards {
            (0..PAGE / 8).for_each(|word| mmio::write64(page + 8 * word, UNTOUCHED));
        }
        bench
    }

    /// A driver that is ready, with these features and empty queues.
    pub(crate) fn start(&mut self, features: u64) {
        self.set_up(features);
        self.card.set_status(READY);
        check_eq!(self.card.status(), READY, "the status of a driver that is ready");
    }

    /// The same but for the last step.
    pub(crate) fn set_up(&mut self, features: u64) {
        self.card.negotiate(features | VERSION_1);
        self.rx.clear();
        self.tx.clear();
        self.card.set_queue(0, SIZE, self.rx.parts);
        self.card.set_queue(1, SIZE, self.tx.parts);
        self.write_question();
    }

    /// An ARP request (RFC 826) for the gateway, after an empty virtio header.
    fn write_question(&self) {
        let mac = self.card.mac();
        let mut frame = vec![0; HEADER as usize];
        frame.extend([0xff; 6]);
        frame.extend(mac);
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(mac);
        frame.extend(GUEST);
        frame.extend([0; 6]);
        frame.extend(GATEWAY);
        frame.resize(FRAME as usize, 0);
        for (at, byte) in (self.data..).zip(frame) {
            mmio::write8(at, byte);
        }
    }

    /// Sends the question, without waiting for anything.
    pub(crate) fn ask(&mut self) {
        self.tx.set(ASKS, (self.data, FRAME, 0, 0));
        self.tx.publish(ASKS);
        self.card.kick(1);
    }

    /// Gives the card receive buffers.
    pub(crate) fn offer(&mut self) {
        for number in 0..BUFFERS {
            self.offer_one(FIRST_BUFFER + number);
        }
        self.card.kick(0);
    }

    fn offer_one(&mut self, descriptor: u16) {
        self.rx.set(descriptor, (self.buffer(descriptor), 2048, WRITE, 0));
        self.rx.publish(descriptor);
    }

    fn buffer(&self, descriptor: u16) -> u64 {
        self.buffers + 2048 * u64::from(descriptor - FIRST_BUFFER)
    }

    /// Returns `true` if the question is answered within so many tenths of a second, on queues that
    /// are in use.
    pub(crate) fn exchange(&mut self, tries: u32) -> bool {
        self.offer();
        for _ in 0..tries {
            // A ring that holds more than it has entries needs a reset.
            if self.tx.has_room() {
                self.ask();
            } else {
                self.card.kick(1);
            }
            let answer = wait(100_000, || {
                let (head, _) = self.rx.take_used()?;
                let head = head as u16;
                // Buffers of the case before.
                if !(FIRST_BUFFER..FIRST_BUFFER + BUFFERS).contains(&head) {
                    return None;
                }
                let is_answer = self.is_answer(head);
                self.offer_one(head);
                self.card.kick(0);
                is_answer.then_some(())
            });
            if answer.is_some() {
                return true;
            }
        }
        false
    }

    /// Progress of each side, for a report.
    fn progress(&self) -> String {
        let ring =
            |ring: &Ring| format!("{} of {} given back", ring.used_index(), ring.published());
        format!(
            "status {:#x}, receiving: {}, sending: {}",
            self.card.status(),
            ring(&self.rx),
            ring(&self.tx)
        )
    }

    fn is_answer(&self, head: u16) -> bool {
        let frame = self.buffer(head) + HEADER;
        let byte = |at: u64| mmio::read8(frame + at);
        [byte(12), byte(13), byte(20), byte(21)] == [8, 6, 0, 2]
            && (0..4).map(|at| byte(28 + at)).eq(GATEWAY)
    }

    /// Judges what came of a case on queue `queue`, and whether the card works afterwards.
    pub(crate) fn judge(&mut self, name: &str, queue: u16, wanted: Outcome) {
        let ring =
            |bench: &Self| if queue == 0 { bench.rx.used_index() } else { bench.tx.used_index() };
        match wanted {
            Outcome::Broken => self.judge_broken(name),
            Outcome::Goes(count) => {
                // That nothing happens takes a moment to see.
                let patience = if count == 0 { 3_000 } else { 2_000_000 };
                let _ = wait(patience, || (count > 0 && ring(self) == count).then_some(()));
                check_eq!(ring(self), count, "{name}: requests that are given back");
                check_eq!(self.card.status(), READY, "{name}: the status");
                check!(self.exchange(20), "{name}: the card does not go on");
            }
            Outcome::Any => {
                let _ = wait(3_000, || (self.card.status() != READY).then_some(()));
                let status = self.card.status();
                check_eq!(status & !NEEDS_RESET, READY, "{name}: the status");
            }
        }
        self.judge_after(name);
    }

    fn judge_broken(&mut self, name: &str) {
        let broken = wait(2_000_000, || (self.card.status() & NEEDS_RESET != 0).then_some(()));
        check!(broken.is_some(), "{name}: the card goes on");
        check_eq!(self.card.status(), READY | NEEDS_RESET, "{name}: the status");
        // The configuration change interrupt (2.1.2 and 4.1.4.5).
        check_eq!(self.card.isr() & 2, 2, "{name}: ISR status");
        check_eq!(self.card.isr(), 0, "{name}: ISR status when it is read again");
        let before = (self.rx.used_index(), self.tx.used_index());
        self.offer();
        self.ask();
        let _ = wait(2_000, || None::<()>);
        check_eq!(
            (self.rx.used_index(), self.tx.used_index()),
            before,
            "{name}: what a broken card gave back"
        );
    }

    /// After a reset the card works, and nothing was written that is not the card's.
    pub(crate) fn judge_after(&mut self, name: &str) {
        for page in self.guards {
            let untouched = (0..PAGE / 8).all(|word| mmio::read64(page + 8 * word) == UNTOUCHED);
            check!(untouched, "{name}: memory that the card must not write to");
        }
        self.start(INDIRECT_DESC | EVENT_IDX);
        let works = self.exchange(20);
        check!(works, "{name}: the card does not work after a reset: {}", self.progress());
        self.card.reset();
    }
}
