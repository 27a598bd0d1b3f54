//! Shapes that write a vector register.

use super::{Available, Execute, Handle, Outcome, Places, Shape, Source, load, number};
use crate::operands::{Fields, Operands};

/// `OP xmm, xmm/m`: operand 0 is a source too, and its upper half stays. XMM0 is the implied
/// source.
pub(crate) struct Legacy;

impl Shape for Legacy {
    const SOURCE: Source = Source::Vector(1);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let d = available.register(0);
        (d, d, available.source, available.first())
    }
}

/// `OP v, v, v/m` and `OP v, v, v/m, v`: operand 0 is written whole.
pub(crate) struct Vex3;

impl Shape for Vex3 {
    const SOURCE: Source = Source::Vector(2);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        (available.register(0), available.register(1), available.source, available.register(3))
    }
}

/// `OP v, v/m`: operand 0 is written whole; `a` and `b` are operand 1.
pub(crate) struct Vex2;

impl Shape for Vex2 {
    const SOURCE: Source = Source::Vector(1);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let b = available.source;
        (available.register(0), b, b, b)
    }
}

/// `OP xmm, r/m`, with operand 0 as a source too.
pub(crate) struct FromGpr;

impl Shape for FromGpr {
    const SOURCE: Source = Source::General(1);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let d = available.register(0);
        (d, d, available.source, available.first())
    }
}

/// `OP xmm, xmm, r/m`: operand 0 is written whole.
pub(crate) struct VexFromGpr;

impl Shape for VexFromGpr {
    const SOURCE: Source = Source::General(2);

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        (available.register(0), available.register(1), available.source, available.first())
    }
}

/// `OP xmm, imm`: operand 0 is the source too.
pub(crate) struct Immediate;

impl Shape for Immediate {
    const SOURCE: Source = Source::None;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let d = available.register(0);
        (d, d, d, d)
    }
}

/// `OP v, v, imm`: operand 0 is written whole.
pub(crate) struct VexImmediate;

impl Shape for VexImmediate {
    const SOURCE: Source = Source::None;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        let a = available.register(1);
        (available.register(0), a, a, a)
    }
}

/// `MOVSS/MOVSD xmm, xmm/m`: a register's element is merged; memory clears the rest of the low
/// half.
pub(crate) struct LegacyScalar;

impl Handle for LegacyScalar {
    #[inline(always)]
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        if op.as_ref().is_register(1) {
            return Legacy::handle::<C, O, SIZE, ALIGNED>(context, op);
        }
        let memory = load::<C, SIZE, ALIGNED>(context, op)?;
        if let Some(register) = context.vector_mut().ymm.get_mut(number(op.as_ref().register(0))) {
            register.set_low(memory.low());
        }
        Ok(())
    }
}

/// `INSERTPS xmm, xmm/m, imm`: bits 6 and 7 of the immediate operand count for registers only.
pub(crate) struct LegacyInsertps;

impl Shape for LegacyInsertps {
    const SOURCE: Source = Legacy::SOURCE;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        Legacy::places(available)
    }

    #[inline(always)]
    fn immediate(fields: &Fields) -> u8 {
        insertps_immediate(fields, 1)
    }
}

/// `VINSERTPS xmm, xmm, xmm/m, imm`: as [`LegacyInsertps`].
pub(crate) struct VexInsertps;

impl Shape for VexInsertps {
    const SOURCE: Source = Vex3::SOURCE;

    #[inline(always)]
    fn places(available: &Available<'_>) -> Places {
        Vex3::places(available)
    }

    #[inline(always)]
    fn immediate(fields: &Fields) -> u8 {
        insertps_immediate(fields, 2)
    }
}

/// The immediate operand of INSERTPS, by the kind of its source.
fn insertps_immediate(fields: &Fields, operand: usize) -> u8 {
    if fields.is_register(operand) { fields.immediate } else { fields.immediate & 0x3f }
}
