//! State as plain data.

use nerite_arch::{Fpu, Msr, Regs, SpecialRegs};

use super::{Cpu, DebugRegs, Events, events_default};
use crate::exception::Exception;
use crate::flags::VM;
use crate::msr::{INDICES, TSC, TSC_ADJUST};
use crate::msrs::TSC_FRACTION;
use crate::registers::{CS, DS, ES, FS, GS, SS};

impl Cpu {
    /// General registers, RIP and RFLAGS.
    #[must_use]
    pub fn regs(&self) -> Regs {
        let core = &*self.core;
        let r = |number| core.r(number);
        Regs {
            rax: r(0),
            rcx: r(1),
            rdx: r(2),
            rbx: r(3),
            rsp: r(4),
            rbp: r(5),
            rsi: r(6),
            rdi: r(7),
            r8: r(8),
            r9: r(9),
            r10: r(10),
            r11: r(11),
            r12: r(12),
            r13: r(13),
            r14: r(14),
            r15: r(15),
            rip: core.rip,
            rflags: core.flags.get(),
        }
    }

    /// Sets general registers, RIP and RFLAGS.
    pub fn set_regs(&mut self, regs: &Regs) {
        let values = [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi,
            regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ];
        for (number, value) in (0..16).zip(values) {
            self.core.set_r(number, value);
        }
        self.core.rip = regs.rip;
        self.core.set_flags(regs.rflags);
        self.core.accesses.clear();
    }

    /// Segments and control registers.
    #[must_use]
    pub fn special_regs(&self) -> SpecialRegs {
        let core = &*self.core;
        SpecialRegs {
            cs: *core.segment(CS),
            ds: *core.segment(DS),
            es: *core.segment(ES),
            fs: *core.segment(FS),
            gs: *core.segment(GS),
            ss: *core.segment(SS),
            tr: core.tr,
            ldt: core.ldt,
            gdt: core.gdt,
            idt: core.idt,
            cr0: core.cr0,
            cr2: core.cr2,
            cr3: core.cr3,
            cr4: core.cr4,
            cr8: core.cr8,
            efer: core.efer,
            apic_base: core.apic_base,
        }
    }

    /// Sets segments and control registers. The privilege level is that of SS, or of virtual-8086
    /// mode.
    pub fn set_special_regs(&mut self, special: &SpecialRegs) {
        let core = &mut *self.core;
        for (number, segment) in [
            (CS, special.cs),
            (DS, special.ds),
            (ES, special.es),
            (FS, special.fs),
            (GS, special.gs),
            (SS, special.ss),
        ] {
            *core.segment_mut(number) = segment;
        }
        core.tr = special.tr;
        core.ldt = special.ldt;
        core.gdt = special.gdt;
        core.idt = special.idt;
        core.cr0 = special.cr0 | 1 << 4;
        core.cr2 = special.cr2;
        core.cr3 = special.cr3;
        core.cr4 = special.cr4 & core.cpuid.cr4;
        core.cr8 = special.cr8 & 15;
        core.efer = special.efer;
        core.apic_base = special.apic_base;
        let is_v86 = core.flags.control & VM != 0;
        core.cpl = match (core.is_protected(), is_v86) {
            (false, _) => 0,
            (true, true) => 3,
            (true, false) => special.ss.dpl & 3,
        };
        core.flush(true);
        core.update_mode();
        core.attention = true;
    }

    /// The model-specific registers that the processor has itself, in the order in which they are
    /// to be set.
    pub fn msrs(&mut self) -> Vec<Msr> {
        INDICES
            .iter()
            .filter_map(|index| self.msr(*index).map(|value| Msr { index: *index, value }))
            .collect()
    }

    /// A model-specific register; `None` if the processor does not have it itself.
    pub fn msr(&mut self, index: u32) -> Option<u64> {
        let tsc = self.tsc();
        self.core.msr(index, tsc)
    }

    /// Sets a model-specific register. `false` if the processor does not have it, or it must not
    /// have the value.
    ///
    /// Unlike a write by the guest, one to `IA32_TSC` leaves `IA32_TSC_ADJUST` as it is, and the
    /// other way round, so that both can be restored.
    pub fn set_msr(&mut self, msr: Msr) -> bool {
        let tsc = self.tsc();
        let msrs = &mut self.core.msrs;
        match msr.index {
            TSC => msrs.tsc_offset = msrs.tsc_offset.wrapping_add(msr.value.wrapping_sub(tsc)),
            TSC_ADJUST => msrs.tsc_adjust = msr.value,
            _ => return self.core.set_msr(msr.index, msr.value, tsc) == Some(true),
        }
        true
    }

    /// The time-stamp counter as the guest sees it.
    pub fn tsc(&mut self) -> u64 {
        let core = &mut *self.core;
        let platform = core.platform.tsc(core.retired);
        core.msrs.tsc(platform)
    }

    /// Makes the time-stamp counter advance by `numerator` where the platform's advances by
    /// `denominator`, which is not 0. The counter's value changes with it, and is to be set
    /// afterwards.
    pub fn set_tsc_rate(&mut self, numerator: u32, denominator: std::num::NonZeroU32) {
        let multiplier =
            (u128::from(numerator) << TSC_FRACTION).checked_div(denominator.get().into());
        let multiplier = multiplier.and_then(|multiplier| u64::try_from(multiplier).ok());
        self.core.msrs.tsc_multiplier = multiplier.unwrap_or(u64::MAX);
    }

    /// x87, SSE and AVX registers.
    #[must_use]
    pub fn fpu(&self) -> Fpu {
        Fpu::from(&self.core.vector)
    }

    /// Sets x87, SSE and AVX registers.
    pub fn set_fpu(&mut self, fpu: &Fpu) {
        self.core.vector = fpu.into();
    }

    /// XCR0.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        self.core.xcr0
    }

    /// Sets XCR0. `false` if the processor cannot have the value.
    pub fn set_xcr0(&mut self, value: u64) -> bool {
        let is_valid = value & 1 != 0 && value & !(self.core.cpuid.xcr0 | 1) == 0 && value & 6 != 4;
        if is_valid {
            self.core.xcr0 = value;
            self.core.update_mode();
        }
        is_valid
    }

    /// Interrupts and conditions between instructions.
    #[must_use]
    pub fn events(&self) -> Events {
        let events = &self.core.events;
        Events {
            exception: events.exception.map(|exception| (exception.vector, exception.error)),
            interrupt: events.interrupt,
            nmi: events.nmi,
            nmi_blocked: events.nmi_blocked,
            shadow: events.shadow,
            debug: events.debug,
        }
    }

    /// Sets interrupts and conditions between instructions.
    pub fn set_events(&mut self, events: &Events) {
        self.core.events = crate::core::Events {
            exception: events.exception.map(|(vector, error)| Exception {
                vector,
                error,
                is_non_canonical: false,
            }),
            interrupt: events.interrupt,
            nmi: events.nmi,
            nmi_blocked: events.nmi_blocked,
            shadow: events.shadow,
            debug: events.debug,
            ..events_default()
        };
        self.core.attention = true;
    }

    /// Debug registers.
    #[must_use]
    pub fn debug_regs(&self) -> DebugRegs {
        DebugRegs { addresses: self.core.dr, dr6: self.core.dr6, dr7: self.core.dr7 }
    }

    /// Sets debug registers.
    pub fn set_debug_regs(&mut self, debug: &DebugRegs) {
        self.core.dr = debug.addresses;
        self.core.dr6 = debug.dr6;
        self.core.dr7 = debug.dr7;
        self.core.update_breakpoints();
    }
}
