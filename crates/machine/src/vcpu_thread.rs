//! The life of a vCPU's thread.

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_hypervisor::{GuestCounter, KickTimer};
use nerite_memory::GuestRam;
use nerite_platform::{End, StopToken};
use nerite_sandbox::{Confinement, ThreadKind};
use nerite_vcpu::ahead::InstructionCount;
use nerite_vcpu::{
    Control, Counted, DebugCaps, DebugPlan, Debugged, InstructionBudget, Limited, Measured,
    Statistics, Traced, Tracer, Vcpu, drive_controlled,
};
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::thread::CpuSet;

use crate::debug::Stopper;
use crate::ends::Ends;
use crate::functions::FunctionCounters;
use crate::user_irqchip::{LocalApics, UserInterrupts};
use crate::{Error, counting};
use nerite_inspect::CodeReader;

/// End of a machine.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The vCPU that ended it.
    pub(crate) vcpu: Option<u32>,
    pub(crate) end: Result<End, Error>,
}

/// State shared by the vCPU threads and the thread that waits for them.
pub(crate) struct Shared {
    /// End of the machine: the first one counts.
    pub(crate) end: Mutex<Option<Ended>>,
    /// Requested when there is an `end`.
    pub(crate) stop: StopToken,
    /// Number of vCPU threads that are still in their loop.
    pub(crate) left: Mutex<usize>,
    pub(crate) one_left: Condvar,
    /// Exit code that the guest ended itself with, for readers after the machine is taken down.
    pub(crate) exit_code: OnceLock<i32>,
    /// Confinement of the process, if it is confined.
    pub(crate) confinement: Option<Confinement>,
    /// vCPUs that are held where their guest has ended, if that is wanted.
    pub(crate) ends: Option<Arc<Ends>>,
    /// Results of the vCPUs that have left, and the vCPUs themselves, so that none takes the time
    /// to close its own.
    pub(crate) finished: Mutex<Vec<(Finished, Box<dyn Vcpu>)>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("end", &self.end)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Ends the machine, unless it is ending already. `vcpu` is the one that ends it.
    pub(crate) fn finish(&self, vcpu: Option<u32>, end: Result<End, Error>) {
        let mut current = self.end.lock();
        if current.is_none() {
            if let Ok(End::Exited(code)) = end {
                // This is the first end, and so the first code.
                let _ = self.exit_code.set(code);
            }
            *current = Some(Ended { vcpu, end });
            self.stop.request();
            if let Some(ends) = &self.ends {
                ends.notify();
            }
        }
    }
}

/// Result of a vCPU thread.
pub(crate) struct Finished {
    pub(crate) index: u32,
    pub(crate) statistics: Statistics,
    /// Number of instructions, if they are counted.
    pub(crate) instructions: Option<u64>,
    /// Its vector registers, if a core file may need them and the hypervisor has them.
    pub(crate) fpu: Option<Fpu>,
    /// Its registers; `None` if the guest ended itself here, because nothing needs them then.
    pub(crate) state: Option<Result<(Regs, SpecialRegs), nerite_vcpu::Error>>,
}

/// Layers to wrap each vCPU in.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    pub(crate) statistics: bool,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) debug: Option<DebugCaps>,
    pub(crate) budget: Option<InstructionBudget>,
    /// Debugging plan for the moment at which something is due.
    pub(crate) plan: Option<DebugPlan>,
    /// `true` if the counts of functions begin later.
    pub(crate) counts_later: bool,
    /// `true` if a crash is written to a file, vector registers and all.
    pub(crate) core: bool,
    /// Counts the instructions of each function.
    pub(crate) functions: Option<Arc<FunctionCounters>>,
    /// Counts the instructions of the only vCPU, for its budget.
    pub(crate) counter: Option<Arc<dyn GuestCounter>>,
}

/// Everything that a vCPU's thread needs besides the vCPU.
pub(crate) struct Task {
    /// The host CPU to run on.
    pub(crate) cpu: Option<usize>,
    pub(crate) stopper: Stopper,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) control: Arc<Control>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) layers: Layers,
    /// The local APICs, where they are not in the kernel.
    pub(crate) chips: Option<Arc<LocalApics>>,
    /// When the machine's time is up; the first vCPU is in charge of it.
    pub(crate) deadline: Option<Instant>,
}

/// Runs a vCPU to the machine's end.
pub(crate) fn run(mut vcpu: Box<dyn Vcpu>, task: Task) {
    let index = vcpu.index();
    let mut leaving =
        Leaving { shared: task.shared.clone(), control: task.control.clone(), index, end: None };
    let timer = task.deadline.filter(|_| index == 0).map(|deadline| {
        start_timer(&mut *vcpu, deadline.saturating_duration_since(Instant::now()), Duration::ZERO)
    });
    // It kicks the vCPU for as long as it is kept.
    let _timer = timer.transpose().unwrap_or_else(|error| {
        task.shared.finish(Some(index), Err(error.into()));
        None
    });
    let counter =
        task.layers.counter.as_ref().map(|counter| counting::for_vcpu(&mut *vcpu, counter));
    let counter = counter.transpose().unwrap_or_else(|error| {
        task.shared.finish(Some(index), Err(error));
        None
    });
    leaving.end = Some(match stack(vcpu, counter, &task) {
        Ok(vcpu) => run_loop(vcpu, task),
        Err(error) => Err(error.into()),
    });
}

/// Starts a timer that kicks `vcpu`, which the calling thread runs.
pub(crate) fn start_timer(
    vcpu: &mut dyn Vcpu,
    first: Duration,
    interval: Duration,
) -> Result<Box<dyn KickTimer>, nerite_vcpu::Error> {
    let timer = vcpu.kick_timer()?;
    let failed = |source| nerite_vcpu::Error::Vcpu {
        index: vcpu.index(),
        operation: "starting a timer",
        source,
    };
    timer.set(first, interval).map_err(failed)?;
    Ok(timer)
}

/// Puts the layers that are wanted around a vCPU.
fn stack(
    mut vcpu: Box<dyn Vcpu>,
    counter: Option<Box<dyn InstructionCount>>,
    task: &Task,
) -> Result<Box<dyn Vcpu>, nerite_vcpu::Error> {
    let layers = &task.layers;
    if let Some(chips) = task.chips.clone() {
        vcpu = Box::new(UserInterrupts::new(vcpu, chips));
    }
    if let Some(functions) = layers.functions.as_ref().filter(|_| !layers.counts_later)
        && let Some(own) = vcpu.instruction_counter()
    {
        own.count_executions(functions.executions());
    }
    let operands = || Box::new(CodeReader::new(task.ram.clone()));
    if let Some(caps) = layers.debug {
        vcpu = Box::new(Debugged::new(vcpu, caps, operands()));
        if let (Some(plan), Some(debugger)) = (&layers.plan, vcpu.debugger()) {
            debugger.set_debug_plan(plan)?;
        }
    } else if let Some(budget) = layers.budget.clone() {
        if let Some(own) = vcpu.instruction_counter() {
            own.set_instruction_budget(budget);
        } else {
            let mut limited = Limited::new(vcpu, budget, operands());
            if let Some(counter) = counter {
                limited.count_by(counter);
            }
            vcpu = Box::new(limited);
        }
    }
    vcpu = if layers.statistics {
        Box::new(Measured::new(vcpu))
    } else {
        Box::new(Counted::new(vcpu))
    };
    Ok(match layers.tracer.clone() {
        Some(tracer) => Box::new(Traced::new(vcpu, tracer)),
        None => vcpu,
    })
}

fn run_loop(mut vcpu: Box<dyn Vcpu>, task: Task) -> Result<End, Error> {
    let Task { cpu, mut stopper, control, shared, .. } = task;
    let (has_core, functions) = (task.layers.core, task.layers.functions);
    let index = vcpu.index();
    let confine =
        || shared.confinement.as_ref().map_or(Ok(()), |it| it.enter_thread(ThreadKind::Vcpu));
    let ready = cpu.map_or(Ok(()), |cpu| pin(index, cpu)).and_then(|()| Ok(confine()?));
    let end = match ready {
        Ok(()) => match drive_controlled(&mut *vcpu, &mut stopper, &control) {
            Ok(Some(stop)) => stop.map_err(Error::from),
            Ok(None) => Ok(End::Stopped),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error),
    };
    log::debug!("vCPU {index}: {end:?}");
    let state = (!matches!(end, Ok(End::Exited(_))))
        .then(|| vcpu.regs().and_then(|regs| Ok((regs, vcpu.special_regs()?))));
    let fpu = if has_core && state.is_some() { vcpu.fpu().ok() } else { None };
    let instructions = functions.and_then(|functions| {
        let own = vcpu.instruction_counter()?;
        own.report_executions();
        Some(functions.counted(index, own.instructions()))
    });
    let statistics = vcpu.statistics().unwrap_or_default();
    let finished = Finished { index, statistics, instructions, fpu, state };
    shared.finished.lock().push((finished, vcpu));
    end
}

/// Says, when it is dropped, that a vCPU's thread has left its loop: also if that was by a panic.
struct Leaving {
    shared: Arc<Shared>,
    control: Arc<Control>,
    index: u32,
    /// Reason; `None` after a panic.
    end: Option<Result<End, Error>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.control.leave();
        {
            let mut left = self.shared.left.lock();
            *left = left.saturating_sub(1);
            self.shared.one_left.notify_all();
        }
        // Last: then the machine is taken down without kicking this thread.
        match self.end.take() {
            Some(end) => self.shared.finish(Some(self.index), end),
            None => self.shared.finish(None, Ok(End::Stopped)),
        }
    }
}

/// Binds the calling thread to a host CPU.
fn pin(vcpu: u32, cpu: usize) -> Result<(), Error> {
    let pinned = if cpu < CpuSet::MAX_CPU {
        let mut set = CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)
    } else {
        Err(Errno::INVAL)
    };
    pinned.map_err(|error| Error::Pin { vcpu, cpu, source: error.into() })
}
