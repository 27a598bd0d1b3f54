//! The device.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_saved::check_version;
use nerite_virtio::{
    Activation, Causes, DeviceState, Enter, Event, Kind, Notifier, RestoreError, StartError,
    VirtioDevice, Worker, config_bytes, feature,
};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::live::{Live, Totals};
use crate::statistics::GuestStatistics;

/// Virtio device and PCI class of a balloon (no class of its own).
const KIND: Kind = Kind { id: 5, class: 0xff_00_00 };
/// Entries of a queue.
const QUEUE_SIZE: u16 = 64;
/// `VIRTIO_BALLOON_F_STATS_VQ`: the driver reports statistics (5.5.3).
const STATS_VQ: u64 = 1 << 1;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`: a driver that is out of memory takes pages back.
const DEFLATE_ON_OOM: u64 = 1 << 2;
/// Offset of `actual` in the configuration (5.5.4): `num_pages` is before it.
const ACTUAL: u64 = 4;
/// Version of [`BalloonState`].
const VERSION: u32 = 1;
const PART: &str = "balloon";

/// Saved state of a [`Balloon`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonState {
    /// Version of this layout: 1.
    pub version: u32,
    /// Number of pages that the host asks for.
    pub target: u32,
    /// Number of pages that the driver says it has given.
    pub actual: u32,
}

/// State that the host and the driver have set up.
#[derive(Default)]
struct State {
    live: Option<Live>,
    /// The function is no bus master.
    is_paused: bool,
    target: u32,
    actual: u32,
    wants_statistics: bool,
    statistics: GuestStatistics,
    /// Number of reports so far.
    reports: u64,
    totals: Totals,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there are statistics.
    reported: Condvar,
}

/// A virtio memory balloon.
pub struct Balloon {
    shared: Arc<Shared>,
    worker: Worker,
}

impl Balloon {
    /// A balloon that asks for nothing.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::default(), worker: Worker::new("balloon")? })
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
        let shared = self.shared.clone();
        self.worker.run(notifier, kicks, enter, move || shared.turn())
    }

    /// Ends the device's thread. Requests wait until [`Self::run`] is called again.
    pub fn halt(&self) {
        self.worker.halt();
    }

    /// Asks the driver for so many pages in all. Returns `true` if it has to be notified, by
    /// [`Notifier::config_changed`].
    #[must_use]
    pub fn set_target(&self, pages: u32) -> bool {
        let mut state = self.shared.state.lock();
        std::mem::replace(&mut state.target, pages) != pages
    }

    /// Number of pages that the driver is asked for.
    pub fn target(&self) -> u32 {
        self.shared.state.lock().target
    }

    /// Number of pages that the driver says it has given.
    pub fn actual(&self) -> u32 {
        self.shared.state.lock().actual
    }

    /// Pages that have passed so far.
    pub fn totals(&self) -> Totals {
        self.shared.state.lock().totals
    }

    /// Asks the driver for statistics, and waits for them at most so long. `None` if it reports
    /// none.
    pub fn statistics(&self, patience: Duration) -> Option<GuestStatistics> {
        let deadline = Instant::now().checked_add(patience)?;
        let mut state = self.shared.state.lock();
        let reports = state.reports;
        state.wants_statistics = true;
        self.worker.wake();
        while state.reports == reports {
            if self.shared.reported.wait_until(&mut state, deadline).timed_out() {
                return None;
            }
        }
        Some(state.statistics)
    }

    #[cfg(feature = "exercise")]
    pub(crate) fn turn(&self) -> bool {
        self.shared.turn()
    }
}

impl Shared {
    /// Does a piece of work. Returns `true` if there may be more.
    fn turn(&self) -> bool {
        let mut state = self.state.lock();
        let State { live: Some(live), is_paused: false, wants_statistics, totals, .. } =
            &mut *state
        else {
            return false;
        };
        if live.notifier.has_failed() {
            return false;
        }
        match live.turn(wants_statistics, totals) {
            Ok(turn) => {
                if let Some(statistics) = turn.statistics {
                    state.statistics = statistics;
                    state.reports = state.reports.wrapping_add(1);
                    self.reported.notify_all();
                }
                turn.has_more
            }
            Err(error) => {
                let error = Causes(&*error);
                live.log.warn(format_args!(
                    "the guest's balloon driver: {error}; the balloon needs a reset"
                ));
                live.notifier.fail();
                false
            }
        }
    }
}

impl VirtioDevice for Balloon {
    type State = BalloonState;

    fn kind(&self) -> Kind {
        KIND
    }

    fn features(&self) -> u64 {
        feature::INDIRECT_DESC | feature::EVENT_IDX | STATS_VQ | DEFLATE_ON_OOM
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE, QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        let state = self.shared.state.lock();
        let [t0, t1, t2, t3] = state.target.to_le_bytes();
        let [a0, a1, a2, a3] = state.actual.to_le_bytes();
        config_bytes(&[t0, t1, t2, t3, a0, a1, a2, a3], offset, width)
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) {
        if let (ACTUAL, 4, Ok(value)) = (offset, width, u32::try_from(value)) {
            self.shared.state.lock().actual = value;
        }
    }

    fn start(&self, activation: Activation) -> Result<(), StartError> {
        let live = Live::new(activation)?;
        self.shared.state.lock().live = Some(live);
        self.worker.wake();
        Ok(())
    }

    /// A driver that begins anew has given nothing.
    fn stop(&self) {
        let mut state = self.shared.state.lock();
        (state.live, state.actual) = (None, 0);
    }

    fn pause(&self) {
        self.shared.state.lock().is_paused = true;
    }

    fn resume(&self) {
        self.shared.state.lock().is_paused = false;
        self.worker.wake();
    }

    fn save(&self) -> io::Result<DeviceState<BalloonState>> {
        let state = self.shared.state.lock();
        let queues = state.live.as_ref().map(Live::states).unwrap_or_default();
        let device = BalloonState { version: VERSION, target: state.target, actual: state.actual };
        Ok(DeviceState { queues, device })
    }

    fn restore(&self, saved: &BalloonState) -> Result<(), RestoreError> {
        let BalloonState { version, target, actual } = *saved;
        check_version(PART, version, VERSION)?;
        let mut state = self.shared.state.lock();
        (state.target, state.actual) = (target, actual);
        Ok(())
    }
}

impl fmt::Debug for Balloon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balloon").finish_non_exhaustive()
    }
}
