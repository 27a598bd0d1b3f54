//! Runs a machine to its end.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nerite_devices::Console;
use nerite_hypervisor::{Hypervisor, Vm};
use nerite_platform::{End, Environment, Platform, ResetKind};
use nerite_vcpu::{Control, Exit, InstructionBudget, InternalError, SystemEvent, Tracer, Vcpu};
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::config::{Debug, Irqchip, OnCrash};
use crate::core_file::CoreFile;
use crate::debug::{DebugEvents, Stopper};
use crate::devices::Devices;
use crate::embedding::Hypercalls;
use crate::functions::FunctionCounters;
use crate::halts::{self, HaltWatch};
use crate::input::{self, Keyboard};
use crate::moment::Moment;
use crate::msr::Msrs;
use crate::restart::Restart;
use crate::snapshot::planned::Planned;
use crate::user_irqchip::LocalApics;
use crate::vcpu_thread::{self, Ended, Finished, Layers, Shared, Task};
use crate::{Error, Handle, Machine, Outcome, Report, Timeline};
use nerite_inspect::{Core, CrashReport, VcpuState};

mod attend;
mod start;

/// A kicked vCPU can be on its way into a host call that waits: it is kicked again after this time.
const KICK_AGAIN: Duration = Duration::from_millis(10);
/// KVM's suberror for an instruction it cannot emulate.
const EMULATION_FAILED: u32 = 1;

/// A machine whose vCPUs run.
pub struct Running {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
    environment: Environment,
    hypervisor: Arc<dyn Hypervisor>,
    platform: Arc<dyn Platform>,
    hypercalls: Hypercalls,
    devices: Arc<Devices>,
    /// Forwards terminal input to the guest.
    keyboard: Option<JoinHandle<()>>,
    tracer: Option<Tracer>,
    /// The file that a crash is written to.
    core: Option<CoreFile>,
    deadline: Option<Instant>,
    /// Time that the guest gets to power itself off before it is stopped.
    graceful_stop: Option<Duration>,
    /// End of that time, once the power button is pressed.
    stop_at: Option<Instant>,
    halts: Option<HaltWatch>,
    /// Policy for unknown model-specific registers.
    msrs: Arc<Msrs>,
    /// `true` if a guest that has crashed or halted permanently is kept for a debugger.
    holds_crashes: bool,
    timeline: Timeline,
    /// `true` if the processor counts the instructions of a budget.
    counts: bool,
    /// `true` if what it takes to find out is to be spent on the report.
    statistics: bool,
    functions: Option<Arc<FunctionCounters>>,
    /// The start of the guest, if it can reboot.
    restart: Option<Restart>,
    /// A snapshot that is still to be made.
    planned: Option<Planned>,
    /// Something that is still to come.
    moment: Option<Moment>,
    /// When it comes, if it is known.
    due: Option<Instant>,
    /// The vCPUs whose threads are through with them.
    ended: Vec<Box<dyn Vcpu>>,
    _vm: Arc<dyn Vm>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("handle", &self.handle)
            .field("kernel", &self.platform.kernel().range)
            .finish_non_exhaustive()
    }
}

/// The memory, descriptors and threads of a machine that has ended. They are given back when it is
/// dropped.
#[derive(Debug)]
#[must_use = "dropping it takes time; a program that ends forgets it"]
pub struct Teardown {
    running: Running,
}

impl Drop for Teardown {
    fn drop(&mut self) {
        for thread in self.running.threads.drain(..) {
            // A panic was printed when it happened, and has been told as an error.
            let _ = thread.join();
        }
    }
}

fn writable(sink: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(sink, PollFlags::OUT)
}

/// Returns `true` if there is a descriptor and it is readable now.
fn is_readable(fd: Option<BorrowedFd<'_>>) -> bool {
    fd.is_some_and(|fd| {
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    })
}

impl Running {
    /// The machine, for other threads to hold, ask or end it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until the machine ends by itself, or until `stop` becomes readable, and takes it down.
    ///
    /// # Errors
    /// If the host failed in something that the guest relies on.
    pub fn wait(self, stop: Option<BorrowedFd<'_>>) -> Result<Outcome, Error> {
        self.wait_and_report(stop).0
    }

    /// As [`Running::wait`], and says what the run was like.
    pub fn wait_and_report(self, stop: Option<BorrowedFd<'_>>) -> (Result<Outcome, Error>, Report) {
        let (outcome, report, _remains) = self.wait_and_leave(stop);
        (outcome, report)
    }

    /// As [`Running::wait_and_report`], and leaves what is left of the machine to the caller. A
    /// program that ends now [forgets](std::mem::forget) it: the host takes everything back anyway,
    /// and at once.
    pub fn wait_and_leave(
        mut self,
        stop: Option<BorrowedFd<'_>>,
    ) -> (Result<Outcome, Error>, Report, Teardown) {
        if let Err(error) = self.attend(stop) {
            self.handle.shared.finish(None, Err(error));
        }
        let mut report = Report::default();
        let outcome = self.take_down(stop, &mut report);
        // Removed also where what is left is forgotten.
        drop(self.core.take());
        (outcome, report, Teardown { running: self })
    }

    /// Gets the last partial line out when no vCPU runs any more. Returns false if `stop` became
    /// readable before.
    fn drain(&self, stop: Option<BorrowedFd<'_>>) -> Result<bool, Error> {
        loop {
            self.platform.collect_coalesced(true);
            if self.environment.console.flush().map_err(Error::Output)? {
                if !self.platform.has_coalesced() {
                    return Ok(true);
                }
                continue;
            }
            let mut polled: Vec<_> =
                self.environment.console.sink().map(writable).into_iter().collect();
            polled.extend(stop.map(|stop| PollFd::from_borrowed_fd(stop, PollFlags::IN)));
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                other => {
                    other.map_err(Error::host("waiting for the guest's output to be taken"))?
                }
            };
            if stop.is_some() && polled.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return Ok(false);
            }
        }
    }

    /// Gets all vCPUs out of the guest and their threads out of their loops.
    fn stop_vcpus(&self) {
        self.environment.console.stop();
        let mut left = self.handle.shared.left.lock();
        while *left > 0 {
            for control in self.handle.controls.iter() {
                control.stop();
            }
            self.handle.shared.one_left.wait_while_for(&mut left, |left| *left > 0, KICK_AGAIN);
        }
    }

    /// Starts to forward terminal input, if the guest has something that takes it.
    fn start_keyboard(&mut self, keyboard: Option<Keyboard>) -> std::io::Result<()> {
        let Some(keyboard) = keyboard else { return Ok(()) };
        let shared = self.handle.shared.clone();
        let thread = thread::Builder::new().name("input".to_owned()).spawn(move || {
            match keyboard.run(&shared.stop) {
                Ok(input::Ended::Source | input::Ended::Stopped) => {}
                Ok(input::Ended::Escape) => shared.finish(None, Ok(End::EscapeKey)),
                // A guest can do without, as it does at the input's end.
                Err(error) => log::warn!("there is no more input for the guest: {error}"),
            }
        })?;
        self.keyboard = Some(thread);
        Ok(())
    }

    /// Stops what runs of a machine that could not be started whole.
    fn abandon(&mut self) {
        self.handle.shared.finish(None, Ok(End::Stopped));
        let missing = self.handle.vcpu_count().saturating_sub(self.threads.len());
        {
            let mut left = self.handle.shared.left.lock();
            *left = left.saturating_sub(missing);
        }
        self.stop_vcpus();
        for thread in self.threads.drain(..) {
            // A panic was printed when it happened, and this machine has failed anyway.
            let _ = thread.join();
        }
    }

    fn take_down(
        &mut self,
        stop: Option<BorrowedFd<'_>>,
        report: &mut Report,
    ) -> Result<Outcome, Error> {
        self.stop_vcpus();
        if self.planned.take().is_some() {
            log::warn!("the guest has ended before the moment of its snapshot, which is not made");
        }
        let mut finished = Vec::new();
        for (vcpu, ended) in std::mem::take(&mut *self.handle.shared.finished.lock()) {
            finished.push(vcpu);
            self.ended.push(ended);
        }
        if finished.len() < self.handle.vcpu_count() {
            return Err(Error::Host {
                what: "running a vCPU's thread",
                source: std::io::Error::other("it panicked; please report this"),
            });
        }
        finished.sort_by_key(|vcpu| vcpu.index);
        if let Some(thread) = self.keyboard.take() {
            // A panic was printed when it happened, and the guest is over.
            let _ = thread.join();
        }
        report.vcpus = finished.iter().map(|vcpu| vcpu.statistics.clone()).collect();
        // No vCPU runs any more, so no guest waits for a frame.
        self.handle.network.halt();
        self.devices.halt();
        report.devices = self.handle.device_counters();
        report.wall_time = self.handle.uptime();
        report.memory_size = self.handle.ram.size();
        report.restarts = self.restart.as_ref().map_or(0, Restart::count);
        report.coalesced_writes = self.handle.coalesced_writes();
        report.instructions = self.functions.as_ref().map(|functions| {
            functions.finish(finished.iter().filter_map(|vcpu| vcpu.instructions).collect())
        });
        report.processor = self.handle.processor_counts();
        if self.statistics {
            report.memory_touched = self.handle.ram.resident_bytes();
        }
        report.timeline = Some(self.timeline.clone());
        log::info!("{}", report.total().exits);
        if let Some(tracer) = &self.tracer
            && let Err(error) = tracer.finish()
        {
            log::warn!("the trace is not complete: {error}");
        }
        let stopped = || Ended { vcpu: None, end: Ok(End::Stopped) };
        let Ended { vcpu, end } = self.handle.shared.end.lock().take().unwrap_or_else(stopped);
        let vcpu = vcpu.unwrap_or_default();
        let outcome = match end? {
            End::Stopped => {
                // What cannot be written now is not waited for.
                self.platform.collect_coalesced(true);
                let _ = self.environment.console.flush();
                return Ok(Outcome::Stopped);
            }
            End::Crashed(exit) => return self.crashed(vcpu, exit, finished, stop, report),
            End::Halted => return self.crashed(vcpu, Exit::Halt, finished, stop, report),
            End::Exited(code) => Outcome::Exited(code),
            End::EscapeKey => {
                let _ = self.environment.console.flush();
                return Ok(Outcome::EscapeKey);
            }
            End::InstructionLimit(rip) => {
                Outcome::InstructionLimit { vcpu, rip, stepped: !self.counts }
            }
            End::TimeLimit => {
                let _ = self.environment.console.flush();
                return Ok(Outcome::TimeLimit);
            }
            End::Reset(ResetKind::Keyboard) => Outcome::KeyboardReset,
            End::Reset(ResetKind::Register) | End::System(SystemEvent::Reset) => Outcome::Reset,
            End::System(_) => Outcome::PoweredOff,
        };
        Ok(if self.drain(stop)? { outcome } else { Outcome::Stopped })
    }

    /// Makes the report of a crash, or says that it is the host that cannot run this guest.
    fn crashed(
        &self,
        vcpu: u32,
        exit: Exit,
        finished: Vec<Finished>,
        stop: Option<BorrowedFd<'_>>,
        report: &mut Report,
    ) -> Result<Outcome, Error> {
        let drained = self.drain(stop);
        log::debug!("the output before the crash is out: {drained:?}");
        if let Exit::InternalError(InternalError {
            suberror: EMULATION_FAILED, instruction, ..
        }) = exit
            && self.hypervisor.only_emulates()
        {
            return Err(Error::EmulatingKvm { instruction: instruction.to_string() });
        }
        let mut vcpus = Vec::new();
        for Finished { index, fpu, state, .. } in finished {
            // One that ended by itself meanwhile has nothing to tell.
            let Some(state) = state else { continue };
            let (regs, special_regs) = state?;
            let backtrace = self.platform.backtrace(&self.handle.ram, &regs, &special_regs);
            vcpus.push(VcpuState { index, regs, special_regs, fpu, backtrace });
        }
        if let Some(file) = &self.core {
            let (ram, entry) = (&self.handle.ram, self.platform.kernel().entry);
            let core = Core { ram, vcpus: &vcpus, crashed: vcpu, entry };
            // The report is worth more than an error without it.
            match file.write(&core, &|| is_readable(stop)) {
                Ok(()) => report.core_file = Some(file.path().to_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {
                    return Ok(Outcome::Stopped);
                }
                Err(error) => {
                    log::error!("cannot write the core file {}: {error}", file.path().display());
                }
            }
        }
        let kernel = self.platform.kernel().range;
        Ok(Outcome::Crashed(Box::new(CrashReport { vcpu, exit, vcpus, kernel })))
    }
}
