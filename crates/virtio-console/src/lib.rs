#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

#[cfg(feature = "exercise")]
pub mod exercise;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use nerite_saved::{check_version, refuse};
use nerite_virtio::{
    Activation, Causes, Chain, DeviceState, Enter, Event, Kind, LogBudget, Notifier, Queue,
    QueueError, RestoreError, StartError, VirtioDevice, Worker, feature, lock,
};
use serde::{Deserialize, Serialize};

pub use nerite_virtio;

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
/// Maximum size of a piece of output in bytes.
const CHUNK: usize = 4096;

/// Takes a guest's output. It may wait, for which [`Console::halt`] waits, too.
///
/// An error is final: the guest's output is discarded from then on. The function itself has to end
/// the machine.
pub type Output = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// Version of [`ConsoleState`].
const STATE_VERSION: u32 = 1;

/// Saved state of a [`Console`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleState {
    /// Version of this layout: 1.
    pub version: u32,
    /// Input that waits for the guest, at most [`INPUT`] bytes.
    #[serde(with = "nerite_saved::bytes")]
    pub input: Vec<u8>,
    /// Number of bytes of the next buffer of output that are written already.
    pub written: u64,
    /// `true` if the driver has written something.
    pub has_spoken: bool,
}

struct Live {
    receive: Option<Queue>,
    transmit: Option<Queue>,
    notifier: Arc<Notifier>,
    log: Arc<LogBudget>,
    /// A buffer for input.
    input: Chain,
    /// A buffer of output, if it is not given back yet, and how much of it is taken.
    output: Chain,
    taken: u64,
    is_sending: bool,
    /// Number of taken bytes that may not be written yet.
    unwritten: u64,
    /// Number of bytes of the next buffer that were written before the device was restored.
    written_before: u64,
    /// The driver has written something.
    has_spoken: bool,
}

/// State that the driver has set up.
#[derive(Default)]
struct Port {
    live: Option<Live>,
    /// The function is no bus master.
    is_paused: bool,
}

/// Destination of output.
struct Sink {
    output: Output,
    has_failed: bool,
}

struct Shared {
    /// The thread does not hold it while output waits.
    port: Mutex<Port>,
    /// The thread's.
    sink: Mutex<Sink>,
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
        let shared = Shared {
            port: Mutex::default(),
            sink: Mutex::new(Sink { output: Box::new(|_| Ok(())), has_failed: false }),
            input: Mutex::new(VecDeque::new()),
            room: Event::new()?,
        };
        Ok(Self { shared: Arc::new(shared), worker: Worker::new("console")? })
    }

    /// Starts the device's thread, which calls `enter` first and then hands output to `output`.
    /// `notifier` and `kicks` are those of its transport.
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
        // A thread from before may still wait for its own.
        self.worker.halt();
        lock(&self.shared.sink).output = output;
        let shared = self.shared.clone();
        self.worker.run(notifier, kicks, enter, move || shared.turn())
    }

    /// Ends the device's thread. Output and input wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        self.worker.halt();
    }

    /// Hands input to the guest and says how much of it was taken: at most [`INPUT`] bytes wait for
    /// a guest that reads none.
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
    /// Moves one piece of output and some of the input there is. Returns whether there may be more.
    fn turn(&self) -> bool {
        let mut bytes = [0; CHUNK];
        let Some(length) = self.take(&mut bytes) else { return false };
        self.write(bytes.get(..length).unwrap_or_default());
        // Also if the device was paused meanwhile.
        lock(&self.port).live.iter_mut().for_each(|live| live.unwritten = 0);
        self.with_live(|live| live.finish_output()).is_some()
    }

    /// Gives the guest what was typed, and takes a piece of its output. Returns its length, or
    /// `None` if there is nothing to do.
    fn take(&self, bytes: &mut [u8; CHUNK]) -> Option<usize> {
        let moved = self.with_live(|live| {
            let has_more = self.receive(live)?;
            let length = live.transmit(bytes)?;
            Ok(if has_more { length.or(Some(0)) } else { length })
        });
        moved.flatten()
    }

    /// Works on the queues, if the device may. Returns `None` if not, or if the driver has broken a
    /// rule.
    fn with_live<T>(&self, work: impl FnOnce(&mut Live) -> Result<T, QueueError>) -> Option<T> {
        let mut port = lock(&self.port);
        let Port { live: Some(live), is_paused: false } = &mut *port else { return None };
        if live.notifier.has_failed() {
            return None;
        }
        work(live)
            .inspect_err(|error| {
                let (log, error) = (&live.log, Causes(error));
                log.warn(format_args!(
                    "the guest's console driver: {error}; the console needs a reset"
                ));
                live.notifier.fail();
            })
            .ok()
    }

    fn write(&self, bytes: &[u8]) {
        let Sink { output, has_failed } = &mut *lock(&self.sink);
        if !bytes.is_empty()
            && !*has_failed
            && let Err(error) = output(bytes)
        {
            log::error!("the guest's console output cannot be written: {error}");
            *has_failed = true;
        }
    }

    /// Gives the guest what was typed, in a queue's worth of buffers at most. Returns whether there
    /// may be more.
    fn receive(&self, live: &mut Live) -> Result<bool, QueueError> {
        // A driver that cannot write at all has nothing to wait for.
        let is_ready = live.has_spoken || live.transmit.is_none();
        let Some(queue) = live.receive.as_mut().filter(|_| is_ready) else { return Ok(false) };
        let (mut given, mut has_more) = (false, true);
        for _ in 0..QUEUE_SIZE {
            let mut input = lock(&self.input);
            if input.is_empty() {
                has_more = false;
                break;
            }
            if !queue.pop(&mut live.input)? {
                has_more = queue.enable_kicks()?;
                break;
            }
            let (first, _) = input.as_slices();
            let written = live.input.copy_in(queue.ram(), 0, first);
            let taken = written.min(input.len());
            input.drain(..taken);
            drop(input);
            self.room.signal();
            queue.push(live.input.head(), u32::try_from(written).unwrap_or(u32::MAX))?;
            given = true;
        }
        if given && queue.wants_interrupt()? {
            live.notifier.queue(RECEIVE);
        }
        Ok(has_more)
    }
}

impl Live {
    /// Takes a piece of output. Returns its length, or `None` if there is none.
    fn transmit(&mut self, bytes: &mut [u8; CHUNK]) -> Result<Option<usize>, QueueError> {
        let Some(queue) = &mut self.transmit else { return Ok(None) };
        if !self.is_sending {
            if !queue.pop(&mut self.output)? {
                return Ok(queue.enable_kicks()?.then_some(0));
            }
            (self.taken, self.is_sending) = (std::mem::take(&mut self.written_before), true);
        }
        let length = self.output.copy_out(queue.ram(), self.taken, bytes);
        self.taken = self.taken.saturating_add(length as u64);
        self.unwritten = length as u64;
        self.has_spoken |= length > 0;
        Ok(Some(length))
    }

    /// Number of bytes of the next buffer of output that are written.
    fn written(&self) -> u64 {
        if self.is_sending {
            self.taken.saturating_sub(self.unwritten)
        } else {
            self.written_before
        }
    }

    /// Gives back the buffer of output if all of it is out. A driver that has come meanwhile has
    /// none there.
    fn finish_output(&mut self) -> Result<(), QueueError> {
        let Some(queue) = self.transmit.as_mut().filter(|_| self.is_sending) else { return Ok(()) };
        if self.taken < self.output.readable_bytes() {
            return Ok(());
        }
        self.is_sending = false;
        queue.push(self.output.head(), 0)?;
        if queue.wants_interrupt()? {
            self.notifier.queue(TRANSMIT);
        }
        Ok(())
    }
}

impl VirtioDevice for Console {
    type State = ConsoleState;

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

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let (receive, transmit) =
            (activation.enabled_queue(RECEIVE)?, activation.enabled_queue(TRANSMIT)?);
        lock(&self.shared.port).live = Some(Live {
            receive,
            transmit,
            notifier: activation.notifier,
            log: activation.log,
            input: Chain::new(),
            output: Chain::new(),
            taken: 0,
            is_sending: false,
            unwritten: 0,
            written_before: 0,
            has_spoken: false,
        });
        self.worker.wake();
        Ok(())
    }

    fn stop(&self) {
        lock(&self.shared.port).live = None;
    }

    fn pause(&self) {
        lock(&self.shared.port).is_paused = true;
    }

    fn resume(&self) {
        lock(&self.shared.port).is_paused = false;
        self.worker.wake();
    }

    /// Output that is being written counts as not written yet, as it may have to wait for long.
    fn save(&self) -> io::Result<DeviceState<ConsoleState>> {
        let port = lock(&self.shared.port);
        let live = port.live.as_ref();
        let queues = live.map(|live| {
            let receive = live.receive.as_ref().map(|queue| queue.state(0));
            let transmit = live.transmit.as_ref().map(|queue| queue.state(live.is_sending.into()));
            vec![receive, transmit]
        });
        let device = ConsoleState {
            version: STATE_VERSION,
            input: lock(&self.shared.input).iter().copied().collect(),
            written: live.map_or(0, Live::written),
            has_spoken: live.is_some_and(|live| live.has_spoken),
        };
        Ok(DeviceState { queues: queues.unwrap_or_default(), device })
    }

    fn restore(&self, state: &ConsoleState) -> Result<(), RestoreError> {
        check_version("console", state.version, STATE_VERSION)?;
        refuse("console", "input", state.input.len() > INPUT)?;
        *lock(&self.shared.input) = state.input.iter().copied().collect();
        if let Some(live) = &mut lock(&self.shared.port).live {
            (live.written_before, live.has_spoken) = (state.written, state.has_spoken);
        }
        self.shared.room.signal();
        Ok(())
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").finish_non_exhaustive()
    }
}
