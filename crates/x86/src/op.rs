//! Decoded instructions.

use std::fmt;

use iced_x86::Code;
use nerite_x86_vector::Fields;

use crate::core::{Core, Mode, Run, Stop};
use crate::registers::{RIP, SEGMENT, SS, ZERO};

/// The function that executes an instruction.
pub(crate) type Handler = fn(&mut Core, &Op) -> Run;

/// The memory operand is addressed with 64 bits in a segment without limit: no more than a sum.
pub(crate) const FLAT: u8 = 1;
/// Addresses have 16 bits.
pub(crate) const ADDRESS_16: u8 = 1 << 1;
/// Addresses have 32 bits.
pub(crate) const ADDRESS_32: u8 = 1 << 2;
/// A memory operand is on the stack.
pub(crate) const STACK: u8 = 1 << 3;
/// The LOCK prefix, or an instruction that is always locked.
pub(crate) const LOCK: u8 = 1 << 4;
/// The instruction sets RIP and the way to the next block.
pub(crate) const BRANCH: u8 = 1 << 5;
/// There is a memory operand.
pub(crate) const MEMORY: u8 = 1 << 6;
/// A vector or x87 instruction.
pub(crate) const VECTOR: u8 = 1 << 7;

/// An instruction, decoded.
pub(crate) struct Op {
    pub(crate) run: Handler,
    /// The immediate operand, sign-extended as the instruction does, or the target of a branch
    /// relative to the block.
    pub(crate) imm: u64,
    /// Displacement of the memory operand.
    pub(crate) disp: u64,
    /// The number of an instruction that is not implemented.
    pub(crate) code: Option<Code>,
    /// Of a vector instruction.
    pub(crate) fields: Fields,
    /// The register operand that is written.
    pub(crate) dst: u8,
    /// The register operand that is read.
    pub(crate) src: u8,
    pub(crate) base: u8,
    pub(crate) index: u8,
    pub(crate) scale: u8,
    /// The register that holds the base of the segment of the memory operand.
    pub(crate) segment: u8,
    pub(crate) flags: u8,
    /// Instructions before this one in the block.
    pub(crate) position: u8,
    /// Offset of the first byte from the block's start.
    pub(crate) start: u16,
    /// Offset of the byte after the last one.
    pub(crate) end: u16,
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op")
            .field("start", &self.start)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl AsRef<Fields> for Op {
    #[inline(always)]
    fn as_ref(&self) -> &Fields {
        &self.fields
    }
}

impl Op {
    pub(crate) fn new(run: Handler) -> Self {
        Self {
            run,
            imm: 0,
            disp: 0,
            code: None,
            fields: Fields::default(),
            dst: 0,
            src: 0,
            base: ZERO,
            index: ZERO,
            scale: 0,
            segment: ZERO,
            flags: 0,
            position: 0,
            start: 0,
            end: 0,
        }
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.flags & LOCK != 0
    }

    /// The number of the segment of the memory operand.
    pub(crate) fn segment_number(&self) -> u8 {
        self.segment.wrapping_sub(SEGMENT)
    }
}

impl Core {
    /// The offset of the memory operand in its segment.
    #[inline(always)]
    pub(crate) fn offset(&self, op: &Op) -> u64 {
        let index = self.r(op.index).wrapping_shl(u32::from(op.scale));
        let offset = self.r(op.base).wrapping_add(index).wrapping_add(op.disp);
        if op.flags & FLAT != 0 {
            return offset;
        }
        offset & Self::address_mask(op.flags)
    }

    /// The bits that an address has.
    pub(crate) const fn address_mask(flags: u8) -> u64 {
        match flags & (ADDRESS_16 | ADDRESS_32) {
            0 => u64::MAX,
            ADDRESS_32 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// The linear address of the memory operand of `size` bytes.
    #[inline(always)]
    pub(crate) fn linear(&mut self, op: &Op, size: u64, write: bool) -> Run<u64> {
        if op.flags & FLAT != 0 {
            return Ok(self.offset(op).wrapping_add(self.r(op.segment)));
        }
        self.linear_checked(op, size, write)
    }

    #[cold]
    #[inline(never)]
    fn linear_checked(&mut self, op: &Op, size: u64, write: bool) -> Run<u64> {
        let offset = self.offset(op);
        self.segment_address(op.segment_number(), offset, size, write)
    }

    /// The linear address of `size` bytes at an offset of a segment, checked against it (Intel SDM
    /// vol. 3, 5.3 to 5.5).
    pub(crate) fn segment_address(
        &mut self,
        number: u8,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Run<u64> {
        let linear = offset.wrapping_add(self.r(SEGMENT.wrapping_add(number)));
        if self.is_64() {
            return Ok(linear);
        }
        let segment = self.segment(number);
        let last = offset.wrapping_add(size.wrapping_sub(1));
        let limit = u64::from(segment.limit);
        let is_code = segment.kind & 8 != 0;
        let expands_down = !is_code && segment.kind & 4 != 0;
        let top = if segment.db { 0xffff_ffff } else { 0xffff };
        let is_within = if expands_down { offset > limit && last <= top } else { last <= limit };
        // In real mode all segments can be read and written.
        let writes = if is_code { false } else { segment.kind & 2 != 0 };
        let reads = !is_code || segment.kind & 2 != 0;
        let is_allowed = self.is_real() || if write { writes } else { reads };
        if segment.unusable || !is_within || !is_allowed {
            return if number == SS { self.stack_fault(0) } else { self.protection_fault(0) };
        }
        Ok(linear & 0xffff_ffff)
    }

    /// RIP of an instruction.
    pub(crate) fn rip_of(&self, op: &Op) -> u64 {
        let rip = self.r(RIP).wrapping_add(u64::from(op.start));
        if self.is_64() { rip } else { rip & 0xffff_ffff }
    }

    /// RIP of the instruction after this one.
    #[inline(always)]
    pub(crate) fn next_rip(&self, op: &Op) -> u64 {
        let rip = self.r(RIP).wrapping_add(u64::from(op.end));
        if self.mode == Mode::Bits64 { rip } else { rip & 0xffff_ffff }
    }

    /// Completes the instruction and looks at what its effects are before the next one.
    pub(crate) fn finish(&mut self, op: &Op) -> Run {
        self.rip = self.next_rip(op);
        Err(Stop::Jump)
    }

    /// The time-stamp counter at this instruction.
    pub(crate) fn tsc(&mut self, op: &Op) -> u64 {
        let instructions = self.retired.wrapping_add(u64::from(op.position));
        let platform = self.ask(|platform| platform.tsc(instructions));
        self.msrs.tsc(platform)
    }
}
