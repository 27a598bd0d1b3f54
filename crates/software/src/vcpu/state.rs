//! Saving and restoring a vCPU.

use std::num::NonZeroU32;

use nerite_arch::{Fpu, Msr, SpecialRegs};
use nerite_hypervisor::{
    Activity, DebugRegs, Error, PendingEvents, PendingException, STATE_VERSION, StateError,
    VcpuState, absent_value,
};
use nerite_irqchip::{LocalApic, Time};
use nerite_x86 as x86;

use super::SoftwareVcpu;
use crate::clock::TSC_KHZ;
use crate::msr::MachineMsrs;

/// MSRs of the processor that are in another part of the state: `IA32_EFER`, FS and GS base, and
/// the time-stamp counter.
const IN_OTHER_PARTS: [u32; 4] = [0xc000_0080, 0xc000_0100, 0xc000_0101, TSC];
const TSC: u32 = 0x10;
/// Vector of a debug exception.
const DB: u8 = 1;
/// Bits of `IA32_EFER` that the processor has: SCE, LME, LMA, NXE.
const EFER: u64 = 0xd01;

fn impossible(field: &'static str, value: u64) -> StateError {
    StateError::Field { field, value: format!("{value:#x}") }
}

impl SoftwareVcpu {
    pub(super) fn save_state(&mut self) -> Result<VcpuState, StateError> {
        if self.cpu.has_pending_access() {
            return Err(StateError::NotDrained);
        }
        // First, because INIT and start messages change everything else.
        let time = self.time();
        self.take_over_priority();
        let take = |apic: &mut LocalApic| {
            apic.advance(time);
            apic.has_events().then(|| apic.take_events())
        };
        // A second NMI, which waits at the local APIC, is saved with the first one.
        let second_nmi = self.with_apic(take).flatten().is_some_and(|events| self.take(events));
        if second_nmi {
            self.with_apic(LocalApic::take_events);
        }
        let mut apic = self.with_apic(|apic| apic.save(time));
        let events = self.cpu.events();
        let mut debug = self.guest_debug.unwrap_or_else(|| self.cpu.debug_regs());
        let mut pending = PendingEvents {
            exception: events.exception.map(|(vector, error)| PendingException { vector, error }),
            // One that the guest cannot take yet is requested again: another hypervisor would have
            // no place for it.
            interrupt: events
                .interrupt
                .filter(|vector| !apic.as_mut().is_some_and(|apic| apic.withdraw(*vector))),
            nmis: u8::from(events.nmi).saturating_add(second_nmi.into()),
            nmi_masked: events.nmi_blocked,
            shadow: events.shadow,
        };
        if events.debug != 0 {
            debug.dr6 |= events.debug;
            pending.exception.get_or_insert(PendingException { vector: DB, error: None });
        }
        let run_state = match (self.waits_for_sipi, self.halted) {
            (true, _) => Activity::WaitForSipi,
            (false, true) => Activity::Halted,
            (false, false) => Activity::Runnable,
        };
        let mut msrs = self.cpu.msrs();
        msrs.retain(|msr| !IN_OTHER_PARTS.contains(&msr.index));
        msrs.extend(self.msrs.all());
        Ok(VcpuState {
            version: STATE_VERSION,
            cpuid: self.cpuid.clone(),
            regs: self.cpu.regs(),
            special: self.cpu.special_regs(),
            debug: DebugRegs { addresses: debug.addresses, dr6: debug.dr6, dr7: debug.dr7 },
            xcr0: self.cpu.xcr0(),
            xsave: self.cpu.fpu().to_xsave().to_vec(),
            msrs,
            tsc: self.cpu.tsc(),
            tsc_khz: Some(self.tsc_khz.get()),
            apic,
            events: pending,
            run_state,
        })
    }

    /// Takes over a write of CR8 that the local APIC has not seen.
    fn take_over_priority(&mut self) {
        let priority = self.cpu.cr8();
        if priority != self.priority {
            self.priority = priority;
            let class = u8::try_from(priority).unwrap_or(0);
            self.with_apic(|apic| apic.set_priority_class(class));
        }
    }

    pub(super) fn restore_state(&mut self, state: &VcpuState) -> Result<(), StateError> {
        state.check()?;
        if self.cpu.has_pending_access() {
            return Err(StateError::NotDrained);
        }
        if state.cpuid != self.cpuid {
            let value = "not that of the vCPU".to_owned();
            return Err(StateError::Field { field: "cpuid", value });
        }
        let rate = NonZeroU32::new(state.tsc_khz.unwrap_or(TSC_KHZ.get()));
        let rate = rate.ok_or_else(|| impossible("tsc_khz", 0))?;
        if state.apic.is_some() != self.shared.chips.is_some() {
            let value = "not where the interrupt controllers are".to_owned();
            return Err(StateError::Field { field: "local APIC", value });
        }
        // A processor that has shut down starts again.
        self.cpu.init();
        // RFLAGS before segments: virtual-8086 mode decides on the privilege level.
        self.cpu.set_regs(&state.regs);
        self.cpu.set_special_regs(&state.special);
        self.check_special(&state.special)?;
        if !self.cpu.set_xcr0(state.xcr0) {
            return Err(impossible("xcr0", state.xcr0));
        }
        self.restore_xsave(&state.xsave)?;
        let debug = x86::DebugRegs {
            addresses: state.debug.addresses,
            dr6: state.debug.dr6,
            dr7: state.debug.dr7,
        };
        match &mut self.guest_debug {
            Some(saved) => *saved = debug,
            None => self.cpu.set_debug_regs(&debug),
        }
        self.restore_msrs(&state.msrs)?;
        // After the MSRs, of which `IA32_TSC_ADJUST` is one, and before the APIC, whose timer
        // compares with it.
        let moment = self.shared.restore_vcpu(self.index);
        let elapsed = u128::from(self.shared.clock.now().saturating_sub(moment));
        let ticks = elapsed.wrapping_mul(rate.get().into()).checked_div(TSC_KHZ.get().into());
        let ticks = ticks.and_then(|ticks| u64::try_from(ticks).ok()).unwrap_or(0);
        self.tsc_khz = rate;
        self.cpu.set_tsc_rate(rate.get(), TSC_KHZ);
        self.cpu.set_msr(Msr { index: TSC, value: state.tsc.wrapping_add(ticks) });
        if let Some(saved) = &state.apic {
            let time = Time { nanoseconds: moment, tsc: state.tsc };
            self.with_apic(|apic| apic.restore_in_place(saved, time)).unwrap_or(Ok(()))?;
            self.priority = self.with_apic(|apic| apic.priority_class()).unwrap_or(0).into();
        }
        (self.halted, self.waits_for_sipi) = match state.activity() {
            Activity::Runnable => (false, false),
            Activity::Halted => (true, false),
            Activity::WaitForSipi => (false, true),
        };
        // Last: setting registers drops events.
        self.restore_events(&state.events);
        Ok(())
    }

    fn check_special(&self, wanted: &SpecialRegs) -> Result<(), StateError> {
        let has = self.cpu.special_regs();
        let beyond = wanted.efer & !EFER;
        if beyond != 0 {
            return Err(impossible("efer", wanted.efer));
        }
        if has.cr4 != wanted.cr4 {
            return Err(impossible("cr4", wanted.cr4));
        }
        Ok(())
    }

    /// Parts beyond AVX are taken only in their initial state, which is all zeros.
    fn restore_xsave(&mut self, area: &[u8]) -> Result<(), StateError> {
        if area.get(Fpu::SIZE..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
            let value = "state of a part that the processor does not have".to_owned();
            return Err(StateError::Field { field: "xsave", value });
        }
        self.cpu.set_fpu(&Fpu::from_xsave(area));
        Ok(())
    }

    /// An MSR that is not saved here is refused, unless it has its value where it is not there.
    fn restore_msrs(&mut self, msrs: &[Msr]) -> Result<(), StateError> {
        self.msrs = MachineMsrs::default();
        for msr in msrs {
            let is_elsewhere = IN_OTHER_PARTS.contains(&msr.index);
            let is_set =
                !is_elsewhere && (self.cpu.set_msr(*msr) || self.msrs.write(msr.index, msr.value));
            let is_known = x86::MSRS.contains(&msr.index) || is_elsewhere;
            if !is_set && (msr.value != absent_value(msr.index) || is_known) {
                return Err(StateError::Msr { index: msr.index, value: msr.value });
            }
        }
        Ok(())
    }

    fn restore_events(&mut self, events: &PendingEvents) {
        self.cpu.set_events(&x86::Events {
            exception: events.exception.map(|exception| (exception.vector, exception.error)),
            interrupt: events.interrupt,
            nmi: events.nmis > 0,
            nmi_blocked: events.nmi_masked,
            shadow: events.shadow,
            debug: 0,
        });
        if events.nmis > 1 {
            self.with_apic(|apic| apic.accept(nerite_irqchip::Delivery::Nmi, false));
        }
    }
}

/// [`nerite_hypervisor::Vcpu::save`] and its counterpart fail with the vCPU's index.
pub(super) fn failed(index: u32) -> impl FnOnce(StateError) -> Error {
    move |source| Error::State { index, source }
}
