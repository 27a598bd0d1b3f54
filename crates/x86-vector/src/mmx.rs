//! Shapes of instructions on MMX registers, which are the low 64 bits of the x87 registers.

use iced_x86::Register;

use crate::operands::{Operands, VectorException};
use crate::shapes::{Execute, Handle, Outcome, load, number, store};
use crate::state::{VectorState, Ymm};

/// Number of the MMX register.
pub(crate) fn mmx_number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::MM0 as usize) & 7
}

/// Reports an x87 exception that is pending, as every MMX instruction does.
#[inline(always)]
pub(crate) fn check_pending<C: Operands>(context: &mut C) -> Outcome<C> {
    if context.vector().x87.pending() {
        Err(context.exception(VectorException::X87FloatingPoint))
    } else {
        Ok(())
    }
}

/// Makes all registers valid, and the first one the top of the stack, as every MMX instruction but
/// EMMS does.
pub(crate) fn enter_mmx(state: &mut VectorState) {
    state.x87.status &= !0x3800;
    state.x87.tags = 0xff;
}

/// Value of MMX, XMM or general register `operand`, or of `SIZE` bytes of memory.
fn source<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    context: &mut C,
    op: &C::Op,
    operand: usize,
) -> Result<Ymm, C::Fault> {
    let register = op.as_ref().register(operand);
    if register == Register::None {
        return load::<C, SIZE, ALIGNED>(context, op);
    }
    let state = context.vector();
    Ok(if register.is_mm() {
        Ymm::low64(state.x87.mm(mmx_number(register)))
    } else if register.is_xmm() {
        state.ymm.get(number(register)).copied().unwrap_or_default()
    } else {
        Ymm::low64(context.gpr(register))
    })
}

/// Executes an operation. The registers are in use for MMX even if it raises a floating-point
/// exception.
fn execute<C: Operands, O: Execute>(
    context: &mut C,
    op: &C::Op,
    result: &mut Ymm,
    [a, b]: [&Ymm; 2],
) -> Outcome<C> {
    let (state, fields) = (context.vector_mut(), op.as_ref());
    // SAFETY: all pointers are made of references, and `lookup` asks if the host has the
    // instruction.
    let executed = unsafe { O::execute(&mut state.mxcsr, result, a, b, b, fields.immediate) };
    if executed {
        return Ok(());
    }
    if fields.is_register(1) || fields.register(0).is_mm() {
        enter_mmx(state);
    }
    Err(context.exception(VectorException::SimdFloatingPoint))
}

/// `OP mm, mm/xmm/r/m`: operand 0 is a source too.
pub(crate) struct Mmx;

impl Handle for Mmx {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        check_pending(context)?;
        let d = mmx_number(op.as_ref().register(0));
        let a = Ymm::low64(context.vector().x87.mm(d));
        let b = source::<C, SIZE, ALIGNED>(context, op, 1)?;
        let mut result = Ymm::default();
        execute::<C, O>(context, op, &mut result, [&a, &b])?;
        enter_mmx(context.vector_mut());
        context.vector_mut().x87.set_mm(d, result.as_u64());
        Ok(())
    }
}

/// `OP mm, imm`: operand 0 is the source too.
pub(crate) struct MmxImmediate;

impl Handle for MmxImmediate {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        check_pending(context)?;
        let d = mmx_number(op.as_ref().register(0));
        let a = Ymm::low64(context.vector().x87.mm(d));
        let mut result = Ymm::default();
        execute::<C, O>(context, op, &mut result, [&a, &a])?;
        enter_mmx(context.vector_mut());
        context.vector_mut().x87.set_mm(d, result.as_u64());
        Ok(())
    }
}

/// `OP r, mm`: a general register is written.
pub(crate) struct MmxToGeneral;

impl Handle for MmxToGeneral {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        check_pending(context)?;
        let b = source::<C, SIZE, ALIGNED>(context, op, 1)?;
        let mut result = Ymm::default();
        execute::<C, O>(context, op, &mut result, [&b, &b])?;
        enter_mmx(context.vector_mut());
        context.set_gpr(op.as_ref().register(0), result.as_u64());
        Ok(())
    }
}

/// `OP mm/r/m, mm`: `SIZE` bytes are moved.
pub(crate) struct MmxStore;

impl Handle for MmxStore {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        check_pending(context)?;
        let b = source::<C, SIZE, ALIGNED>(context, op, 1)?;
        let mut result = Ymm::default();
        execute::<C, O>(context, op, &mut result, [&b, &b])?;
        if !op.as_ref().is_register(0) {
            store::<C, SIZE, ALIGNED>(context, op, &result)?;
            enter_mmx(context.vector_mut());
            return Ok(());
        }
        enter_mmx(context.vector_mut());
        let register = op.as_ref().register(0);
        if register.is_mm() {
            context.vector_mut().x87.set_mm(mmx_number(register), result.as_u64());
        } else {
            context.set_gpr(register, result.as_u64());
        }
        Ok(())
    }
}

/// `OP xmm, mm/m`: operand 0 is a source too, and its upper half stays. Memory leaves the x87
/// registers as they are.
pub(crate) struct MmxToXmm;

impl Handle for MmxToXmm {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        if op.as_ref().is_register(1) {
            check_pending(context)?;
        }
        let b = source::<C, SIZE, ALIGNED>(context, op, 1)?;
        let index = number(op.as_ref().register(0));
        let a = context.vector().ymm.get(index).copied().unwrap_or_default();
        let mut result = a;
        execute::<C, O>(context, op, &mut result, [&a, &b])?;
        if op.as_ref().is_register(1) {
            enter_mmx(context.vector_mut());
        }
        if let Some(register) = context.vector_mut().ymm.get_mut(index) {
            *register = result;
        }
        Ok(())
    }
}

/// EMMS: empties the x87 registers.
pub(crate) fn emms<C: Operands>(context: &mut C, _: &C::Op) -> Outcome<C> {
    check_pending(context)?;
    let x87 = &mut context.vector_mut().x87;
    x87.tags = 0;
    x87.status &= !0x3800;
    Ok(())
}
