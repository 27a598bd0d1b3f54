//! Handlers by the shape of an instruction: which operands it reads and writes.

mod general;
mod memory;
mod vector;

use iced_x86::{Instruction, OpKind, Register};

use crate::host::{Float, Operation, float};
use crate::operands::{Operands, VectorException};
use crate::state::Ymm;

pub(crate) use general::*;
pub(crate) use memory::*;
pub(crate) use vector::*;

/// Result of a handler.
pub(crate) type Outcome<C> = Result<(), <C as Operands>::Fault>;

/// Status flags of RFLAGS: OF, SF, ZF, AF, PF, CF.
pub(crate) const STATUS_FLAGS: u64 = 0x8d5;

/// An operation as all shapes call it: returns `false` if an unmasked floating-point exception was
/// raised.
pub(crate) trait Execute {
    /// Executes the operation.
    ///
    /// # Safety
    ///
    /// As for [`Operation::run`].
    unsafe fn execute(
        mxcsr: &mut u32,
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
    ) -> bool;
}

/// An operation that leaves MXCSR alone.
pub(crate) struct Plain<O>(std::marker::PhantomData<O>);

impl<O: Operation> Execute for Plain<O> {
    #[inline(always)]
    unsafe fn execute(
        _: &mut u32,
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
    ) -> bool {
        // SAFETY: as the caller promises.
        unsafe { O::run(d, a, b, c, imm) };
        true
    }
}

/// An operation with MXCSR.
pub(crate) struct Floating<O>(std::marker::PhantomData<O>);

impl<O: Float> Execute for Floating<O> {
    #[inline(always)]
    unsafe fn execute(
        mxcsr: &mut u32,
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
    ) -> bool {
        // SAFETY: as the caller promises.
        unsafe { float::<O>(mxcsr, d, a, b, c, imm) }
    }
}

/// Number of the XMM or YMM register.
#[inline(always)]
pub(crate) fn number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::XMM0 as usize) & 15
}

/// The register of `registers` that an instruction names.
#[inline(always)]
fn named(registers: *mut Ymm, register: Register) -> *mut Ymm {
    // The number is below 16, the length of the array that `registers` points to.
    registers.wrapping_add(number(register))
}

/// Returns the vector register of operand `operand`, or `memory` after reading `SIZE` bytes into
/// it.
#[inline(always)]
fn source<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    registers: *mut Ymm,
    instruction: &Instruction,
    context: &mut C,
    operand: u32,
    memory: &mut Ymm,
) -> Result<*const Ymm, C::Fault> {
    if instruction.op_kind(operand) == OpKind::Register {
        return Ok(named(registers, instruction.op_register(operand)));
    }
    load::<C, SIZE, ALIGNED>(instruction, context, operand, memory)?;
    Ok(memory)
}

/// Reads `SIZE` bytes of a memory operand.
#[inline(always)]
pub(crate) fn load<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    instruction: &Instruction,
    context: &mut C,
    operand: u32,
    memory: &mut Ymm,
) -> Outcome<C> {
    let Some((bytes, _)) = memory.0.split_first_chunk_mut::<SIZE>() else { return Ok(()) };
    if ALIGNED {
        context.load_aligned(instruction, operand, bytes)
    } else {
        context.load(instruction, operand, bytes)
    }
}

/// Returns `memory` after writing the general register of operand `operand` to it, or `SIZE` bytes
/// of memory.
#[inline(always)]
fn general_source<C: Operands, const SIZE: usize>(
    instruction: &Instruction,
    context: &mut C,
    operand: u32,
    memory: &mut Ymm,
) -> Outcome<C> {
    if instruction.op_kind(operand) == OpKind::Register {
        *memory = Ymm::low64(context.gpr(instruction.op_register(operand)));
        return Ok(());
    }
    load::<C, SIZE, false>(instruction, context, operand, memory)
}

/// The exception, unless the operation was executed.
#[inline(always)]
fn outcome<C: Operands>(executed: bool, context: &mut C) -> Outcome<C> {
    if executed { Ok(()) } else { Err(context.exception(VectorException::SimdFloatingPoint)) }
}

/// Writes `SIZE` bytes to memory operand 0.
#[inline(always)]
pub(crate) fn store<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    instruction: &Instruction,
    context: &mut C,
    value: &Ymm,
) -> Outcome<C> {
    let Some(bytes) = value.0.first_chunk::<SIZE>() else { return Ok(()) };
    if ALIGNED { context.store_aligned(instruction, 0, bytes) } else { context.store(instruction, 0, bytes) }
}
