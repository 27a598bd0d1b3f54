//! A hypervisor and VM without a processor.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use nerite_arch::CpuidEntry;
use nerite_event::Event;
use nerite_memory::GuestRam;
use parking_lot::Mutex;

use super::{Program, Scripted};
use crate::{
    Activity, Capabilities, CoalescedWrites, Doorbells, Error, Hypervisor, InterruptController,
    Irqchip, LINES, MessageId, Vcpu, VcpuStart, Vm, VmOptions, VmState,
};

/// Makes the program of a vCPU, by index.
type Programs = Box<dyn Fn(u32) -> Program + Send + Sync>;

/// A hypervisor whose guests are programs in Rust.
pub struct ScriptedHypervisor {
    programs: Arc<Programs>,
    cpuid: Vec<CpuidEntry>,
    interrupts: Arc<ScriptedInterrupts>,
}

impl ScriptedHypervisor {
    /// A hypervisor whose vCPUs run what `programs` returns for their index.
    pub fn new(programs: impl Fn(u32) -> Program + Send + Sync + 'static) -> Self {
        Self {
            programs: Arc::new(Box::new(programs)),
            cpuid: Vec::new(),
            interrupts: Arc::default(),
        }
    }

    /// This hypervisor with CPUID leaves that guests can have; there are none without.
    #[must_use]
    pub fn with_cpuid(mut self, leaves: Vec<CpuidEntry>) -> Self {
        self.cpuid = leaves;
        self
    }

    /// Interrupts of its VMs.
    pub fn interrupts(&self) -> &Arc<ScriptedInterrupts> {
        &self.interrupts
    }
}

impl fmt::Debug for ScriptedHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedHypervisor")
    }
}

impl Hypervisor for ScriptedHypervisor {
    fn name(&self) -> &'static str {
        "script"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { tsc_deadline: true, in_kernel: false }
    }

    fn max_vcpus(&self) -> usize {
        16
    }

    fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error> {
        Ok(self.cpuid.clone())
    }

    fn supported_msrs(&self) -> Result<Vec<u32>, Error> {
        Ok(Vec::new())
    }

    fn create_vm(&self, ram: Arc<GuestRam>, options: &VmOptions) -> Result<Box<dyn Vm>, Error> {
        let interrupts = (options.irqchip == Irqchip::Hypervisor).then(|| self.interrupts.clone());
        Ok(Box::new(ScriptedVm {
            ram,
            programs: self.programs.clone(),
            interrupts,
            doorbells: Arc::default(),
            state: Mutex::default(),
        }))
    }
}

struct ScriptedVm {
    ram: Arc<GuestRam>,
    programs: Arc<Programs>,
    interrupts: Option<Arc<ScriptedInterrupts>>,
    doorbells: Arc<ScriptedDoorbells>,
    state: Mutex<VmState>,
}

impl fmt::Debug for ScriptedVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedVm").field("ram", &self.ram).finish_non_exhaustive()
    }
}

impl Vm for ScriptedVm {
    fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    fn create_vcpu(
        &self,
        index: u32,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error> {
        let mut vcpu = Scripted::with_program((self.programs)(index));
        vcpu.index = index;
        vcpu.ram = Some(self.ram.clone());
        vcpu.state.cpuid = cpuid.to_vec();
        match start {
            VcpuStart::At(state) => {
                vcpu.regs = state.regs;
                vcpu.special_regs = state.special;
                vcpu.state.msrs.clone_from(&state.msrs);
            }
            VcpuStart::WaitForSipi(msrs) => {
                vcpu.state.run_state = Activity::WaitForSipi;
                vcpu.state.msrs = msrs.to_vec();
            }
        }
        Ok(Box::new(vcpu))
    }

    fn interrupt_controller(&self) -> Option<Arc<dyn InterruptController>> {
        self.interrupts.clone().map(|interrupts| interrupts as Arc<dyn InterruptController>)
    }

    fn doorbells(&self) -> Arc<dyn Doorbells> {
        self.doorbells.clone()
    }

    fn coalesce_port_writes(&self, _: u16, _: u16) -> Result<(), Error> {
        Err(Error::Lacks { capability: "coalesced port writes" })
    }

    fn coalesced_writes(&self) -> Option<Arc<dyn CoalescedWrites>> {
        None
    }

    fn save(&self) -> Result<VmState, Error> {
        Ok(*self.state.lock())
    }

    fn restore(&self, state: &VmState) -> Result<(), Error> {
        state.check().map_err(Error::VmState)?;
        *self.state.lock() = *state;
        Ok(())
    }
}

#[derive(Debug, Default)]
struct ScriptedDoorbells {
    attached: Mutex<BTreeMap<u64, Event>>,
}

impl Doorbells for ScriptedDoorbells {
    fn attach(&self, address: u64, event: &Event) -> Result<(), Error> {
        self.attached.lock().insert(address, event.clone());
        Ok(())
    }

    fn detach(&self, address: u64, _: &Event) -> Result<(), Error> {
        match self.attached.lock().remove(&address) {
            Some(_) => Ok(()),
            None => Err(not_found("detaching a doorbell")),
        }
    }
}

fn not_found(operation: &'static str) -> Error {
    Error::Call { operation, source: io::ErrorKind::NotFound.into() }
}

/// An interrupt that a device or the VMM has raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// A line was set.
    Line(u32, bool),
    /// A rising edge of a line.
    Edge(u32),
    /// A line was raised until the end of the interrupt.
    Raise(u32),
    /// A message: address and data.
    Message(u64, u32),
}

/// Interrupt controllers that record what is raised.
#[derive(Debug, Default)]
pub struct ScriptedInterrupts {
    raised: Arc<Mutex<Vec<Interrupt>>>,
    messages: Mutex<u32>,
}

impl ScriptedInterrupts {
    /// Interrupts so far, in order.
    pub fn raised(&self) -> Vec<Interrupt> {
        self.raised.lock().clone()
    }

    fn record(&self, event: &Event, interrupt: Interrupt) {
        let raised = self.raised.clone();
        event.connect(Arc::new(move || raised.lock().push(interrupt)));
    }
}

impl InterruptController for ScriptedInterrupts {
    fn lines(&self) -> u32 {
        LINES
    }

    fn set_line(&self, line: u32, level: bool) -> Result<(), Error> {
        self.raised.lock().push(Interrupt::Line(line, level));
        Ok(())
    }

    fn send_message(&self, address: u64, data: u32) -> Result<bool, Error> {
        self.raised.lock().push(Interrupt::Message(address, data));
        Ok(true)
    }

    fn connect_edge(&self, line: u32, event: &Event) -> Result<(), Error> {
        self.record(event, Interrupt::Edge(line));
        Ok(())
    }

    fn connect_level(&self, line: u32, raise: &Event, _lowered: &Event) -> Result<(), Error> {
        self.record(raise, Interrupt::Raise(line));
        Ok(())
    }

    fn reserve_message(&self) -> Option<MessageId> {
        let mut messages = self.messages.lock();
        let id = MessageId(*messages);
        *messages = messages.checked_add(1)?;
        Some(id)
    }

    fn connect_message(
        &self,
        _: MessageId,
        event: &Event,
        address: u64,
        data: u32,
    ) -> Result<(), Error> {
        self.record(event, Interrupt::Message(address, data));
        Ok(())
    }

    fn disconnect_message(&self, _: MessageId, event: &Event) -> Result<(), Error> {
        event.disconnect();
        Ok(())
    }
}
