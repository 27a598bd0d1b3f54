//! Control registers (Intel SDM vol. 3, 2.5).

use crate::core::{Core, Run};
use crate::debug::{DETECTED, SINGLE_STEP};
use crate::exit::Exit;
use crate::int::{Int, mask};
use crate::op::Op;
use crate::registers::{
    CR0_CD, CR0_EM, CR0_MP, CR0_NW, CR0_PE, CR0_PG, CR0_TS, CR4_PAE, CR4_PGE, CR4_SMEP, CS,
    EFER_LMA, EFER_LME,
};
use crate::segment::TSS_16;

/// ET, which is always set.
const CR0_ET: u64 = 1 << 4;
/// Bits of CR0 that exist.
const CR0: u64 = 0xe005_003f;

impl Core {
    pub(crate) fn set_cr0(&mut self, value: u64) -> Run {
        let is_consistent = value & CR0_PG == 0 || value & CR0_PE != 0;
        let is_cached = value & CR0_NW == 0 || value & CR0_CD != 0;
        if value >> 32 != 0 || !is_consistent || !is_cached {
            return self.protection_fault(0);
        }
        let value = value & CR0 | CR0_ET;
        let changed = value ^ self.cr0;
        if changed & CR0_PG != 0 && value & CR0_PG != 0 {
            if self.efer & EFER_LME != 0 {
                // AMD processors begin with one, Intel's with one of 32 bits: a register that was
                // never loaded counts as neither.
                let is_loaded = self.tr.selector & !3 != 0 && !self.tr.unusable;
                let is_16_bit_task = is_loaded && self.tr.kind & 0xd == TSS_16;
                if self.cr4 & CR4_PAE == 0 || self.segment(CS).l || is_16_bit_task {
                    return self.protection_fault(0);
                }
                self.efer |= EFER_LMA;
            }
        } else if changed & CR0_PG != 0 {
            if self.is_64() {
                return self.protection_fault(0);
            }
            self.efer &= !EFER_LMA;
        }
        self.cr0 = value;
        if changed & CR0_PE != 0 && value & CR0_PE == 0 {
            self.cpl = 0;
        }
        // All bits but those of the FPU have to do with translation or privilege.
        if changed & !(CR0_MP | CR0_EM | CR0_TS) != 0 {
            self.flush(true);
        }
        self.update_mode();
        Ok(())
    }

    pub(crate) fn set_cr3(&mut self, value: u64) -> Run {
        if self.is_long() && value & mask(63) & !mask(u32::from(self.cpuid.physical_bits())) != 0 {
            return self.protection_fault(0);
        }
        self.cr3 = value;
        self.flush(self.cr4 & CR4_PGE == 0);
        Ok(())
    }

    pub(crate) fn set_cr4(&mut self, value: u64) -> Run {
        if value & !self.cpuid.cr4 != 0 || self.is_long() && value & CR4_PAE == 0 {
            return self.protection_fault(0);
        }
        let changed = value ^ self.cr4;
        self.cr4 = value;
        if changed
            & (CR4_PAE
                | CR4_PGE
                | CR4_SMEP
                | crate::registers::CR4_PSE
                | crate::registers::CR4_SMAP)
            != 0
        {
            self.flush(true);
        }
        self.update_mode();
        Ok(())
    }
}

/// MOV from a control register.
pub(crate) fn mov_from_control(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    let value = match op.src {
        0 => core.cr0,
        2 => core.cr2,
        3 => core.cr3,
        4 => core.cr4,
        8 => core.cr8,
        _ => return core.undefined(),
    };
    let value = if core.is_64() { value } else { value & 0xffff_ffff };
    core.set_r(op.dst, value);
    Ok(())
}

/// MOV to a control register.
pub(crate) fn mov_to_control(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    let value = if core.is_64() { core.r(op.src) } else { core.r(op.src) & 0xffff_ffff };
    match op.dst {
        0 => core.set_cr0(value)?,
        2 => core.cr2 = value,
        3 => core.set_cr3(value)?,
        4 => core.set_cr4(value)?,
        8 => {
            if value > 15 {
                return core.protection_fault(0);
            }
            let is_lowered = value < core.cr8;
            core.cr8 = value;
            if is_lowered {
                core.exit = Exit::PriorityLowered;
                core.rip = core.next_rip(op);
                return Err(crate::core::Stop::JumpExit);
            }
        }
        _ => return core.undefined(),
    }
    core.finish(op)
}

/// CLTS.
pub(crate) fn clts(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    core.cr0 &= !CR0_TS;
    core.update_mode();
    core.finish(op)
}

/// SMSW.
pub(crate) fn smsw<T: Int>(core: &mut Core, op: &Op) -> Run {
    super::ops::system::check_umip(core)?;
    if op.flags & crate::op::MEMORY != 0 {
        return core.set_first(op, u16::of(core.cr0));
    }
    core.set_reg(op.dst, T::of(core.cr0));
    Ok(())
}

/// LMSW. PE is not cleared.
pub(crate) fn lmsw(core: &mut Core, op: &Op) -> Run {
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    let value = core.first::<u16>(op)?.zx();
    let bits = CR0_PE | CR0_MP | CR0_EM | CR0_TS;
    let value = core.cr0 & !(bits & !CR0_PE) | value & bits;
    core.set_cr0(value)?;
    core.finish(op)
}

/// MOV from a debug register.
pub(crate) fn mov_from_debug(core: &mut Core, op: &Op) -> Run {
    check_debug(core, op.src)?;
    let [dr0, dr1, dr2, dr3] = core.dr;
    let value = match op.src {
        0 => dr0,
        1 => dr1,
        2 => dr2,
        3 => dr3,
        4 | 6 => core.dr6,
        _ => core.dr7,
    };
    core.set_r(op.dst, value);
    Ok(())
}

/// MOV to a debug register.
pub(crate) fn mov_to_debug(core: &mut Core, op: &Op) -> Run {
    check_debug(core, op.dst)?;
    let value = if core.is_64() { core.r(op.src) } else { core.r(op.src) & 0xffff_ffff };
    if op.dst >= 4 && value >> 32 != 0 {
        return core.protection_fault(0);
    }
    match op.dst {
        4 | 6 => core.dr6 = value & 0xe00f | crate::debug::DR6_ONES,
        5 | 7 => core.dr7 = value & 0xffff_2bff | crate::debug::DR7_RESET,
        number => {
            if let Some(address) = core.dr.get_mut(usize::from(number)) {
                *address = value;
            }
        }
    }
    core.update_breakpoints();
    core.finish(op)
}

fn check_debug(core: &mut Core, number: u8) -> Run {
    if core.cr4 & crate::registers::CR4_DE != 0 && matches!(number, 4 | 5) || number > 7 {
        return core.undefined();
    }
    if core.cpl != 0 {
        return core.protection_fault(0);
    }
    if core.dr7 & 1 << 13 != 0 {
        // The trap of a load of SS before it is lost.
        core.events.debug = core.events.debug & !SINGLE_STEP | DETECTED;
        return core.raise(crate::exception::DB);
    }
    Ok(())
}
