//! The virtio console (virtio 1.2, 5.3): **bytes go between a guest's console and whatever the host has for one, whole buffers at a
//! time.** Linux calls it hvc0.
//!
//! * [`Console`] is the device: give it to [`nerite_virtio::VirtioPci`]. It has one port, and works on a thread of its own.
//! * Output goes to a function, [`Output`], which may wait: the guest is then held up at its next full queue, and no vCPU waits.
//! * Input is handed in with [`Console::enqueue`], which takes what there is room for and no more. It waits until the guest has written
//!   something: drivers such as Linux' throw away what comes while they set themselves up.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use nerite_virtio::{
    Chain, Device, Enter, Event, Kind, Notifier, Queue, QueueError, Session, StartError, Worker, feature,
    lock,
};

/// The example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Virtio device and PCI class of a console (communication, other).
const KIND: Kind = Kind { id: 3, class: 0x07_80_00 };
/// Entries of a queue.
const QUEUE_SIZE: u16 = 64;
/// The guest receives on this queue (5.3.2).
const RECEIVE: u16 = 0;
/// The guest transmits on this queue.
const TRANSMIT: u16 = 1;
/// The most input that waits for the guest, in bytes.
pub const INPUT: usize = 4096;
/// How much output is handed on at once, in bytes.
const CHUNK: usize = 4096;

/// Takes a guest's output. It may wait, for which a reset by the driver and [`Console::halt`] wait, too.
///
/// An error is final: the guest's output then goes nowhere. Whoever made the function sees to the machine's end.
pub type Output = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

struct Live {
    receive: Queue,
    transmit: Queue,
    notifier: Arc<Notifier>,
}

struct Port {
    output: Output,
    has_failed: bool,
    live: Option<Live>,
    chain: Chain,
    /// How much of `chain` is out already, and whether there is more.
    sent: u64,
    is_sending: bool,
    /// Whether the driver has written anything.
    has_spoken: bool,
}

struct Shared {
    port: Mutex<Port>,
    input: Mutex<VecDeque<u8>>,
    /// Signalled when input was taken.
    room: Event,
}

/// A virtio console with one port.
pub struct Console {
    shared: Arc<Shared>,
    worker: Worker,
}

impl Console {
    /// A console. Output waits until [`Self::run`].
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let port = Port {
            output: Box::new(|_| Ok(())),
            has_failed: false,
            live: None,
            chain: Chain::new(),
            sent: 0,
            is_sending: false,
            has_spoken: false,
        };
        let shared =
            Shared { port: Mutex::new(port), input: Mutex::new(VecDeque::new()), room: Event::new()? };
        Ok(Self { shared: Arc::new(shared), worker: Worker::new("console")? })
    }

    /// Starts the device's thread, which calls `enter` first and then hands output to `output`. `notifier` and `kicks` are those
    /// of its transport.
    ///
    /// # Errors
    /// If the host has no thread left, or `enter` fails.
    pub fn run(
        &self,
        notifier: &Arc<Notifier>,
        kicks: &Arc<[Event]>,
        enter: Enter,
        output: Output,
    ) -> io::Result<()> {
        lock(&self.shared.port).output = output;
        let shared = self.shared.clone();
        self.worker.run(notifier, kicks, enter, move || shared.turn())
    }

    /// Ends the device's thread. Output and input wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        self.worker.halt();
    }

    /// Hands input to the guest and says how much of it was taken: at most [`INPUT`] bytes wait for a guest that reads none.
    pub fn enqueue(&self, bytes: &[u8]) -> usize {
        let mut input = lock(&self.shared.input);
        let taken = INPUT.saturating_sub(input.len()).min(bytes.len());
        input.extend(bytes.iter().take(taken));
        drop(input);
        if taken > 0 {
            self.worker.wake();
        }
        taken
    }

    /// Readable when there is room for input again; [`Self::acknowledge`] takes that back.
    pub fn room(&self) -> BorrowedFd<'_> {
        self.shared.room.as_fd()
    }

    /// Makes [`Self::room`] unreadable until there is room again.
    pub fn acknowledge(&self) {
        self.shared.room.take();
    }
}

impl Shared {
    /// Moves one piece of output and all the input there is. Returns whether there may be more.
    fn turn(&self) -> bool {
        let mut port = lock(&self.port);
        let port = &mut *port;
        let Some(live) = port.live.as_mut().filter(|live| !live.notifier.has_failed()) else { return false };
        let moved = self.receive(live, &mut port.chain, port.is_sending || !port.has_spoken).and_then(|()| {
            let Port { output, has_failed, live: Some(live), chain, sent, is_sending, has_spoken } = port
            else {
                return Ok(false);
            };
            live.transmit(chain, sent, is_sending, &mut |bytes| {
                *has_spoken |= !bytes.is_empty();
                if !*has_failed && let Err(error) = output(bytes) {
                    log::error!("the guest's console output cannot be written: {error}");
                    *has_failed = true;
                }
            })
        });
        moved.unwrap_or_else(|error| {
            log::warn!("the guest's console driver: {error}; the console needs a reset");
            port.live.iter().for_each(|live| live.notifier.fail());
            false
        })
    }

    /// Gives the guest what was typed. `is_busy` says that something else comes first.
    fn receive(&self, live: &mut Live, chain: &mut Chain, is_busy: bool) -> Result<(), QueueError> {
        let mut given = false;
        if is_busy {
            return Ok(());
        }
        loop {
            let mut input = lock(&self.input);
            if input.is_empty() {
                break;
            }
            if !live.receive.pop(chain)? {
                if live.receive.enable_kicks()? {
                    continue;
                }
                break;
            }
            let (first, _) = input.as_slices();
            let written = chain.copy_in(live.receive.ram(), 0, first);
            let taken = written.min(input.len());
            input.drain(..taken);
            drop(input);
            self.room.signal();
            live.receive.push(chain.head(), u32::try_from(written).unwrap_or(u32::MAX))?;
            given = true;
        }
        if given && live.receive.wants_interrupt()? {
            live.notifier.queue(RECEIVE);
        }
        Ok(())
    }
}

impl Live {
    /// Hands on one piece of output. Returns whether there may be more.
    fn transmit(
        &mut self,
        chain: &mut Chain,
        sent: &mut u64,
        is_sending: &mut bool,
        output: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, QueueError> {
        if !*is_sending {
            if !self.transmit.pop(chain)? {
                return self.transmit.enable_kicks();
            }
            (*sent, *is_sending) = (0, true);
        }
        let mut bytes = [0; CHUNK];
        let length = chain.copy_out(self.transmit.ram(), *sent, &mut bytes);
        output(bytes.get(..length).unwrap_or_default());
        *sent = sent.saturating_add(length as u64);
        if length == CHUNK {
            return Ok(true);
        }
        *is_sending = false;
        self.transmit.push(chain.head(), 0)?;
        if self.transmit.wants_interrupt()? {
            self.notifier.queue(TRANSMIT);
        }
        Ok(true)
    }
}

impl Device for Console {
    fn kind(&self) -> Kind {
        KIND
    }

    fn features(&self) -> u64 {
        feature::INDIRECT_DESC | feature::EVENT_IDX
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, _: u64, _: u8) -> u64 {
        0
    }

    fn start(&self, session: Session) -> Result<(), StartError> {
        let (receive, transmit) = (session.queue(RECEIVE)?, session.queue(TRANSMIT)?);
        let mut port = lock(&self.shared.port);
        port.live = Some(Live { receive, transmit, notifier: session.notifier });
        drop(port);
        self.worker.wake();
        Ok(())
    }

    fn stop(&self) {
        let mut port = lock(&self.shared.port);
        (port.live, port.is_sending, port.has_spoken) = (None, false, false);
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}
