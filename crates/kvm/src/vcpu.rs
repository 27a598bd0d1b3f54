//! A vCPU of KVM.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use kvm_bindings::{KVM_MP_STATE_HALTED, kvm_interrupt, kvm_sregs};
use kvm_ioctls::VcpuFd;
use nerite_arch::{CpuidEntry, Fpu, Regs, SpecialRegs};
use nerite_hypervisor::{
    DebugControl, DirectInterrupts, Entry, Error, Exit, GuestCounter, GuestDebug, InterruptState,
    Kicker, Statistics, Vcpu, VcpuState,
};
use nerite_memory::GuestRam;

use crate::convert;
use crate::counters::Counters;
use crate::exits::{self, Pending};
use crate::kick::KickFlag;
use crate::pages::SharedPages;
use crate::parts::StateParts;
use crate::registers::Registers;
use crate::timer::KickTimer;

/// A vCPU of KVM.
///
/// It may be created on one thread and run on another; the thread that runs it is the one that
/// kicks reach.
pub struct KvmVcpu {
    pub(crate) index: u32,
    pub(crate) fd: VcpuFd,
    pub(crate) pages: Arc<SharedPages>,
    pub(crate) kick: Arc<KickFlag>,
    pending: Pending,
    /// `true` if no instruction is half done.
    pub(crate) is_drained: bool,
    pub(crate) registers: Registers,
    /// Number of `KVM_RUN` calls that a signal ended.
    signals: u64,
    /// `true` if the interrupt controllers are in the VMM.
    pub(crate) is_direct: bool,
    pub(crate) parts: Arc<StateParts>,
    /// The CPUID leaves that the guest sees.
    pub(crate) cpuid: Vec<CpuidEntry>,
    /// Counters that KVM has of this vCPU, if they were requested.
    counters: Option<Counters>,
    /// An open vCPU keeps its VM alive in the kernel, and the VM refers to this memory by address.
    _ram: Arc<GuestRam>,
}

/// Properties of a new vCPU.
pub(crate) struct Properties {
    /// KVM_CAP_SYNC_REGS.
    pub(crate) sync_capability: i32,
    pub(crate) is_direct: bool,
    pub(crate) parts: Arc<StateParts>,
    pub(crate) cpuid: Vec<CpuidEntry>,
    pub(crate) ram: Arc<GuestRam>,
}

/// `_IOW(KVMIO, 0x86, struct kvm_interrupt)`.
const KVM_INTERRUPT: libc::Ioctl = 0x4004_ae86;

/// Purpose of entering the guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// To run it.
    Run,
    /// To complete a pending access: `immediate_exit` is set, and a kick stays for the next run.
    Drain,
}

impl KvmVcpu {
    pub(crate) fn new(index: u32, mut fd: VcpuFd, properties: Properties) -> Result<Self, Error> {
        let Properties { sync_capability, is_direct, parts, cpuid, ram } = properties;
        let failed =
            |source| Error::Vcpu { index, operation: "mapping the vCPU's kvm_run", source };
        let pages = Arc::new(SharedPages::new(&fd).map_err(failed)?);
        let kick = KickFlag::new(pages.clone()).map_err(failed)?;
        let registers = Registers::new(&mut fd, sync_capability);
        Ok(Self {
            index,
            fd,
            pages,
            kick,
            pending: Pending::None,
            is_drained: true,
            registers,
            signals: 0,
            is_direct,
            parts,
            cpuid,
            counters: None,
            _ram: ram,
        })
    }

    /// Sets segments and control registers that KVM will not refuse.
    pub(crate) fn start_special(&mut self, special: kvm_sregs) -> Result<(), Error> {
        self.registers.start_special(&mut self.fd, special).map_err(|error| self.failed(error))
    }

    /// Tells KVM all registers that were set in the shared page.
    pub(crate) fn flush_registers(&mut self) -> Result<(), Error> {
        self.registers.flush(&mut self.fd).map_err(|error| self.failed(error))
    }

    /// Number of system calls that were made to read or write registers.
    pub fn register_calls(&self) -> u64 {
        self.registers.calls()
    }

    fn failed(&self, (operation, error): (&'static str, kvm_ioctls::Error)) -> Error {
        Error::Vcpu { index: self.index, operation, source: error.into() }
    }

    pub(crate) fn call_error(
        &self,
        operation: &'static str,
    ) -> impl FnOnce(kvm_ioctls::Error) -> Error + use<> {
        let index = self.index;
        move |error| Error::Vcpu { index, operation, source: error.into() }
    }

    /// Enters the guest until there is an exit, or until a kick.
    fn enter(&mut self, mode: Mode) -> Result<Exit, Error> {
        self.kick.bind();
        if let Err(error) = self.registers.before_run(&mut self.fd) {
            return Err(self.failed(error));
        }
        loop {
            let entered = self.fd.run();
            self.registers.after_run();
            let raw = match entered {
                Ok(exit) => match exits::copy(&exit) {
                    exits::Raw::Invalid => {
                        exits::refuse_msr(&mut self.fd);
                        continue;
                    }
                    raw => raw,
                },
                Err(error) => {
                    let error = io::Error::from(error);
                    match error.kind() {
                        // A signal: by now KVM has completed the pending access. Without a kick it
                        // was meant for others.
                        io::ErrorKind::Interrupted => {
                            self.signals = self.signals.wrapping_add(1);
                            if mode == Mode::Drain || self.kick.take() {
                                self.is_drained = true;
                                return Ok(Exit::Kicked);
                            }
                            continue;
                        }
                        // A processor that still waits for its start was woken: let it look again.
                        io::ErrorKind::WouldBlock => continue,
                        _ => {
                            return Err(Error::Vcpu {
                                index: self.index,
                                operation: "KVM_RUN",
                                source: error,
                            });
                        }
                    }
                }
            };
            let (exit, pending) = exits::finish(raw, &mut self.fd);
            self.pending = pending;
            // KVM completes these when it is entered again.
            self.is_drained = !matches!(
                exit,
                Exit::PortIn { .. }
                    | Exit::PortOut { .. }
                    | Exit::MmioRead { .. }
                    | Exit::MmioWrite { .. }
                    | Exit::Hypercall { .. }
                    | Exit::MsrRead { .. }
                    | Exit::MsrWrite { .. }
            );
            return Ok(exit);
        }
    }
}

impl Vcpu for KvmVcpu {
    fn index(&self) -> u32 {
        self.index
    }

    fn run(&mut self, entry: Entry) -> Result<Exit, Error> {
        match self.pending.answer(&mut self.fd, entry) {
            Some(next) => Ok(next),
            None => self.enter(Mode::Run),
        }
    }

    fn complete(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        if let Some(next) = self.pending.answer(&mut self.fd, entry) {
            return Ok(Some(next));
        }
        self.kick.begin_drain();
        let exit = self.enter(Mode::Drain);
        self.kick.end_drain();
        Ok(Some(exit?).filter(|exit| *exit != Exit::Kicked))
    }

    fn regs(&mut self) -> Result<Regs, Error> {
        let regs = self.registers.general(&mut self.fd);
        regs.map_err(|error| self.failed(error))
    }

    fn set_regs(&mut self, regs: &Regs) -> Result<(), Error> {
        self.registers.set_general(&mut self.fd, regs);
        Ok(())
    }

    fn special_regs(&mut self) -> Result<SpecialRegs, Error> {
        let special = self.registers.special(&self.fd);
        special.map_err(|error| self.failed(error))
    }

    fn set_special_regs(&mut self, regs: &SpecialRegs) -> Result<(), Error> {
        let set = self.registers.set_special(&mut self.fd, regs);
        set.map_err(|error| self.failed(error))
    }

    fn kicker(&self) -> Kicker {
        Kicker::new(self.kick.clone())
    }

    fn take_kick(&mut self) -> bool {
        self.kick.take()
    }

    fn fpu(&mut self) -> Result<Fpu, Error> {
        let xsave = self.fd.get_xsave().map_err(self.call_error("KVM_GET_XSAVE"))?;
        let bytes: Vec<u8> = xsave.region.iter().flat_map(|word| word.to_le_bytes()).collect();
        Ok(Fpu::from_xsave(&bytes))
    }

    fn set_fpu(&mut self, fpu: &Fpu) -> Result<(), Error> {
        let mut xsave = self.fd.get_xsave().map_err(self.call_error("KVM_GET_XSAVE"))?;
        let bytes = fpu.to_xsave();
        for (to, from) in xsave.region.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *to = u32::from_le_bytes(*from);
        }
        // SAFETY: KVM reads as much as KVM_GET_XSAVE wrote, 4096 bytes, unless the process has
        // asked for features with larger state (arch_prctl), which nothing here does.
        unsafe { self.fd.set_xsave(&xsave) }.map_err(self.call_error("KVM_SET_XSAVE"))
    }

    fn inject_nmi(&mut self) -> Result<(), Error> {
        self.fd.nmi().map_err(self.call_error("KVM_NMI"))
    }

    fn save(&mut self) -> Result<VcpuState, Error> {
        self.save_state()
    }

    fn restore(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.restore_state(state)
    }

    fn restore_registers(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.restore_registers_of(state)
    }

    fn statistics(&self) -> Option<Statistics> {
        let in_kernel = self.counters.as_ref().and_then(Counters::read);
        Some(Statistics { signals: self.signals, in_kernel, ..Statistics::default() })
    }

    fn kick_timer(&mut self) -> Result<Box<dyn nerite_hypervisor::KickTimer>, Error> {
        let timer = KickTimer::new(&self.kick).map_err(|source| Error::Vcpu {
            index: self.index,
            operation: "creating a timer",
            source,
        })?;
        Ok(Box::new(timer))
    }

    fn kick_at_overflow(&mut self, counter: &dyn GuestCounter) -> Result<(), Error> {
        self.kick.kick_by_itself();
        counter.signal_this_thread().map_err(|source| Error::Vcpu {
            index: self.index,
            operation: "asking for a signal from a counter",
            source,
        })
    }

    fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz != 0)
    }

    /// KVM counts since Linux 5.14.
    fn count_in_kernel(&mut self) -> bool {
        self.counters = Counters::open(&self.fd);
        self.counters.is_some()
    }

    fn debug(&mut self) -> Option<&mut dyn DebugControl> {
        Some(self)
    }

    fn direct_interrupts(&mut self) -> Option<&mut dyn DirectInterrupts> {
        // A VM whose interrupt controllers are in KVM refuses to be injected interrupts.
        if self.is_direct { Some(self) } else { None }
    }

    fn is_halted(&mut self) -> Result<bool, Error> {
        let state = self.fd.get_mp_state().map_err(self.call_error("KVM_GET_MP_STATE"))?;
        Ok(state.mp_state == KVM_MP_STATE_HALTED)
    }
}

impl DebugControl for KvmVcpu {
    fn set_guest_debug(&mut self, debug: &GuestDebug) -> Result<(), Error> {
        // Setting a trap looks at RIP and changes the flags.
        self.flush_registers()?;
        self.fd
            .set_guest_debug(&convert::debug_to_kvm(debug))
            .map_err(self.call_error("KVM_SET_GUEST_DEBUG"))
    }
}

impl DirectInterrupts for KvmVcpu {
    fn interrupt_state(&mut self) -> InterruptState {
        let run = self.fd.get_kvm_run();
        InterruptState {
            accepts: run.ready_for_interrupt_injection != 0,
            enabled: run.if_flag != 0,
            priority_class: run.cr8.to_le_bytes()[0],
            apic_base: run.apic_base,
        }
    }

    fn inject_interrupt(&mut self, vector: u8) -> Result<(), Error> {
        let interrupt = kvm_interrupt { irq: vector.into() };
        // SAFETY: the descriptor is that of an open vCPU, and KVM reads a structure of this type at
        // this address.
        let injected =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_INTERRUPT, &raw const interrupt) };
        if injected < 0 {
            let (operation, source) = ("KVM_INTERRUPT", io::Error::last_os_error());
            return Err(Error::Vcpu { index: self.index, operation, source });
        }
        // One is on its way: there is room for the next when KVM says so.
        self.fd.get_kvm_run().ready_for_interrupt_injection = 0;
        Ok(())
    }

    fn request_interrupt_window(&mut self, wanted: bool) {
        self.fd.get_kvm_run().request_interrupt_window = wanted.into();
    }

    fn set_priority_class(&mut self, class: u8) {
        self.fd.get_kvm_run().cr8 = class.into();
    }
}

impl fmt::Debug for KvmVcpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmVcpu")
            .field("index", &self.index)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
