//! Breakpoints, watchpoints and single steps, as a layer around a vCPU.
//!
//! Where the hypervisor can stop at addresses by itself ([`DebugCaps`]) it is asked to. Elsewhere
//! the guest is executed one instruction at a time and looked at before each: exact, and thousands
//! of times slower. Either way the guest cannot tell, except by its clock and by RFLAGS.TF in flags
//! that it pushes while it is stepped.

use nerite_arch::Regs;
use nerite_hypervisor::{
    Access, DEBUG_REGISTERS, DebugCaps, DebugCause, DebugPlan, DebugPoint, DebugStop, Debugger,
    Entry, Error, Exit, GuestDebug, Layer, OperandDecoder, PointKind, Vcpu, WatchKind, Watchpoint,
};

/// A vCPU that can be debugged. While there is nothing to stop at, it runs as without this.
#[derive(Debug)]
pub struct Debugged {
    inner: Box<dyn Vcpu>,
    caps: DebugCaps,
    operands: Box<dyn OperandDecoder>,
    plan: DebugPlan,
    /// `true` if the last exit is an access that waits for its answer.
    pending: bool,
    /// Debugging that was set last.
    debug: GuestDebug,
    stop: Option<DebugStop>,
    accesses: Vec<Access>,
}

/// `true` if an exit leaves its instruction half done.
pub(crate) const fn is_access(exit: &Exit) -> bool {
    matches!(
        exit,
        Exit::PortIn { .. }
            | Exit::PortOut { .. }
            | Exit::MmioRead { .. }
            | Exit::MmioWrite { .. }
            | Exit::Hypercall { .. }
            | Exit::MsrRead { .. }
            | Exit::MsrWrite { .. }
    )
}

impl Debugged {
    /// Makes `inner` one that can be debugged.
    pub fn new(inner: Box<dyn Vcpu>, caps: DebugCaps, operands: Box<dyn OperandDecoder>) -> Self {
        Self {
            inner,
            caps,
            operands,
            plan: DebugPlan::default(),
            pending: false,
            debug: GuestDebug::default(),
            stop: None,
            accesses: Vec::new(),
        }
    }

    /// Returns `true` if the hypervisor can follow the plan.
    fn is_handled_by_hypervisor(&self) -> bool {
        let addresses = self.plan.breakpoints.len().saturating_add(self.plan.watchpoints.len());
        addresses == 0
            || (self.caps.hardware
                && addresses <= DEBUG_REGISTERS
                && self.plan.watchpoints.iter().all(has_register_shape))
    }

    fn set_guest_debug(&mut self, wanted: GuestDebug) -> Result<(), Error> {
        if self.debug != wanted {
            set_guest_debug(&mut *self.inner, &wanted)?;
            self.debug = wanted;
        }
        Ok(())
    }

    fn stopped(&mut self, stop: DebugStop, rip: u64) -> Exit {
        self.stop = Some(stop);
        Exit::Debug { rip, cause: DebugCause::TRAP }
    }

    fn note(&mut self, exit: Exit) -> Exit {
        self.pending = is_access(&exit);
        exit
    }

    /// Runs with the hypervisor watching, if there is anything to watch.
    fn run_by_hypervisor(&mut self, mut entry: Entry) -> Result<Exit, Error> {
        if self.plan.step && self.pending {
            return self.finish_access(entry);
        }
        if self.plan.is_active() || self.debug != GuestDebug::default() {
            let mut wanted = points(&self.plan);
            wanted.single_step = self.plan.step;
            wanted.block_interrupts = self.plan.step;
            wanted.software = self.plan.software;
            // A step that was armed last time has to be armed again.
            if wanted.single_step {
                self.debug = GuestDebug::default();
            }
            self.set_guest_debug(wanted)?;
        }
        loop {
            let exit = self.inner.run(entry)?;
            let Exit::Debug { rip, cause } = exit else { return Ok(self.note(exit)) };
            self.pending = false;
            if let Some(stop) = self.reason(cause) {
                return Ok(self.stopped(stop, rip));
            }
            // Left over from when the guest was stepped: flags that it pushed then have the trap
            // flag.
            let mut regs = self.inner.regs()?;
            regs.rflags &= !Regs::RFLAGS_TF;
            self.inner.set_regs(&regs)?;
            entry = Entry::Resume;
        }
    }

    /// Cause of a stop; `None` if the plan has none.
    fn reason(&self, cause: DebugCause) -> Option<DebugStop> {
        let DebugCause::Trap { points, .. } = cause else { return Some(DebugStop::Breakpoint) };
        let hit = (0..DEBUG_REGISTERS).find(|point| points >> point & 1 != 0);
        match hit.map(|point| point.checked_sub(self.plan.breakpoints.len())) {
            Some(None) => Some(DebugStop::Breakpoint),
            Some(Some(watch)) => self.plan.watchpoints.get(watch).copied().map(DebugStop::Watch),
            None => self.plan.step.then_some(DebugStop::Step),
        }
    }

    /// Completes an access that was stopped in, which is the one instruction of a step.
    fn finish_access(&mut self, entry: Entry) -> Result<Exit, Error> {
        match self.inner.complete(entry)? {
            None | Some(Exit::Debug { .. }) => {
                self.pending = false;
                let rip = self.inner.regs()?.rip;
                Ok(self.stopped(DebugStop::Step, rip))
            }
            Some(exit) => Ok(self.note(exit)),
        }
    }

    /// Runs one instruction at a time, and looks before each.
    fn run_stepping(&mut self, mut entry: Entry) -> Result<Exit, Error> {
        loop {
            if self.pending {
                match self.finish_access(std::mem::take(&mut entry))? {
                    Exit::Debug { .. } if !self.plan.step => self.stop = None,
                    exit => return Ok(exit),
                }
            }
            let regs = self.inner.regs()?;
            if self.plan.breakpoints.contains(&regs.rip) {
                return Ok(self.stopped(DebugStop::Breakpoint, regs.rip));
            }
            self.accesses.clear();
            if !self.plan.watchpoints.is_empty() {
                self.operands.accesses(&mut *self.inner, &regs, &mut self.accesses)?;
            }
            // The guest can have cleared the trap flag: it is set anew for each step.
            self.debug = GuestDebug::default();
            let block_interrupts = self.plan.step;
            self.set_guest_debug(GuestDebug {
                single_step: true,
                block_interrupts,
                trap: true,
                ..GuestDebug::default()
            })?;
            let exit = self.inner.run(Entry::Resume)?;
            let Exit::Debug { rip, .. } = exit else { return Ok(self.note(exit)) };
            if let Some(watchpoint) = self.watched() {
                return Ok(self.stopped(DebugStop::Watch(watchpoint), rip));
            }
            if self.plan.step {
                return Ok(self.stopped(DebugStop::Step, rip));
            }
        }
    }

    /// The watchpoint that the last instruction has hit.
    fn watched(&self) -> Option<Watchpoint> {
        let hits = |point: &&Watchpoint| self.accesses.iter().any(|access| hits(point, access));
        self.plan.watchpoints.iter().find(hits).copied()
    }
}

fn hits(point: &Watchpoint, access: &Access) -> bool {
    let wanted = match point.kind {
        WatchKind::Write => access.writes,
        WatchKind::Read => access.reads,
        WatchKind::Access => true,
    };
    let starts_before_end =
        |start: u64, other: u64, length: u64| start.wrapping_sub(other) < length;
    wanted
        && (starts_before_end(access.address, point.address, point.length)
            || starts_before_end(point.address, access.address, access.length))
}

/// Returns `true` if a debug register can watch this: 1, 2, 4 or 8 bytes, aligned, and not reads
/// alone (there is no such kind).
fn has_register_shape(point: &Watchpoint) -> bool {
    matches!(point.length, 1 | 2 | 4 | 8)
        && point.address.is_multiple_of(point.length)
        && point.kind != WatchKind::Read
}

/// Points of a plan that the processor can keep: breakpoints first, then watchpoints.
fn points(plan: &DebugPlan) -> GuestDebug {
    let watch = |point: &Watchpoint| {
        let length = u8::try_from(point.length).unwrap_or(1);
        let kind = match point.kind {
            WatchKind::Write => PointKind::Write { length },
            WatchKind::Read | WatchKind::Access => PointKind::Access { length },
        };
        DebugPoint { address: point.address, kind }
    };
    let execute = |address: &u64| DebugPoint { address: *address, kind: PointKind::Execute };
    let wanted = plan.breakpoints.iter().map(execute).chain(plan.watchpoints.iter().map(watch));
    let mut debug = GuestDebug { trap: true, ..GuestDebug::default() };
    for (point, wanted) in debug.points.iter_mut().zip(wanted) {
        *point = Some(wanted);
    }
    debug
}

/// Sets what ends the next steps of `vcpu`.
pub(crate) fn set_guest_debug(vcpu: &mut dyn Vcpu, debug: &GuestDebug) -> Result<(), Error> {
    let unsupported = Error::Unsupported { index: vcpu.index(), operation: "debugging" };
    vcpu.debug().ok_or(unsupported)?.set_guest_debug(debug)
}

impl Layer for Debugged {
    fn inner(&self) -> &dyn Vcpu {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.stop = None;
        if self.is_handled_by_hypervisor() {
            self.run_by_hypervisor(entry)
        } else {
            self.run_stepping(entry)
        }
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let exit = self.inner.complete(entry)?;
        self.pending = exit.as_ref().is_some_and(is_access);
        Ok(exit)
    }

    fn debugger_layer(&mut self) -> Option<&mut dyn Debugger> {
        Some(self)
    }
}

impl Debugger for Debugged {
    fn set_debug_plan(&mut self, plan: &DebugPlan) -> Result<(), Error> {
        self.plan = plan.clone();
        Ok(())
    }

    fn take_debug_stop(&mut self) -> Option<DebugStop> {
        self.stop.take()
    }
}

#[cfg(test)]
#[path = "debug_test.rs"]
pub(crate) mod tests;
