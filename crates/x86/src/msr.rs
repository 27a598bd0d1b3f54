//! Model-specific registers (Intel SDM vol. 4; AMD APM vol. 2, appendix A).

use crate::access::{data, is_canonical};
use crate::core::{Core, Run};
use crate::exit::{Entry, Exit};
use crate::op::Op;
use crate::registers::{CR0_PG, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, FS, GS, RAX, RCX, RDX};

pub(crate) const TSC: u32 = 0x10;
const APIC_BASE: u32 = 0x1b;
pub(crate) const TSC_ADJUST: u32 = 0x3b;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;
const MISC_ENABLE: u32 = 0x1a0;
const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SFMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;
const TSC_AUX: u32 = 0xc000_0103;

/// The indices of all registers that the processor has itself, in the order in which they are to be
/// restored.
pub(crate) const INDICES: [u32; 16] = [
    EFER,
    STAR,
    LSTAR,
    CSTAR,
    SFMASK,
    KERNEL_GS_BASE,
    FS_BASE,
    GS_BASE,
    SYSENTER_CS,
    SYSENTER_ESP,
    SYSENTER_EIP,
    PAT,
    MISC_ENABLE,
    TSC_AUX,
    TSC,
    TSC_ADJUST,
];

impl Core {
    /// The value of a register that the processor has itself; `tsc` is the time-stamp counter.
    pub(crate) fn msr(&self, index: u32, tsc: u64) -> Option<u64> {
        Some(match index {
            TSC => tsc,
            TSC_ADJUST => self.msrs.tsc_adjust,
            SYSENTER_CS => self.msrs.sysenter_cs,
            SYSENTER_ESP => self.msrs.sysenter_esp,
            SYSENTER_EIP => self.msrs.sysenter_eip,
            MISC_ENABLE => self.msrs.misc_enable,
            PAT => self.msrs.pat,
            EFER => self.efer,
            STAR => self.msrs.star,
            LSTAR => self.msrs.lstar,
            CSTAR => self.msrs.cstar,
            SFMASK => self.msrs.sfmask,
            FS_BASE => self.segment(FS).base,
            GS_BASE => self.segment(GS).base,
            KERNEL_GS_BASE => self.msrs.kernel_gs_base,
            TSC_AUX => self.msrs.tsc_aux,
            _ => return None,
        })
    }

    /// Sets a register that the processor has itself. `None` if it has not, `Some(false)` if it
    /// must not have the value.
    pub(crate) fn set_msr(&mut self, index: u32, value: u64, tsc: u64) -> Option<bool> {
        let needs_canonical = matches!(
            index,
            SYSENTER_ESP | SYSENTER_EIP | LSTAR | CSTAR | FS_BASE | GS_BASE | KERNEL_GS_BASE
        );
        if needs_canonical && !is_canonical(value) {
            return Some(false);
        }
        match index {
            TSC => {
                let change = value.wrapping_sub(tsc);
                self.msrs.tsc_offset = self.msrs.tsc_offset.wrapping_add(change);
                self.msrs.tsc_adjust = self.msrs.tsc_adjust.wrapping_add(change);
            }
            TSC_ADJUST => {
                let change = value.wrapping_sub(self.msrs.tsc_adjust);
                self.msrs.tsc_offset = self.msrs.tsc_offset.wrapping_add(change);
                self.msrs.tsc_adjust = value;
            }
            SYSENTER_CS => self.msrs.sysenter_cs = value,
            SYSENTER_ESP => self.msrs.sysenter_esp = value,
            SYSENTER_EIP => self.msrs.sysenter_eip = value,
            MISC_ENABLE => self.msrs.misc_enable = value,
            PAT => {
                if value.to_le_bytes().into_iter().any(|kind| !matches!(kind, 0 | 1 | 4..=7)) {
                    return Some(false);
                }
                self.msrs.pat = value;
            }
            EFER => return Some(self.set_efer(value)),
            STAR => self.msrs.star = value,
            LSTAR => self.msrs.lstar = value,
            CSTAR => self.msrs.cstar = value,
            SFMASK => self.msrs.sfmask = value & 0xffff_ffff,
            FS_BASE => {
                self.segment_mut(FS).base = value;
                self.update_mode();
            }
            GS_BASE => {
                self.segment_mut(GS).base = value;
                self.update_mode();
            }
            KERNEL_GS_BASE => self.msrs.kernel_gs_base = value,
            TSC_AUX => {
                if value >> 32 != 0 {
                    return Some(false);
                }
                self.msrs.tsc_aux = value;
            }
            _ => return None,
        }
        Some(true)
    }

    fn set_efer(&mut self, value: u64) -> bool {
        let known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
        let is_switch = (value ^ self.efer) & EFER_LME != 0;
        if value & !known != 0 || is_switch && self.cr0 & CR0_PG != 0 {
            return false;
        }
        self.efer = value & !EFER_LMA | self.efer & EFER_LMA;
        self.flush(true);
        self.update_mode();
        true
    }
}

/// RDMSR.
pub(crate) fn rdmsr(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    let index = core.reg::<u32>(RCX);
    let tsc = core.tsc(op);
    let value = match core.msr(index, tsc) {
        Some(value) => value,
        None if index == APIC_BASE && core.accesses.is_empty() => core.apic_base,
        None => match core.device(Exit::MsrRead { index })? {
            Entry::Fault => return core.protection_fault(0),
            entry => data(entry),
        },
    };
    core.set_r(RAX, value & 0xffff_ffff);
    core.set_r(RDX, value >> 32);
    Ok(())
}

/// WRMSR. A write of `IA32_APIC_BASE` is always an exit: the local APIC is not a part of the
/// processor.
pub(crate) fn wrmsr(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    let index = core.reg::<u32>(RCX);
    let value = core.r(RDX) << 32 | core.r(RAX) & 0xffff_ffff;
    let tsc = core.tsc(op);
    match core.set_msr(index, value, tsc) {
        Some(true) => {}
        Some(false) => return core.protection_fault(0),
        None => {
            if core.device(Exit::MsrWrite { index, value })? == Entry::Fault {
                return core.protection_fault(0);
            }
            if index == APIC_BASE {
                core.apic_base = value;
            }
        }
    }
    core.finish(op)
}
