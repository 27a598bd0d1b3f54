//! Addition, subtraction and logic.

use crate::core::{Core, Run};
use crate::flags::Flags;
use crate::int::Int;
use crate::op::{MEMORY, Op};

/// An operation of two operands that sets the status flags.
pub(crate) trait Alu {
    /// The first operand is replaced by the result.
    const WRITES: bool = true;
    /// The result, and the carry out of it.
    fn compute<T: Int>(a: T, b: T, carry: bool) -> (T, bool);
    /// Sets the flags.
    #[inline(always)]
    fn set_flags<T: Int>(flags: &mut Flags, a: T, b: T, result: T, carry: bool) {
        flags.added(a, b, result, carry);
    }
}

macro_rules! arithmetic {
    ($name:ident, $writes:literal, $function:ident, $uses_carry:literal) => {
        pub(crate) struct $name;

        impl Alu for $name {
            const WRITES: bool = $writes;

            #[inline(always)]
            fn compute<T: Int>(a: T, b: T, carry: bool) -> (T, bool) {
                a.$function(b, $uses_carry && carry)
            }
        }
    };
}

macro_rules! logic {
    ($name:ident, $writes:literal, $operator:tt) => {
        pub(crate) struct $name;

        impl Alu for $name {
            const WRITES: bool = $writes;

            #[inline(always)]
            fn compute<T: Int>(a: T, b: T, _: bool) -> (T, bool) {
                (T::of(a.zx() $operator b.zx()), false)
            }

            #[inline(always)]
            fn set_flags<T: Int>(flags: &mut Flags, _: T, _: T, result: T, _: bool) {
                flags.logic(result);
            }
        }
    };
}

arithmetic!(Add, true, add_carry, false);
arithmetic!(Adc, true, add_carry, true);
arithmetic!(Sub, true, sub_borrow, false);
arithmetic!(Sbb, true, sub_borrow, true);
arithmetic!(Cmp, false, sub_borrow, false);
logic!(And, true, &);
logic!(Or, true, |);
logic!(Xor, true, ^);
logic!(Test, false, &);

#[inline(always)]
fn apply<O: Alu, T: Int>(core: &mut Core, op: &Op, a: T, b: T) {
    let (result, carry) = O::compute(a, b, core.flags.cf());
    O::set_flags(&mut core.flags, a, b, result, carry);
    if O::WRITES {
        core.set_reg(op.dst, result);
    }
}

/// Register and register.
pub(crate) fn rr<O: Alu, T: Int>(core: &mut Core, op: &Op) -> Run {
    let (a, b) = (core.reg::<T>(op.dst), core.reg(op.src));
    apply::<O, T>(core, op, a, b);
    Ok(())
}

/// Register and immediate.
pub(crate) fn ri<O: Alu, T: Int>(core: &mut Core, op: &Op) -> Run {
    let a = core.reg::<T>(op.dst);
    apply::<O, T>(core, op, a, T::of(op.imm));
    Ok(())
}

/// Register and memory.
pub(crate) fn rm<O: Alu, T: Int>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, T::BYTES, false)?;
    let b = core.load::<T>(linear)?;
    let a = core.reg::<T>(op.dst);
    apply::<O, T>(core, op, a, b);
    Ok(())
}

#[inline(always)]
fn memory<O: Alu, T: Int>(core: &mut Core, op: &Op, b: T) -> Run {
    let linear = core.linear(op, T::BYTES, O::WRITES)?;
    if !O::WRITES {
        let a = core.load::<T>(linear)?;
        apply::<O, T>(core, op, a, b);
        return Ok(());
    }
    let carry = core.flags.cf();
    let (a, _) = core.update::<T>(linear, op.is_locked(), |a| O::compute(a, b, carry).0)?;
    let (result, carry) = O::compute(a, b, carry);
    O::set_flags(&mut core.flags, a, b, result, carry);
    Ok(())
}

/// Memory and register.
pub(crate) fn mr<O: Alu, T: Int>(core: &mut Core, op: &Op) -> Run {
    let b = core.reg(op.src);
    memory::<O, T>(core, op, b)
}

/// Memory and immediate.
pub(crate) fn mi<O: Alu, T: Int>(core: &mut Core, op: &Op) -> Run {
    memory::<O, T>(core, op, T::of(op.imm))
}

impl Core {
    /// Replaces the first operand, a register or memory, by a function of it. Returns the old and
    /// the new value.
    #[inline(always)]
    pub(crate) fn update_first<T: Int>(
        &mut self,
        op: &Op,
        mut change: impl FnMut(T) -> T,
    ) -> Run<(T, T)> {
        if op.flags & MEMORY != 0 {
            let linear = self.linear(op, T::BYTES, true)?;
            return self.update(linear, op.is_locked(), change);
        }
        let old = self.reg(op.dst);
        let new = change(old);
        self.set_reg(op.dst, new);
        Ok((old, new))
    }

    /// The first operand, a register or memory.
    #[inline(always)]
    pub(crate) fn first<T: Int>(&mut self, op: &Op) -> Run<T> {
        if op.flags & MEMORY != 0 {
            let linear = self.linear(op, T::BYTES, false)?;
            return self.load(linear);
        }
        Ok(self.reg(op.dst))
    }

    /// Sets the first operand, a register or memory.
    #[inline(always)]
    pub(crate) fn set_first<T: Int>(&mut self, op: &Op, value: T) -> Run {
        if op.flags & MEMORY != 0 {
            let linear = self.linear(op, T::BYTES, true)?;
            return self.store(linear, value);
        }
        self.set_reg(op.dst, value);
        Ok(())
    }

    /// The second operand, a register or memory.
    #[inline(always)]
    pub(crate) fn second<T: Int>(&mut self, op: &Op) -> Run<T> {
        if op.flags & MEMORY != 0 {
            let linear = self.linear(op, T::BYTES, false)?;
            return self.load(linear);
        }
        Ok(self.reg(op.src))
    }
}

/// INC.
pub(crate) fn inc<T: Int>(core: &mut Core, op: &Op) -> Run {
    let (old, new) = core.update_first::<T>(op, |a| T::of(a.zx().wrapping_add(1)))?;
    core.flags.counted(old, new, new.zx() == 0);
    Ok(())
}

/// DEC.
pub(crate) fn dec<T: Int>(core: &mut Core, op: &Op) -> Run {
    let (old, new) = core.update_first::<T>(op, |a| T::of(a.zx().wrapping_sub(1)))?;
    core.flags.counted(old, new, old.zx() == 0);
    Ok(())
}

/// NEG.
pub(crate) fn neg<T: Int>(core: &mut Core, op: &Op) -> Run {
    let (old, new) = core.update_first::<T>(op, |a| T::of(a.zx().wrapping_neg()))?;
    core.flags.added(T::of(0), old, new, old.zx() != 0);
    Ok(())
}

/// NOT.
pub(crate) fn not<T: Int>(core: &mut Core, op: &Op) -> Run {
    core.update_first::<T>(op, |a| T::of(!a.zx()))?;
    Ok(())
}

/// ADCX (`OVERFLOW` false) and ADOX.
pub(crate) fn adx<T: Int, const OVERFLOW: bool>(core: &mut Core, op: &Op) -> Run {
    let b = core.second::<T>(op)?;
    let a = core.reg::<T>(op.dst);
    let (carry, overflow) = (core.flags.cf(), core.flags.of());
    let (sum, out) = a.add_carry(b, if OVERFLOW { overflow } else { carry });
    core.set_reg(op.dst, sum);
    if OVERFLOW {
        core.flags.set_carry_overflow(carry, out);
    } else {
        core.flags.set_carry_overflow(out, overflow);
    }
    Ok(())
}
