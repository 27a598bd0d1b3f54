//! The machine as a debugger handles it: all vCPUs held, or running to the next stop.

use std::collections::VecDeque;

use nerite_arch::SpecialRegs;
use nerite_log_budget::Causes;
use nerite_service::{DebugEvent, DebugReason, DebugTarget};
use nerite_vcpu::{DebugPlan, DebugStop, Held, RunState, Vcpu, Watchpoint};

use crate::registers::State;

/// Action of a vCPU when the guest continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Resume.
    Continue,
    /// One instruction. All that are not told to do one wait meanwhile.
    Step,
}

/// Action of vCPUs without an [`Action`] of their own when the guest continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// Resume, too.
    GoOn,
    /// Wait.
    Wait,
}

/// A machine and what the debugger has done to it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) machine: Box<dyn DebugTarget>,
    /// Which vCPUs are held by us, each once.
    held: Vec<bool>,
    pub(crate) actions: Vec<Option<Action>>,
    pub(crate) others: Others,
    /// Software breakpoints, then hardware ones: the guest's processor makes no difference.
    pub(crate) software: Vec<u64>,
    pub(crate) hardware: Vec<u64>,
    pub(crate) watchpoints: Vec<Watchpoint>,
    /// Events that were not reported yet.
    pending: VecDeque<DebugEvent>,
    /// `true` once the warning about single-stepping has been logged.
    has_said: bool,
    /// The segments and control registers of held vCPUs, as far as they were asked for.
    cached: Vec<Option<SpecialRegs>>,
}

impl Guest {
    /// This machine. `is_held`: all its vCPUs are, once each.
    pub(crate) fn new(machine: Box<dyn DebugTarget>, is_held: bool) -> Self {
        let count = machine.vcpu_count();
        Self {
            machine,
            held: vec![is_held; count],
            actions: vec![None; count],
            others: Others::GoOn,
            software: Vec::new(),
            hardware: Vec::new(),
            watchpoints: Vec::new(),
            pending: VecDeque::new(),
            has_said: false,
            cached: vec![None; count],
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.held.len()
    }

    /// Holds all vCPUs. What they stopped at at the same time is kept for later.
    pub(crate) fn hold_all(&mut self) {
        for (index, held) in self.held.iter_mut().enumerate() {
            if !std::mem::replace(held, true) {
                self.machine.hold(index);
            }
        }
        for index in 0..self.count() {
            if self.machine.wait_held(index) == Held::Busy {
                log::warn!("vCPU {index} waits for the host and cannot be looked at now");
            }
        }
        while let Some(event) = self.machine.take_event() {
            // It holds itself, too.
            self.machine.release(event.vcpu);
            self.keep(event);
        }
    }

    /// Keeps what would not happen again: at a breakpoint a vCPU stops anew when it resumes.
    fn keep(&mut self, event: DebugEvent) {
        if matches!(event.why, DebugReason::Stop(DebugStop::Watch(_)) | DebugReason::Crash(_)) {
            self.pending.push_back(event);
        }
    }

    /// Next event to report, if there is one. All vCPUs are held after that.
    pub(crate) fn take_event(&mut self) -> Option<DebugEvent> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        let event = self.machine.take_event()?;
        // It holds itself: that is our hold.
        if let Some(held) = self.held.get_mut(event.vcpu)
            && std::mem::replace(held, true)
        {
            self.machine.release(event.vcpu);
        }
        self.hold_all();
        Some(event)
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns `true` if running vCPUs are single-stepped.
    pub(crate) fn is_stepped(&self) -> bool {
        let addresses = self.addresses().len().saturating_add(self.watchpoints.len());
        addresses > self.machine.debug_registers()
    }

    fn addresses(&self) -> Vec<u64> {
        self.software.iter().chain(&self.hardware).copied().collect()
    }

    /// Resumes the vCPUs as `actions` says.
    pub(crate) fn go_on(&mut self) {
        self.cached.fill(None);
        if self.has_pending() {
            return;
        }
        let is_stepped = self.is_stepped();
        let is_cheap = self.machine.prepare_steps(is_stepped);
        if is_stepped && !is_cheap && !std::mem::replace(&mut self.has_said, true) {
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

    /// Resumes one vCPU.
    fn release(&mut self, index: usize, plan: DebugPlan) {
        let Some(held) = self.held.get_mut(index) else { return };
        if std::mem::replace(held, false) {
            // It is done before the vCPU resumes, also if that waits for the host now.
            let job = move |vcpu: &mut dyn Vcpu, _| {
                let set = vcpu.debugger().map(|debugger| debugger.set_debug_plan(&plan));
                if let Some(Err(error)) = set {
                    log::error!("{}", Causes(&error));
                }
            };
            self.machine.post(index, Box::new(job));
            self.machine.release(index);
        }
    }

    /// Wakes vCPUs that are stepped, so that one which has got away is stepped again: an interrupt
    /// clears the trap flag.
    pub(crate) fn nudge(&self) {
        for index in 0..self.count() {
            self.machine.post(index, Box::new(|_, _| {}));
        }
    }

    /// Clears all breakpoints and watchpoints, and resumes all vCPUs.
    pub(crate) fn let_go(&mut self) {
        self.hold_all();
        self.software.clear();
        self.hardware.clear();
        self.watchpoints.clear();
        self.pending.clear();
        self.cached.fill(None);
        self.machine.set_attached(false);
        self.machine.prepare_steps(false);
        for index in 0..self.count() {
            self.release(index, DebugPlan::default());
        }
    }

    /// Has a question answered by a vCPU.
    fn ask<T: Send + 'static>(
        &self,
        index: usize,
        question: impl FnOnce(&mut dyn Vcpu, RunState) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        nerite_service::query(&*self.machine, index, question)
            .map_err(|error| Causes(&error).to_string())?
    }

    /// All registers of a held vCPU.
    pub(crate) fn state(&self, index: usize) -> Result<State, String> {
        self.ask(index, |vcpu, _| {
            let mut state = || {
                let (regs, special) = (vcpu.regs()?, vcpu.special_regs()?);
                Ok::<_, nerite_vcpu::Error>(State { regs, special, fpu: vcpu.fpu()? })
            };
            state().map_err(|error| Causes(&error).to_string())
        })
    }

    /// Sets the registers of a held vCPU, those that are others than now.
    pub(crate) fn set_state(&mut self, index: usize, state: &State) -> Result<(), String> {
        let before = self.state(index)?;
        let state = state.clone();
        if let Some(cached) = self.cached.get_mut(index) {
            *cached = None;
        }
        self.ask(index, move |vcpu, held| {
            if held != RunState::Paused {
                return Err(
                    "an access of this vCPU is being answered: its registers cannot be set now"
                        .to_owned(),
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
            done.map_err(|error: nerite_vcpu::Error| Causes(&error).to_string())
        })
    }

    /// The segments and control registers of a held vCPU, by which its memory is found.
    pub(crate) fn special(&mut self, index: usize) -> Result<SpecialRegs, String> {
        if let Some(special) = self.cached.get(index).copied().flatten() {
            return Ok(special);
        }
        let special = self.ask(index, |vcpu, _| {
            vcpu.special_regs().map_err(|error| Causes(&error).to_string())
        })?;
        if let Some(cached) = self.cached.get_mut(index) {
            *cached = Some(special);
        }
        Ok(special)
    }

    pub(crate) fn read(&mut self, index: usize, address: u64, data: &mut [u8]) -> usize {
        let Ok(special) = self.special(index) else { return 0 };
        nerite_inspect::read_virtual(self.machine.ram(), &special, address, data)
    }

    pub(crate) fn write(&mut self, index: usize, address: u64, data: &[u8]) -> usize {
        let Ok(special) = self.special(index) else { return 0 };
        nerite_inspect::write_virtual(self.machine.ram(), &special, address, data)
    }
}
