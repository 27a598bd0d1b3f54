//! Interrupt controllers and doorbells of both hypervisors.

use std::fmt;
use std::sync::Arc;

use nerite_event::Event;
use nerite_hypervisor::{Doorbells, Error, InterruptController, MessageId};

use crate::pair::{Pair, Side};
use crate::switch::Switch;

/// The interrupt controllers of the hypervisor that has the guest.
///
/// Devices keep their connections: each event is connected to a call that looks for the hypervisor.
/// Edges and messages are passed on by calls, which are done when they return. A descriptor that a
/// kernel reads might be read after the state of the chips.
pub(crate) struct Controllers {
    pub(crate) controllers: Arc<Pair<Arc<dyn InterruptController>>>,
    pub(crate) switch: Arc<Switch>,
}

impl Controllers {
    /// Connects `event` to a call of the active controller.
    fn connect(
        &self,
        event: &Event,
        call: impl Fn(&dyn InterruptController) -> Result<(), Error> + Send + Sync + 'static,
    ) {
        let (controllers, switch) = (self.controllers.clone(), self.switch.clone());
        event.connect(Arc::new(move || {
            let (side, _guard) = switch.enter();
            if let Err(error) = call(&**controllers.get(side)) {
                log::warn!("an interrupt of a device is lost: {error}");
            }
        }));
    }
}

impl InterruptController for Controllers {
    fn lines(&self) -> u32 {
        self.controllers.first.lines().min(self.controllers.second.lines())
    }

    fn set_line(&self, line: u32, level: bool) -> Result<(), Error> {
        let (side, _guard) = self.switch.enter();
        self.controllers.get(side).set_line(line, level)?;
        self.switch.note_line(line, level);
        Ok(())
    }

    fn send_message(&self, address: u64, data: u32) -> Result<bool, Error> {
        let (side, _guard) = self.switch.enter();
        self.controllers.get(side).send_message(address, data)
    }

    fn connect_edge(&self, line: u32, event: &Event) -> Result<(), Error> {
        self.connect(event, move |controller| {
            controller.set_line(line, true)?;
            controller.set_line(line, false)
        });
        Ok(())
    }

    /// Each hypervisor has an event of its own to be raised by, and both share the one that says
    /// that the line is lowered.
    fn connect_level(&self, line: u32, raise: &Event, lowered: &Event) -> Result<(), Error> {
        let raises = Pair::try_new(|side: Side| {
            let operation = "creating an eventfd";
            let own = Event::new().map_err(|source| Error::Call { operation, source })?;
            self.controllers.get(side).connect_level(line, &own, lowered)?;
            Ok::<_, Error>(own)
        })?;
        self.switch.add_level(lowered);
        self.connect_raise(raise, raises);
        Ok(())
    }

    /// Slots are counted by the hypervisors, though messages are sent without them.
    fn reserve_message(&self) -> Option<MessageId> {
        let first = self.controllers.first.reserve_message()?;
        self.controllers.second.reserve_message().map(|_| first)
    }

    fn connect_message(
        &self,
        _id: MessageId,
        event: &Event,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
        self.connect(event, move |controller| controller.send_message(address, data).map(drop));
        Ok(())
    }

    fn disconnect_message(&self, _id: MessageId, event: &Event) -> Result<(), Error> {
        event.disconnect();
        Ok(())
    }
}

impl Controllers {
    fn connect_raise(&self, raise: &Event, raises: Pair<Event>) {
        let switch = self.switch.clone();
        raise.connect(Arc::new(move || {
            let (side, _guard) = switch.enter();
            raises.get(side).signal();
        }));
    }
}

impl fmt::Debug for Controllers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controllers")
            .field("controllers", &self.controllers)
            .finish_non_exhaustive()
    }
}

/// Doorbells, which both hypervisors have.
#[derive(Debug)]
pub(crate) struct Bells(pub(crate) Pair<Arc<dyn Doorbells>>);

impl Doorbells for Bells {
    fn attach(&self, address: u64, event: &Event) -> Result<(), Error> {
        self.0.first.attach(address, event)?;
        self.0.second.attach(address, event).inspect_err(|_| {
            // The error is the one of the second.
            let _ = self.0.first.detach(address, event);
        })
    }

    fn detach(&self, address: u64, event: &Event) -> Result<(), Error> {
        let first = self.0.first.detach(address, event);
        self.0.second.detach(address, event)?;
        first
    }
}
