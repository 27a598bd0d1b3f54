//! Shapes that write a general register or flags.

use super::{Available, Outcome, Places, STATUS_FLAGS, Shape, Source, store};
use crate::operands::Operands;
use crate::state::Ymm;

/// `OP r, v/m`: a general register is written.
pub(crate) struct ToGpr;

impl Shape for ToGpr {
    const SOURCE: Source = Source::Vector(1);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let b = available.source;
        (available.result, b, b, b)
    }

    #[inline(always)]
    fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
        result: &Ymm,
    ) -> Outcome<C> {
        context.set_gpr(op.as_ref().register(0), result.as_u64());
        Ok(())
    }
}

/// `OP v, v/m`: the status flags are written.
pub(crate) struct ToFlags;

impl Shape for ToFlags {
    const SOURCE: Source = Source::Vector(1);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let b = available.source;
        (available.result, available.register(0), b, b)
    }

    #[inline(always)]
    fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        _: &C::Op,
        result: &Ymm,
    ) -> Outcome<C> {
        // LAHF leaves out OF, which all of these clear, and sets bit 1.
        context.set_flags(STATUS_FLAGS, result.as_u64() & STATUS_FLAGS);
        Ok(())
    }
}

/// `OP r/m, xmm`: `SIZE` bytes of the result go to memory, or all to a general register.
pub(crate) struct ToGeneral;

impl Shape for ToGeneral {
    const SOURCE: Source = Source::None;
    const STORES: bool = true;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let b = available.register(1);
        (available.result, b, b, b)
    }

    #[inline(always)]
    fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
        result: &Ymm,
    ) -> Outcome<C> {
        if op.as_ref().is_register(0) {
            context.set_gpr(op.as_ref().register(0), result.as_u64());
            return Ok(());
        }
        store::<C, SIZE, ALIGNED>(context, op, result)
    }
}
