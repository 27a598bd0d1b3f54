//! Runs a machine to its end.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nerite_arch::{Regs, SpecialRegs};
use nerite_devices::Console;
use nerite_kvm::probe::{self, HostKvm};
use nerite_kvm::{KvmVcpu, System};
use nerite_loader::{Image, LoadedKernel};
use nerite_memory::GuestRam;
use nerite_vcpu::{Counted, Exit, ExitCounts, InternalError, Kicker, SystemEvent, Vcpu, drive};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::CpuSet;

use crate::crash::{CrashReport, Unwinder, VcpuState};
use crate::dispatch::{Dispatcher, End, Platform};
use crate::posted::Clock;
use crate::{Error, Machine};

/// A kicked vCPU can be on its way into a host call that waits: it is kicked again after this time.
const KICK_AGAIN: Duration = Duration::from_millis(10);
/// KVM's suberror for an instruction it cannot emulate.
const EMULATION_FAILED: u32 = 1;

/// How a machine ended.
#[non_exhaustive]
#[derive(Debug)]
pub enum Outcome {
    /// The guest ended itself with this code.
    Exited(i32),
    /// The guest asked to be powered off.
    PoweredOff,
    /// The guest asked to be reset.
    Reset,
    /// The guest could not go on.
    Crashed(Box<CrashReport>),
    /// It was stopped from outside.
    Stopped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "guest exited with code {code}"),
            Self::PoweredOff => f.write_str("guest powered off"),
            Self::Reset => f.write_str("guest asked for a reset"),
            Self::Crashed(report) => report.fmt(f),
            Self::Stopped => f.write_str("guest stopped"),
        }
    }
}

/// What the vCPU threads and the one that waits for them share.
#[derive(Debug)]
struct Shared {
    /// Why the machine ends: the first reason counts.
    end: Mutex<Option<(u32, End)>>,
    /// Becomes readable, and stays so, when there is an `end`.
    stop_event: Arc<OwnedFd>,
    stopping: Arc<AtomicBool>,
    /// How many vCPU threads have not left their loop yet.
    left: Mutex<usize>,
    one_left: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Ends the machine, unless it is ending already.
    fn finish(&self, vcpu: u32, end: End) {
        let mut current = lock(&self.end);
        if current.is_none() {
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
struct Finished {
    index: u32,
    counts: ExitCounts,
    state: Result<(Regs, SpecialRegs), nerite_vcpu::Error>,
}

/// A machine whose vCPUs run.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Finished>>,
    kickers: Vec<Kicker>,
    console: Arc<Console>,
    platform: Arc<Platform>,
    system: System,
    image: Image,
    loaded: LoadedKernel,
    ram: Arc<GuestRam>,
}

/// Starts the vCPU threads.
pub(crate) fn start(machine: Machine) -> Result<Running, Error> {
    let Machine { system, image, loaded, ram, vcpus, affinity, platform, console, stop_event, stopping } =
        machine;
    let shared = Arc::new(Shared {
        end: Mutex::new(None),
        stop_event,
        stopping,
        left: Mutex::new(vcpus.len()),
        one_left: Condvar::new(),
    });
    let kickers = vcpus.iter().map(Vcpu::kicker).collect();
    let mut running =
        Running { shared, threads: Vec::new(), kickers, console, platform, system, image, loaded, ram };
    for (vcpu, cpu) in vcpus.into_iter().zip(affinity.into_iter().map(Some).chain(std::iter::repeat(None))) {
        let shared = running.shared.clone();
        let dispatcher = Dispatcher::new(running.platform.clone());
        let index = vcpu.index();
        let thread = thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || run_vcpu(vcpu, cpu, dispatcher, &shared));
        match thread {
            Ok(thread) => running.threads.push(thread),
            Err(source) => {
                running.abandon();
                return Err(Error::Host { what: "starting a vCPU's thread", source });
            }
        }
    }
    Ok(running)
}

/// The life of a vCPU's thread.
fn run_vcpu(vcpu: KvmVcpu, cpu: Option<usize>, mut dispatcher: Dispatcher, shared: &Shared) -> Finished {
    let index = vcpu.index();
    let _leaving = Leaving(shared);
    let mut vcpu = Counted::new(vcpu);
    let end = match cpu.map_or(Ok(()), |cpu| pin(index, cpu)) {
        Ok(()) => drive(&mut vcpu, &mut dispatcher).unwrap_or_else(|error| End::Host(error.into())),
        Err(error) => End::Host(error),
    };
    log::debug!("vCPU {index}: {end:?}");
    shared.finish(index, end);
    let state = vcpu.regs().and_then(|regs| Ok((regs, vcpu.special_regs()?)));
    Finished { index, counts: *vcpu.counts(), state }
}

/// Says, when it is dropped, that a vCPU's thread has left its loop: also if that was by a panic.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.finish(u32::MAX, End::Stopped);
        }
        let mut left = lock(&self.0.left);
        *left = left.saturating_sub(1);
        self.0.one_left.notify_all();
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

/// How far a partial line is on its way out.
#[derive(Debug, Clone, Copy)]
enum PartialLine {
    /// There is none.
    None,
    /// Its end may come within the grace period.
    Waits,
    /// The sink has not taken it.
    Blocked,
}

fn writable(sink: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(sink, PollFlags::OUT)
}

impl Running {
    /// Waits until the machine ends by itself, or until `stop` becomes readable, and takes it down.
    ///
    /// # Errors
    /// If the host failed in something that the guest relies on.
    pub fn wait(self, stop: Option<BorrowedFd<'_>>) -> Result<Outcome, Error> {
        if let Err(error) = self.attend(stop) {
            self.shared.finish(u32::MAX, End::Host(error));
        }
        self.take_down(stop)
    }

    /// Ends the machine when `stop` says so; meanwhile writes partial lines that have waited long enough.
    fn attend(&self, stop: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let mut partial_line = PartialLine::None;
        let mut clock = Clock::new(self.image.kernel().interface());
        loop {
            let ended = self.shared.stop_event.as_fd();
            let mut polled = vec![PollFd::from_borrowed_fd(ended, PollFlags::IN)];
            polled.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
            let mut timeout = clock.as_ref().and_then(|clock| Timespec::try_from(clock.wait()).ok());
            match partial_line {
                PartialLine::None => {
                    polled.push(PollFd::from_borrowed_fd(self.console.partial_line(), PollFlags::IN));
                }
                PartialLine::Waits => {
                    timeout = Some(Timespec { tv_sec: 0, tv_nsec: Console::GRACE.subsec_nanos().into() });
                }
                PartialLine::Blocked => polled.extend(self.console.sink().map(writable)),
            }
            let ready = match poll(&mut polled, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                other => other.map_err(Error::host("waiting for the machine"))?,
            };
            let is_ready = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
            if is_ready(0) {
                return Ok(());
            }
            if stop.is_some() && is_ready(1) {
                self.shared.finish(u32::MAX, End::Stopped);
                return Ok(());
            }
            if let Some(clock) = &mut clock {
                let found = self.platform.collect_posted(false);
                clock.looked(found);
                if ready == 0 && !found && matches!(partial_line, PartialLine::None | PartialLine::Blocked) {
                    continue;
                }
                // Output that was collected has waited for its time already.
                if found {
                    partial_line = PartialLine::Waits;
                }
            }
            partial_line = match partial_line {
                PartialLine::None | PartialLine::Blocked => PartialLine::Waits,
                PartialLine::Waits if self.console.flush().map_err(Error::Output)? => PartialLine::None,
                PartialLine::Waits => PartialLine::Blocked,
            };
        }
    }

    /// Gets the last partial line out when no vCPU runs any more. Returns false if `stop` became readable before.
    fn drain(&self, stop: Option<BorrowedFd<'_>>) -> Result<bool, Error> {
        loop {
            self.platform.collect_posted(true);
            if self.console.flush().map_err(Error::Output)? {
                if !self.platform.has_posted() {
                    return Ok(true);
                }
                continue;
            }
            let mut polled: Vec<_> = self.console.sink().map(writable).into_iter().collect();
            polled.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(Error::host("waiting for the guest's output to be taken"))?,
            };
            if stop.is_some() && polled.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return Ok(false);
            }
        }
    }

    /// Gets all vCPUs out of the guest and their threads out of their loops.
    fn stop_vcpus(&self) {
        self.console.stop();
        let mut left = lock(&self.shared.left);
        while *left > 0 {
            for kicker in &self.kickers {
                kicker.kick();
            }
            left = self
                .shared
                .one_left
                .wait_timeout_while(left, KICK_AGAIN, |left| *left > 0)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Stops what runs of a machine that could not be started whole.
    fn abandon(mut self) {
        self.shared.finish(u32::MAX, End::Stopped);
        let started = self.threads.len();
        let missing = self.kickers.len().saturating_sub(started);
        {
            let mut left = lock(&self.shared.left);
            *left = left.saturating_sub(missing);
        }
        self.kickers.truncate(started);
        self.stop_vcpus();
        for thread in self.threads {
            // A panic was printed when it happened, and this machine has failed anyway.
            let _ = thread.join();
        }
    }

    fn take_down(mut self, stop: Option<BorrowedFd<'_>>) -> Result<Outcome, Error> {
        self.stop_vcpus();
        let mut finished = Vec::new();
        for thread in std::mem::take(&mut self.threads) {
            finished.push(thread.join().map_err(|_| Error::Host {
                what: "running a vCPU's thread",
                source: std::io::Error::other("it panicked; please report this"),
            })?);
        }
        let mut counts = ExitCounts::default();
        for vcpu in &finished {
            counts.add(&vcpu.counts);
        }
        log::info!("{counts}");
        let (vcpu, end) = lock(&self.shared.end).take().unwrap_or((u32::MAX, End::Stopped));
        let outcome = match end {
            End::Host(error) => return Err(error),
            End::Stopped => {
                // What cannot be written now is not waited for.
                self.platform.collect_posted(true);
                let _ = self.console.flush();
                return Ok(Outcome::Stopped);
            }
            End::Crashed(exit) => {
                let drained = self.drain(stop);
                log::debug!("the output before the crash is out: {drained:?}");
                return self.crashed(vcpu, exit, finished);
            }
            End::Exited(code) => Outcome::Exited(code),
            End::System(SystemEvent::Reset) => Outcome::Reset,
            End::System(_) => Outcome::PoweredOff,
        };
        Ok(if self.drain(stop)? { outcome } else { Outcome::Stopped })
    }

    /// Makes the report of a crash, or says that it is the host that cannot run this guest.
    fn crashed(&self, vcpu: u32, exit: Exit, finished: Vec<Finished>) -> Result<Outcome, Error> {
        if let Exit::InternalError(InternalError { suberror: EMULATION_FAILED, instruction, .. }) = exit
            && let HostKvm::Emulating { .. } = probe::try_guest(&self.system)
        {
            return Err(Error::EmulatingKvm { instruction: instruction.to_string() });
        }
        let unwinder = Unwinder { ram: &self.ram, kernel: self.image.kernel(), loaded: &self.loaded };
        let mut vcpus = Vec::new();
        for Finished { index, state, .. } in finished {
            let (regs, special_regs) = state?;
            let backtrace = unwinder.backtrace(&regs, &special_regs);
            vcpus.push(VcpuState { index, regs, special_regs, backtrace });
        }
        let kernel = self.loaded.start..self.loaded.end;
        Ok(Outcome::Crashed(Box::new(CrashReport { vcpu, exit, vcpus, kernel })))
    }
}
