//! Handlers by the shape of an instruction: which operands it reads and writes.

use iced_x86::{Instruction, OpKind, Register};

use crate::host::{Float, Operation, float};
use crate::operands::{Operands, VectorException};
use crate::state::{VectorState, Ymm};

/// Result of a handler.
pub(crate) type Outcome<C> = Result<(), <C as Operands>::Fault>;

/// Status flags of RFLAGS: OF, SF, ZF, AF, PF, CF.
pub(crate) const STATUS_FLAGS: u64 = 0x8d5;

/// An operation as all shapes call it: returns `false` if an unmasked floating-point exception was raised.
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

/// Returns the vector register of operand `operand`, or `memory` after reading `SIZE` bytes into it.
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

/// Returns `memory` after writing the general register of operand `operand` to it, or `SIZE` bytes of memory.
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

/// `OP xmm, xmm/m`: operand 0 is a source too, and its upper half stays. XMM0 is the implied source.
pub(crate) fn legacy<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, b, registers, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP v, v, v/m` and `OP v, v, v/m, v`: operand 0 is written whole.
pub(crate) fn vex3<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 2, &mut memory)?;
    let c = named(registers, instruction.op3_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, b, c, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP v, v/m`: operand 0 is written whole; `a` and `b` are operand 1.
pub(crate) fn vex2<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, b, b, b, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP xmm, r/m`, with operand 0 as a source too.
pub(crate) fn from_gpr<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    general_source::<C, SIZE>(instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, &memory, registers, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP xmm, xmm, r/m`: operand 0 is written whole.
pub(crate) fn vex_from_gpr<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    general_source::<C, SIZE>(instruction, context, 2, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, &memory, registers, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP r, v/m`: a general register is written.
pub(crate) fn to_gpr<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let (mut memory, mut result) = (Ymm::default(), Ymm::default());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, &raw mut result, b, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    context.set_gpr(instruction.op0_register(), result.as_u64());
    Ok(())
}

/// `OP v, v/m`: the status flags are written.
pub(crate) fn to_flags<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let (mut memory, mut result) = (Ymm::default(), Ymm::default());
    let a = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, &raw mut result, a, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    // LAHF leaves out OF, which all of these clear, and sets bit 1.
    context.set_flags(STATUS_FLAGS, result.as_u64() & STATUS_FLAGS);
    Ok(())
}

/// `OP v/m, v`: `a` and `b` are operand 1. `SIZE` bytes go to memory; a register is written whole.
pub(crate) fn vex_to_memory<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let registers = state.ymm.as_mut_ptr();
    let (mut result, mut mxcsr) = (Ymm::default(), state.mxcsr);
    let b = named(registers, instruction.op1_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(&mut mxcsr, &raw mut result, b, b, b, instruction.immediate8()) };
    if instruction.op0_kind() != OpKind::Register {
        if executed {
            store::<C, SIZE, ALIGNED>(instruction, context, &result)?;
        } else {
            context.check_store(instruction, 0, SIZE)?;
        }
    } else if executed && let Some(register) = state.ymm.get_mut(number(instruction.op0_register())) {
        *register = result;
    }
    state.mxcsr = mxcsr;
    outcome(executed, context)
}

/// `OP xmm, imm`: operand 0 is the source too.
pub(crate) fn immediate<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let d = named(registers, instruction.op0_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, d, d, instruction.immediate8()) };
    outcome(executed, context)
}

/// `OP v, v, imm`: operand 0 is written whole.
pub(crate) fn vex_immediate<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, a, a, instruction.immediate8()) };
    outcome(executed, context)
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

/// `OP xmm/m, xmm`: `SIZE` bytes go to memory; the upper half of a register stays, and it is a source too.
pub(crate) fn to_memory<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut result = Ymm::default();
    let b = named(registers, instruction.op1_register());
    let is_register = instruction.op0_kind() == OpKind::Register;
    let d = if is_register { named(registers, instruction.op0_register()) } else { &raw mut result };
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    if is_register { Ok(()) } else { store::<C, SIZE, ALIGNED>(instruction, context, &result) }
}

/// `OP r/m, xmm`: `SIZE` bytes of the result go to memory, or all to a general register.
pub(crate) fn to_general<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut result = Ymm::default();
    let b = named(registers, instruction.op1_register());
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, &raw mut result, b, b, b, instruction.immediate8()) };
    outcome(executed, context)?;
    if instruction.op0_kind() == OpKind::Register {
        context.set_gpr(instruction.op0_register(), result.as_u64());
        return Ok(());
    }
    store::<C, SIZE, ALIGNED>(instruction, context, &result)
}

/// `MOVSS/MOVSD xmm, xmm/m`: a register's element is merged; memory clears the rest of the low half.
pub(crate) fn legacy_scalar<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    if instruction.op1_kind() == OpKind::Register {
        return legacy::<C, O, SIZE, ALIGNED>(state, instruction, context);
    }
    let mut memory = Ymm::default();
    load::<C, SIZE, ALIGNED>(instruction, context, 1, &mut memory)?;
    if let Some(register) = state.ymm.get_mut(number(instruction.op0_register())) {
        register.set_low(memory.low());
    }
    Ok(())
}

/// `INSERTPS xmm, xmm/m, imm`: bits 6 and 7 of the immediate operand count for registers only.
pub(crate) fn legacy_insertps<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 1, &mut memory)?;
    let imm = insertps_immediate(instruction, 1);
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, d, b, b, imm) };
    outcome(executed, context)
}

/// `VINSERTPS xmm, xmm, xmm/m, imm`: as [`legacy_insertps`].
pub(crate) fn vex_insertps<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
    state: &mut VectorState,
    instruction: &Instruction,
    context: &mut C,
) -> Outcome<C> {
    let (registers, mxcsr) = (state.ymm.as_mut_ptr(), &mut state.mxcsr);
    let mut memory = Ymm::default();
    let d = named(registers, instruction.op0_register());
    let a = named(registers, instruction.op1_register());
    let b = source::<C, SIZE, ALIGNED>(registers, instruction, context, 2, &mut memory)?;
    let imm = insertps_immediate(instruction, 2);
    // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the instruction.
    let executed = unsafe { O::execute(mxcsr, d, a, b, b, imm) };
    outcome(executed, context)
}

/// The immediate operand of INSERTPS, by the kind of its source.
fn insertps_immediate(instruction: &Instruction, operand: u32) -> u8 {
    let imm = instruction.immediate8();
    if instruction.op_kind(operand) == OpKind::Register { imm } else { imm & 0x3f }
}
