//! Far jumps, calls and returns (Intel SDM vol. 2, JMP, CALL, RET; vol. 3, 5.8).

use nerite_arch::Segment;

use crate::access::is_canonical;
use crate::core::{Core, Run};
use crate::exception::{self, NP, TS};
use crate::int::mask;
use crate::registers::{CS, RSP, SS};
use crate::segment::{Descriptor, SELECTOR, real_segment, v86_segment};
use crate::stack::Stack;

/// System descriptor types (Intel SDM vol. 3, table 3-2).
const CALL_GATE_16: u8 = 4;
const TASK_GATE: u8 = 5;
const CALL_GATE: u8 = 12;

/// Destination of a call gate.
struct CallGate {
    code: Descriptor,
    offset: u64,
    size: u64,
    parameters: u64,
}

impl Core {
    /// Checks that RIP can be `rip` in a code segment.
    pub(crate) fn check_target(&mut self, code: &Segment, rip: u64) -> Run {
        let is_64 = self.is_long() && code.l;
        let is_valid = if is_64 { is_canonical(rip) } else { rip <= u64::from(code.limit) };
        if is_valid { Ok(()) } else { self.protection_fault(0) }
    }

    /// CS in real or virtual-8086 mode.
    fn real_code(&self, selector: u16) -> Segment {
        if self.is_v86() { v86_segment(selector) } else { real_segment(self.segment(CS), selector) }
    }

    /// A far jump to `selector:offset`.
    pub(crate) fn far_jump(&mut self, selector: u16, offset: u64) -> Run {
        if self.is_real() {
            let code = self.real_code(selector);
            self.check_target(&code, offset)?;
            let cpl = self.cpl;
            self.set_code_segment(code, cpl);
            self.rip = offset;
            return Ok(());
        }
        let target = self.far_target(selector)?;
        if target.is_segment() {
            let code = self.same_level_code(target)?;
            self.check_target(&code, offset)?;
            let cpl = self.cpl;
            self.set_code_segment(code, cpl);
            self.rip = offset;
            return Ok(());
        }
        let gate = self.call_gate(target)?;
        let code = self.same_level_code(gate.code)?;
        self.check_target(&code, gate.offset)?;
        let cpl = self.cpl;
        self.set_code_segment(code, cpl);
        self.rip = gate.offset;
        Ok(())
    }

    /// A far call to `selector:offset` with operands of `size` bytes; `next` is the return address.
    pub(crate) fn far_call(&mut self, selector: u16, offset: u64, size: u64, next: u64) -> Run {
        let cs = u64::from(self.segment(CS).selector);
        let mut stack = self.stack();
        stack.is_privileged = false;
        let (code, rip, size) = if self.is_real() {
            (self.real_code(selector), offset, size)
        } else {
            let target = self.far_target(selector)?;
            if target.is_segment() {
                (self.same_level_code(target)?, offset, size)
            } else {
                let gate = self.call_gate(target)?;
                let level = gate.code.dpl();
                if !gate.code.is_conforming() && level < self.cpl {
                    return self.call_inner(&gate, level, next);
                }
                (self.same_level_code(gate.code)?, gate.offset, gate.size)
            }
        };
        self.check_target(&code, rip)?;
        self.push_on(&mut stack, size, cs)?;
        self.push_on(&mut stack, size, next)?;
        self.use_stack(&stack);
        let cpl = self.cpl;
        self.set_code_segment(code, cpl);
        self.rip = rip;
        Ok(())
    }

    /// A call through a gate to a more privileged level.
    fn call_inner(&mut self, gate: &CallGate, level: u8, next: u64) -> Run {
        let old = self.stack();
        let (selector, pointer) = self.task_stack(level)?;
        let mut code = gate.code;
        let error = code.selector & SELECTOR;
        if !code.is_present() {
            return self.raise_with(NP, u32::from(error));
        }
        let mut stack = if self.is_long() {
            let segment = Segment {
                selector: u16::from(level),
                dpl: level,
                unusable: true,
                ..Segment::default()
            };
            Stack { segment, pointer, mask: u64::MAX, is_privileged: true, is_flat: true }
        } else {
            let segment = self.inner_stack_segment(selector, level)?;
            let bits = if segment.db { 32 } else { 16 };
            Stack { segment, pointer, mask: mask(bits), is_privileged: true, is_flat: false }
        };
        self.push_on(&mut stack, gate.size, u64::from(old.segment.selector))?;
        self.push_on(&mut stack, gate.size, old.pointer)?;
        for index in (0..gate.parameters).rev() {
            let offset = old.pointer.wrapping_add(index.wrapping_mul(gate.size)) & old.mask;
            let mut from = Stack { pointer: offset, ..old };
            let value = self.pop_from(&mut from, gate.size)?;
            self.push_on(&mut stack, gate.size, value)?;
        }
        self.push_on(&mut stack, gate.size, u64::from(self.segment(CS).selector))?;
        self.push_on(&mut stack, gate.size, next)?;
        self.set_accessed(&mut code)?;
        let mut segment = code.segment();
        segment.selector = error | u16::from(level);
        self.check_target(&segment, gate.offset)?;
        self.use_stack(&stack);
        self.set_code_segment(segment, level);
        self.rip = gate.offset;
        Ok(())
    }

    /// The descriptor that a far transfer names.
    fn far_target(&mut self, selector: u16) -> Run<Descriptor> {
        if selector & SELECTOR == 0 {
            return self.protection_fault(0);
        }
        self.descriptor(selector, exception::GP)
    }

    /// A code segment that is entered without a change of privilege.
    fn same_level_code(&mut self, mut code: Descriptor) -> Run<Segment> {
        let error = code.selector & SELECTOR;
        let rpl = (code.selector & 3) as u8;
        let is_allowed = code.is_code()
            && if code.is_conforming() {
                code.dpl() <= self.cpl
            } else {
                rpl <= self.cpl && code.dpl() == self.cpl
            };
        let segment = code.segment();
        if !is_allowed || self.is_long() && segment.l && segment.db {
            return self.protection_fault(error);
        }
        if !code.is_present() {
            return self.raise_with(NP, u32::from(error));
        }
        self.set_accessed(&mut code)?;
        let mut segment = code.segment();
        segment.selector = error | u16::from(self.cpl);
        Ok(segment)
    }

    fn call_gate(&mut self, mut gate: Descriptor) -> Run<CallGate> {
        let error = gate.selector & SELECTOR;
        let rpl = (gate.selector & 3) as u8;
        let is_gate = match gate.kind() {
            CALL_GATE => true,
            CALL_GATE_16 => !self.is_long(),
            TASK_GATE | 1 | 9 if !self.is_long() => {
                self.report_unsupported(0xffff_0001, "a switch of tasks");
                false
            }
            _ => false,
        };
        if !is_gate || gate.is_segment() || gate.dpl() < rpl.max(self.cpl) {
            return self.protection_fault(error);
        }
        if !gate.is_present() {
            return self.raise_with(NP, u32::from(error));
        }
        self.upper_half(&mut gate, exception::GP)?;
        let selector = (gate.low >> 16) as u16;
        if selector & SELECTOR == 0 {
            return self.protection_fault(0);
        }
        let code = self.descriptor(selector, exception::GP)?;
        let segment = code.segment();
        let is_allowed = code.is_code()
            && code.dpl() <= self.cpl
            && (!self.is_long() || segment.l && !segment.db);
        if !is_allowed {
            return self.protection_fault(selector & SELECTOR);
        }
        let offset = gate.low & 0xffff | (gate.low >> 48) << 16 | (gate.high & 0xffff_ffff) << 32;
        let (size, offset) = match (self.is_long(), gate.kind()) {
            (true, _) => (8, offset),
            (false, CALL_GATE) => (4, offset),
            _ => (2, offset & 0xffff),
        };
        let parameters = if self.is_long() { 0 } else { gate.low >> 32 & 31 };
        Ok(CallGate {
            code: Descriptor { selector: selector & SELECTOR | u16::from(self.cpl), ..code },
            offset,
            size,
            parameters,
        })
    }

    /// A far return with operands of `size` bytes, which removes `extra` bytes from the stack.
    pub(crate) fn far_return(&mut self, size: u64, extra: u64) -> Run {
        let mut stack = self.stack();
        stack.is_privileged = false;
        let rip = self.pop_from(&mut stack, size)?;
        let selector = self.pop_from(&mut stack, size)? as u16;
        if self.is_real() {
            let code = self.real_code(selector);
            self.check_target(&code, rip)?;
            self.skip(&mut stack, extra);
            self.use_stack(&stack);
            let cpl = self.cpl;
            self.set_code_segment(code, cpl);
            self.rip = rip;
            return Ok(());
        }
        let code = self.return_code(selector)?;
        let level = (selector & 3) as u8;
        self.check_target(&code, rip)?;
        self.skip(&mut stack, extra);
        if level == self.cpl {
            self.use_stack(&stack);
            self.set_code_segment(code, level);
            self.rip = rip;
            return Ok(());
        }
        let pointer = self.pop_from(&mut stack, size)?;
        let ss = self.pop_from(&mut stack, size)? as u16;
        self.return_outer(code, rip, level, ss, pointer)?;
        let mut outer = self.stack();
        self.skip(&mut outer, extra);
        self.set_r(RSP, outer.pointer);
        Ok(())
    }

    fn skip(&self, stack: &mut Stack, extra: u64) {
        stack.pointer =
            stack.pointer & !stack.mask | stack.pointer.wrapping_add(extra) & stack.mask;
    }

    /// The code segment that a return leads to.
    pub(crate) fn return_code(&mut self, selector: u16) -> Run<Segment> {
        if selector & SELECTOR == 0 {
            return self.protection_fault(0);
        }
        let error = selector & SELECTOR;
        let mut code = self.descriptor(selector, exception::GP)?;
        let level = (selector & 3) as u8;
        let dpl_fits = if code.is_conforming() { code.dpl() <= level } else { code.dpl() == level };
        let segment = code.segment();
        if !code.is_code()
            || level < self.cpl
            || !dpl_fits
            || self.is_long() && segment.l && segment.db
        {
            return self.protection_fault(error);
        }
        if !code.is_present() {
            return self.raise_with(NP, u32::from(error));
        }
        self.set_accessed(&mut code)?;
        Ok(code.segment())
    }

    /// Enters a less privileged level (or, from IRET in 64-bit mode, the same one) with its stack.
    pub(crate) fn return_outer(
        &mut self,
        code: Segment,
        rip: u64,
        level: u8,
        ss: u16,
        pointer: u64,
    ) -> Run {
        let to_64 = self.is_long() && code.l;
        let segment = if ss & SELECTOR == 0 {
            if !to_64 || level == 3 || (ss & 3) as u8 != level {
                return self.protection_fault(0);
            }
            Segment { selector: ss, dpl: level, unusable: true, ..Segment::default() }
        } else {
            let mut descriptor = self.descriptor(ss, exception::GP)?;
            let is_allowed = descriptor.is_segment()
                && !descriptor.is_code()
                && descriptor.is_open()
                && (ss & 3) as u8 == level
                && descriptor.dpl() == level;
            if !is_allowed {
                return self.protection_fault(ss & SELECTOR);
            }
            if !descriptor.is_present() {
                return self.raise_with(exception::SS, u32::from(ss & SELECTOR));
            }
            self.set_accessed(&mut descriptor)?;
            descriptor.segment()
        };
        *self.segment_mut(SS) = segment;
        let changes = level != self.cpl;
        self.set_code_segment(code, level);
        let old = self.r(RSP);
        let mask = self.stack_mask();
        let pointer = match self.is_64() {
            true => pointer,
            false if mask == 0xffff => old & !mask | pointer & mask,
            false => pointer & mask,
        };
        self.set_r(RSP, pointer);
        self.rip = rip;
        if changes {
            self.drop_segments();
        }
        Ok(())
    }

    /// Raises #TS, as a return from a nested task with no task to return to does.
    pub(crate) fn no_task<T>(&mut self) -> Run<T> {
        self.report_unsupported(0xffff_0002, "a return to another task");
        self.raise_with(TS, u32::from(self.tr.selector & SELECTOR))
    }
}
