//! Shapes of the string comparisons of SSE4.2, and of CRC32.

use iced_x86::Register;

use crate::operands::Operands;
use crate::shapes::{Execute, Handle, Outcome, STATUS_FLAGS, load, number};
use crate::state::Ymm;

/// Compares strings; an index goes to ECX, or a mask to XMM0. `SIZE` is 4 or 8, the size of the
/// lengths in RAX and RDX. Memory need not be aligned.
fn compare<C: Operands, O: Execute, const SIZE: usize>(
    context: &mut C,
    op: &C::Op,
) -> Result<Ymm, C::Fault> {
    let fields = op.as_ref();
    let register = |context: &C, operand| {
        context.vector().ymm.get(number(fields.register(operand))).copied().unwrap_or_default()
    };
    let b = if fields.is_register(1) {
        register(context, 1)
    } else {
        load::<C, 16, false>(context, op)?
    };
    let (rax, rdx) =
        if SIZE == 8 { (Register::RAX, Register::RDX) } else { (Register::EAX, Register::EDX) };
    let mut lengths = Ymm::low64(context.gpr(rax));
    if let Some(second) = lengths.0.as_chunks_mut::<8>().0.get_mut(1) {
        *second = context.gpr(rdx).to_le_bytes();
    }
    let a = register(context, 0);
    let mut result = Ymm::default();
    let mxcsr = &mut context.vector_mut().mxcsr;
    // SAFETY: all pointers are made of references, and `lookup` asks if the host has the
    // instruction.
    unsafe { O::execute(mxcsr, &raw mut result, &a, &b, &lengths, fields.immediate) };
    let flags = result.0.last_chunk().map_or(0, |flags| u64::from_le_bytes(*flags));
    context.set_flags(STATUS_FLAGS, flags >> 8 & (STATUS_FLAGS & 0xff) | (flags & 1) << 11);
    Ok(result)
}

/// PCMPESTRI and PCMPISTRI.
pub(crate) struct StringIndex;

impl Handle for StringIndex {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        let result = compare::<C, O, SIZE>(context, op)?;
        let (_, index) = (result.low(), result.high());
        let index = index.first_chunk().map_or(0, |index| u64::from_le_bytes(*index));
        context.set_gpr(if SIZE == 8 { Register::RCX } else { Register::ECX }, index);
        Ok(())
    }
}

/// PCMPESTRM and PCMPISTRM.
pub(crate) struct StringMask;

impl Handle for StringMask {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        let result = compare::<C, O, SIZE>(context, op)?;
        if let Some(register) = context.vector_mut().ymm.first_mut() {
            register.set_low(result.low());
        }
        Ok(())
    }
}

/// VPCMPESTRM and VPCMPISTRM: the upper half of YMM0 is cleared.
pub(crate) struct VexStringMask;

impl Handle for VexStringMask {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        let result = compare::<C, O, SIZE>(context, op)?;
        if let Some(register) = context.vector_mut().ymm.first_mut() {
            *register = Ymm::from_lanes(result.low(), [0; 16]);
        }
        Ok(())
    }
}

/// `CRC32 r, r/m`.
pub(crate) struct Crc;

impl Handle for Crc {
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        let fields = op.as_ref();
        let b = if fields.is_register(1) {
            Ymm::low64(context.gpr(fields.register(1)))
        } else {
            load::<C, SIZE, false>(context, op)?
        };
        let a = Ymm::low64(context.gpr(fields.register(0)));
        let mut result = Ymm::default();
        let mxcsr = &mut context.vector_mut().mxcsr;
        // SAFETY: all pointers are made of references, and `lookup` asks if the host has the
        // instruction.
        unsafe { O::execute(mxcsr, &raw mut result, &a, &b, &b, 0) };
        context.set_gpr(fields.register(0), result.as_u64());
        Ok(())
    }
}
