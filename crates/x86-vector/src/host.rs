//! Execution of one instruction by the host.

use std::ptr;

use crate::lanes::{Inputs, Results};
use crate::state::{MXCSR_INIT, MXCSR_MASK, Ymm};

/// An instruction without effect on MXCSR, on copied registers.
pub(crate) trait Operation {
    /// Executes the instruction: reads `a`, `b`, and (if it has such operands) `c`, the old `d` and
    /// `imm`; writes `d`.
    ///
    /// # Safety
    ///
    /// The pointers are to valid registers, which may be the same. The host has the instruction.
    unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm, c: *const Ymm, imm: u8);
}

/// A floating-point instruction: its result depends on MXCSR, and sets flags there.
pub(crate) trait Float: Operation {
    /// Test of the inputs.
    type In: Inputs;
    /// Test of the result.
    type Out: Results;
    /// Inputs to test: [`A`], [`B`], [`D`].
    const TESTED: u8;

    /// Executes the instruction as [`Operation::run`] does, with the MXCSR of the environment.
    ///
    /// # Safety
    ///
    /// As for [`Operation::run`]. No exception is unmasked in the environment's MXCSR.
    unsafe fn run_with(
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
        environment: *mut Environment,
    );
}

/// Input that is tested: `a`.
pub(crate) const A: u8 = 1;
/// Input that is tested: `b`.
pub(crate) const B: u8 = 2;
/// Input that is tested: the old `d`.
pub(crate) const D: u8 = 4;

/// Values of MXCSR for an instruction.
#[repr(C)]
pub(crate) struct Environment {
    /// For the instruction.
    pub(crate) guest: u32,
    /// For the host afterwards.
    pub(crate) host: u32,
    /// After the instruction.
    pub(crate) after: u32,
}

/// MXCSR bits: flags of invalid, denormal and divide-by-zero, which are found before an operation
/// is done.
const BEFORE: u32 = 7;
/// MXCSR bit: underflow.
const UNDERFLOW: u32 = 1 << 4;
/// MXCSR bit: inexact.
const INEXACT: u32 = 1 << 5;
/// MXCSR bits: the masks of all exceptions.
const MASKS: u32 = 0x1f80;
/// MXCSR bits: all flags.
const FLAGS: u32 = 0x3f;
/// MXCSR bit: flush to zero.
const FLUSH: u32 = 1 << 15;

/// Executes a floating-point instruction. Returns `false`, with its flags in `mxcsr` and `d` as
/// before, if an unmasked exception was raised.
///
/// # Safety
///
/// As for [`Operation::run`].
#[inline(always)]
pub(crate) unsafe fn float<O: Float>(
    mxcsr: &mut u32,
    d: *mut Ymm,
    a: *const Ymm,
    b: *const Ymm,
    c: *const Ymm,
    imm: u8,
) -> bool {
    // Reading and setting MXCSR takes longer than most instructions. Where the guest has the host's
    // modes and has seen an inexact result before, ordinary numbers leave MXCSR as it is.
    if *mxcsr & (!FLAGS & MXCSR_MASK | INEXACT) == MXCSR_INIT | INEXACT {
        let ordinary = |which, register: *const Ymm| {
            // SAFETY: the pointer is to a valid register; the reference ends before anything is
            // written.
            O::TESTED & which == 0 || O::In::ordinary(unsafe { &*register })
        };
        if ordinary(A, a) & ordinary(B, b) & ordinary(D, d) {
            // SAFETY: the pointer is to a valid register.
            let saved = unsafe { *d };
            // SAFETY: as the caller promises.
            unsafe { O::run(d, a, b, c, imm) };
            let before = |register: *const Ymm| {
                // SAFETY: the pointer is to a valid register, and nothing writes while the
                // reference lives.
                if ptr::eq(register, d) { &saved } else { unsafe { &*register } }
            };
            // SAFETY: the pointer is to a valid register, and nothing writes while the reference
            // lives.
            if O::Out::ordinary(unsafe { &*d }, [before(a), before(b)]) {
                return true;
            }
            // SAFETY: the pointer is to a valid register.
            unsafe { *d = saved };
        }
    }
    // SAFETY: as the caller promises.
    unsafe { careful::<O>(mxcsr, d, a, b, c, imm) }
}

/// [`float`] with the guest's MXCSR.
#[inline(never)]
unsafe fn careful<O: Float>(
    mxcsr: &mut u32,
    d: *mut Ymm,
    a: *const Ymm,
    b: *const Ymm,
    c: *const Ymm,
    imm: u8,
) -> bool {
    // SAFETY: the pointer is to a valid register.
    let old = unsafe { *d };
    let mut result = old;
    let unmasked = !(*mxcsr >> 7) & FLAGS;
    let mut guest = *mxcsr & !FLAGS & MXCSR_MASK | MASKS;
    if unmasked & UNDERFLOW != 0 {
        // Results are flushed to zero only while underflow is masked.
        guest &= !FLUSH;
    }
    let mut environment = Environment { guest, host: MXCSR_INIT, after: 0 };
    // SAFETY: as the caller promises; all exceptions are masked.
    unsafe { O::run_with(&raw mut result, a, b, c, imm, &raw mut environment) };
    let mut raised = environment.after & FLAGS;
    if unmasked & UNDERFLOW != 0 {
        // If masked, an exact tiny result raises nothing, except when results are flushed to zero.
        let mut flushed = old;
        environment.guest = guest | FLUSH;
        // SAFETY: as above.
        unsafe { O::run_with(&raw mut flushed, a, b, c, imm, &raw mut environment) };
        raised |= environment.after & UNDERFLOW;
        if O::Out::tiny(&flushed) {
            raised |= UNDERFLOW;
        }
    }
    if raised & unmasked & BEFORE != 0 {
        raised &= BEFORE;
    }
    *mxcsr |= raised;
    if raised & unmasked != 0 {
        return false;
    }
    // SAFETY: the pointer is to a valid register.
    unsafe { *d = result };
    true
}
