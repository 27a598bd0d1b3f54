//! Stacks: of the program, and those that the processor switches to.

use nerite_arch::Segment;

use crate::access::is_canonical;
use crate::core::{Core, Mode, Run};
use crate::int::Int;
use crate::registers::{RSP, SS};

/// A stack that values are pushed on before it becomes that of the program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    pub(crate) segment: Segment,
    pub(crate) pointer: u64,
    /// Bits of the stack pointer.
    pub(crate) mask: u64,
    /// Accesses have the rights of privileged code.
    pub(crate) is_privileged: bool,
    /// There are no segments.
    pub(crate) is_flat: bool,
}

impl Core {
    /// The bits of the stack pointer.
    pub(crate) fn stack_mask(&self) -> u64 {
        match self.mode {
            Mode::Bits64 => u64::MAX,
            _ if self.segment(SS).db => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// The program's stack.
    pub(crate) fn stack(&self) -> Stack {
        Stack {
            segment: *self.segment(SS),
            pointer: self.r(RSP),
            mask: self.stack_mask(),
            is_privileged: self.cpl != 3,
            is_flat: self.is_64(),
        }
    }

    /// The linear address of `size` bytes at the stack's offset.
    fn stack_address(&mut self, stack: &Stack, offset: u64, size: u64) -> Run<u64> {
        if stack.is_flat {
            let last = offset.wrapping_add(size).wrapping_sub(1);
            if !is_canonical(offset) || !is_canonical(last) {
                return self.stack_fault(0);
            }
            return Ok(offset);
        }
        let last = offset.wrapping_add(size).wrapping_sub(1);
        let limit = u64::from(stack.segment.limit);
        let top = if stack.segment.db { 0xffff_ffff } else { 0xffff };
        let expands_down = stack.segment.kind & 0xc == 4;
        let is_within = if expands_down { offset > limit && last <= top } else { last <= limit };
        if !is_within || stack.segment.unusable {
            return self.stack_fault(0);
        }
        Ok(self.wrap(stack.segment.base.wrapping_add(offset)))
    }

    /// Pushes `size` bytes on a stack.
    pub(crate) fn push_on(&mut self, stack: &mut Stack, size: u64, value: u64) -> Run {
        let pointer = stack.pointer.wrapping_sub(size) & stack.mask;
        let linear = self.stack_address(stack, pointer, size)?;
        let store = |core: &mut Self| match size {
            2 => core.store(linear, u16::of(value)),
            4 => core.store(linear, u32::of(value)),
            _ => core.store(linear, value),
        };
        if stack.is_privileged {
            self.implicitly(store)?
        } else {
            store(self)?
        }
        stack.pointer = stack.pointer & !stack.mask | pointer;
        Ok(())
    }

    /// Pops `size` bytes from a stack.
    pub(crate) fn pop_from(&mut self, stack: &mut Stack, size: u64) -> Run<u64> {
        let pointer = stack.pointer & stack.mask;
        let linear = self.stack_address(stack, pointer, size)?;
        let value = match size {
            2 => self.load::<u16>(linear)?.zx(),
            4 => self.load::<u32>(linear)?.zx(),
            _ => self.load(linear)?,
        };
        stack.pointer = stack.pointer & !stack.mask | pointer.wrapping_add(size) & stack.mask;
        Ok(value)
    }

    /// Makes a stack that of the program, segment and pointer.
    pub(crate) fn use_stack(&mut self, stack: &Stack) {
        *self.segment_mut(SS) = stack.segment;
        self.set_r(RSP, stack.pointer);
    }

    /// Pushes on the program's stack.
    pub(crate) fn push(&mut self, size: u64, value: u64) -> Run {
        let mut stack = self.stack();
        stack.is_privileged = false;
        self.push_on(&mut stack, size, value)?;
        self.set_r(RSP, stack.pointer);
        Ok(())
    }

    /// Pops from the program's stack.
    pub(crate) fn pop(&mut self, size: u64) -> Run<u64> {
        let mut stack = self.stack();
        let value = self.pop_from(&mut stack, size)?;
        self.set_r(RSP, stack.pointer);
        Ok(value)
    }
}
