//! Holding, asking and ending a running machine from any thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nerite_arch::{Regs, SpecialRegs};
use nerite_hypervisor::InterruptController;
use nerite_irqchip::Message;
use nerite_memory::GuestRam;
use nerite_platform::End;
use nerite_sandbox::ThreadKind;
use nerite_service::DeviceCounters;
use nerite_vcpu::{
    AskError, CoalescedWrites, Control, DebugCaps, Held, RunState, Statistics, Vcpu,
};

use crate::Error;
use crate::counting::{ProcessorCounts, Totals};
use crate::debug::DebugEvents;
use crate::network::Network;
use crate::saver::Saver;
use crate::user_irqchip::LocalApics;
use crate::vcpu_thread::Shared;

/// Number of interrupt lines: the pins of KVM's I/O APIC.
const LINES: u32 = nerite_hypervisor::LINES;
/// Addresses at which messages are interrupts (Intel SDM vol. 3, 12.11.1).
const MESSAGES: std::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// Time that a vCPU may take to answer before it counts as waiting for the host.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// A running machine, for those who hold, ask or end it. It can be cloned, and may outlive the
/// machine.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) controls: Arc<[Arc<Control>]>,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) started: Instant,
    pub(crate) network: Network,
    pub(crate) debug: Option<Arc<DebugEvents>>,
    pub(crate) debug_caps: DebugCaps,
    /// Distance of the kernel's load address from its link address.
    pub(crate) offset: u64,
    pub(crate) coalesced: Option<Arc<dyn CoalescedWrites>>,
    /// Hardware counters, if they were requested and the processor has them.
    pub(crate) totals: Option<Arc<Totals>>,
    pub(crate) interrupts: Option<Arc<dyn InterruptController>>,
    /// The local APICs, where they are not in the kernel.
    pub(crate) chips: Option<Arc<LocalApics>>,
    /// Parts that a snapshot is made of.
    pub(crate) saver: Arc<Saver>,
}

/// Reasons why a question about a vCPU has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// There is no such vCPU.
    #[error("vCPU {index} does not exist (vCPUs are 0..={})", count.saturating_sub(1))]
    NoSuchVcpu {
        /// The one that was asked for.
        index: usize,
        /// Number of vCPUs.
        count: usize,
    },
    /// The vCPU cannot be asked.
    #[error("vCPU {index}")]
    Ask {
        /// The one that was asked.
        index: usize,
        /// Reason of the missing answer.
        source: AskError,
    },
    /// There is no such interrupt line.
    #[error("interrupt line {line} does not exist (lines are 0..={}, and none without an I/O APIC)", LINES - 1)]
    NoSuchLine {
        /// The one that was asked for.
        line: u32,
    },
    /// No interrupt message goes there.
    #[error("{address:#x} is no address of interrupt messages: those are 0xfee00000 to 0xfeefffff")]
    NoMessage {
        /// The address.
        address: u64,
    },
    /// No processor accepted an interrupt message.
    #[error("no processor took the message: none has the address's APIC id, or its APIC is off")]
    NotTaken,
    /// The hypervisor failed or refused.
    #[error(transparent)]
    Hypervisor(#[from] nerite_hypervisor::Error),
}

/// Holds some vCPUs for as long as it lives.
#[derive(Debug)]
#[must_use = "the vCPUs resume when this is dropped"]
pub struct Pause {
    held: Vec<(Arc<Control>, Held)>,
}

impl Pause {
    /// State of each held vCPU, in the order of the requests.
    pub fn held(&self) -> impl Iterator<Item = Held> + '_ {
        self.held.iter().map(|(_, held)| *held)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        for (control, _) in &self.held {
            control.release();
        }
    }
}

impl Handle {
    /// Gives up, for good and on the calling thread, what only others of the process need.
    ///
    /// # Errors
    /// If the host refuses it.
    pub fn confine_thread(&self, kind: ThreadKind) -> Result<(), Error> {
        let confinement = self.shared.confinement.as_ref();
        Ok(confinement.map_or(Ok(()), |confinement| confinement.enter_thread(kind))?)
    }

    /// Number of vCPUs.
    pub fn vcpu_count(&self) -> usize {
        self.controls.len()
    }

    /// Its network cards.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Time since the machine started.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The guest's RAM.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// The control of one vCPU.
    ///
    /// # Errors
    /// If there is no such vCPU.
    pub fn control(&self, index: usize) -> Result<&Arc<Control>, HandleError> {
        self.controls
            .get(index)
            .ok_or(HandleError::NoSuchVcpu { index, count: self.controls.len() })
    }

    /// State of each vCPU.
    pub fn states(&self) -> Vec<RunState> {
        self.controls.iter().map(|control| control.state()).collect()
    }

    /// Holds all vCPUs. When it returns, none executes an instruction before the pause is dropped.
    pub fn pause(&self) -> Pause {
        Self::hold(self.controls.iter())
    }

    /// Holds one vCPU.
    ///
    /// # Errors
    /// If there is no such vCPU.
    pub fn pause_one(&self, index: usize) -> Result<Pause, HandleError> {
        Ok(Self::hold(std::iter::once(self.control(index)?)))
    }

    fn hold<'a>(controls: impl Iterator<Item = &'a Arc<Control>>) -> Pause {
        // All get the request first: they stop at the same time.
        let controls: Vec<_> = controls.inspect(|control| control.hold()).cloned().collect();
        let held = controls.into_iter().map(|control| {
            let held = control.wait_held(PATIENCE);
            (control, held)
        });
        Pause { held: held.collect() }
    }

    /// Takes back the hold with which a machine is started paused.
    pub(crate) fn release_start(&self) {
        self.controls.iter().for_each(|control| control.release());
    }

    /// Has `question` answered by a vCPU, held or not. It stays as it was.
    ///
    /// # Errors
    /// If there is no such vCPU, it has stopped, or it waits for the host and does not answer.
    pub fn ask<T: Send + 'static>(
        &self,
        index: usize,
        question: impl FnOnce(&mut dyn Vcpu, RunState) -> T + Send + 'static,
    ) -> Result<T, HandleError> {
        self.control(index)?
            .ask(PATIENCE, question)
            .map_err(|source| HandleError::Ask { index, source })
    }

    /// The registers of a vCPU.
    ///
    /// # Errors
    /// As [`Handle::ask`], or if the hypervisor fails.
    pub fn registers(&self, index: usize) -> Result<(Regs, SpecialRegs), HandleError> {
        let regs = self.ask(index, |vcpu, _| {
            let regs = vcpu.regs()?;
            Ok::<_, nerite_vcpu::Error>((regs, vcpu.special_regs()?))
        })?;
        Ok(regs?)
    }

    /// Measurements of each vCPU so far; `None` for a vCPU that does not answer.
    pub fn statistics(&self) -> Vec<Option<Statistics>> {
        let ask = |index| self.ask(index, |vcpu, _| vcpu.statistics()).ok().flatten();
        (0..self.vcpu_count()).map(ask).collect()
    }

    /// Makes a non-maskable interrupt pending on a vCPU.
    ///
    /// # Errors
    /// As [`Handle::ask`], or if the hypervisor fails.
    pub fn inject_nmi(&self, index: usize) -> Result<(), HandleError> {
        Ok(self.ask(index, |vcpu, _| vcpu.inject_nmi())??)
    }

    /// Number of coalesced port writes.
    pub fn coalesced_writes(&self) -> u64 {
        self.coalesced.as_ref().map_or(0, |writes| writes.taken())
    }

    /// Counters of the network cards, and of the other devices that have some.
    pub fn device_counters(&self) -> Vec<DeviceCounters> {
        let mut counters = self.network.counters();
        counters.extend(self.saver.devices.counters());
        counters
    }

    /// Hardware counts of all vCPUs together; `None` if they were not requested or do not exist.
    pub fn processor_counts(&self) -> Option<ProcessorCounts> {
        self.totals.as_ref().and_then(|totals| totals.read())
    }

    /// Raises (`true`) or lowers a line of the interrupt controllers, from 0 to 23.
    ///
    /// # Errors
    /// If there is no such line, or KVM refuses.
    pub fn set_line(&self, line: u32, level: bool) -> Result<(), HandleError> {
        match &self.interrupts {
            Some(interrupts) if line < interrupts.lines() => Ok(interrupts.set_line(line, level)?),
            _ => Err(HandleError::NoSuchLine { line }),
        }
    }

    /// Sends an interrupt message, as a device does by writing `data` to `address` (Intel SDM vol.
    /// 3, 12.11).
    ///
    /// # Errors
    /// If KVM refuses it, or no processor takes it.
    pub fn send_message(&self, address: u64, data: u32) -> Result<(), HandleError> {
        if !MESSAGES.contains(&address) {
            return Err(HandleError::NoMessage { address });
        }
        let is_taken = match (&self.interrupts, &self.chips) {
            (Some(interrupts), _) => interrupts.send_message(address, data)?,
            (None, Some(chips)) => {
                Message::from_device(address, data).is_some_and(|it| chips.deliver(&it))
            }
            (None, None) => false,
        };
        if is_taken { Ok(()) } else { Err(HandleError::NotTaken) }
    }

    /// Queue of stop events for the debugger, if the machine can be debugged.
    pub fn debug_events(&self) -> Option<&Arc<DebugEvents>> {
        self.debug.as_ref()
    }

    /// Debugging abilities of the hypervisor.
    pub fn debug_caps(&self) -> DebugCaps {
        self.debug_caps
    }

    /// Distance of the kernel's load address from its link address.
    pub fn kernel_offset(&self) -> u64 {
        self.offset
    }

    /// Exit code that the guest ended itself with, if it did.
    pub fn exit_code(&self) -> Option<i32> {
        self.shared.exit_code.get().copied()
    }

    /// Readable when the machine is ending.
    pub fn end_event(&self) -> BorrowedFd<'_> {
        self.shared.stop.as_fd()
    }

    /// Ends the machine, as a signal would. Does not wait for it.
    pub fn stop(&self) {
        self.shared.finish(None, Ok(End::Stopped));
    }

    /// Presses the power button: a guest that listens powers itself off. Returns `false` if the
    /// machine has none, as that of a Hermit guest.
    pub fn press_power_button(&self) -> bool {
        self.saver.platform.press_power_button()
    }

    /// `true` if the machine is ending.
    pub fn is_ending(&self) -> bool {
        self.shared.stop.is_requested()
    }
}
