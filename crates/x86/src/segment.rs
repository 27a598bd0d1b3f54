//! Segment registers and descriptors (Intel SDM vol. 3, chapters 3 and 5).

use nerite_arch::Segment;

use crate::core::{Core, Run};
use crate::exception::{self, NP};
use crate::int::mask;
use crate::registers::{CS, DS, ES, FS, GS, SS};

/// The descriptor's bits in a selector's error code.
pub(crate) const SELECTOR: u16 = !3;
/// Type bits of code and data segments.
pub(crate) const ACCESSED: u8 = 1;
pub(crate) const CONFORMING: u8 = 4;
pub(crate) const CODE: u8 = 8;
/// Types of system descriptors (Intel SDM vol. 3, table 3-2).
pub(crate) const TSS_16: u8 = 1;
pub(crate) const LDT: u8 = 2;
pub(crate) const TSS: u8 = 9;
pub(crate) const BUSY: u8 = 2;

/// A descriptor in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) selector: u16,
    /// Linear address of the entry.
    pub(crate) address: u64,
    pub(crate) low: u64,
    /// The second half of a system descriptor in long mode.
    pub(crate) high: u64,
}

impl Descriptor {
    const fn field(self, shift: u32, bits: u32) -> u64 {
        self.low.wrapping_shr(shift) & mask(bits)
    }

    pub(crate) const fn kind(self) -> u8 {
        self.field(40, 4) as u8 & 15
    }

    pub(crate) const fn is_segment(self) -> bool {
        self.field(44, 1) != 0
    }

    pub(crate) const fn is_code(self) -> bool {
        self.is_segment() && self.kind() & CODE != 0
    }

    pub(crate) const fn is_conforming(self) -> bool {
        self.kind() & CONFORMING != 0
    }

    /// Bit 1 of the type: data can be written, or code read.
    pub(crate) const fn is_open(self) -> bool {
        self.kind() & 2 != 0
    }

    pub(crate) const fn dpl(self) -> u8 {
        self.field(45, 2) as u8 & 3
    }

    pub(crate) const fn is_present(self) -> bool {
        self.field(47, 1) != 0
    }

    /// The register that holds it.
    pub(crate) fn segment(self) -> Segment {
        let raw = (self.field(0, 16) | self.field(48, 4) << 16) as u32;
        let g = self.field(55, 1) != 0;
        Segment {
            base: self.field(16, 24) | self.field(56, 8) << 24 | (self.high & 0xffff_ffff) << 32,
            limit: if g { raw << 12 | 0xfff } else { raw },
            selector: self.selector,
            kind: self.kind(),
            present: self.is_present(),
            dpl: self.dpl(),
            db: self.field(54, 1) != 0,
            s: self.is_segment(),
            l: self.field(53, 1) != 0,
            g,
            avl: self.field(52, 1) != 0,
            unusable: false,
        }
    }
}

/// A segment register in real mode.
pub(crate) fn real_segment(old: &Segment, selector: u16) -> Segment {
    Segment { base: u64::from(selector) << 4, selector, unusable: false, present: true, ..*old }
}

/// A segment register in virtual-8086 mode.
pub(crate) fn v86_segment(selector: u16) -> Segment {
    Segment {
        base: u64::from(selector) << 4,
        limit: 0xffff,
        selector,
        kind: 3,
        present: true,
        dpl: 3,
        s: true,
        ..Segment::default()
    }
}

impl Core {
    /// Reads the 8 bytes of the descriptor of a selector that is not null; #GP (or another
    /// exception) with the selector if it is outside of its table.
    pub(crate) fn descriptor(&mut self, selector: u16, vector: u8) -> Run<Descriptor> {
        let offset = u64::from(selector & !7);
        let last = offset.wrapping_add(7);
        let (base, is_within) = if selector & 4 == 0 {
            (self.gdt.base, last <= u64::from(self.gdt.limit))
        } else {
            (self.ldt.base, !self.ldt.unusable && last <= u64::from(self.ldt.limit))
        };
        if !is_within {
            return self.raise_with(vector, u32::from(selector & SELECTOR));
        }
        let address = self.wrap(base.wrapping_add(offset));
        let low = self.load_system(address)?;
        Ok(Descriptor { selector, address, low, high: 0 })
    }

    /// Adds the second half of a system descriptor in long mode.
    pub(crate) fn upper_half(&mut self, descriptor: &mut Descriptor, vector: u8) -> Run {
        if !self.is_long() {
            return Ok(());
        }
        let last = u64::from(descriptor.selector & !7).wrapping_add(15);
        let limit =
            if descriptor.selector & 4 == 0 { u32::from(self.gdt.limit) } else { self.ldt.limit };
        if last > u64::from(limit) {
            return self.raise_with(vector, u32::from(descriptor.selector & SELECTOR));
        }
        descriptor.high = self.load_system(descriptor.address.wrapping_add(8))?;
        if descriptor.high >> 40 & 0x1f != 0 {
            return self.raise_with(vector, u32::from(descriptor.selector & SELECTOR));
        }
        Ok(())
    }

    /// Sets the accessed bit of a descriptor in its table.
    pub(crate) fn set_accessed(&mut self, descriptor: &mut Descriptor) -> Run {
        if descriptor.kind() & ACCESSED == 0 {
            self.set_type_bits(descriptor, ACCESSED)?;
        }
        Ok(())
    }

    /// Sets bits of the type of a descriptor, in its table and in the copy.
    pub(crate) fn set_type_bits(&mut self, descriptor: &mut Descriptor, bits: u8) -> Run {
        let at = self.wrap(descriptor.address.wrapping_add(5));
        self.implicitly(|core| core.update(at, true, |old: u8| old | bits))?;
        descriptor.low |= u64::from(bits) << 40;
        Ok(())
    }

    /// Loads a data segment register or SS, as MOV and POP do.
    pub(crate) fn load_segment(&mut self, number: u8, selector: u16) -> Run {
        if self.is_real() {
            let old = *self.segment(number);
            *self.segment_mut(number) =
                if self.is_v86() { v86_segment(selector) } else { real_segment(&old, selector) };
            self.update_mode();
            return Ok(());
        }
        let rpl = (selector & 3) as u8;
        if selector & SELECTOR == 0 {
            let is_allowed = number != SS || self.is_64() && self.cpl != 3 && rpl == self.cpl;
            if !is_allowed {
                return self.protection_fault(0);
            }
            let dpl = if number == SS { self.cpl } else { 0 };
            // The base of FS and GS stays on some processors; here it becomes 0 as on Intel's.
            *self.segment_mut(number) =
                Segment { selector, dpl, unusable: true, ..Segment::default() };
            self.update_mode();
            return Ok(());
        }
        let mut descriptor = self.descriptor(selector, exception::GP)?;
        let error = selector & SELECTOR;
        let is_allowed = if number == SS {
            descriptor.is_segment()
                && !descriptor.is_code()
                && descriptor.is_open()
                && rpl == self.cpl
                && descriptor.dpl() == self.cpl
        } else {
            let conforms = descriptor.is_code() && descriptor.is_conforming();
            descriptor.is_segment()
                && (!descriptor.is_code() || descriptor.is_open())
                && (conforms || descriptor.dpl() >= rpl.max(self.cpl))
        };
        if !is_allowed {
            return self.protection_fault(error);
        }
        if !descriptor.is_present() {
            let vector = if number == SS { exception::SS } else { NP };
            return self.raise_with(vector, u32::from(error));
        }
        self.set_accessed(&mut descriptor)?;
        *self.segment_mut(number) = descriptor.segment();
        self.update_mode();
        Ok(())
    }

    /// Sets CS and the privilege level. Translations of code may change.
    pub(crate) fn set_code_segment(&mut self, segment: Segment, cpl: u8) {
        let old = *self.segment(CS);
        *self.segment_mut(CS) = segment;
        self.cpl = cpl;
        if (old.base, old.limit) != (segment.base, segment.limit) {
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.update_mode();
    }

    /// Makes data segment registers null that a less privileged level must not use (Intel SDM vol.
    /// 2, RET).
    pub(crate) fn drop_segments(&mut self) {
        let cpl = self.cpl;
        for number in [ES, DS, FS, GS] {
            let segment = self.segment_mut(number);
            let conforms = segment.s && segment.kind & (CODE | CONFORMING) == CODE | CONFORMING;
            if !segment.unusable && segment.dpl < cpl && !conforms {
                // The base stays, as processors have it, and as `%gs:` in 64-bit mode shows.
                *segment = Segment { base: segment.base, unusable: true, ..Segment::default() };
            }
        }
        self.update_mode();
    }

    /// The stack for a more privileged level: SS and RSP, from the task state (Intel SDM vol. 3,
    /// 7.2 and 7.7).
    pub(crate) fn task_stack(&mut self, level: u8) -> Run<(u16, u64)> {
        let is_32 = self.tr.kind & 8 != 0;
        let level = u64::from(level);
        let (offset, size) = match (self.is_long(), is_32) {
            (true, _) => (level.wrapping_mul(8).wrapping_add(4), 8),
            (false, true) => (level.wrapping_mul(8).wrapping_add(4), 6),
            (false, false) => (level.wrapping_mul(4).wrapping_add(2), 4),
        };
        let error = u32::from(self.tr.selector & SELECTOR);
        if offset.wrapping_add(size).wrapping_sub(1) > u64::from(self.tr.limit) {
            return self.raise_with(exception::TS, error);
        }
        let at = self.wrap(self.tr.base.wrapping_add(offset));
        if self.is_long() {
            return Ok((0, self.load_system(at)?));
        }
        if is_32 {
            let sp: u32 = self.load_system(at)?;
            let ss = self.load_system(self.wrap(at.wrapping_add(4)))?;
            return Ok((ss, u64::from(sp)));
        }
        let sp: u16 = self.load_system(at)?;
        let ss = self.load_system(self.wrap(at.wrapping_add(2)))?;
        Ok((ss, u64::from(sp)))
    }

    /// Checks a stack segment for a more privileged level, and returns it.
    pub(crate) fn inner_stack_segment(&mut self, selector: u16, level: u8) -> Run<Segment> {
        let error = u32::from(selector & SELECTOR);
        if selector & SELECTOR == 0 {
            return self.raise_with(exception::TS, 0);
        }
        let mut descriptor = self.descriptor(selector, exception::TS)?;
        let is_allowed = descriptor.is_segment()
            && !descriptor.is_code()
            && descriptor.is_open()
            && (selector & 3) as u8 == level
            && descriptor.dpl() == level;
        if !is_allowed {
            return self.raise_with(exception::TS, error);
        }
        if !descriptor.is_present() {
            return self.raise_with(exception::SS, error);
        }
        self.set_accessed(&mut descriptor)?;
        Ok(descriptor.segment())
    }
}
