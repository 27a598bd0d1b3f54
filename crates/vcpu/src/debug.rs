//! Breakpoints, watchpoints and single steps, as a layer around a vCPU.
//!
//! Where the engine can stop at addresses by itself ([`Native`]) it is asked to. Elsewhere the guest is executed one instruction at a
//! time and looked at before each: exact, and thousands of times slower. Either way the guest cannot tell, except by its clock
//! and by RFLAGS.TF in flags that it pushes while it is stepped.

use std::fmt;
use std::sync::Arc;

use nerite_arch::Regs;

use crate::{Entry, Error, Exit, Layer, Vcpu};

/// DR6.BS: a single step (Intel SDM vol. 3, 18.2.3).
pub const DR6_SINGLE_STEP: u64 = 1 << 14;
/// How many addresses the processor can watch (DR0 to DR3).
pub const DEBUG_REGISTERS: usize = 4;

/// Which accesses of memory a watchpoint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchKind {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Both.
    Access,
}

/// Memory at which to stop after an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Watchpoint {
    /// Guest-virtual address.
    pub address: u64,
    /// How many bytes.
    pub length: u64,
    /// Which accesses.
    pub kind: WatchKind,
}

/// What the debugger wants a vCPU to do when it goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DebugPlan {
    /// Stop after one instruction, and take no interrupt before it.
    pub step: bool,
    /// Guest-virtual addresses of instructions before which to stop.
    pub breakpoints: Arc<[u64]>,
    /// Memory at which to stop.
    pub watchpoints: Arc<[Watchpoint]>,
    /// There are `int3` in the guest's memory at which to stop; only with [`Native::software`].
    pub software: bool,
}

impl DebugPlan {
    /// Whether there is anything to stop at.
    pub fn is_active(&self) -> bool {
        self.step || self.software || !self.breakpoints.is_empty() || !self.watchpoints.is_empty()
    }
}

/// What the engine can do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Native {
    /// `int3` in the guest's memory ends a step with [`Exit::Debug`].
    pub software: bool,
    /// The four debug registers stop at addresses and at accesses of memory.
    pub hardware: bool,
}

/// Why the debugger has a vCPU back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugStop {
    /// The one instruction is done.
    Step,
    /// It is before an instruction at which to stop.
    Breakpoint,
    /// An instruction has accessed watched memory.
    Watch(Watchpoint),
    /// All instructions that the guest was given are executed; see [`crate::Limited`].
    Limit,
}

/// How an engine is to watch a guest. The address registers are as in DR0 to DR3 and DR7 (Intel SDM vol. 3, 18.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineDebug {
    /// End the step after one instruction.
    pub single_step: bool,
    /// Take no interrupt meanwhile.
    pub block_interrupts: bool,
    /// End the step at `int3`.
    pub software: bool,
    /// End the step at debug exceptions, also where nobody asked for them.
    pub trap: bool,
    /// Addresses.
    pub address: [u64; DEBUG_REGISTERS],
    /// What DR7 says of them.
    pub dr7: u64,
}

/// One access of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Guest-virtual address.
    pub address: u64,
    /// How many bytes.
    pub length: u64,
    /// Whether it writes.
    pub writes: bool,
    /// Whether it reads.
    pub reads: bool,
}

/// Finds out which memory an instruction is about to access.
pub trait Foresee: Send + fmt::Debug {
    /// Adds the accesses of the instruction at which `vcpu` is to `accesses`.
    ///
    /// # Errors
    /// If the engine fails. An instruction that cannot be read accesses nothing.
    fn foresee(&mut self, vcpu: &mut dyn Vcpu, regs: &Regs, accesses: &mut Vec<Access>) -> Result<(), Error>;

    /// Whether the instruction at `regs.rip` is a string instruction with a repeat prefix, which a step executes only an
    /// element of.
    ///
    /// # Errors
    /// If the engine fails.
    fn is_repeated(&mut self, vcpu: &mut dyn Vcpu, regs: &Regs) -> Result<bool, Error>;
}

/// A vCPU that can be debugged. While there is nothing to stop at, it runs as without this.
#[derive(Debug)]
pub struct Debugged<V> {
    inner: V,
    native: Native,
    foresee: Box<dyn Foresee>,
    plan: DebugPlan,
    /// Whether the last exit is an access that waits for its answer.
    pending: bool,
    /// What the engine was told last.
    engine: EngineDebug,
    stop: Option<DebugStop>,
    accesses: Vec<Access>,
}

/// Whether an exit leaves its instruction half done.
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

impl<V: Vcpu> Debugged<V> {
    /// Makes `inner` one that can be debugged.
    pub fn new(inner: V, native: Native, foresee: Box<dyn Foresee>) -> Self {
        Self {
            inner,
            native,
            foresee,
            plan: DebugPlan::default(),
            pending: false,
            engine: EngineDebug::default(),
            stop: None,
            accesses: Vec::new(),
        }
    }

    /// Whether the plan can be left to the engine.
    fn is_native(&self) -> bool {
        let addresses = self.plan.breakpoints.len().saturating_add(self.plan.watchpoints.len());
        addresses == 0
            || (self.native.hardware
                && addresses <= DEBUG_REGISTERS
                && self.plan.watchpoints.iter().all(has_register_shape))
    }

    fn tell_engine(&mut self, wanted: EngineDebug) -> Result<(), Error> {
        if self.engine != wanted {
            self.inner.set_engine_debug(&wanted)?;
            self.engine = wanted;
        }
        Ok(())
    }

    fn stopped(&mut self, stop: DebugStop, rip: u64) -> Exit {
        self.stop = Some(stop);
        Exit::Debug { rip, exception: 1, dr6: 0 }
    }

    fn note(&mut self, exit: Exit) -> Exit {
        self.pending = is_access(&exit);
        exit
    }

    /// Runs with the engine watching, if there is anything to watch.
    fn run_native(&mut self, mut entry: Entry) -> Result<Exit, Error> {
        if self.plan.step && self.pending {
            return self.finish_access(entry);
        }
        if self.plan.is_active() || self.engine != EngineDebug::default() {
            let mut wanted = registers(&self.plan);
            wanted.single_step = self.plan.step;
            wanted.block_interrupts = self.plan.step;
            wanted.software = self.plan.software;
            // A step that was armed last time has to be armed again.
            if wanted.single_step {
                self.engine = EngineDebug::default();
            }
            self.tell_engine(wanted)?;
        }
        loop {
            let exit = self.inner.run(entry)?;
            let Exit::Debug { rip, exception, dr6 } = exit else { return Ok(self.note(exit)) };
            self.pending = false;
            if let Some(stop) = self.reason(exception, dr6) {
                return Ok(self.stopped(stop, rip));
            }
            // Left over from when the guest was stepped: flags that it pushed then have the trap flag.
            let mut regs = self.inner.regs()?;
            regs.rflags &= !Regs::RFLAGS_TF;
            self.inner.set_regs(&regs)?;
            entry = Entry::Resume;
        }
    }

    /// Why the engine stopped; `None` if nobody asked for it.
    fn reason(&self, exception: u32, dr6: u64) -> Option<DebugStop> {
        if exception == 3 {
            return Some(DebugStop::Breakpoint);
        }
        let mut registers = (0_u32..).zip(0..DEBUG_REGISTERS);
        let hit = registers.find(|(bit, _)| dr6.checked_shr(*bit).unwrap_or(0) & 1 != 0);
        match hit.map(|(_, register)| register.checked_sub(self.plan.breakpoints.len())) {
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
                self.foresee.foresee(&mut self.inner, &regs, &mut self.accesses)?;
            }
            // The guest can have cleared the trap flag: it is set anew for each step.
            self.engine = EngineDebug::default();
            let block_interrupts = self.plan.step;
            self.tell_engine(EngineDebug {
                single_step: true,
                block_interrupts,
                trap: true,
                ..EngineDebug::default()
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
    let starts_before_end = |start: u64, other: u64, length: u64| start.wrapping_sub(other) < length;
    wanted
        && (starts_before_end(access.address, point.address, point.length)
            || starts_before_end(point.address, access.address, access.length))
}

/// Whether a debug register can watch this: 1, 2, 4 or 8 bytes, aligned, and not reads alone (there is no such kind).
fn has_register_shape(point: &Watchpoint) -> bool {
    matches!(point.length, 1 | 2 | 4 | 8)
        && point.address.is_multiple_of(point.length)
        && point.kind != WatchKind::Read
}

/// The debug registers for a plan that fits them: breakpoints first, then watchpoints.
fn registers(plan: &DebugPlan) -> EngineDebug {
    /// Bits 16 and up of DR7, four for each register: kind in the lower two, length in the upper two.
    const EXECUTE: u64 = 0;
    let watch = |point: &Watchpoint| {
        let kind = if point.kind == WatchKind::Write { 0b01 } else { 0b11 };
        let length = match point.length {
            2 => 0b0100,
            4 => 0b1100,
            8 => 0b1000,
            _ => 0,
        };
        (point.address, kind | length)
    };
    let points = plan.breakpoints.iter().map(|address| (*address, EXECUTE));
    let points = points.chain(plan.watchpoints.iter().map(watch));
    let mut debug = EngineDebug { trap: true, ..EngineDebug::default() };
    for ((number, register), (address, bits)) in (0_u32..).zip(&mut debug.address).zip(points) {
        *register = address;
        let enable = 0b10_u64.checked_shl(number.saturating_mul(2)).unwrap_or(0);
        let bits = bits.checked_shl(number.saturating_mul(4).saturating_add(16)).unwrap_or(0);
        debug.dr7 |= enable | bits;
    }
    debug
}

impl<V: Vcpu> Layer for Debugged<V> {
    type Inner = V;

    fn inner(&self) -> &V {
        &self.inner
    }

    fn inner_mut(&mut self) -> &mut V {
        &mut self.inner
    }

    fn run_layer(&mut self, entry: Entry) -> Result<Exit, Error> {
        self.stop = None;
        if self.is_native() { self.run_native(entry) } else { self.run_stepping(entry) }
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let exit = self.inner.complete(entry)?;
        self.pending = exit.as_ref().is_some_and(is_access);
        Ok(exit)
    }

    fn set_plan_layer(&mut self, plan: &DebugPlan) -> Result<(), Error> {
        self.plan = plan.clone();
        Ok(())
    }

    fn take_stop_layer(&mut self) -> Option<DebugStop> {
        self.stop.take()
    }
}

#[cfg(test)]
#[path = "debug_test.rs"]
pub(crate) mod tests;
