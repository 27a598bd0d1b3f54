//! IRET (Intel SDM vol. 2).

use nerite_arch::Segment;

use crate::core::{Core, Run};
use crate::flags::{AC, DF, ID, IF, IOPL, NT, RF, STATUS, TF, VIF, VIP, VM};
use crate::registers::{CS, DS, ES, FS, GS, RSP, SS};
use crate::segment::{real_segment, v86_segment};

impl Core {
    /// IRET with operands of `size` bytes.
    pub(crate) fn interrupt_return(&mut self, size: u64) -> Run {
        if !self.is_protected() {
            return self.iret_real(size);
        }
        if self.is_v86() {
            return if self.flags.control & IOPL == IOPL {
                self.iret_real(size)
            } else {
                self.protection_fault(0)
            };
        }
        if self.flags.control & NT != 0 {
            return if self.is_long() { self.protection_fault(0) } else { self.no_task() };
        }
        let mut stack = self.stack();
        stack.is_privileged = false;
        let rip = self.pop_from(&mut stack, size)?;
        let selector = self.pop_from(&mut stack, size)? as u16;
        let flags = self.pop_from(&mut stack, size)?;
        if size == 4 && flags & VM != 0 && self.cpl == 0 && !self.is_long() {
            return self.iret_to_v86(&mut stack, rip, selector, flags);
        }
        let code = self.return_code(selector)?;
        let level = (selector & 3) as u8;
        self.check_target(&code, rip)?;
        let allowed = self.changeable_flags(size);
        if level != self.cpl || self.is_64() {
            let pointer = self.pop_from(&mut stack, size)?;
            let ss = self.pop_from(&mut stack, size)? as u16;
            self.return_outer(code, rip, level, ss, pointer)?;
        } else {
            self.use_stack(&stack);
            self.set_code_segment(code, level);
            self.rip = rip;
        }
        self.iret_flags(flags, allowed);
        Ok(())
    }

    /// The flags that POPF and IRET change at this privilege, with operands of `size` bytes.
    pub(crate) fn changeable_flags(&self, size: u64) -> u64 {
        let mut allowed = STATUS | TF | DF | NT;
        if size != 2 {
            allowed |= RF | AC | ID;
        }
        let iopl = (self.flags.control & IOPL) >> 12;
        if u64::from(self.cpl) <= iopl {
            allowed |= IF;
        }
        if self.cpl == 0 {
            allowed |= IOPL;
            if size != 2 {
                allowed |= VIF | VIP;
            }
        }
        allowed
    }

    fn iret_flags(&mut self, flags: u64, allowed: u64) {
        let old = self.flags.get();
        self.events.nmi_blocked = false;
        self.attention |= self.events.nmi;
        self.set_flags(old & !allowed | flags & allowed);
    }

    fn iret_real(&mut self, size: u64) -> Run {
        let mut stack = self.stack();
        stack.is_privileged = false;
        let rip = self.pop_from(&mut stack, size)?;
        let selector = self.pop_from(&mut stack, size)? as u16;
        let flags = self.pop_from(&mut stack, size)?;
        let code = if self.is_v86() {
            v86_segment(selector)
        } else {
            real_segment(self.segment(CS), selector)
        };
        self.check_target(&code, rip)?;
        let mut allowed = STATUS | TF | DF | NT | IF | if size == 2 { 0 } else { RF | AC | ID };
        if !self.is_v86() {
            allowed |= IOPL;
        }
        self.use_stack(&stack);
        let cpl = self.cpl;
        self.set_code_segment(code, cpl);
        self.rip = rip;
        self.iret_flags(flags, allowed);
        Ok(())
    }

    fn iret_to_v86(
        &mut self,
        stack: &mut crate::stack::Stack,
        rip: u64,
        cs: u16,
        flags: u64,
    ) -> Run {
        let pointer = self.pop_from(stack, 4)?;
        let mut selectors = [0_u16; 5];
        for selector in &mut selectors {
            *selector = self.pop_from(stack, 4)? as u16;
        }
        if rip > 0xffff {
            return self.protection_fault(0);
        }
        for (number, selector) in [SS, ES, DS, FS, GS].into_iter().zip(selectors) {
            *self.segment_mut(number) = v86_segment(selector);
        }
        self.set_r(RSP, pointer);
        self.rip = rip;
        self.events.nmi_blocked = false;
        self.flags.set(flags);
        let code: Segment = v86_segment(cs);
        self.set_code_segment(code, 3);
        self.attention = true;
        Ok(())
    }
}
