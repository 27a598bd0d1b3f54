//! A moment of a guest's run at which it is handed over or its instructions begin to be counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_hypervisor::InstructionBudget;
use nerite_loader::Symbols;
use nerite_vcpu::DebugPlan;

use crate::config::{Accelerator, Config, Place, SwitchAt};
use crate::debug::DebugEvents;
use crate::functions::FunctionCounters;
use crate::{Error, Handle};

/// Actions that are due at a moment, and the debugging plan that notices it.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    /// vCPUs that have reached it, which are held. A debugger takes no part.
    pub(crate) events: Arc<DebugEvents>,
    /// Guest-virtual address of the instruction, if that is the moment.
    pub(crate) address: Option<u64>,
    /// Instructions that are left until then, if that is the moment.
    pub(crate) budget: Option<InstructionBudget>,
    /// Time that is left until then, if that is the moment.
    time: Option<Duration>,
    /// `true` if the guest is handed over.
    switches: bool,
    /// `true` if counting begins.
    counts: bool,
}

impl Moment {
    /// The moment that `config` names; `offset` is how much higher the image lies than linked.
    ///
    /// # Errors
    /// Fails if the image has no such function, or the host has no descriptor left.
    pub(crate) fn of(
        config: &Config,
        symbols: Option<&Symbols>,
        offset: u64,
    ) -> Result<Option<Self>, Error> {
        let observe = &config.observe;
        let place = match (&observe.switch_at, &observe.count_from) {
            (None, None) => return Ok(None),
            (Some(SwitchAt::Place(place)), _) | (_, Some(place)) => Some(place),
            _ => None,
        };
        let find = |place: &Place| match place {
            Place::Address(address) => Ok(*address),
            Place::Function(name) => symbols
                .and_then(|symbols| symbols.address_of(name))
                .ok_or_else(|| Error::NoFunction { name: name.clone() }),
        };
        let linked = place.map(find).transpose()?;
        let events = DebugEvents::new()?;
        events.set_attached(true);
        let (budget, time) = match observe.switch_at {
            Some(SwitchAt::Instructions(count)) => (Some(InstructionBudget::new(count)), None),
            Some(SwitchAt::Time(time)) => (None, Some(time)),
            _ => (None, None),
        };
        Ok(Some(Self {
            events: Arc::new(events),
            address: linked.map(|address| address.wrapping_add(offset)),
            budget,
            time,
            // What is counted is executed in software.
            switches: observe.switch_at.is_some()
                || config.accelerator == Accelerator::KvmAndSoftware,
            counts: observe.count_from.is_some(),
        }))
    }

    /// The time at which it comes, if it is one of time, for a guest that starts now.
    pub(crate) fn due(&self) -> Option<Instant> {
        Instant::now().checked_add(self.time?)
    }

    /// Plan of the layer that stops vCPUs at the address.
    pub(crate) fn plan(&self) -> Option<DebugPlan> {
        let breakpoints = Arc::from([self.address?]);
        Some(DebugPlan { breakpoints, ..DebugPlan::default() })
    }

    /// Does what is due. vCPUs that are held for it go on.
    pub(crate) fn come(&self, handle: &Handle, functions: Option<&Arc<FunctionCounters>>) {
        let pause = handle.pause();
        self.events.set_attached(false);
        if self.switches
            && let Err(error) = handle.switch_to_other()
        {
            log::warn!("the guest stays with {}: {error}", handle.accelerator());
        }
        if let Some(budget) = &self.budget {
            // All vCPUs are paused: none has a lease.
            budget.set(u64::MAX);
        }
        for index in 0..handle.vcpu_count() {
            let counters = functions.filter(|_| self.counts).cloned();
            // One that has stopped has nothing to be set.
            let _ = handle.ask(index, move |vcpu, _| {
                if let (Some(counters), Some(own)) = (counters, vcpu.instruction_counter()) {
                    counters.begin(index, own.instructions());
                    own.count_executions(counters.executions());
                }
                let debugger = vcpu.debugger();
                let cleared =
                    debugger.map(|debugger| debugger.set_debug_plan(&DebugPlan::default()));
                if let Some(Err(error)) = cleared {
                    log::error!("vCPU {index}: {error}");
                }
            });
        }
        while let Some(event) = self.events.take() {
            if let Ok(control) = handle.control(event.vcpu) {
                control.release();
            }
        }
        drop(pause);
    }
}
