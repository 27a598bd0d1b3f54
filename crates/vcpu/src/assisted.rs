//! Instructions that a hypervisor cannot execute, on a second one.
//!
//! KVM interprets instructions that access devices, and everything in modes that the processor does
//! not run itself. It does not know all of them: a vector instruction of 32 bytes on MMIO is an
//! internal error. Such an instruction is executed on a vCPU of another hypervisor, from the
//! registers that it finds and back to them. The first one's interrupt controllers keep running
//! meanwhile.

use std::fmt;
use std::sync::Arc;

use nerite_arch::Fpu;
use nerite_arch::paging::{self, Root};
use nerite_hypervisor::{
    Activity, Entry, Error, Exit, GuestDebug, Hypervisor, InternalError, Irqchip, Layer,
    PendingEvents, Vcpu, VcpuStart, VcpuState, Vm, VmOptions, VmState,
};
use nerite_log_budget::Causes;
use nerite_memory::GuestRam;
use parking_lot::Mutex;

/// Opens the second hypervisor.
type Open = Box<dyn Fn() -> Result<Arc<dyn Hypervisor>, Error> + Send + Sync>;

/// Bits of CR4 that change the execution of a single instruction, or are restored with it (Intel
/// SDM vol. 3, 2.5): TSD to OSXMMEXCPT, UMIP, LA57, FSGSBASE, OSXSAVE, SMEP, SMAP. The others are
/// about translations that are cached, rights by protection keys, and further extensions.
const CR4: u64 = 0x0035_1ffc;
/// The same for `IA32_EFER`: SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;
/// x87, SSE and AVX in XCR0 and XSTATE_BV, and the places of the latter and of their registers in
/// an XSAVE area (Intel SDM vol. 1, 13.4).
const PARTS: u64 = Fpu::PARTS;
const XSTATE_BV: usize = 512;
const LEGACY_END: usize = 512;
const AVX: usize = 576;
/// Prefixes before an opcode, and the first byte of an instruction with AVX-512 registers (Intel
/// SDM vol. 2, 2.1.1 and 2.7.1).
const PREFIXES: [u8; 11] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3];
const EVEX: u8 = 0x62;

/// The second hypervisor of a machine, for all its vCPUs. It is opened when the first instruction
/// needs it.
pub struct Assistance {
    open: Open,
    ram: Arc<GuestRam>,
    vcpus: u32,
    opened: Mutex<Option<Opened>>,
}

#[derive(Clone)]
struct Opened {
    vm: Arc<dyn Vm>,
    /// MSRs that its vCPUs have.
    msrs: Arc<[u32]>,
}

impl Assistance {
    /// Assistance for so many vCPUs with this RAM, by the hypervisor that `open` opens.
    pub fn new(
        ram: Arc<GuestRam>,
        vcpus: u32,
        open: impl Fn() -> Result<Arc<dyn Hypervisor>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open), ram, vcpus, opened: Mutex::default() }
    }

    fn open(&self) -> Result<Opened, Error> {
        let mut opened = self.opened.lock();
        if let Some(opened) = &*opened {
            return Ok(opened.clone());
        }
        let hypervisor = (self.open)()?;
        // Interrupts and timers stay with the first hypervisor.
        let options = VmOptions {
            vcpus: self.vcpus,
            irqchip: Irqchip::User,
            kick_timers: false,
            msr_exits: true,
            ..VmOptions::default()
        };
        let vm = Arc::from(hypervisor.create_vm(self.ram.clone(), &options)?);
        let msrs = hypervisor.supported_msrs()?.into();
        Ok(opened.insert(Opened { vm, msrs }).clone())
    }
}

impl fmt::Debug for Assistance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assistance").finish_non_exhaustive()
    }
}

/// A vCPU whose hypervisor is [assisted](Assistance) with instructions that it cannot execute.
///
/// Such an instruction's accesses of ports and MMIO are exits as any others. It does not reach
/// interrupt controllers that are in the first hypervisor.
#[derive(Debug)]
pub struct Assisted {
    inner: Box<dyn Vcpu>,
    assistance: Arc<Assistance>,
    /// The vCPU of the second hypervisor, once there is one.
    second: Option<Box<dyn Vcpu>>,
    /// The state before the instruction that the second vCPU is executing.
    before: Option<VcpuState>,
    is_reported: bool,
}

impl Assisted {
    /// Adds assistance to `inner`.
    pub fn new(inner: Box<dyn Vcpu>, assistance: Arc<Assistance>) -> Self {
        Self { inner, assistance, second: None, before: None, is_reported: false }
    }

    /// Takes the vCPU's state to the second one. Returns `false` if that cannot have it.
    fn begin(&mut self, failure: &InternalError) -> Result<bool, Error> {
        if is_evex(failure.instruction.as_slice()) {
            return Ok(false);
        }
        let before = self.inner.save()?;
        // Code in a device is what failed then, and no instruction.
        if !is_in_ram(&self.assistance.ram, &before) {
            return Ok(false);
        }
        if let Err(error) = self.prepare(&before) {
            let (index, error) = (self.inner.index(), Causes(&error));
            log::warn!("vCPU {index}: no assistance with an instruction: {error}");
            return Ok(false);
        }
        if !std::mem::replace(&mut self.is_reported, true) {
            log::info!(
                "vCPU {}: the hypervisor cannot execute the instruction at {:#x} (bytes {}); it and others are \
                 executed in software",
                self.inner.index(),
                before.regs.rip,
                failure.instruction,
            );
        }
        self.before = Some(before);
        Ok(true)
    }

    fn prepare(&mut self, before: &VcpuState) -> Result<(), Error> {
        let Opened { vm, msrs } = self.assistance.open()?;
        // The guest may have written code since the last time.
        vm.restore(&VmState::default())?;
        let index = self.inner.index();
        let second = match &mut self.second {
            Some(second) => second,
            none => {
                let mut second =
                    vm.create_vcpu(index, VcpuStart::WaitForSipi(&[]), &before.cpuid)?;
                let unsupported = Error::Unsupported { index, operation: "single steps" };
                let step = GuestDebug {
                    single_step: true,
                    block_interrupts: true,
                    ..GuestDebug::default()
                };
                second.debug().ok_or(unsupported)?.set_guest_debug(&step)?;
                none.insert(second)
            }
        };
        second.restore(&reduced(before, &msrs))
    }

    /// Takes the state back after the instruction.
    fn finish(&mut self) -> Result<(), Error> {
        let (Some(before), Some(second)) = (self.before.take(), &mut self.second) else {
            return Ok(());
        };
        self.inner.restore_registers(&merged(&before, &second.save()?))
    }
}

impl Layer for Assisted {
    fn inner(&self) -> &dyn Vcpu {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Vcpu {
        &mut *self.inner
    }

    fn run_layer(&mut self, mut entry: Entry) -> Result<Exit, Error> {
        loop {
            let Some(second) = self.second.as_mut().filter(|_| self.before.is_some()) else {
                let exit = self.inner.run(std::mem::take(&mut entry))?;
                if let Exit::InternalError(failure) = &exit
                    && failure.is_unknown_instruction()
                    && self.begin(failure)?
                {
                    continue;
                }
                return Ok(exit);
            };
            let exit = second.run(std::mem::take(&mut entry))?;
            match exit {
                // It resumes when it gets its answer.
                Exit::PortIn { .. }
                | Exit::PortOut { .. }
                | Exit::MmioRead { .. }
                | Exit::MmioWrite { .. }
                | Exit::MsrRead { .. }
                | Exit::MsrWrite { .. } => return Ok(exit),
                // The step is over.
                Exit::Debug { .. } => self.finish()?,
                // Kicks are for the vCPU that is known to others.
                Exit::Kicked => {}
                _ => {
                    self.finish()?;
                    return Ok(exit);
                }
            }
        }
    }

    fn complete_layer(&mut self, entry: Entry) -> Result<Option<Exit>, Error> {
        let Some(second) = self.second.as_mut().filter(|_| self.before.is_some()) else {
            return self.inner.complete(entry);
        };
        let exit = second.complete(entry)?;
        if exit.is_none() {
            self.finish()?;
        }
        Ok(exit)
    }
}

/// `true` for an instruction with AVX-512 registers, which no second hypervisor has: it would raise
/// #UD in the guest.
fn is_evex(instruction: &[u8]) -> bool {
    instruction.iter().find(|byte| !PREFIXES.contains(byte)) == Some(&EVEX)
}

/// `true` if the next instruction is in RAM. Only code in long mode is looked up.
fn is_in_ram(ram: &GuestRam, state: &VcpuState) -> bool {
    let Some(root) = Root::of(&state.special) else { return true };
    let base = if state.special.cs.l { 0 } else { state.special.cs.base };
    let address = state.regs.rip.wrapping_add(base);
    let found = paging::walk(root, address, |at| ram.read_obj::<u64>(at).ok());
    found.is_ok_and(|found| ram.check(found.phys, 1).is_ok())
}

/// The part of a state that a single instruction depends on.
fn reduced(before: &VcpuState, msrs: &[u32]) -> VcpuState {
    let mut state = before.clone();
    state.special.cr4 &= CR4;
    state.special.efer &= EFER;
    state.xcr0 &= PARTS;
    state.xsave.truncate(Fpu::SIZE);
    state.msrs.retain(|msr| msrs.contains(&msr.index));
    state.apic = None;
    state.tsc_khz = None;
    state.run_state = Activity::Runnable;
    state.events = PendingEvents { shadow: before.events.shadow, ..PendingEvents::default() };
    state
}

/// The state after the instruction, with what [`reduced`] has taken away.
fn merged(before: &VcpuState, after: &VcpuState) -> VcpuState {
    let mut state = VcpuState {
        regs: after.regs,
        special: after.special,
        debug: after.debug,
        xcr0: after.xcr0 & PARTS | before.xcr0 & !PARTS,
        events: after.events,
        ..before.clone()
    };
    state.special.cr4 |= before.special.cr4 & !CR4;
    state.special.efer |= before.special.efer & !EFER;
    state.special.apic_base = before.special.apic_base;
    copy(&mut state.xsave, &after.xsave, 0..LEGACY_END);
    copy(&mut state.xsave, &after.xsave, AVX..Fpu::SIZE);
    let parts = |area: &[u8]| {
        let word = area.get(XSTATE_BV..).and_then(|rest| rest.first_chunk()).copied();
        u64::from_le_bytes(word.unwrap_or_default())
    };
    let mut enabled = parts(&after.xsave) & PARTS | parts(&before.xsave) & !PARTS;
    if before.xsave.len() < Fpu::SIZE {
        enabled &= !(1 << 2);
    }
    if let Some(word) = state.xsave.get_mut(XSTATE_BV..).and_then(|rest| rest.first_chunk_mut()) {
        *word = enabled.to_le_bytes();
    }
    // Only those that it has changed: most have other effects than to hold their value.
    state.msrs = after.msrs.clone();
    state.msrs.retain(|msr| before.msr(msr.index).is_some_and(|value| value != msr.value));
    state
}

fn copy(to: &mut [u8], from: &[u8], range: std::ops::Range<usize>) {
    let from = from.get(range.clone()).unwrap_or_default();
    for (to, from) in to.iter_mut().skip(range.start).zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
#[path = "assisted_test.rs"]
mod tests;
