//! Identity of a restored guest.

use std::time::{Duration, SystemTime};

use nerite_platform::Identity;

use crate::config::{CardSpec, Clock, Config};
use crate::handle::Handle;
use crate::network::NetworkState;
use crate::snapshot::restore::Saved;
use crate::{Error, SnapshotError};

/// Settings of a restored guest in place of those it was saved with.
#[derive(Debug)]
pub(crate) struct RestoredIdentity {
    identity: Identity,
    /// Time of the guest's time-stamp counter, if that is a host's time.
    counter: Option<Duration>,
    /// State of the network cards, with the addresses that they get.
    pub(crate) network: NetworkState,
}

impl RestoredIdentity {
    /// Takes the settings that a restored guest gets anew out of `config`.
    pub(crate) fn take(config: &mut Config, saved: &Saved) -> Self {
        let guest = std::mem::take(&mut config.guest);
        let identity = Identity {
            app_args: (!guest.app_args.is_empty()).then_some(guest.app_args),
            env: guest.env,
            boot_time: None,
            generation: None,
        };
        let network = with_addresses(saved.state.network.clone(), &config.network);
        let counter = saved.state.vcpus.first().and_then(|vcpu| {
            let khz = u128::from(vcpu.tsc_khz?);
            let nanoseconds = u128::from(vcpu.tsc).checked_mul(1_000_000)?.checked_div(khz)?;
            Some(Duration::from_nanos(u64::try_from(nanoseconds).ok()?))
        });
        let counter = counter.filter(|_| config.cpus.clock == Clock::Host);
        Self { identity, counter, network }
    }

    /// The identity of a guest that goes on `now`.
    ///
    /// # Errors
    /// Fails if the host has no random number.
    pub(crate) fn at(&self, now: SystemTime, clock: Clock) -> Result<Identity, Error> {
        let boot_time = self.counter.and_then(|counter| now.checked_sub(counter));
        let generation = generation(clock)?;
        Ok(Identity { boot_time, generation, ..self.identity.clone() })
    }
}

/// Number of a machine's new generation; `None` if each run of the guest is to be the same.
///
/// # Errors
/// Fails if the host has no random number.
pub(crate) fn generation(clock: Clock) -> Result<Option<[u8; 16]>, Error> {
    if clock == Clock::Virtual {
        return Ok(None);
    }
    let mut id = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    rustix::rand::getrandom(&mut id, flags).map_err(Error::host("reading a random number"))?;
    Ok(Some(id))
}

/// The state of cards with the addresses that are given for some of them.
fn with_addresses(mut network: NetworkState, specs: &[CardSpec]) -> NetworkState {
    for (card, spec) in network.cards.iter_mut().zip(specs) {
        if let Some(mac) = spec.mac {
            card.device.mac = mac.0;
        }
    }
    network
}

/// A running guest cannot get another identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The machine cannot be paused now.
    #[error(transparent)]
    NotNow(#[from] SnapshotError),
    /// The guest has read its words, or there are too many. It goes on with those it has.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Handle {
    /// Gives the guest other arguments, variables or another time of day, if it has not read them
    /// yet. It is paused meanwhile.
    ///
    /// # Errors
    /// Fails if a vCPU waits for the host, or the guest cannot get them any more.
    pub fn renew(&self, identity: &Identity) -> Result<(), IdentityError> {
        let saver = &self.saver;
        let _one = saver.lock.lock();
        let _pause = self.pause_between_instructions()?;
        saver.platform.renew(identity).map_err(Error::from)?;
        saver.setup.lock().renew(identity);
        Ok(())
    }
}

#[cfg(test)]
#[path = "identity_test.rs"]
mod tests;
