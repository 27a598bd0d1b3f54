//! Shapes that write a vector register or memory.

use super::{Available, Outcome, Places, Shape, Source, store};
use crate::operands::Operands;
use crate::state::Ymm;

/// Writes `SIZE` bytes of a result if operand 0 is memory.
#[inline(always)]
fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    context: &mut C,
    op: &C::Op,
    result: &Ymm,
) -> Outcome<C> {
    if op.as_ref().is_register(0) { Ok(()) } else { store::<C, SIZE, ALIGNED>(context, op, result) }
}

/// `OP v/m, v`: `a` and `b` are operand 1. `SIZE` bytes go to memory; a register is written whole.
pub(crate) struct VexToMemory;

impl Shape for VexToMemory {
    const SOURCE: Source = Source::None;
    const STORES: bool = true;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let b = available.register(1);
        (available.register_or_result(), b, b, b)
    }

    #[inline(always)]
    fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
        result: &Ymm,
    ) -> Outcome<C> {
        finish::<C, SIZE, ALIGNED>(context, op, result)
    }
}

/// `OP xmm/m, xmm`: `SIZE` bytes go to memory; the upper half of a register stays, and it is a
/// source too.
pub(crate) struct ToMemory;

impl Shape for ToMemory {
    const SOURCE: Source = Source::None;
    const STORES: bool = true;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let (d, b) = (available.register_or_result(), available.register(1));
        (d, d, b, b)
    }

    #[inline(always)]
    fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
        result: &Ymm,
    ) -> Outcome<C> {
        finish::<C, SIZE, ALIGNED>(context, op, result)
    }
}
