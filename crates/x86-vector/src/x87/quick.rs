//! A shorter way for common instructions: only the registers that they use go through the host's
//! x87, and flags are compared with those that the guest has already.
//!
//! FRSTOR and FNSAVE take ten times as long as most instructions.

#![allow(clippy::cast_possible_truncation, reason = "the status word is cut out of a result")]

use super::{Access, Operation};
use crate::deferred::{Again, CONTROL, Deferred};
use crate::state::X87;

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
    /// A copy of ST(i) to ST(0), without the host's help; so are those that follow.
    Copy,
    /// A copy of ST(0) to ST(i).
    Store,
    /// A copy of ST(0) to ST(i), which is nearer to the top afterwards.
    StorePop,
    /// ST(0) and ST(i) change places.
    Exchange,
}

impl Quick {
    /// `true` unless there is no shorter way, or it is a copy.
    pub(super) const fn uses_host(self) -> bool {
        matches!(self, Self::Push | Self::Unary | Self::Pop | Self::Binary | Self::BinaryPop)
    }

    /// `true` if there is a shorter way, and it neither meets an empty register nor fills a full
    /// one.
    #[inline(always)]
    fn fits(self, x87: &X87, number: usize) -> bool {
        let in_use = |index: usize| x87.tags >> (x87.top().wrapping_add(index) & 7) & 1 != 0;
        match self {
            Self::None => false,
            Self::Push => !in_use(7),
            Self::Copy => !in_use(7) && in_use(number),
            Self::Unary | Self::Pop | Self::Store | Self::StorePop => in_use(0),
            Self::Binary | Self::Exchange => in_use(0) && in_use(number),
            // With one register in both places, the result is gone.
            Self::BinaryPop => number != 0 && in_use(0) && in_use(number),
        }
    }
}

/// `true` if an instruction can be executed by [`defer`]: its control word is the host's, with all
/// exceptions masked, it leaves nothing else in the status word, and finds its registers.
#[inline(always)]
pub(super) fn can_defer<O: Operation>(x87: &X87, number: usize) -> bool {
    let leaves_conditions = O::CONDITIONS || matches!(O::ACCESS, Access::Compare);
    O::QUICK.uses_host()
        && !leaves_conditions
        && x87.control == CONTROL
        && O::QUICK.fits(x87, number)
}

/// Executes an instruction without a look at the status word. [`move_top`] completes it.
#[inline(always)]
pub(super) fn defer<O: Operation, const SIZE: usize>(
    x87: &mut X87,
    number: usize,
    memory: &mut [u8; 16],
) {
    if matches!(x87.deferred, Deferred::Nothing) {
        // SAFETY: exceptions that the host has seen before are no one's.
        unsafe { core::arch::asm!("fnclex", options(nomem, nostack)) };
    }
    let register = u64::from(number != 0);
    let mut last =
        Again { run: O::quick, a: x87.st(0), b: x87.st(number), memory: [0; 16], register };
    if O::ACCESS == Access::Load
        && let (Some(to), Some(from)) = (last.memory.get_mut(..SIZE), memory.get(..SIZE))
    {
        to.copy_from_slice(from);
    }
    let (mut a, mut b) = (last.a, last.b);
    x87.deferred = Deferred::Instruction(last);
    // SAFETY: the pointers are made of references, and have room for a register of 10 bytes.
    unsafe { O::blind(&raw mut a, &raw mut b, memory, register) };
    match O::QUICK {
        Quick::Push => x87.set_st(7, a),
        Quick::Unary => x87.set_st(0, a),
        Quick::Binary => {
            // If there is one register in both places, `a` has the result.
            x87.set_st(number, b);
            x87.set_st(0, a);
        }
        Quick::BinaryPop => x87.set_st(number, b),
        _ => {}
    }
}

/// Moves the top of the stack as an instruction does.
#[inline(always)]
pub(super) fn move_top<O: Operation>(x87: &mut X87) {
    match O::QUICK {
        Quick::Push => {
            x87.rotate(7);
            x87.set_tag(0, true);
        }
        Quick::Pop | Quick::BinaryPop => pop(x87),
        _ => {}
    }
}

/// Outcome of an instruction, before it takes effect.
pub(super) struct Done {
    /// The register that was ST(0).
    a: [u8; 10],
    /// The register that was ST(i).
    b: [u8; 10],
    /// Result of [`Operation::quick`].
    result: u64,
}

/// Status word: C1.
const C1: u16 = 1 << 9;
/// Control word: underflow is masked.
const UNDERFLOW: u16 = 1 << 4;
/// Status word: C0 to C3.
const CONDITIONS: u16 = 0x4700;

/// The lines that execute an instruction with `before` and `after` moving registers.
macro_rules! quick_lines {
    (blind $text:expr; [$($before:literal),*], [$($status:literal),*], [$($after:literal),*]; $a:ident $b:ident $memory:ident $register:ident) => {{
        // SAFETY: as below.
        unsafe {
            core::arch::asm!(
                $($before,)*
                $text,
                $($after,)*
                "# {a} {b} {m} {r}",
                a = in(reg) $a,
                b = in(reg) $b,
                m = in(reg) $memory,
                r = in(reg) $register,
                out("rax") _,
                out("rcx") _,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _, out("mm4") _, out("mm5") _,
                out("mm6") _, out("mm7") _,
                options(nostack),
            );
        }
    }};
    (checked $text:expr; [$($before:literal),*], [$($status:literal),*], [$($after:literal),*]; $a:ident $b:ident $memory:ident $register:ident $control:ident) => {{
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
                $($status,)*
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

/// The lines for the way of an instruction, and for what it accesses.
macro_rules! quick {
    ($mode:ident $access:ident Push $text:expr; $($names:ident)*) => {
        quick_lines!($mode $text; [], [], ["fstp tbyte ptr [{a}]"]; $($names)*)
    };
    ($mode:ident $access:ident Unary $text:expr; $($names:ident)*) => {
        quick_lines!($mode $text; ["fld tbyte ptr [{a}]"], [], ["fstp tbyte ptr [{a}]"]; $($names)*)
    };
    ($mode:ident $access:ident Pop $text:expr; $($names:ident)*) => {
        quick_lines!($mode $text; ["fld tbyte ptr [{a}]"], [], []; $($names)*)
    };
    ($mode:ident Compare Binary $text:expr; $($names:ident)*) => {
        quick_lines!(
            $mode $text;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]"],
            ["lahf", "seto al", "shl eax, 16"],
            ["fstp st(0)", "fstp st(0)"];
            $($names)*
        )
    };
    ($mode:ident Compare BinaryPop $text:expr; $($names:ident)*) => {
        quick_lines!(
            $mode $text;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]"],
            ["lahf", "seto al", "shl eax, 16"],
            ["fstp st(0)"];
            $($names)*
        )
    };
    ($mode:ident $access:ident Binary $text:expr; $($names:ident)*) => {
        quick_lines!(
            $mode $text;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]"],
            [],
            ["fstp tbyte ptr [{a}]", "fstp tbyte ptr [{b}]"];
            $($names)*
        )
    };
    ($mode:ident $access:ident BinaryPop $text:expr; $($names:ident)*) => {
        quick_lines!(
            $mode $text;
            ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]"],
            [],
            ["fstp tbyte ptr [{b}]"];
            $($names)*
        )
    };
    (checked $access:ident $way:ident $text:expr; $($names:ident)*) => {{
        let _ = ($($names,)*);
        0
    }};
    (blind $access:ident $way:ident $text:expr; $($names:ident)*) => {{
        let _ = ($($names,)*);
    }};
}

pub(super) use {quick, quick_lines};

/// Executes an instruction the shorter way, if it has one, all its registers are in use, and it
/// raises no exception that the guest has not seen. `number` is that of ST(i).
#[inline(always)]
pub(super) fn execute<O: Operation>(
    x87: &X87,
    number: usize,
    memory: &mut [u8; 16],
) -> Option<Done> {
    // A tiny result that is exact raises underflow only if that is not masked.
    if !O::QUICK.fits(x87, number) || x87.control & UNDERFLOW == 0 {
        return None;
    }
    // Some processors clear C1 in a comparison, and others leave it.
    if O::ACCESS == Access::Compare && x87.status & C1 != 0 {
        return None;
    }
    let (mut a, mut b) = (x87.st(0), x87.st(number));
    let control = [x87.control | 0x3f, 0x37f];
    let register = u64::from(number != 0);
    // SAFETY: the pointers are made of references, and have room for a register of 10 bytes.
    let result = unsafe { O::quick(&raw mut a, &raw mut b, memory, register, control.as_ptr()) };
    let done = Done { a, b, result };
    if done.status() & 0x7f & !x87.status == 0 { Some(done) } else { None }
}

impl Done {
    /// The host's status word.
    fn status(&self) -> u16 {
        (self.result & 0xffff) as u16
    }

    /// RFLAGS as [`Operation::run`] has them.
    pub(super) fn flags(&self) -> u64 {
        self.result >> 16
    }

    /// Brings registers and status to their places.
    #[inline(always)]
    pub(super) fn apply<O: Operation>(&self, x87: &mut X87, number: usize) {
        let taken = if O::CONDITIONS { CONDITIONS } else { C1 };
        x87.status = x87.status & !taken | self.status() & taken;
        // Of a copy; others find nothing deferred.
        x87.deferred.forget_instruction();
        match O::QUICK {
            Quick::Push => push(x87, self.a),
            Quick::Copy => push(x87, self.b),
            Quick::Pop => pop(x87),
            Quick::Binary => {
                // If there is one register in both places, `a` has the result.
                x87.set_st(number, self.b);
                x87.set_st(0, self.a);
            }
            Quick::BinaryPop => {
                x87.set_st(number, self.b);
                pop(x87);
            }
            Quick::Store => store(x87, number, self.a),
            Quick::StorePop => {
                store(x87, number, self.a);
                pop(x87);
            }
            Quick::Exchange => {
                x87.set_st(number, self.a);
                x87.set_st(0, self.b);
            }
            Quick::Unary | Quick::None => x87.set_st(0, self.a),
        }
    }
}

/// Makes a value ST(0), on top of the others.
fn push(x87: &mut X87, value: [u8; 10]) {
    x87.rotate(7);
    x87.set_tag(0, true);
    x87.set_st(0, value);
}

/// Empties ST(0), and makes ST(1) the top.
fn pop(x87: &mut X87) {
    x87.set_tag(0, false);
    x87.rotate(1);
}

/// Sets ST(`number`), which is in use then.
fn store(x87: &mut X87, number: usize, value: [u8; 10]) {
    x87.set_tag(number, true);
    x87.set_st(number, value);
}
