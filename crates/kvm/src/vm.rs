//! A VM of KVM: RAM, interrupt controllers, vCPUs.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kvm_bindings::{
    CpuId, KVM_CAP_EXIT_ON_EMULATION_FAILURE, KVM_CAP_X2APIC_API, KVM_CAP_X86_DISABLE_EXITS,
    KVM_CAP_X86_USER_SPACE_MSR, KVM_MP_STATE_RUNNABLE, KVM_MSR_EXIT_REASON_INVAL,
    KVM_MSR_EXIT_REASON_UNKNOWN, KVM_PIT_SPEAKER_DUMMY, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, KVM_X86_DISABLE_EXITS_CSTATE, KVM_X86_DISABLE_EXITS_HLT,
    KVM_X86_DISABLE_EXITS_MWAIT, KVM_X86_DISABLE_EXITS_PAUSE, Msrs, kvm_enable_cap, kvm_mp_state,
    kvm_msr_entry, kvm_pit_config, kvm_sregs, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, VmFd};
use nerite_arch::{CpuidEntry, Msr};
use nerite_hypervisor::{
    CoalescedWrites, Doorbells, Error, InterruptController, Irqchip, Vcpu, VcpuStart, VmOptions,
    VmState,
};
use nerite_memory::{GuestRam, Mapping};

use crate::error::failed;
use crate::parts::StateParts;
use crate::ring::Ring;
use crate::vcpu::Properties;
use crate::{KvmInterrupts, KvmVcpu, System, convert};

/// Three pages for the task state segment that Intel processors without "unrestricted guest" need,
/// in the hole between 3 and 4 GiB that RAM never covers, below KVM's identity map page.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// The most bytes a memory slot can have: 2^31 - 1 pages (`KVM_MEM_MAX_NR_PAGES` of Linux).
const MAX_SLOT: u64 = 0x7fff_ffff << 12;

/// A VM of KVM.
pub struct KvmVm {
    pub(crate) fd: Arc<VmFd>,
    /// Result of the query for `KVM_CAP_SYNC_REGS`.
    sync_capability: i32,
    irqchip: Irqchip,
    pub(crate) has_pit: bool,
    pub(crate) parts: Arc<StateParts>,
    /// KVM refers to this memory by address for as long as the VM or one of its vCPUs is open.
    ram: Arc<GuestRam>,
    interrupts: Arc<KvmInterrupts>,
    /// The ring of coalesced writes, once there is a vCPU, through which it is reached.
    ring: OnceLock<Arc<Ring>>,
}

impl KvmVm {
    /// Creates a VM with `ram`.
    ///
    /// # Errors
    /// Fails if a call of KVM does.
    pub fn new(system: &System, ram: Arc<GuestRam>, options: &VmOptions) -> Result<Self, Error> {
        let fd = Arc::new(create(system)?);
        let parts = Arc::new(StateParts::new(system.kvm.clone(), fd.clone()));
        let vm = Self {
            interrupts: Arc::new(KvmInterrupts::new(fd.clone())),
            fd,
            sync_capability: system.sync_capability,
            irqchip: options.irqchip,
            has_pit: options.pit,
            parts,
            ram,
            ring: OnceLock::new(),
        };
        vm.add_ram()?;
        if options.real_mode {
            vm.fd.set_tss_address(TSS_ADDRESS).map_err(failed("KVM_SET_TSS_ADDR"))?;
        }
        let is_in_kernel = options.irqchip == Irqchip::Hypervisor;
        if is_in_kernel {
            vm.fd.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
            vm.enable_x2apic()?;
        }
        if options.pit {
            let config = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            vm.fd.create_pit2(config).map_err(failed("KVM_CREATE_PIT2"))?;
        }
        if options.power_management {
            vm.keep_power_instructions_in_guest()?;
        }
        vm.leave_at_unknown_instructions();
        let unknown = if options.msr_exits { KVM_MSR_EXIT_REASON_UNKNOWN } else { 0 };
        // Without local APICs, KVM refuses their registers as it refuses wrong values.
        let invalid = if is_in_kernel { 0 } else { KVM_MSR_EXIT_REASON_INVAL };
        if unknown | invalid != 0 {
            vm.leave_at_msrs(unknown | invalid)?;
        }
        Ok(vm)
    }

    fn add_ram(&self) -> Result<(), Error> {
        for (slot, mapping) in (0_u32..).zip(self.ram.mappings()) {
            let region = memory_region(slot, &mapping)?;
            // SAFETY: the mapping belongs to `self.ram`, which is kept until the VM is closed, is
            // never moved or shrunk, and is accessed from here only in ways that allow others (the
            // guest) to change it at any time.
            unsafe { self.fd.set_user_memory_region(region) }.map_err(|error| Error::Ram {
                start: mapping.guest,
                size: mapping.size,
                source: error.into(),
            })?;
        }
        Ok(())
    }

    /// `true` if the interrupt chips are in KVM.
    pub(crate) fn interrupt_chips(&self) -> bool {
        self.irqchip == Irqchip::Hypervisor
    }

    /// APIC ids above 254 and no broadcast quirk: x2APIC as the Intel SDM (vol. 3, 12.12) has it.
    fn enable_x2apic(&self) -> Result<(), Error> {
        let flags = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        let cap = kvm_enable_cap {
            cap: KVM_CAP_X2APIC_API,
            args: [flags.into(), 0, 0, 0],
            ..Default::default()
        };
        self.fd.enable_cap(&cap).map_err(failed("KVM_ENABLE_CAP(KVM_CAP_X2APIC_API)"))
    }

    fn keep_power_instructions_in_guest(&self) -> Result<(), Error> {
        let wanted = KVM_X86_DISABLE_EXITS_MWAIT
            | KVM_X86_DISABLE_EXITS_HLT
            | KVM_X86_DISABLE_EXITS_PAUSE
            | KVM_X86_DISABLE_EXITS_CSTATE;
        let possible =
            self.fd.check_extension_raw(KVM_CAP_X86_DISABLE_EXITS.into()).cast_unsigned() & wanted;
        if possible == 0 {
            return Err(Error::Lacks { capability: "KVM_CAP_X86_DISABLE_EXITS" });
        }
        let cap = kvm_enable_cap {
            cap: KVM_CAP_X86_DISABLE_EXITS,
            args: [possible.into(), 0, 0, 0],
            ..Default::default()
        };
        self.fd.enable_cap(&cap).map_err(failed("KVM_ENABLE_CAP(KVM_CAP_X86_DISABLE_EXITS)"))
    }

    /// An instruction that KVM cannot execute is an exit, also one of a program, which would
    /// otherwise get #UD. Kernels before Linux 5.15 cannot do that.
    fn leave_at_unknown_instructions(&self) {
        let cap = kvm_enable_cap {
            cap: KVM_CAP_EXIT_ON_EMULATION_FAILURE,
            args: [1, 0, 0, 0],
            ..Default::default()
        };
        if let Err(error) = self.fd.enable_cap(&cap) {
            log::debug!("KVM_CAP_EXIT_ON_EMULATION_FAILURE: {error}");
        }
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
        self.fd.enable_cap(&cap).map_err(failed("KVM_ENABLE_CAP(KVM_CAP_X86_USER_SPACE_MSR)"))
    }

    /// Creates vCPU number `index`, as [`nerite_hypervisor::Vm::create_vcpu`] does.
    ///
    /// # Errors
    /// Fails if a call of KVM does, or KVM refuses an MSR (which is named).
    pub fn vcpu(
        &self,
        index: u32,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<KvmVcpu, Error> {
        let state = match start {
            VcpuStart::At(state) => state,
            VcpuStart::WaitForSipi(msrs) => return self.new_vcpu(index, cpuid, msrs),
        };
        let mut vcpu = self.new_vcpu(index, cpuid, &state.msrs)?;
        // A new vCPU has no interrupt pending, which is all that these registers have beyond ours.
        let mut sregs = kvm_sregs::default();
        convert::special_regs_to_kvm(&state.special, &mut sregs);
        vcpu.start_special(sregs)?;
        vcpu.set_regs(&state.regs)?;
        // It starts at the entry point and does not wait for INIT and SIPI. The first one never
        // does.
        if index != 0 && self.irqchip == Irqchip::Hypervisor {
            vcpu.fd
                .set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
                .map_err(vcpu.call_error("KVM_SET_MP_STATE"))?;
        }
        Ok(vcpu)
    }

    /// A vCPU in the state of a reset, but for CPUID and these MSRs.
    pub(crate) fn new_vcpu(
        &self,
        index: u32,
        cpuid: &[CpuidEntry],
        msrs: &[Msr],
    ) -> Result<KvmVcpu, Error> {
        let fd = self.fd.create_vcpu(index.into()).map_err(failed("KVM_CREATE_VCPU"))?;
        let properties = Properties {
            sync_capability: self.sync_capability,
            is_direct: !self.interrupt_chips(),
            parts: self.parts.clone(),
            cpuid: cpuid.to_vec(),
            ram: self.ram.clone(),
        };
        let vcpu = KvmVcpu::new(index, fd, properties)?;
        set_cpuid(&vcpu, cpuid)?;
        set_msrs(&vcpu, index, msrs)?;
        self.ring.get_or_init(|| Arc::new(Ring::new(vcpu.pages.clone())));
        Ok(vcpu)
    }
}

impl nerite_hypervisor::Vm for KvmVm {
    fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    fn create_vcpu(
        &self,
        index: u32,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error> {
        Ok(Box::new(self.vcpu(index, start, cpuid)?))
    }

    fn interrupt_controller(&self) -> Option<Arc<dyn InterruptController>> {
        match self.irqchip {
            Irqchip::Hypervisor => Some(self.interrupts.clone()),
            Irqchip::User => None,
        }
    }

    fn doorbells(&self) -> Arc<dyn Doorbells> {
        self.interrupts.clone()
    }

    /// KVM collects port writes since Linux 4.20.
    fn coalesce_port_writes(&self, first: u16, size: u16) -> Result<(), Error> {
        self.fd
            .register_coalesced_mmio(IoEventAddress::Pio(first.into()), size.into())
            .map_err(failed("KVM_REGISTER_COALESCED_MMIO"))
    }

    fn coalesced_writes(&self) -> Option<Arc<dyn CoalescedWrites>> {
        self.ring.get().map(|ring| ring.clone() as Arc<dyn CoalescedWrites>)
    }

    fn save(&self) -> Result<VmState, Error> {
        self.save_state()
    }

    fn restore(&self, state: &VmState) -> Result<(), Error> {
        self.restore_state(state)
    }
}

/// A memory slot for one piece of RAM. What is too large for one is refused here: KVM would only
/// say `EINVAL`.
fn memory_region(slot: u32, mapping: &Mapping) -> Result<kvm_userspace_memory_region, Error> {
    if mapping.size > MAX_SLOT {
        return Err(Error::TooMuchRam {
            start: mapping.guest,
            size: mapping.size,
            limit: MAX_SLOT,
        });
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
            other => return other.map_err(failed("KVM_CREATE_VM")),
        }
    }
}

fn set_cpuid(vcpu: &KvmVcpu, entries: &[CpuidEntry]) -> Result<(), Error> {
    let entries: Vec<_> = entries.iter().map(convert::cpuid_to_kvm).collect();
    let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
    let set = CpuId::from_entries(&entries)
        .map_err(too_many)
        .and_then(|cpuid| vcpu.fd.set_cpuid2(&cpuid));
    set.map_err(vcpu.call_error("KVM_SET_CPUID2"))
}

fn set_msrs(vcpu: &KvmVcpu, index: u32, msrs: &[Msr]) -> Result<(), Error> {
    let entries: Vec<_> = msrs
        .iter()
        .map(|msr| kvm_msr_entry { index: msr.index, data: msr.value, ..Default::default() })
        .collect();
    let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
    let set =
        Msrs::from_entries(&entries).map_err(too_many).and_then(|msrs| vcpu.fd.set_msrs(&msrs));
    let taken = set.map_err(vcpu.call_error("KVM_SET_MSRS"))?;
    match msrs.get(taken) {
        None => Ok(()),
        Some(refused) => Err(Error::Partial {
            index,
            operation: "KVM_SET_MSRS",
            taken,
            given: msrs.len(),
            refused: format!("MSR {:#x}", refused.index),
        }),
    }
}

impl fmt::Debug for KvmVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmVm").field("ram", &self.ram).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_ram_than_a_slot_can_have_is_named() {
        let mapping = |size| Mapping { guest: 0x1_0000_0000, size, host: std::ptr::null_mut() };
        let region = memory_region(3, &mapping(MAX_SLOT)).unwrap();
        assert_eq!(
            (region.slot, region.guest_phys_addr, region.memory_size),
            (3, 0x1_0000_0000, MAX_SLOT)
        );
        let error = memory_region(0, &mapping(60_000 << 30)).unwrap_err().to_string();
        for part in ["60000 GiB", "0x100000000", "just below 8192 GiB"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(memory_region(0, &mapping(MAX_SLOT + 0x1000)).is_err());
    }
}
