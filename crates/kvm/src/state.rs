//! Saving and restoring a vCPU.
//!
//! The orders are KVM's: a call may change what a later one reads, or undo what an earlier one set.

mod events;
mod msrs;

use std::io;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_SHADOW, Msrs, Xsave, kvm_debugregs,
    kvm_mp_state, kvm_msr_entry, kvm_xcr, kvm_xcrs, kvm_xsave, kvm_xsave2,
};
use nerite_arch::{Msr, Regs};
use nerite_hypervisor::{
    Activity, DebugRegs, Error, PARAVIRTUAL_MSRS, STATE_VERSION, StateError, Vcpu as _, VcpuState,
    absent_value, is_untouched,
};
use nerite_irqchip::{ApicConfig, LocalApic, SavedLocalApic, Time};

use self::events::{events_from_kvm, events_to_kvm};
use self::msrs::{TSC, TSC_DEADLINE, state_msrs};
use crate::{KvmVcpu, lapic};

/// `MSR_KVM_SYSTEM_TIME` and its successor: the page of the paravirtual clock, if bit 0 is set.
const SYSTEM_TIME: [u32; 2] = [0x12, 0x4b56_4d01];

/// Changes a value of the time-stamp counter into one that is far from it.
const FAR: u64 = 1 << 62;

/// Reason why a state cannot be restored: one of its own, or a call that KVM refused.
enum Refused {
    State(StateError),
    Kvm(Error),
}

impl From<StateError> for Refused {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Kvm(error)
    }
}

fn impossible(field: &'static str, value: impl ToString) -> Refused {
    Refused::State(StateError::Field { field, value: value.to_string() })
}

impl KvmVcpu {
    pub(crate) fn save_state(&mut self) -> Result<VcpuState, Error> {
        if !self.is_drained {
            return Err(Error::State { index: self.index, source: StateError::NotDrained });
        }
        // KVM must have seen what was set in the shared page.
        self.flush_registers()?;
        // First: KVM handles INIT and start messages in it, which change registers and APIC.
        self.run_state()?;
        let page = if self.is_direct { None } else { Some(self.settled_lapic()?) };
        // Again: KVM may have been entered for the timer, and have ended a halt for an interrupt.
        let run_state = self.run_state()?;
        // Before CR2 and DR6, which a pending exception sets when it is asked for.
        let events = self.fd.get_vcpu_events().map_err(self.call_error("KVM_GET_VCPU_EVENTS"))?;
        let regs = self.regs()?;
        let special = self.special_regs()?;
        let xsave = self.xsave()?;
        let xcrs = self.fd.get_xcrs().map_err(self.call_error("KVM_GET_XCRS"))?;
        let debug = self.fd.get_debug_regs().map_err(self.call_error("KVM_GET_DEBUGREGS"))?;
        let msrs = self.state_msrs()?;
        let apic = match page {
            None => None,
            Some(page) => {
                let deadline = self.msr(TSC_DEADLINE)?;
                Some(lapic::from_kvm(&page, self.index, special.apic_base, deadline))
            }
        };
        let mut msrs = self.readable(&msrs)?;
        // A hypervisor that does not have them takes the guest without.
        msrs.retain(|msr| !is_untouched(*msr, &self.cpuid));
        let tsc = self.msr(TSC)?;
        Ok(VcpuState {
            version: STATE_VERSION,
            cpuid: self.cpuid.clone(),
            regs,
            special,
            debug: DebugRegs { addresses: debug.db, dr6: debug.dr6, dr7: debug.dr7 },
            xcr0: xcrs.xcrs.first().map_or(1, |first| first.value),
            xsave,
            msrs,
            tsc,
            tsc_khz: self.tsc_khz(),
            apic,
            events: events_from_kvm(&events),
            run_state,
        })
    }

    pub(crate) fn restore_state(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.try_restore(state).map_err(|refused| self.restore_error(refused))
    }

    fn try_restore(&mut self, state: &VcpuState) -> Result<(), Refused> {
        state.check()?;
        if !self.is_drained {
            return Err(StateError::NotDrained.into());
        }
        if state.cpuid != self.cpuid {
            return Err(impossible("cpuid", "not that of the vCPU"));
        }
        if state.apic.is_none() != self.is_direct {
            return Err(impossible("local APIC", "not where the interrupt controllers are"));
        }
        if let Some(saved) = &state.apic {
            if saved.id != self.index {
                return Err(impossible("local APIC", "another vCPU's"));
            }
            LocalApic::restore(ApicConfig::of(self.index), saved, Time::default())
                .map_err(StateError::from)?;
        }
        // An interrupt cannot be injected while the guest has them off: the processor would refuse
        // to enter the guest.
        let interrupt = state.events.interrupt;
        if let Some(vector) = interrupt.filter(|_| state.regs.rflags & Regs::RFLAGS_IF == 0) {
            return Err(impossible("pending interrupt with RFLAGS.IF clear", vector));
        }
        let indices = self.state_msrs()?;
        let is_foreign =
            |msr: &&Msr| msr.value != absent_value(msr.index) && !indices.contains(&msr.index);
        if let Some(msr) = state.msrs.iter().find(is_foreign) {
            return Err(StateError::Msr { index: msr.index, value: msr.value }.into());
        }
        self.set_tsc_rate(state)?;
        self.set_run_state(state.activity())?;
        self.drop_translations(&state.special)?;
        self.set_processor(state)?;
        // Before the APIC: with the processor's own timer, the end of a count is a value of the
        // counter.
        self.set_tsc(state.tsc)?;
        if let Some(saved) = &state.apic {
            self.set_lapic(saved)?;
        }
        // After the APIC, whose registers some of them are.
        let untouched = PARAVIRTUAL_MSRS
            .iter()
            .filter(|known| state.msr(known.index).is_none())
            .map(|known| Msr { index: known.index, value: known.reset });
        // First: two of them are the same register by another index.
        let known = untouched.chain(state.msrs.iter().copied());
        let known: Vec<Msr> = known.filter(|msr| indices.contains(&msr.index)).collect();
        self.set_state_msrs(&known)?;
        // The deadline is compared with the counter, and with the timer's mode, the APIC's. Also if
        // there is none: the vCPU may have an old one, which KVM_SET_LAPIC has started.
        if let Some(apic) = &state.apic {
            self.set_state_msrs(&[Msr { index: TSC_DEADLINE, value: apic.tsc_deadline }])?;
        }
        // Last: setting registers changes what is pending.
        let events = events_to_kvm(&state.events);
        self.fd.set_vcpu_events(&events).map_err(self.call_error("KVM_SET_VCPU_EVENTS"))?;
        if SYSTEM_TIME.into_iter().any(|index| state.msr(index).is_some_and(|value| value & 1 == 1))
        {
            self.fd.kvmclock_ctrl().map_err(self.call_error("KVM_KVMCLOCK_CTRL"))?;
        }
        Ok(())
    }

    /// Registers, in the order that KVM needs.
    fn set_processor(&mut self, state: &VcpuState) -> Result<(), Refused> {
        self.set_regs(&state.regs)?;
        // With the APIC base, on which the form of the APIC's registers depends.
        self.set_special_regs(&state.special)?;
        // KVM_SET_REGS drops exceptions: it comes before the events.
        self.flush_registers()?;
        self.set_xsave(&state.xsave)?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        if let Some(first) = xcrs.xcrs.first_mut() {
            *first = kvm_xcr { xcr: 0, reserved: 0, value: state.xcr0 };
        }
        self.fd.set_xcrs(&xcrs).map_err(|_| impossible("xcr0", format!("{:#x}", state.xcr0)))?;
        let DebugRegs { addresses, dr6, dr7 } = state.debug;
        let debug = kvm_debugregs { db: addresses, dr6, dr7, ..Default::default() };
        self.fd.set_debug_regs(&debug).map_err(self.call_error("KVM_SET_DEBUGREGS"))?;
        Ok(())
    }

    pub(crate) fn restore_registers_of(&mut self, state: &VcpuState) -> Result<(), Error> {
        self.try_restore_registers(state).map_err(|refused| self.restore_error(refused))
    }

    fn try_restore_registers(&mut self, state: &VcpuState) -> Result<(), Refused> {
        state.check()?;
        if !self.is_drained {
            return Err(StateError::NotDrained.into());
        }
        let mut events =
            self.fd.get_vcpu_events().map_err(self.call_error("KVM_GET_VCPU_EVENTS"))?;
        self.set_processor(state)?;
        self.set_state_msrs(&state.msrs)?;
        // Interrupts stay as they are; the exception of an instruction that KVM could not execute
        // goes.
        let own = events_to_kvm(&state.events);
        events.exception = own.exception;
        events.interrupt.shadow = own.interrupt.shadow;
        events.flags = KVM_VCPUEVENT_VALID_SHADOW;
        Ok(self.fd.set_vcpu_events(&events).map_err(self.call_error("KVM_SET_VCPU_EVENTS"))?)
    }

    fn set_lapic(&self, saved: &SavedLocalApic) -> Result<(), Refused> {
        let mut page = self.fd.get_lapic().map_err(self.call_error("KVM_GET_LAPIC"))?;
        let had_deadline = lapic::has_deadline(&page);
        lapic::to_kvm(saved, &mut page);
        // A change from TSC deadline mode or to it clears the count that comes with it.
        let times = if lapic::has_deadline(&page) == had_deadline { 1 } else { 2 };
        for _ in 0..times {
            self.fd.set_lapic(&page).map_err(self.call_error("KVM_SET_LAPIC"))?;
        }
        Ok(())
    }

    /// Sets the time-stamp counter. KVM takes a value that is less than a second from what the
    /// vCPUs have for an attempt to synchronise them, and ignores it: the first of a VM's vCPUs
    /// gets another value before, and the others, with the same one, are synchronised to it. Zero
    /// is such an attempt always.
    fn set_tsc(&self, value: u64) -> Result<(), Refused> {
        let value = value.max(1);
        if !self.parts.is_restored_tsc(value) {
            self.set_state_msrs(&[Msr { index: TSC, value: value ^ FAR }])?;
        }
        self.set_state_msrs(&[Msr { index: TSC, value }])
    }

    fn restore_error(&self, refused: Refused) -> Error {
        match refused {
            Refused::State(source) => Error::State { index: self.index, source },
            Refused::Kvm(error) => error,
        }
    }

    fn run_state(&self) -> Result<Activity, Error> {
        if self.is_direct {
            return Ok(Activity::Runnable);
        }
        let state = self.fd.get_mp_state().map_err(self.call_error("KVM_GET_MP_STATE"))?;
        Ok(match state.mp_state {
            KVM_MP_STATE_HALTED => Activity::Halted,
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Activity::WaitForSipi,
            _ => Activity::Runnable,
        })
    }

    fn set_run_state(&self, state: Activity) -> Result<(), Refused> {
        let mp_state = match state {
            Activity::Runnable => KVM_MP_STATE_RUNNABLE,
            Activity::Halted => KVM_MP_STATE_HALTED,
            Activity::WaitForSipi => KVM_MP_STATE_INIT_RECEIVED,
        };
        if self.is_direct {
            // Without local APICs KVM knows runnable vCPUs only.
            let is_runnable = state == Activity::Runnable;
            return if is_runnable {
                Ok(())
            } else {
                Err(impossible("run state", format!("{state:?}")))
            };
        }
        let set = self.fd.set_mp_state(kvm_mp_state { mp_state });
        Ok(set.map_err(self.call_error("KVM_SET_MP_STATE"))?)
    }

    /// The counter's rate, which the host may not be able to change. One within 250 millionths is
    /// the same: clocks of hosts differ by as much.
    fn set_tsc_rate(&self, state: &VcpuState) -> Result<(), Refused> {
        let (Some(wanted), Some(has)) = (state.tsc_khz, self.tsc_khz()) else { return Ok(()) };
        if u64::from(wanted.abs_diff(has)).saturating_mul(4000) <= u64::from(has) {
            return Ok(());
        }
        let set = self.fd.set_tsc_khz(wanted);
        set.map_err(|_| {
            impossible("tsc_khz", format!("{wanted}: the counter here has {has} and no scaling"))
        })
    }

    /// All of the extended state, in KVM's (the standard) format.
    fn xsave(&self) -> Result<Vec<u8>, Error> {
        let words: Vec<u32> = if self.parts.xsave_size() > size_of::<kvm_xsave>() {
            let mut area = self.empty_xsave()?;
            // SAFETY: the area has the size that KVM_CAP_XSAVE2 says.
            unsafe { self.fd.get_xsave2(&mut area) }.map_err(self.call_error("KVM_GET_XSAVE2"))?;
            let head = area.as_fam_struct_ref().xsave.region;
            head.into_iter().chain(area.as_slice().iter().copied()).collect()
        } else {
            let area = self.fd.get_xsave().map_err(self.call_error("KVM_GET_XSAVE"))?;
            area.region.to_vec()
        };
        Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
    }

    fn empty_xsave(&self) -> Result<Xsave, Error> {
        let beyond = self.parts.xsave_size().saturating_sub(size_of::<kvm_xsave>());
        let entries =
            beyond.div_ceil(size_of::<<kvm_xsave2 as vmm_sys_util::fam::FamStruct>::Entry>());
        Xsave::new(entries).map_err(|_| Error::Vcpu {
            index: self.index,
            operation: "allocating an XSAVE area",
            source: io::ErrorKind::OutOfMemory.into(),
        })
    }

    /// By KVM_SET_XSAVE also where there is nothing but SSE: KVM_SET_FPU before the first run is
    /// lost.
    fn set_xsave(&self, bytes: &[u8]) -> Result<(), Refused> {
        let size = self.parts.xsave_size().max(size_of::<kvm_xsave>());
        if bytes.get(size..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
            return Err(impossible("xsave", "state of a part that this host does not have"));
        }
        let mut area = self.empty_xsave()?;
        let mut words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        // SAFETY: the length of the area does not change.
        let fam = unsafe { area.as_mut_fam_struct() };
        for (to, from) in fam.xsave.region.iter_mut().zip(words.by_ref()) {
            *to = from;
        }
        for (to, from) in area.as_mut_slice().iter_mut().zip(words) {
            *to = from;
        }
        // SAFETY: KVM reads as much as KVM_CAP_XSAVE2 says, which the area has.
        let set = unsafe { self.fd.set_xsave2(&area) };
        Ok(set.map_err(self.call_error("KVM_SET_XSAVE"))?)
    }

    fn state_msrs(&self) -> Result<Vec<u32>, Error> {
        Ok(state_msrs(self.parts.listed_msrs()?))
    }

    /// The values of those MSRs that can be read: KVM stops at the first that cannot.
    fn readable(&self, indices: &[u32]) -> Result<Vec<Msr>, Error> {
        let mut values = Vec::with_capacity(indices.len());
        let mut rest = indices;
        while !rest.is_empty() {
            let entries: Vec<_> = rest
                .iter()
                .map(|index| kvm_msr_entry { index: *index, ..Default::default() })
                .collect();
            let mut msrs = self.msr_list(&entries)?;
            let taken = self.fd.get_msrs(&mut msrs).map_err(self.call_error("KVM_GET_MSRS"))?;
            let read = msrs.as_slice().iter().take(taken);
            values.extend(read.map(|entry| Msr { index: entry.index, value: entry.data }));
            rest = rest.get(taken.saturating_add(1)..).unwrap_or_default();
        }
        Ok(values)
    }

    fn msr(&self, index: u32) -> Result<u64, Error> {
        Ok(self.readable(&[index])?.first().map_or(0, |msr| msr.value))
    }

    fn msr_list(&self, entries: &[kvm_msr_entry]) -> Result<Msrs, Error> {
        Msrs::from_entries(entries).map_err(|_| Error::Vcpu {
            index: self.index,
            operation: "listing MSRs",
            source: io::Error::from_raw_os_error(libc::E2BIG),
        })
    }

    /// Sets MSRs. One that KVM refuses to be zero is not there, and is zero.
    fn set_state_msrs(&self, msrs: &[Msr]) -> Result<(), Refused> {
        let mut rest = msrs;
        while !rest.is_empty() {
            let entries: Vec<_> = rest
                .iter()
                .map(|msr| kvm_msr_entry {
                    index: msr.index,
                    data: msr.value,
                    ..Default::default()
                })
                .collect();
            let list = self.msr_list(&entries)?;
            let taken = self.fd.set_msrs(&list).map_err(self.call_error("KVM_SET_MSRS"))?;
            if let Some(Msr { index, value }) =
                rest.get(taken).copied().filter(|msr| msr.value != 0)
            {
                return Err(StateError::Msr { index, value }.into());
            }
            rest = rest.get(taken.saturating_add(1)..).unwrap_or_default();
        }
        Ok(())
    }
}
