//! The machine's network cards: PCI functions whose queues, notifications and interrupts go past
//! the vCPUs.

use std::sync::Arc;

use nerite_net::{Connection, Spec};
use nerite_saved::{RestoreError, SaveError, require_same};
use nerite_service::DeviceCounters;
use nerite_virtio::{VirtioPci, VirtioPciState};
use nerite_virtio_net::{Net, NetState, Totals};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::MAX_CARDS;
use crate::wires::PciBuilder;

/// Interrupt lines of the cards' pins, in order: those below 16 that PC hardware leaves to PCI.
/// Each card has its own, so that ending one's interrupt says nothing about another's.
pub(crate) const LINES: [u8; MAX_CARDS] = [11, 10, 9, 5];

/// Opens what the cards are connected to.
pub(crate) fn open(specs: &[Spec]) -> Result<Vec<Connection>, Error> {
    if specs.len() > MAX_CARDS {
        return Err(Error::CardCount { given: specs.len() });
    }
    specs.iter().map(|spec| nerite_net::open(spec).map_err(Error::from)).collect()
}

/// The network cards of a machine. It can be cloned.
#[derive(Debug, Clone, Default)]
pub struct Network {
    cards: Vec<Arc<VirtioPci<Net>>>,
    /// Backend of each card: a tap's name, or `user`.
    names: Vec<String>,
}

/// State of the network cards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkState {
    /// Cards, in order. A guest keeps the addresses of its cards.
    pub cards: Vec<VirtioPciState<NetState>>,
}

impl Network {
    /// Makes a card for each of `links`, and starts their threads.
    pub(crate) fn new(
        links: Vec<Connection>,
        pci: &mut PciBuilder<'_>,
        cpus: u32,
    ) -> Result<Self, Error> {
        let mut network = Self::default();
        for (link, line) in links.into_iter().zip(LINES) {
            let queues = link.config.pairs;
            if u32::from(queues) > cpus {
                return Err(Error::CardQueues { queues, cpus });
            }
            let function = pci.add(Net::new(link.config, link.side)?, line)?;
            function.device().run(function.notifier(), function.kicks())?;
            network.cards.push(function);
            network.names.push(link.name);
        }
        Ok(network)
    }

    /// Number of cards.
    pub fn len(&self) -> usize {
        self.cards.len()
    }

    /// `true` if there is no card.
    pub fn is_empty(&self) -> bool {
        self.cards.is_empty()
    }

    /// The number of the card that `text` means: its number, or the name of the only one that is
    /// connected to such.
    pub fn find(&self, text: &str) -> Option<usize> {
        let is_number = |number: &usize| *number < self.cards.len();
        let mut named = self.names.iter().enumerate().filter(|(_, name)| *name == text);
        match (named.next(), named.next()) {
            (Some((number, _)), None) => Some(number),
            _ => text.parse().ok().filter(is_number),
        }
    }

    /// Says that the link of card number `card` is up or down, and tells the guest's driver.
    /// Returns false if there is no such card.
    pub fn set_link(&self, card: usize, up: bool) -> bool {
        let Some(card) = self.cards.get(card) else { return false };
        if card.device().set_link(up) {
            card.notifier().config_changed();
        }
        true
    }

    /// Pauses all cards: when this returns, none touches guest memory.
    pub fn pause(&self) {
        self.cards.iter().for_each(|card| card.pause());
    }

    /// Ends [`Self::pause`] or [`Self::restore`].
    pub fn resume(&self) {
        self.cards.iter().for_each(|card| card.resume());
    }

    /// State of all cards, which are paused.
    ///
    /// # Errors
    /// Fails if they are not, or the host fails.
    pub fn save(&self) -> Result<NetworkState, SaveError> {
        let save = |(card, name): (&Arc<VirtioPci<Net>>, _)| {
            card.save().map_err(|error| error.within(format!("network card {name}")))
        };
        Ok(NetworkState {
            cards: self.cards.iter().zip(&self.names).map(save).collect::<Result<_, _>>()?,
        })
    }

    /// Puts all cards into a saved state, paused. The interrupt controllers have theirs by now.
    ///
    /// # Errors
    /// Fails if these are other cards, or one cannot have its state.
    pub fn restore(&self, saved: &NetworkState) -> Result<(), RestoreError> {
        require_same("machine", "number of network cards", saved.cards.len() == self.cards.len())?;
        let cards = self.cards.iter().zip(&self.names).zip(&saved.cards);
        for ((card, name), saved) in cards {
            card.restore(saved).map_err(|error| error.within(format!("network card {name}")))?;
        }
        Ok(())
    }

    /// Counters of the cards so far, of each queue that is not the host's kernel's.
    pub(crate) fn counters(&self) -> Vec<DeviceCounters> {
        self.cards.iter().flat_map(|card| counters_of(card.device())).collect()
    }

    /// Ends the cards' threads.
    pub(crate) fn halt(&self) {
        self.cards.iter().for_each(|card| card.device().halt());
    }
}

/// Counters of a card's queues.
fn counters_of(card: &Net) -> Vec<DeviceCounters> {
    let of_card = DeviceCounters {
        device: "network card",
        name: card.config().mac.to_string(),
        ..DeviceCounters::default()
    };
    if card.has_engine() {
        let note = Some("its queues are the host's kernel's, which does not count");
        return vec![DeviceCounters { note, ..of_card }];
    }
    let of_queue = |(index, queue): (usize, Totals)| {
        let way = if index.is_multiple_of(2) { "receiveq" } else { "transmitq" };
        let Totals { packets, bytes, kicks, interrupts, drops } = queue;
        DeviceCounters {
            queue: Some(format!("{way}{}", (index / 2).saturating_add(1))),
            counters: vec![
                ("packets", packets),
                ("bytes", bytes),
                ("kicks", kicks),
                ("interrupts", interrupts),
                ("drops", drops),
            ],
            ..of_card.clone()
        }
    };
    card.counters().queues().enumerate().map(of_queue).collect()
}
