//! A VM of KVM: RAM, interrupt controllers, vCPUs.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kvm_bindings::{
    CpuId, KVM_CAP_X2APIC_API, KVM_CAP_X86_DISABLE_EXITS, KVM_CAP_X86_USER_SPACE_MSR, KVM_MP_STATE_RUNNABLE,
    KVM_MSR_EXIT_REASON_INVAL, KVM_MSR_EXIT_REASON_UNKNOWN, KVM_PIT_SPEAKER_DUMMY,
    KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS, KVM_X86_DISABLE_EXITS_CSTATE,
    KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_MWAIT, KVM_X86_DISABLE_EXITS_PAUSE, Msrs,
    kvm_enable_cap, kvm_mp_state, kvm_msr_entry, kvm_pit_config, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, VmFd};
use nerite_arch::{BootState, CpuidEntry, Msr};
use nerite_memory::{GuestRam, Mapping};
use nerite_vcpu::{PostedWrites, Vcpu};

use crate::ring::Ring;
use crate::{Error, Interrupts, KvmVcpu, System, convert};

/// Three pages for the task state segment that Intel processors without "unrestricted guest" need, in the hole
/// between 3 and 4 GiB that RAM never covers, below KVM's identity map page.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// The most bytes a memory slot can have: 2^31 - 1 pages (`KVM_MEM_MAX_NR_PAGES` of Linux).
const MAX_SLOT: u64 = 0x7fff_ffff << 12;

/// Where a VM's interrupt controllers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Irqchip {
    /// In KVM: PIC, I/O APIC and local APICs.
    #[default]
    Kernel,
    /// With the caller, who injects interrupts ([`nerite_vcpu::DirectInterrupts`]), waits where the guest halts, and is asked about the
    /// x2APIC's registers ([`nerite_vcpu::Exit::MsrRead`]) and those of the xAPIC (as MMIO).
    User,
}

/// How a VM differs from the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Where the interrupt controllers are.
    pub irqchip: Irqchip,
    /// Create an in-kernel i8254 interval timer; not without the other interrupt controllers there.
    pub pit: bool,
    /// Leave the guest when it accesses a model-specific register that KVM does not know, instead of raising #GP.
    pub msr_exits: bool,
    /// Let the guest execute HLT, MWAIT and PAUSE without leaving it, so that it manages the host CPU's power states.
    pub power_management: bool,
    /// The guest is one that uses real mode, as kernels do that start on a PC or start other processors like there. Old Intel
    /// processors need some memory for that.
    pub real_mode: bool,
}

/// A VM with nothing in it yet. To create it can take milliseconds, for which nothing else has to be known.
#[derive(Debug)]
pub struct BareVm {
    fd: VmFd,
    sync_capability: i32,
}

impl BareVm {
    /// Creates a VM.
    ///
    /// # Errors
    /// If KVM refuses.
    pub fn new(system: &System) -> Result<Self, Error> {
        Ok(Self { fd: create(system)?, sync_capability: system.sync_capability })
    }

    /// Gives it `ram` and interrupt controllers.
    ///
    /// # Errors
    /// If a call of KVM fails.
    pub fn complete(self, ram: Arc<GuestRam>, options: &Options) -> Result<Vm, Error> {
        Vm::equip(self, ram, options)
    }
}

/// A VM of KVM with its RAM and in-kernel interrupt controllers.
pub struct Vm {
    pub(crate) fd: Arc<VmFd>,
    /// What it says of `KVM_CAP_SYNC_REGS`.
    sync_capability: i32,
    irqchip: Irqchip,
    /// KVM refers to this memory by address for as long as the VM or one of its vCPUs is open.
    ram: Arc<GuestRam>,
    /// The ring of posted writes, once there is a vCPU, through which it is reached.
    ring: OnceLock<Arc<Ring>>,
}

impl Vm {
    /// Creates a VM with `ram` and the in-kernel PIC, I/O APIC and local APICs.
    ///
    /// # Errors
    /// If a call of KVM fails.
    pub fn new(system: &System, ram: Arc<GuestRam>, options: &Options) -> Result<Self, Error> {
        BareVm::new(system)?.complete(ram, options)
    }

    fn equip(bare: BareVm, ram: Arc<GuestRam>, options: &Options) -> Result<Self, Error> {
        let BareVm { fd, sync_capability } = bare;
        let vm =
            Self { fd: Arc::new(fd), sync_capability, irqchip: options.irqchip, ram, ring: OnceLock::new() };
        vm.add_ram()?;
        if options.real_mode {
            vm.fd.set_tss_address(TSS_ADDRESS).map_err(Error::call("KVM_SET_TSS_ADDR"))?;
        }
        let is_in_kernel = options.irqchip == Irqchip::Kernel;
        if is_in_kernel {
            vm.fd.create_irq_chip().map_err(Error::call("KVM_CREATE_IRQCHIP"))?;
            vm.enable_x2apic()?;
        }
        if options.pit {
            let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            vm.fd.create_pit2(config).map_err(Error::call("KVM_CREATE_PIT2"))?;
        }
        if options.power_management {
            vm.keep_power_instructions_in_guest()?;
        }
        let unknown = if options.msr_exits { KVM_MSR_EXIT_REASON_UNKNOWN } else { 0 };
        // Without local APICs, KVM refuses their registers as it refuses wrong values.
        let invalid = if is_in_kernel { 0 } else { KVM_MSR_EXIT_REASON_INVAL };
        if unknown | invalid != 0 {
            vm.leave_at_msrs(unknown | invalid)?;
        }
        Ok(vm)
    }

    /// The RAM of this VM.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Interrupts and notifications of this VM's devices.
    pub fn interrupts(&self) -> Interrupts {
        Interrupts::new(self.fd.clone())
    }

    fn add_ram(&self) -> Result<(), Error> {
        for (slot, mapping) in (0_u32..).zip(self.ram.mappings()) {
            let region = memory_region(slot, &mapping)?;
            // SAFETY: the mapping belongs to `self.ram`, which is kept until the VM is closed, is never moved or shrunk, and is
            // accessed from here only in ways that allow others (the guest) to change it at any time.
            unsafe { self.fd.set_user_memory_region(region) }.map_err(|error| Error::Ram {
                start: mapping.guest,
                size: mapping.size,
                source: error.into(),
            })?;
        }
        Ok(())
    }

    /// APIC ids above 254 and no broadcast quirk: x2APIC as the Intel SDM (vol. 3, 12.12) has it.
    fn enable_x2apic(&self) -> Result<(), Error> {
        let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        let cap =
            kvm_enable_cap { cap: KVM_CAP_X2APIC_API, args: [flags.into(), 0, 0, 0], ..Default::default() };
        self.fd.enable_cap(&cap).map_err(Error::call("KVM_ENABLE_CAP(KVM_CAP_X2APIC_API)"))
    }

    fn keep_power_instructions_in_guest(&self) -> Result<(), Error> {
        let wanted = KVM_X86_DISABLE_EXITS_MWAIT
            | KVM_X86_DISABLE_EXITS_HLT
            | KVM_X86_DISABLE_EXITS_PAUSE
            | KVM_X86_DISABLE_EXITS_CSTATE;
        let possible = self.fd.check_extension_raw(KVM_CAP_X86_DISABLE_EXITS.into()).cast_unsigned() & wanted;
        if possible == 0 {
            return Err(Error::Lacks { capability: "KVM_CAP_X86_DISABLE_EXITS" });
        }
        let cap = kvm_enable_cap {
            cap: KVM_CAP_X86_DISABLE_EXITS,
            args: [possible.into(), 0, 0, 0],
            ..Default::default()
        };
        self.fd.enable_cap(&cap).map_err(Error::call("KVM_ENABLE_CAP(KVM_CAP_X86_DISABLE_EXITS)"))
    }

    fn leave_at_msrs(&self, reasons: u32) -> Result<(), Error> {
        let capability = "KVM_CAP_X86_USER_SPACE_MSR";
        if self.fd.check_extension_raw(KVM_CAP_X86_USER_SPACE_MSR.into()) == 0 {
            return Err(Error::Lacks { capability });
        }
        let cap = kvm_enable_cap {
            cap: KVM_CAP_X86_USER_SPACE_MSR,
            args: [reasons.into(), 0, 0, 0],
            ..Default::default()
        };
        self.fd.enable_cap(&cap).map_err(Error::call("KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR)"))
    }

    /// Creates vCPU number `index`, ready to run from `state`; `cpuid` is what CPUID says.
    ///
    /// # Errors
    /// If a call of KVM fails, or KVM refuses an MSR (which is named).
    pub fn create_vcpu(&self, index: u32, state: &BootState, cpuid: &[CpuidEntry]) -> Result<KvmVcpu, Error> {
        let mut vcpu = self.new_vcpu(index, cpuid, &state.msrs)?;
        // A new vCPU has no interrupt pending, which is all that these registers have beyond ours.
        let mut sregs = kvm_sregs::default();
        convert::special_regs_to_kvm(&state.special, &mut sregs);
        vcpu.start_special(sregs)?;
        vcpu.set_regs(&state.regs)?;
        // All vCPUs start at the entry point, none waits for INIT and SIPI. The first one never does.
        if index != 0 && self.irqchip == Irqchip::Kernel {
            vcpu.fd
                .set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
                .map_err(vcpu.engine_error("KVM_SET_MP_STATE"))?;
        }
        Ok(vcpu)
    }

    /// A vCPU in the state of a reset, but for CPUID and these MSRs.
    pub(crate) fn new_vcpu(&self, index: u32, cpuid: &[CpuidEntry], msrs: &[Msr]) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(index.into()).map_err(Error::call("KVM_CREATE_VCPU"))?;
        let vcpu = KvmVcpu::new(index, fd, self.sync_capability, self.ram.clone())?;
        set_cpuid(&vcpu, cpuid)?;
        set_msrs(&vcpu, index, msrs)?;
        self.ring.get_or_init(|| Arc::new(Ring::new(vcpu.pages.clone())));
        Ok(vcpu)
    }

    /// From now on lets the guest go on after a write to the `size` ports from `first` on, and collects what was written in
    /// [`Vm::posted_writes`]. Writes still come as exits when no more can be collected.
    ///
    /// All of the access must lie within the range, whatever its width.
    ///
    /// # Errors
    /// If KVM cannot collect port writes (before Linux 4.20).
    pub fn post_port_writes(&self, first: u16, size: u16) -> Result<(), Error> {
        self.fd
            .register_coalesced_mmio(IoEventAddress::Pio(first.into()), size.into())
            .map_err(Error::call("KVM_REGISTER_COALESCED_MMIO"))
    }

    /// The writes that are collected for all vCPUs of this VM; `None` before the first vCPU is created.
    pub fn posted_writes(&self) -> Option<Arc<dyn PostedWrites>> {
        self.ring.get().map(|ring| ring.clone() as Arc<dyn PostedWrites>)
    }

    /// The rate of the guest's time stamp counter in kHz, if KVM knows it.
    pub fn tsc_khz(vcpu: &KvmVcpu) -> Option<u32> {
        vcpu.fd.get_tsc_khz().ok().filter(|khz| *khz != 0)
    }
}

/// A memory slot for one piece of RAM. What is too large for one is refused here: KVM would only say `EINVAL`.
fn memory_region(slot: u32, mapping: &Mapping) -> Result<kvm_userspace_memory_region, Error> {
    if mapping.size > MAX_SLOT {
        return Err(Error::TooMuchRam { start: mapping.guest, size: mapping.size, limit: MAX_SLOT });
    }
    Ok(kvm_userspace_memory_region {
        slot,
        flags: 0,
        guest_phys_addr: mapping.guest,
        memory_size: mapping.size,
        userspace_addr: mapping.host as u64,
    })
}

/// Creates the VM. A signal can interrupt that, and then it can just be tried again.
fn create(system: &System) -> Result<VmFd, Error> {
    loop {
        match system.kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            other => return other.map_err(Error::call("KVM_CREATE_VM")),
        }
    }
}

fn set_cpuid(vcpu: &KvmVcpu, entries: &[CpuidEntry]) -> Result<(), nerite_vcpu::Error> {
    let entries: Vec<_> = entries.iter().map(convert::cpuid_to_kvm).collect();
    let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
    let set = CpuId::from_entries(&entries).map_err(too_many).and_then(|cpuid| vcpu.fd.set_cpuid2(&cpuid));
    set.map_err(vcpu.engine_error("KVM_SET_CPUID2"))
}

fn set_msrs(vcpu: &KvmVcpu, index: u32, msrs: &[Msr]) -> Result<(), nerite_vcpu::Error> {
    let entries: Vec<_> = msrs
        .iter()
        .map(|msr| kvm_msr_entry { index: msr.index, data: msr.value, ..Default::default() })
        .collect();
    let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
    let set = Msrs::from_entries(&entries).map_err(too_many).and_then(|msrs| vcpu.fd.set_msrs(&msrs));
    let taken = set.map_err(vcpu.engine_error("KVM_SET_MSRS"))?;
    match msrs.get(taken) {
        None => Ok(()),
        Some(refused) => Err(nerite_vcpu::Error::Partial {
            index,
            operation: "KVM_SET_MSRS",
            taken,
            given: msrs.len(),
            refused: format!("MSR {:#x}", refused.index),
        }),
    }
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("ram", &self.ram).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ram_than_a_slot_can_have_is_named() {
        let mapping = |size| Mapping { guest: 0x1_0000_0000, size, host: std::ptr::null_mut() };
        let region = memory_region(3, &mapping(MAX_SLOT)).unwrap();
        assert_eq!((region.slot, region.guest_phys_addr, region.memory_size), (3, 0x1_0000_0000, MAX_SLOT));
        let error = memory_region(0, &mapping(60_000 << 30)).unwrap_err().to_string();
        for part in ["60000 GiB", "0x100000000", "just below 8192 GiB", "--memory"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(memory_region(0, &mapping(MAX_SLOT + 0x1000)).is_err());
    }
}
