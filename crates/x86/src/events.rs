//! Events between instructions (Intel SDM vol. 3, 6.9).

use crate::core::{Core, Run, Stop};
use crate::debug::SINGLE_STEP;
use crate::exception::{DB, Exception, NMI};
use crate::exit::Exit;
use crate::fault::Source;
use crate::flags::{IF, RF, TF};

/// Conditions of the next instruction.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step {
    /// A trap follows it.
    is_traced: bool,
    had_shadow: bool,
    had_ss_shadow: bool,
}

impl Core {
    /// Delivers what is due before the next instruction. `None` if nothing needs a look at single
    /// instructions any more.
    pub(crate) fn attend(&mut self) -> Run<Option<Step>> {
        self.is_alone = std::mem::take(&mut self.events.alone);
        if !self.accesses.is_empty() {
            // The instruction has begun.
            self.is_alone = true;
            return Ok(Some(self.step()));
        }
        if let Some(exception) = self.events.exception.take() {
            self.fault = exception;
            self.deliver_fault()?;
        }
        if self.events.debug != 0 && !self.events.ss_shadow {
            self.deliver_trap()?;
        }
        let is_ready = !self.events.shadow;
        if self.events.nmi && is_ready && !self.events.nmi_blocked {
            self.events.nmi = false;
            self.deliver_interrupt(NMI, Source::Hardware)?;
        }
        let takes_interrupts = is_ready && self.flags.control & IF != 0;
        if let Some(vector) = self.events.interrupt
            && takes_interrupts
            && u64::from(vector >> 4) > self.cr8
        {
            self.events.interrupt = None;
            self.deliver_interrupt(vector, Source::Hardware)?;
        }
        if self.events.window && self.can_interrupt() {
            self.events.window = false;
            self.exit = Exit::InterruptWindow;
            return Err(Stop::Exit);
        }
        let has_breakpoints = self.has_code_breakpoints();
        if has_breakpoints && self.flags.control & RF == 0 {
            let hit = self.code_breakpoints(self.linear_rip());
            if hit != 0 {
                self.events.debug |= hit;
                self.fault = Exception { vector: DB, error: None, is_non_canonical: false };
                // The handler returns to the instruction, which then has RF set.
                self.flags.control |= RF;
                self.deliver_fault()?;
            }
        }
        self.flags.control &= !RF;
        let waits = self.events.shadow || self.is_alone || self.flags.control & TF != 0;
        let is_single = waits || has_breakpoints || self.watches_data || self.events.debug != 0;
        self.attention = is_single;
        Ok(is_single.then(|| self.step()))
    }

    fn step(&self) -> Step {
        Step {
            is_traced: self.flags.control & TF != 0,
            had_shadow: self.events.shadow,
            had_ss_shadow: self.events.ss_shadow,
        }
    }

    /// `true` if an external interrupt would be delivered now.
    pub(crate) fn can_interrupt(&self) -> bool {
        self.flags.control & IF != 0
            && !self.events.shadow
            && self.events.interrupt.is_none()
            && self.accesses.is_empty()
    }

    /// Takes note of what a single instruction, which is complete, or a part of it, leaves behind.
    pub(crate) fn settle(&mut self, step: Step, has_trap: bool) {
        self.is_alone = false;
        self.accesses.clear();
        // A shadow covers one instruction, and a second one in a row none.
        if step.had_shadow {
            self.events.shadow = false;
        }
        if step.had_ss_shadow || !self.events.shadow {
            self.events.ss_shadow = false;
        }
        let is_entry = std::mem::take(&mut self.events.no_trap);
        if step.is_traced && has_trap && !is_entry {
            self.events.debug |= SINGLE_STEP;
        }
        self.attention = true;
    }

    /// Makes no trap follow the current instruction, if TF wants one. Called before it changes the
    /// flags.
    pub(crate) fn suppress_trap(&mut self) {
        // Without TF, `settle` does not see this instruction, but another one.
        self.events.no_trap = self.flags.control & TF != 0;
    }

    /// Delivers the debug trap of the last instruction.
    fn deliver_trap(&mut self) -> Run {
        self.fault = Exception { vector: DB, error: None, is_non_canonical: false };
        self.deliver_fault()
    }
}
