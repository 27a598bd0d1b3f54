//! The life of a vCPU's thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nerite_arch::{Fpu, Regs, SpecialRegs};
use nerite_hypervisor::{GuestCounter, KickTimer};
use nerite_memory::GuestRam;
use nerite_sandbox::{Confinement, ThreadKind};
use nerite_vcpu::ahead::InstructionCount;
use nerite_vcpu::{
    Control, Counted, DebugCaps, Debugged, InstructionBudget, Limited, Measured, Statistics, Traced, Tracer,
    Vcpu, drive_controlled,
};
use rustix::io::Errno;
use rustix::thread::CpuSet;
use std::os::fd::OwnedFd;

use crate::debug::Stopper;
use crate::dispatch::End;
use crate::user_irqchip::{LocalApics, UserInterrupts};
use crate::{Error, counting};
use nerite_inspect::CodeReader;

/// What the vCPU threads and the one that waits for them share.
pub(crate) struct Shared {
    /// Why the machine ends: the first reason counts.
    pub(crate) end: Mutex<Option<(u32, End)>>,
    /// Becomes readable, and stays so, when there is an `end`.
    pub(crate) stop_event: Arc<OwnedFd>,
    pub(crate) stopping: Arc<AtomicBool>,
    /// How many vCPU threads have not left their loop yet.
    pub(crate) left: Mutex<usize>,
    pub(crate) one_left: Condvar,
    /// What the guest ended itself with, for those who ask after it is taken down.
    pub(crate) exit_code: OnceLock<i32>,
    /// What the process is confined to, if it is.
    pub(crate) confinement: Option<Confinement>,
    /// What the vCPUs that have left give back, and the vCPUs themselves, so that none takes the time to close its own.
    pub(crate) finished: Mutex<Vec<(Finished, Box<dyn Vcpu>)>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("end", &self.end).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Shared {
    /// Ends the machine, unless it is ending already.
    pub(crate) fn finish(&self, vcpu: u32, end: End) {
        let mut current = lock(&self.end);
        if current.is_none() {
            if let End::Exited(code) = end {
                // This is the first end, and so the first code.
                let _ = self.exit_code.set(code);
            }
            *current = Some((vcpu, end));
            self.stopping.store(true, Ordering::Release);
            // An eventfd refuses only when its counter is full, and this adds 1 once.
            if let Err(error) = rustix::io::write(&self.stop_event, &1_u64.to_ne_bytes()) {
                log::error!("signalling the end of the machine: {error}");
            }
        }
    }
}

/// What a vCPU thread gives back.
pub(crate) struct Finished {
    pub(crate) index: u32,
    pub(crate) statistics: Statistics,
    /// Its vector registers, if a core file may need them and the engine tells.
    pub(crate) fpu: Option<Fpu>,
    /// Its registers, unless the guest ended itself here: nobody asks for them then.
    pub(crate) state: Option<Result<(Regs, SpecialRegs), nerite_vcpu::Error>>,
}

/// What is put around a vCPU.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    pub(crate) statistics: bool,
    pub(crate) tracer: Option<Tracer>,
    pub(crate) debug: Option<DebugCaps>,
    pub(crate) budget: Option<InstructionBudget>,
    /// Whether a crash is written to a file, vector registers and all.
    pub(crate) core: bool,
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
    let mut leaving = Leaving { shared: task.shared.clone(), control: task.control.clone(), end: None };
    let index = vcpu.index();
    let timer = task.deadline.filter(|_| index == 0).map(|deadline| {
        start_timer(&mut *vcpu, deadline.saturating_duration_since(Instant::now()), Duration::ZERO)
    });
    // It kicks the vCPU for as long as it is kept.
    let _timer = timer.transpose().unwrap_or_else(|error| {
        task.shared.finish(index, End::Host(error.into()));
        None
    });
    let counter = task.layers.counter.as_ref().map(|counter| counting::for_vcpu(&mut *vcpu, counter));
    let counter = counter.transpose().unwrap_or_else(|error| {
        task.shared.finish(index, End::Host(error));
        None
    });
    leaving.end = Some(run_loop(stack(vcpu, counter, &task), task));
}

/// Starts a timer that kicks `vcpu`, which the calling thread runs.
pub(crate) fn start_timer(
    vcpu: &mut dyn Vcpu,
    first: Duration,
    interval: Duration,
) -> Result<Box<dyn KickTimer>, nerite_vcpu::Error> {
    let timer = vcpu.kick_timer()?;
    let failed =
        |source| nerite_vcpu::Error::Vcpu { index: vcpu.index(), operation: "starting a timer", source };
    timer.set(first, interval).map_err(failed)?;
    Ok(timer)
}

/// Puts the layers that are wanted around a vCPU.
fn stack(mut vcpu: Box<dyn Vcpu>, counter: Option<Box<dyn InstructionCount>>, task: &Task) -> Box<dyn Vcpu> {
    let layers = &task.layers;
    if let Some(chips) = task.chips.clone() {
        vcpu = Box::new(UserInterrupts::new(vcpu, chips));
    }
    let operands = || Box::new(CodeReader::new(task.ram.clone()));
    if let Some(caps) = layers.debug {
        vcpu = Box::new(Debugged::new(vcpu, caps, operands()));
    } else if let Some(budget) = layers.budget.clone() {
        let mut limited = Limited::new(vcpu, budget, operands());
        if let Some(counter) = counter {
            limited.count_by(counter);
        }
        vcpu = Box::new(limited);
    }
    vcpu = if layers.statistics { Box::new(Measured::new(vcpu)) } else { Box::new(Counted::new(vcpu)) };
    match layers.tracer.clone() {
        Some(tracer) => Box::new(Traced::new(vcpu, tracer)),
        None => vcpu,
    }
}

fn run_loop(mut vcpu: Box<dyn Vcpu>, task: Task) -> (u32, End) {
    let Task { cpu, mut stopper, control, shared, .. } = task;
    let has_core = task.layers.core;
    let index = vcpu.index();
    let confine = || shared.confinement.as_ref().map_or(Ok(()), |it| it.enter_thread(ThreadKind::Vcpu));
    let ready = cpu.map_or(Ok(()), |cpu| pin(index, cpu)).and_then(|()| Ok(confine()?));
    let end = match ready {
        Ok(()) => drive_controlled(&mut *vcpu, &mut stopper, &control)
            .map_or_else(|error| End::Host(error.into()), |end| end.unwrap_or(End::Stopped)),
        Err(error) => End::Host(error),
    };
    log::debug!("vCPU {index}: {end:?}");
    let state = (!matches!(end, End::Exited(_)))
        .then(|| vcpu.regs().and_then(|regs| Ok((regs, vcpu.special_regs()?))));
    let fpu = if has_core && state.is_some() { vcpu.fpu().ok() } else { None };
    let finished = Finished { index, statistics: vcpu.statistics().unwrap_or_default(), fpu, state };
    lock(&shared.finished).push((finished, vcpu));
    (index, end)
}

/// Says, when it is dropped, that a vCPU's thread has left its loop: also if that was by a panic.
struct Leaving {
    shared: Arc<Shared>,
    control: Arc<Control>,
    /// Why, with the vCPU's index; none after a panic.
    end: Option<(u32, End)>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.control.leave();
        {
            let mut left = lock(&self.shared.left);
            *left = left.saturating_sub(1);
            self.shared.one_left.notify_all();
        }
        // Last: whoever takes the machine down then need not kick this thread out of anything.
        let (index, end) = self.end.take().unwrap_or((u32::MAX, End::Stopped));
        self.shared.finish(index, end);
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
