//! Saved state of a network card.

use std::io;
use std::sync::atomic::Ordering;

use nerite_saved::{RestoreError, check_version, refuse};
use nerite_virtio::{QueueState, lock};
use serde::{Deserialize, Serialize};

use super::Net;
use crate::config::Mac;

/// Version of [`NetState`].
const VERSION: u32 = 1;
const PART: &str = "network card";

/// Saved state of a [`Net`]. Frames that the other side holds are lost, as frames may be, and so
/// are connections that it keeps for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetState {
    /// Version of this layout: 1.
    pub version: u32,
    /// Ethernet address.
    pub mac: [u8; 6],
    /// `true` if the link is up.
    pub link_up: bool,
    /// Number of queue pairs that the driver uses.
    pub pairs: u16,
}

impl Net {
    /// Progress of all queues in use, by number.
    pub(super) fn queue_states(&self) -> io::Result<Vec<Option<QueueState>>> {
        let mut queues = vec![None; self.queue_sizes.len()];
        let mut set = |index: u16, state: Option<QueueState>| {
            if let Some(slot) = queues.get_mut(usize::from(index)) {
                *slot = state;
            }
        };
        for lane in &self.shared.lanes {
            let lane = lock(lane);
            let Some(live) = &lane.live else { continue };
            let first = live.index.saturating_mul(2);
            let [receive, transmit] = live.pair.states();
            set(first, receive);
            set(first.saturating_add(1), transmit);
            live.control.iter().for_each(|control| set(control.index(), Some(control.state(0))));
        }
        let mut engine = lock(&self.shared.engine);
        let state = lock(&self.shared.engine_state);
        if let (Some(engine), Some((activation, control))) = (engine.as_mut(), &state.live) {
            let data_queues = usize::from(self.control_index(activation.features));
            for config in activation.queues.iter().take(data_queues).flatten() {
                // An engine resumes where the used ring ends.
                let at = config.used.saturating_add(2);
                let next_used = activation.ram.read_obj(at).map_err(io::Error::other)?;
                let next_available = engine.next_available(config.index)?;
                set(config.index, Some(QueueState { next_available, next_used }));
            }
            control.iter().for_each(|control| set(control.index(), Some(control.state(0))));
        }
        Ok(queues)
    }

    /// The card's own state.
    pub(super) fn own_state(&self) -> NetState {
        NetState {
            version: VERSION,
            mac: lock(&self.shared.mac).0,
            link_up: self.shared.link_up.load(Ordering::Acquire),
            pairs: self.shared.pairs_in_use.load(Ordering::Acquire),
        }
    }

    /// Takes the card's own state. The driver has its queues by now, if it was ready.
    pub(super) fn restore_own(&self, state: &NetState) -> Result<(), RestoreError> {
        let NetState { version, mac, link_up, pairs } = *state;
        check_version(PART, version, VERSION)?;
        let mac = Mac(mac);
        refuse(PART, "address", !mac.is_unicast())?;
        refuse(PART, "number of queue pairs", pairs == 0 || pairs > self.shared.config.pairs)?;
        *lock(&self.shared.mac) = mac;
        self.set_link(link_up);
        self.shared.pairs_in_use.store(pairs, Ordering::Release);
        // A driver begins with one pair.
        for lane in self.shared.lanes.iter().take(pairs.into()).skip(1) {
            lock(lane).backend.set_enabled(true).map_err(RestoreError::failed(PART))?;
        }
        let mut engine = lock(&self.shared.engine);
        self.shared.tell_engine(&mut engine);
        match engine.as_mut() {
            Some(engine) if pairs > 1 => {
                engine.set_pairs(pairs).map_err(RestoreError::failed(PART))
            }
            _ => Ok(()),
        }
    }
}
