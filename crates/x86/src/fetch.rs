//! Translation of the addresses of instructions.

use crate::access::is_canonical;
use crate::core::{Core, Run};
use crate::registers::CS;
use crate::tlb::PAGE;
use crate::walk::Access;

impl Core {
    /// The linear address of the next instruction.
    pub(crate) fn linear_rip(&self) -> u64 {
        if self.is_64() {
            self.rip
        } else {
            self.rip.wrapping_add(self.segment(CS).base) & 0xffff_ffff
        }
    }

    /// Translates the address of code.
    pub(crate) fn fetch_address(&mut self, linear: u64) -> Run<u64> {
        let tag = linear & PAGE | u64::from(self.cpl == 3) << 1;
        let offset = linear & 0xfff;
        if let Some((known, page)) = self.fetch.slot(linear)
            && *known == tag
        {
            return Ok(*page | offset);
        }
        if self.is_long() && !is_canonical(linear) {
            return self.protection_fault(0);
        }
        let found = self.translate(linear, Access::Execute)?;
        if let Some(slot) = self.fetch.slot(linear) {
            *slot = (tag, found.address & PAGE);
        }
        Ok(found.address)
    }
}
