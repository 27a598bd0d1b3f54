//! A shorter way for common instructions: only the registers that they use go through the host's
//! x87, and flags are compared with those that the guest has already.
//!
//! FRSTOR and FNSAVE take ten times as long as most instructions.

use super::{Operation, record, stack_register};
use crate::operands::Operands;
use crate::state::X87;
use iced_x86::Instruction;

/// Number of registers that an instruction takes from the stack and leaves there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quick {
    /// There is no shorter way.
    None,
    /// Nothing to ST(0).
    Push,
    /// ST(0) to ST(0).
    Unary,
    /// ST(0) to nothing.
    Pop,
    /// ST(0) and ST(i) to both.
    Binary,
    /// ST(0) and ST(i) to the latter, which is nearer to the top afterwards.
    BinaryPop,
}

/// Outcome of an instruction, before it is made known.
pub(super) struct Done {
    /// The x87 registers afterwards.
    pub(super) x87: X87,
    /// RFLAGS as [`Operation::run`] has them.
    pub(super) flags: u64,
}

/// Status word: C1.
pub(super) const C1: u16 = 1 << 9;
/// Control word: underflow is masked.
const UNDERFLOW: u16 = 1 << 4;
/// Status word: C0 to C3.
const CONDITIONS: u16 = 0x4700;

/// The lines that execute an instruction with `before` and `after` moving registers.
macro_rules! quick_lines {
    ($text:expr; [$($before:literal),*], [$($after:literal),*]; $a:ident $b:ident $memory:ident $register:ident $control:ident) => {{
        let result: u64;
        // SAFETY: the caller passes valid pointers. All exceptions are masked, the registers of
        // the host's x87 are empty before and after, and its control word is as before.
        unsafe {
            core::arch::asm!(
                "cmp word ptr [{c}], 0x37f",
                "je 4f",
                "fldcw [{c}]",
                "4:",
                $($before,)*
                $text,
                "lahf",
                "seto al",
                "shl eax, 16",
                "fnstsw ax",
                $($after,)*
                "cmp word ptr [{c}], 0x37f",
                "je 5f",
                "fldcw [{c} + 2]",
                "5:",
                "# {a} {b} {m} {r}",
                a = in(reg) $a,
                b = in(reg) $b,
                m = in(reg) $memory,
                r = in(reg) $register,
                c = in(reg) $control,
                out("rax") result,
                out("rcx") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _,
                out("st(5)") _, out("st(6)") _, out("st(7)") _,
                out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _, out("mm4") _, out("mm5") _,
                out("mm6") _, out("mm7") _,
                options(nostack),
            );
        }
        result
    }};
}

/// The lines for the way of an instruction.
macro_rules! quick {
    (Push $text:expr; $($names:ident)*) => {
        quick_lines!($text; [], ["fstp tbyte ptr [{a}]"]; $($names)*)
    };
    (Unary $text:expr; $($names:ident)*) => {
        quick_lines!($text; ["fld tbyte ptr [{a}]"], ["fstp tbyte ptr [{a}]"]; $($names)*)
    };
    (Pop $text:expr; $($names:ident)*) => {
        quick_lines!($text; ["fld tbyte ptr [{a}]"], []; $($names)*)
    };
    (Binary $text:expr; $($names:ident)*) => {
        quick_lines!(
            $text;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]"],
            ["fstp tbyte ptr [{a}]", "fstp tbyte ptr [{b}]"];
            $($names)*
        )
    };
    (BinaryPop $text:expr; $($names:ident)*) => {
        quick_lines!(
            $text;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]"],
            ["fstp tbyte ptr [{b}]"];
            $($names)*
        )
    };
    (None $text:expr; $($names:ident)*) => {{
        let _ = ($($names,)*);
        0
    }};
}

pub(super) use {quick, quick_lines};

/// Executes an instruction the shorter way, if it has one, all its registers are in use, and it
/// raises no exception that the guest has not seen.
#[inline(always)]
pub(super) fn execute<C: Operands, O: Operation>(
    x87: &X87,
    instruction: &Instruction,
    context: &C,
    memory: &mut [u8; 16],
) -> Option<Done> {
    let number = stack_register(instruction);
    let other = usize::try_from(number).unwrap_or(0);
    let in_use = |index: usize| x87.tags >> (x87.top().wrapping_add(index) & 7) & 1 != 0;
    let fits = match O::QUICK {
        Quick::None => false,
        Quick::Push => !in_use(7),
        Quick::Unary | Quick::Pop => in_use(0),
        Quick::Binary => in_use(0) && in_use(other),
        // With one register in both places, the result is gone.
        Quick::BinaryPop => other != 0 && in_use(0) && in_use(other),
    };
    // A tiny result that is exact raises underflow only if that is not masked.
    if !fits || x87.control & UNDERFLOW == 0 {
        return None;
    }
    let (mut a, mut b) = (x87.st(0), x87.st(other));
    let control = [x87.control | 0x3f, 0x37f];
    // SAFETY: the pointers are made of references, and have room for a register of 10 bytes.
    let result = unsafe { O::quick(&raw mut a, &raw mut b, memory, number.min(1), control.as_ptr()) };
    let status = u16::try_from(result & 0xffff).unwrap_or(0);
    if status & 0x7f & !x87.status != 0 {
        return None;
    }
    let mut after = x87.clone();
    let taken = if O::CONDITIONS { CONDITIONS } else { C1 };
    after.status = after.status & !taken | status & taken;
    match O::QUICK {
        Quick::Push => {
            after.rotate(7);
            after.set_tag(true);
            after.set_st(0, a);
        }
        Quick::Pop => pop(&mut after),
        Quick::Binary => {
            // If there is one register in both places, `a` has the result.
            after.set_st(other, b);
            after.set_st(0, a);
        }
        Quick::BinaryPop => {
            after.set_st(other, b);
            pop(&mut after);
        }
        Quick::Unary | Quick::None => after.set_st(0, a),
    }
    record(&mut after, instruction, context);
    Some(Done { x87: after, flags: result >> 16 })
}

/// Empties ST(0), and makes ST(1) the top.
fn pop(x87: &mut X87) {
    x87.set_tag(false);
    x87.rotate(1);
}
