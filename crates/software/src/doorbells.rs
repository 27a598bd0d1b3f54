//! Writes that signal events.

use std::collections::HashMap;
use std::io;

use nerite_event::Event;
use nerite_hypervisor::{Doorbells, Error};
use parking_lot::RwLock;

/// The doorbells of a VM, by guest-physical address.
#[derive(Debug, Default)]
pub(crate) struct Bells(RwLock<HashMap<u64, Event>>);

impl Bells {
    /// Rings the doorbell at `address`. Returns `false` if there is none.
    pub(crate) fn ring(&self, address: u64) -> bool {
        let Some(event) = self.0.read().get(&address).cloned() else { return false };
        event.signal();
        true
    }
}

impl Doorbells for Bells {
    fn attach(&self, address: u64, event: &Event) -> Result<(), Error> {
        let mut bells = self.0.write();
        if bells.contains_key(&address) {
            return Err(failed("attaching a doorbell", io::ErrorKind::AlreadyExists));
        }
        bells.insert(address, event.clone());
        Ok(())
    }

    fn detach(&self, address: u64, _event: &Event) -> Result<(), Error> {
        let removed = self.0.write().remove(&address);
        removed.map(drop).ok_or_else(|| failed("detaching a doorbell", io::ErrorKind::NotFound))
    }
}

fn failed(operation: &'static str, kind: io::ErrorKind) -> Error {
    Error::Call { operation, source: kind.into() }
}
