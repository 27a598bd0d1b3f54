//! The device.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use nerite_virtio::{
    Activation, Causes, DeviceState, Enter, Event, Kind, Notifier, RestoreError, StartError,
    VirtioDevice, Worker, config_bytes, feature,
};
use parking_lot::Mutex;

use crate::limits::{Limits, Totals};
use crate::listener::Listener;
use crate::live::Live;
use crate::spec::Cid;
use crate::state::{VERSION, VsockState};
use crate::table::Table;

/// Virtio device and PCI class of a socket device (communication, other).
const KIND: Kind = Kind { id: 19, class: 0x07_80_00 };
/// Entries of a queue.
const QUEUE_SIZE: u16 = 128;
/// `VIRTIO_VSOCK_F_STREAM`: stream sockets (5.10.3).
const STREAM: u64 = 1 << 0;

/// State that the host and the driver have set up.
struct State {
    live: Option<Live>,
    /// The function is no bus master.
    is_paused: bool,
    table: Table,
    listener: Listener,
    /// The driver is to be told that its connections are gone.
    has_reset: bool,
}

/// A virtio socket device.
pub struct Vsock {
    shared: Arc<Mutex<State>>,
    events: Arc<OwnedFd>,
    worker: Worker,
}

impl Vsock {
    /// A device for a guest that is `cid`, whose clients come to `listener`.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new(cid: Cid, listener: Listener, limits: Limits) -> io::Result<Self> {
        let events = listener.events();
        let table = Table::new(cid, limits);
        let state = State { live: None, is_paused: false, table, listener, has_reset: false };
        Ok(Self { shared: Arc::new(Mutex::new(state)), events, worker: Worker::new("vsock")? })
    }

    /// Starts the device's thread, which calls `enter` first. `notifier` and `kicks` are those of
    /// its transport.
    ///
    /// # Errors
    /// If the host has no thread left, or `enter` fails.
    pub fn run(
        &self,
        notifier: &Arc<Notifier>,
        kicks: &Arc<[Event]>,
        enter: Enter,
    ) -> io::Result<()> {
        let (shared, events) = (self.shared.clone(), self.events.clone());
        self.worker.run_with(notifier, kicks, events, enter, move || shared.lock().turn())
    }

    /// Ends the device's thread. Connections wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        self.worker.halt();
    }

    /// Connections and bytes so far.
    pub fn totals(&self) -> Totals {
        self.shared.lock().table.totals
    }

    /// Number of connections there are.
    pub fn connections(&self) -> usize {
        self.shared.lock().table.len()
    }

    #[cfg(feature = "exercise")]
    pub(crate) fn turn(&self) -> bool {
        self.shared.lock().turn()
    }
}

impl State {
    /// Does a piece of work. Returns `true` if there may be more.
    fn turn(&mut self) -> bool {
        let Self { live, is_paused, table, listener, has_reset } = self;
        // Each event is reported once, and kept for a driver to come.
        for ready in listener.sources.take() {
            table.note(&ready);
        }
        let Some(live) = live.as_mut().filter(|live| !*is_paused && !live.notifier.has_failed())
        else {
            return false;
        };
        let now = Instant::now();
        table.expire(now);
        table.accept(listener, now);
        let turn = live.turn(table, listener, has_reset, now);
        if let Err(error) = listener.sources.wake_at(table.deadline(), now) {
            log::error!("a timer of the vsock device: {error}");
        }
        match turn {
            // There may be room for a client now.
            Ok(has_more) => has_more || table.accepts(),
            Err(fault) => {
                let fault = Causes(&fault);
                live.log.warn(format_args!(
                    "the guest's socket driver: {fault}; the vsock device needs a reset"
                ));
                live.notifier.fail();
                false
            }
        }
    }
}

impl VirtioDevice for Vsock {
    type State = VsockState;

    fn kind(&self) -> Kind {
        KIND
    }

    fn features(&self) -> u64 {
        feature::INDIRECT_DESC | feature::EVENT_IDX | STREAM
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        let cid = u64::from(self.shared.lock().table.cid().get());
        config_bytes(&cid.to_le_bytes(), offset, width)
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let live = Live::new(activation)?;
        self.shared.lock().live = Some(live);
        self.worker.wake();
        Ok(())
    }

    /// A driver that begins anew knows of no connections.
    fn stop(&self) {
        let mut state = self.shared.lock();
        (state.live, state.has_reset) = (None, false);
        state.table.clear();
    }

    fn pause(&self) {
        self.shared.lock().is_paused = true;
    }

    fn resume(&self) {
        self.shared.lock().is_paused = false;
        self.worker.wake();
    }

    fn save(&self) -> io::Result<DeviceState<VsockState>> {
        let state = self.shared.lock();
        let queues = state.live.as_ref().map(Live::states).unwrap_or_default();
        let device = VsockState { version: VERSION, next_port: state.table.next_port };
        Ok(DeviceState { queues, device })
    }

    /// Connections of before are gone, on both sides.
    fn restore(&self, saved: &VsockState) -> Result<(), RestoreError> {
        saved.check()?;
        let mut state = self.shared.lock();
        state.table.clear();
        state.table.next_port = saved.next_port;
        state.has_reset = state.live.is_some();
        Ok(())
    }
}

impl fmt::Debug for Vsock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vsock").finish_non_exhaustive()
    }
}
