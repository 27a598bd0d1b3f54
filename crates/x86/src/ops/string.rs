//! String instructions (Intel SDM vol. 1, 7.3.9).

use nerite_memory::Page;

use crate::access::{Place, page_offset};
use crate::core::{Core, Run, Stop};
use crate::flags::{DF, TF};
use crate::int::Int;
use crate::op::{ADDRESS_16, ADDRESS_32, Op};
use crate::ops::alu::{Alu, Cmp};
use crate::registers::{ES, RAX, RCX, RDI, RSI};
use crate::tlb;

/// In [`Op::src`]: no prefix, REP or REPE, and REPNE.
pub(crate) const ONCE: u8 = 0;
pub(crate) const WHILE_EQUAL: u8 = 1;
pub(crate) const WHILE_NOT_EQUAL: u8 = 2;

/// Elements between looks at interrupts.
const SLICE: u64 = 1024;

impl Core {
    /// Width in bytes of the addresses of an instruction.
    pub(crate) fn width(op: &Op) -> u64 {
        match op.flags & (ADDRESS_16 | ADDRESS_32) {
            0 => 8,
            ADDRESS_32 => 4,
            _ => 2,
        }
    }

    /// The linear address of the element at RSI.
    pub(crate) fn source(&mut self, op: &Op, size: u64) -> Run<u64> {
        let offset = self.sized(RSI, Self::width(op));
        self.segment_address(op.segment_number(), offset, size, false)
    }

    /// The linear address of the element at RDI.
    pub(crate) fn destination(&mut self, op: &Op, size: u64, write: bool) -> Run<u64> {
        let offset = self.sized(RDI, Self::width(op));
        self.segment_address(ES, offset, size, write)
    }

    /// Moves an index register over elements of `size` bytes.
    pub(crate) fn advance(&mut self, register: u8, op: &Op, size: u64, count: u64) {
        let width = Self::width(op);
        let distance = size.wrapping_mul(count);
        let old = self.sized(register, width);
        let new = if self.flags.control & DF == 0 {
            old.wrapping_add(distance)
        } else {
            old.wrapping_sub(distance)
        };
        self.set_sized(register, width, new);
    }

    /// Executes an instruction once, or as often as its prefix says. `step` handles at most so many
    /// elements; it returns how many it did, and `true` if the next one is to follow.
    pub(crate) fn repeat(
        &mut self,
        op: &Op,
        mut step: impl FnMut(&mut Self, u64) -> Run<(u64, bool)>,
    ) -> Run {
        if op.src == ONCE {
            step(self, 1)?;
            return Ok(());
        }
        let width = Self::width(op);
        // A trap follows each element.
        let is_traced = self.flags.control & TF != 0 || self.tlb.set == tlb::CHECKED;
        let mut left = if is_traced { 1 } else { SLICE };
        loop {
            let count = self.sized(RCX, width);
            if count == 0 {
                return Ok(());
            }
            if left == 0 {
                return Err(Stop::Again);
            }
            let (done, more) = step(self, if is_traced { 1 } else { count })?;
            self.set_sized(RCX, width, count.wrapping_sub(done));
            self.accesses.clear();
            if !more {
                return Ok(());
            }
            // A part of a page at once counts as a few elements.
            left = left.saturating_sub(done.min(64));
        }
    }
}

/// Number of elements from an address that are in its page.
fn in_page<T: Int>(linear: u64) -> u64 {
    0x1000_u64.wrapping_sub(linear & 0xfff).wrapping_shr(T::BYTES.trailing_zeros())
}

/// A page of RAM without code that a linear address leads to, with the address' offset.
fn plain(core: &mut Core, linear: u64, write: bool) -> Run<Option<(Page, usize)>> {
    let place = core.resolve(linear, write)?;
    Ok(match place {
        Place::Ram(target, address) if !write || target.chunk.lines(address) == 0 => {
            Some((target.page, page_offset(address)))
        }
        _ => None,
    })
}

/// `true` if elements can be handled many at a time.
fn is_bulk(core: &Core, op: &Op, count: u64) -> bool {
    count > 1
        && core.is_64()
        && Core::width(op) == 8
        && core.flags.control & DF == 0
        && core.tlb.set != tlb::CHECKED
        && core.accesses.is_empty()
}

/// Makes code stale that a copy of many elements has changed since its page was looked at.
fn after(core: &mut Core, linear: u64, size: u64) -> Run {
    if let Place::Ram(target, address) = core.resolve(linear, true)?
        && target.chunk.has_code(
            address,
            address & 0xfff,
            (address & 0xfff).wrapping_add(size).wrapping_sub(1),
        )
    {
        target.chunk.invalidate(address);
    }
    Ok(())
}

/// MOVS.
pub(crate) fn movs<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.repeat(op, |core, count| {
        let source = core.source(op, T::BYTES)?;
        let destination = core.destination(op, T::BYTES, true)?;
        let mut done = 1;
        if is_bulk(core, op, count)
            && let Some((from, from_offset)) = plain(core, source, false)?
            && let Some((to, to_offset)) = plain(core, destination, true)?
        {
            let many = count.min(in_page::<T>(source)).min(in_page::<T>(destination));
            let distance = to_offset.wrapping_sub(from_offset);
            // Bytes that are copied one by one would be read again within an element.
            let overlaps = from.is(&to) && distance != 0 && distance < T::BYTES as usize;
            let size = many.wrapping_mul(T::BYTES);
            let length = usize::try_from(size).unwrap_or(0);
            if many > 1
                && !overlaps
                && to.copy_from(to_offset, &from, from_offset, length).is_some()
            {
                after(core, destination, size)?;
                done = many;
                core.advance(RSI, op, T::BYTES, done);
                core.advance(RDI, op, T::BYTES, done);
                return Ok((done, true));
            }
        }
        let value = core.load::<T>(source)?;
        core.store(destination, value)?;
        core.advance(RSI, op, T::BYTES, done);
        core.advance(RDI, op, T::BYTES, done);
        Ok((done, true))
    })
}

/// STOS.
pub(crate) fn stos<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.repeat(op, |core, count| {
        let destination = core.destination(op, T::BYTES, true)?;
        let value = core.reg::<T>(RAX);
        if is_bulk(core, op, count)
            && let Some((to, offset)) = plain(core, destination, true)?
        {
            let many = count.min(in_page::<T>(destination));
            let size = many.wrapping_mul(T::BYTES);
            let length = usize::try_from(size).unwrap_or(0);
            let byte = u8::of(value.zx());
            let is_uniform = value.zx()
                == u64::from(byte).wrapping_mul(0x0101_0101_0101_0101) & crate::int::mask(T::BITS);
            let filled = if is_uniform {
                to.fill_bytes(offset, byte, length)
            } else {
                to.fill(offset, value, usize::try_from(many).unwrap_or(0))
            };
            if many > 1 && filled.is_some() {
                after(core, destination, size)?;
                core.advance(RDI, op, T::BYTES, many);
                return Ok((many, true));
            }
        }
        core.store(destination, value)?;
        core.advance(RDI, op, T::BYTES, 1);
        Ok((1, true))
    })
}

/// LODS.
pub(crate) fn lods<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.repeat(op, |core, _| {
        let source = core.source(op, T::BYTES)?;
        let value = core.load::<T>(source)?;
        core.set_reg(RAX, value);
        core.advance(RSI, op, T::BYTES, 1);
        Ok((1, true))
    })
}

/// Sets the flags of a comparison. `true` if the prefix has another one follow.
fn compared<T: Int>(core: &mut Core, op: &Op, a: T, b: T) -> bool {
    let (result, borrow) = Cmp::compute(a, b, false);
    Cmp::set_flags(&mut core.flags, a, b, result, borrow);
    core.flags.zf() == (op.src == WHILE_EQUAL)
}

/// SCAS.
pub(crate) fn scas<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.repeat(op, |core, _| {
        let destination = core.destination(op, T::BYTES, false)?;
        let value = core.load::<T>(destination)?;
        core.advance(RDI, op, T::BYTES, 1);
        let a = core.reg::<T>(RAX);
        Ok((1, compared(core, op, a, value)))
    })
}

/// CMPS.
pub(crate) fn cmps<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.repeat(op, |core, _| {
        let source = core.source(op, T::BYTES)?;
        let a = core.load::<T>(source)?;
        let destination = core.destination(op, T::BYTES, false)?;
        let b = core.load::<T>(destination)?;
        core.advance(RSI, op, T::BYTES, 1);
        core.advance(RDI, op, T::BYTES, 1);
        Ok((1, compared(core, op, a, b)))
    })
}
