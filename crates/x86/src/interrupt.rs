//! Delivery of interrupts and exceptions (Intel SDM vol. 3, chapter 6).

use nerite_arch::Segment;

use crate::access::is_canonical;
use crate::core::{Core, Run};
use crate::debug::BREAKPOINTS;
use crate::exception::{self, DB};
use crate::fault::Source;
use crate::flags::{AC, IF, NT, RF, TF, VM};
use crate::int::mask;
use crate::registers::{CS, DS, ES, FS, GS, RSP, SS};
use crate::segment::{SELECTOR, real_segment};
use crate::stack::Stack;

/// Gate types (Intel SDM vol. 3, table 3-2).
const TASK_GATE: u8 = 5;
const INTERRUPT_16: u8 = 6;
const TRAP_16: u8 = 7;
const INTERRUPT: u8 = 14;
const TRAP: u8 = 15;

/// An entry of the interrupt descriptor table.
struct Gate {
    offset: u64,
    selector: u16,
    kind: u8,
    stack: u8,
}

impl Core {
    /// Delivers an event at RIP. If that faults, the state is as before.
    pub(crate) fn interrupt(&mut self, vector: u8, error: Option<u32>, source: Source) -> Run {
        let flags = self.flags.get();
        // Faults are taken again after a return, without the breakpoint that may have caused them.
        let is_fault =
            source == Source::Hardware && error.is_some() || matches!(vector, 0 | 5..=7 | 16 | 19);
        let saved = if is_fault { flags | RF } else { flags };
        if vector == DB && source == Source::Hardware {
            // Only the bits of breakpoints are cleared (Intel SDM vol. 3, 18.2.3).
            self.dr6 = self.dr6 & !BREAKPOINTS | std::mem::take(&mut self.events.debug);
            self.dr7 &= !(1 << 13);
        }
        if !self.is_protected() {
            return self.interrupt_real(vector, flags);
        }
        let external = u16::from(source == Source::Hardware);
        let gate = self.gate(vector, source, external)?;
        if self.is_long() {
            self.enter_long(&gate, saved, error, external)?;
        } else {
            self.enter_protected(&gate, saved, error, external)?;
        }
        if vector == exception::NMI && source == Source::Hardware {
            self.events.nmi_blocked = true;
        }
        let clear = TF | NT | RF | VM | if gate.kind & 1 == 0 { IF } else { 0 };
        self.set_flags(flags & !clear);
        Ok(())
    }

    fn interrupt_real(&mut self, vector: u8, flags: u64) -> Run {
        let offset = u64::from(vector).wrapping_mul(4);
        if offset.wrapping_add(3) > u64::from(self.idt.limit) {
            return self.protection_fault(u16::from(vector).wrapping_mul(8).wrapping_add(2));
        }
        let entry: u32 = self.load_system(self.wrap(self.idt.base.wrapping_add(offset)))?;
        let mut stack = self.stack();
        let cs = *self.segment(CS);
        for value in [flags, u64::from(cs.selector), self.rip] {
            self.push_on(&mut stack, 2, value)?;
        }
        self.use_stack(&stack);
        let selector = (entry >> 16) as u16;
        self.set_code_segment(real_segment(&cs, selector), 0);
        self.rip = u64::from(entry & 0xffff);
        if vector == exception::NMI {
            self.events.nmi_blocked = true;
        }
        self.set_flags(flags & !(IF | TF | AC | RF));
        Ok(())
    }

    fn gate(&mut self, vector: u8, source: Source, external: u16) -> Run<Gate> {
        let size = if self.is_long() { 16 } else { 8 };
        let error = u16::from(vector).wrapping_mul(8) | 2 | external;
        let offset = u64::from(vector).wrapping_mul(size);
        if offset.wrapping_add(size).wrapping_sub(1) > u64::from(self.idt.limit) {
            return self.protection_fault(error);
        }
        let at = self.wrap(self.idt.base.wrapping_add(offset));
        let low: u64 = self.load_system(at)?;
        let high: u64 = if self.is_long() { self.load_system(at.wrapping_add(8))? } else { 0 };
        let kind = (low >> 40 & 0x1f) as u8;
        let is_known = match kind {
            INTERRUPT | TRAP => true,
            INTERRUPT_16 | TRAP_16 => !self.is_long(),
            TASK_GATE if !self.is_long() => {
                self.report_unsupported(0xffff_0000, "task gate in the interrupt table");
                false
            }
            _ => false,
        };
        let dpl = (low >> 45 & 3) as u8;
        if !is_known || source == Source::Software && dpl < self.cpl {
            return self.protection_fault(error);
        }
        if low >> 47 & 1 == 0 {
            return self.raise_with(exception::NP, u32::from(error));
        }
        let offset = low & 0xffff | (low >> 48) << 16 | (high & 0xffff_ffff) << 32;
        let offset = if matches!(kind, INTERRUPT_16 | TRAP_16) { offset & 0xffff } else { offset };
        Ok(Gate { offset, selector: (low >> 16) as u16, kind, stack: (low >> 32 & 7) as u8 })
    }

    /// The code segment of a gate, and the privilege level that it leads to.
    fn gate_code(&mut self, gate: &Gate, external: u16) -> Run<(Segment, u8)> {
        if gate.selector & SELECTOR == 0 {
            return self.protection_fault(external);
        }
        let error = gate.selector & SELECTOR | external;
        let mut code = match self.descriptor(gate.selector, exception::GP) {
            Ok(code) => code,
            Err(stop) => {
                if self.fault.vector == exception::GP {
                    self.fault.error = Some(u32::from(error));
                }
                return Err(stop);
            }
        };
        let is_64 = code.segment().l;
        if !code.is_code()
            || code.dpl() > self.cpl
            || self.is_long() && (!is_64 || code.segment().db)
        {
            return self.protection_fault(error);
        }
        if !code.is_present() {
            return self.raise_with(exception::NP, u32::from(error));
        }
        let level = if code.is_conforming() { self.cpl } else { code.dpl() };
        if self.is_v86() && level != 0 {
            return self.protection_fault(error);
        }
        self.set_accessed(&mut code)?;
        let mut segment = code.segment();
        segment.selector = gate.selector & SELECTOR | u16::from(level);
        Ok((segment, level))
    }

    fn enter_long(&mut self, gate: &Gate, flags: u64, error: Option<u32>, external: u16) -> Run {
        let (code, level) = self.gate_code(gate, external)?;
        let old_ss = *self.segment(SS);
        let changes = level != self.cpl;
        let pointer = if gate.stack != 0 {
            let index = u64::from(gate.stack).wrapping_sub(1);
            let offset = index.wrapping_mul(8).wrapping_add(36);
            if offset.wrapping_add(7) > u64::from(self.tr.limit) {
                return self.raise_with(exception::TS, u32::from(self.tr.selector & SELECTOR));
            }
            self.load_system(self.tr.base.wrapping_add(offset))?
        } else if changes {
            self.task_stack(level)?.1
        } else {
            self.r(RSP)
        };
        if !is_canonical(gate.offset) {
            return self.protection_fault(0);
        }
        let segment = if changes {
            Segment { selector: u16::from(level), dpl: level, unusable: true, ..Segment::default() }
        } else {
            old_ss
        };
        let mut stack = Stack {
            segment,
            pointer: pointer & !15,
            mask: u64::MAX,
            is_privileged: level != 3,
            is_flat: true,
        };
        let cs = self.segment(CS).selector;
        let frame = [u64::from(old_ss.selector), self.r(RSP), flags, u64::from(cs), self.rip];
        for value in frame.into_iter().chain(error.map(u64::from)) {
            self.push_on(&mut stack, 8, value)?;
        }
        self.use_stack(&stack);
        self.rip = gate.offset;
        self.set_code_segment(code, level);
        Ok(())
    }

    fn enter_protected(
        &mut self,
        gate: &Gate,
        flags: u64,
        error: Option<u32>,
        external: u16,
    ) -> Run {
        let (code, level) = self.gate_code(gate, external)?;
        let size = if gate.kind & 8 != 0 { 4 } else { 2 };
        let old = self.stack();
        let mut stack = old;
        let was_v86 = self.is_v86();
        if level != self.cpl {
            let (selector, pointer) = self.task_stack(level)?;
            let segment = self.inner_stack_segment(selector, level)?;
            let bits = if segment.db { 32 } else { 16 };
            stack =
                Stack { segment, pointer, mask: mask(bits), is_privileged: true, is_flat: false };
            if was_v86 {
                for number in [GS, FS, DS, ES] {
                    let selector = u64::from(self.segment(number).selector);
                    self.push_on(&mut stack, size, selector)?;
                }
            }
            self.push_on(&mut stack, size, u64::from(old.segment.selector))?;
            self.push_on(&mut stack, size, old.pointer)?;
        }
        let cs = u64::from(self.segment(CS).selector);
        for value in [flags, cs, self.rip].into_iter().chain(error.map(u64::from)) {
            self.push_on(&mut stack, size, value)?;
        }
        if gate.offset > u64::from(code.limit) {
            return self.protection_fault(external);
        }
        self.use_stack(&stack);
        if was_v86 {
            for number in [GS, FS, DS, ES] {
                *self.segment_mut(number) = Segment { unusable: true, ..Segment::default() };
            }
            self.flags.control &= !VM;
        }
        self.rip = gate.offset;
        self.set_code_segment(code, level);
        Ok(())
    }

    /// Logs once that the guest uses what there is not.
    pub(crate) fn report_unsupported(&mut self, key: u32, what: &str) {
        if self.reported.insert(key) {
            log::warn!("x86: {what} is not supported (rip {:#x})", self.rip);
        }
    }
}
