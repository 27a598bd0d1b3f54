//! The machine as a debugger handles it: all vCPUs held, or let go on to what is to be stopped at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use nerite_arch::SpecialRegs;
use nerite_machine::debug::{self, DebugEvent, DebugEvents, DebugReason};
use nerite_machine::{Handle, Held, RunState};
use nerite_vcpu::{DebugPlan, DebugStop, Watchpoint};

use crate::registers::State;

/// How long a vCPU may take to be held before it counts as waiting for the host.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a vCPU is to do when the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Go on.
    Continue,
    /// One instruction. All that are not told to do one wait meanwhile.
    Step,
}

/// What vCPUs do that were not told anything when the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Go on, too.
    GoOn,
    /// Wait.
    Wait,
}

/// A machine and what the debugger has done to it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) handle: Handle,
    pub(crate) events: Arc<DebugEvents>,
    /// Which vCPUs are held by us, each once.
    held: Vec<bool>,
    pub(crate) actions: Vec<Option<Action>>,
    pub(crate) others: Others,
    /// Software breakpoints, then hardware ones: the guest's processor makes no difference.
    pub(crate) software: Vec<u64>,
    pub(crate) hardware: Vec<u64>,
    pub(crate) watchpoints: Vec<Watchpoint>,
    /// What has happened and was not told yet.
    pending: VecDeque<DebugEvent>,
    /// Whether it was said that breakpoints are kept by stepping.
    has_said: bool,
    /// The segments and control registers of held vCPUs, as far as they were asked for.
    cached: Vec<Option<SpecialRegs>>,
}

impl Guest {
    /// The machine behind `handle`, if it can be debugged. `is_held`: all its vCPUs are, once each.
    pub(crate) fn new(handle: Handle, is_held: bool) -> Option<Self> {
        let events = handle.debug_events()?.clone();
        let count = handle.vcpu_count();
        Some(Self {
            handle,
            events,
            held: vec![is_held; count],
            actions: vec![None; count],
            others: Others::GoOn,
            software: Vec::new(),
            hardware: Vec::new(),
            watchpoints: Vec::new(),
            pending: VecDeque::new(),
            has_said: false,
            cached: vec![None; count],
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }

    /// Holds all vCPUs. What they stopped at at the same time is kept for later.
    pub(crate) fn hold_all(&mut self) {
        for (index, held) in self.held.iter_mut().enumerate() {
            if !std::mem::replace(held, true)
                && let Ok(control) = self.handle.control(index)
            {
                control.hold();
            }
        }
        for index in 0..self.count() {
            if let Ok(control) = self.handle.control(index)
                && control.wait_held(PATIENCE) == Held::Busy
            {
                log::warn!("vCPU {index} waits for the host and cannot be looked at now");
            }
        }
        while let Some(event) = self.events.take() {
            // It holds itself, too.
            self.release_hold(event.vcpu);
            self.keep(event);
        }
    }

    fn release_hold(&self, vcpu: usize) {
        if let Ok(control) = self.handle.control(vcpu) {
            control.release();
        }
    }

    /// Keeps what would not happen again: at a breakpoint a vCPU stops anew when it goes on.
    fn keep(&mut self, event: DebugEvent) {
        if matches!(event.why, DebugReason::Stop(DebugStop::Watch(_)) | DebugReason::Crash(_)) {
            self.pending.push_back(event);
        }
    }

    /// What there is to tell, if anything has happened. All vCPUs are held after that.
    pub(crate) fn take_event(&mut self) -> Option<DebugEvent> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        let event = self.events.take()?;
        // It holds itself: that is our hold.
        if let Some(held) = self.held.get_mut(event.vcpu)
            && std::mem::replace(held, true)
        {
            self.release_hold(event.vcpu);
        }
        self.hold_all();
        Some(event)
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether vCPUs that run are stepped.
    pub(crate) fn is_stepped(&self) -> bool {
        let addresses = self.addresses().len().saturating_add(self.watchpoints.len());
        let registers = if self.handle.native_debug().hardware { nerite_vcpu::DEBUG_REGISTERS } else { 0 };
        addresses > registers
    }

    fn addresses(&self) -> Vec<u64> {
        self.software.iter().chain(&self.hardware).copied().collect()
    }

    /// Lets the vCPUs go on as `actions` says.
    pub(crate) fn go_on(&mut self) {
        self.cached.fill(None);
        if self.has_pending() {
            return;
        }
        if self.is_stepped() && !std::mem::replace(&mut self.has_said, true) {
            log::warn!(
                "breakpoints and watchpoints are kept by executing one instruction at a time, because this host's KVM does \
                 not stop at them (or at so many): the guest is slow, and interrupt handlers run to their end unseen"
            );
        }
        let steps = self.actions.contains(&Some(Action::Step));
        let plan = DebugPlan {
            breakpoints: self.addresses().into(),
            watchpoints: self.watchpoints.as_slice().into(),
            ..DebugPlan::default()
        };
        for index in 0..self.count() {
            let action = self.actions.get(index).copied().flatten();
            let step = action == Some(Action::Step);
            if (steps && !step) || (action.is_none() && self.others == Others::Wait) {
                continue;
            }
            self.release(index, DebugPlan { step, ..plan.clone() });
        }
    }

    /// Lets one vCPU go on.
    fn release(&mut self, index: usize, plan: DebugPlan) {
        let (Ok(control), Some(held)) = (self.handle.control(index), self.held.get_mut(index)) else {
            return;
        };
        if std::mem::replace(held, false) {
            // It is done before the vCPU goes on, also if that waits for the host now.
            control.post(Box::new(move |vcpu, _| {
                if let Err(error) = vcpu.set_debug_plan(&plan) {
                    log::error!("{error}");
                }
            }));
            control.release();
        }
    }

    /// Wakes vCPUs that are stepped, so that one which has got away is stepped again: an interrupt clears the trap flag.
    pub(crate) fn nudge(&self) {
        for index in 0..self.count() {
            if let Ok(control) = self.handle.control(index) {
                control.post(Box::new(|_, _| {}));
            }
        }
    }

    /// Forgets all there is to stop at, and lets everything go on.
    pub(crate) fn let_go(&mut self) {
        self.hold_all();
        self.software.clear();
        self.hardware.clear();
        self.watchpoints.clear();
        self.pending.clear();
        self.cached.fill(None);
        self.events.set_attached(false);
        for index in 0..self.count() {
            self.release(index, DebugPlan::default());
        }
    }

    /// All registers of a held vCPU.
    pub(crate) fn state(&self, index: usize) -> Result<State, String> {
        let state = self.handle.ask(index, |vcpu, _| {
            let (regs, special) = (vcpu.regs()?, vcpu.special_regs()?);
            Ok::<_, nerite_vcpu::Error>(State { regs, special, fpu: vcpu.fpu()? })
        });
        match state {
            Ok(Ok(state)) => Ok(state),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sets the registers of a held vCPU, those that are others than now.
    pub(crate) fn set_state(&mut self, index: usize, state: &State) -> Result<(), String> {
        let before = self.state(index)?;
        let state = state.clone();
        if let Some(cached) = self.cached.get_mut(index) {
            *cached = None;
        }
        let set = self.handle.ask(index, move |vcpu, held| {
            if held != RunState::Paused {
                return Err(
                    "an access of this vCPU is being answered: its registers cannot be set now".to_owned()
                );
            }
            let done = (|| {
                if state.regs != before.regs {
                    vcpu.set_regs(&state.regs)?;
                }
                if state.special != before.special {
                    vcpu.set_special_regs(&state.special)?;
                }
                if state.fpu != before.fpu { vcpu.set_fpu(&state.fpu) } else { Ok(()) }
            })();
            done.map_err(|error: nerite_vcpu::Error| error.to_string())
        });
        set.map_err(|error| error.to_string())?
    }

    /// The segments and control registers of a held vCPU, by which its memory is found.
    pub(crate) fn special(&mut self, index: usize) -> Result<SpecialRegs, String> {
        if let Some(special) = self.cached.get(index).copied().flatten() {
            return Ok(special);
        }
        let special = self.handle.ask(index, |vcpu, _| vcpu.special_regs());
        let special = special.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if let Some(cached) = self.cached.get_mut(index) {
            *cached = Some(special);
        }
        Ok(special)
    }

    pub(crate) fn read(&mut self, index: usize, address: u64, data: &mut [u8]) -> usize {
        let Ok(special) = self.special(index) else { return 0 };
        debug::read_virtual(self.handle.ram(), &special, address, data)
    }

    pub(crate) fn write(&mut self, index: usize, address: u64, data: &[u8]) -> usize {
        let Ok(special) = self.special(index) else { return 0 };
        debug::write_virtual(self.handle.ram(), &special, address, data)
    }
}
