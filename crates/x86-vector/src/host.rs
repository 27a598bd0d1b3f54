//! Execution of one instruction by the host.

use std::arch::asm;
use std::sync::OnceLock;

use crate::state::{MXCSR_INIT, MXCSR_MASK, VectorState, Ymm};

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
    /// `true` if results have half precision, and so are never flushed to zero.
    const IS_HALF: bool;

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
/// MXCSR bits: the masks of all exceptions.
const MASKS: u32 = 0x1f80;
/// MXCSR bits: all flags.
const FLAGS: u32 = 0x3f;
/// MXCSR bit: flush to zero.
const FLUSH: u32 = 1 << 15;

/// `true` if FXSAVE shows opcode and pointers of x87 while no exception is pending.
pub(crate) fn saves_pointers() -> bool {
    #[repr(C, align(16))]
    struct Image([u8; 512]);

    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let mut image = Image([0; 512]);
        // SAFETY: FXSAVE writes an image of its size; the x87 is as before, since all of its
        // registers are empty on entry.
        unsafe {
            asm!(
                "fldz", "fxsave64 [{}]", "fstp st(0)", in(reg) &raw mut image,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _,
                out("st(5)") _, out("st(6)") _, out("st(7)") _,
                out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _, out("mm4") _, out("mm5") _,
                out("mm6") _, out("mm7") _,
                options(nostack),
            );
        }
        image.0.get(8..16) != Some(&[0; 8])
    })
}

/// MXCSR of the host.
fn host_mxcsr() -> u32 {
    let mut value = 0_u32;
    // SAFETY: writes the four bytes of `value`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

/// Clears the flags of the host's MXCSR, and returns those that there were.
fn take_flags() -> u32 {
    let flags = host_mxcsr() & FLAGS;
    if flags != 0 {
        // SAFETY: the value that Rust expects in MXCSR, but for flags.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &MXCSR_INIT, options(nostack, readonly)) };
    }
    flags
}

impl VectorState {
    /// Makes the calling thread one that executes instructions on this state: flags that it has
    /// raised before do not count.
    ///
    /// With all exceptions masked and other modes initial, floating-point instructions set flags in
    /// the host's MXCSR, where they stay until [`VectorState::collect`]: reading and setting MXCSR
    /// takes longer than most instructions. Code of the host that computes with floating-point
    /// numbers has to be kept out meanwhile.
    pub fn begin(&mut self) {
        take_flags();
    }

    /// Takes over flags that instructions have raised since [`VectorState::begin`]. Afterwards
    /// [`VectorState::mxcsr`] and [`X87::status`](crate::X87::status) are complete.
    pub fn collect(&mut self) {
        self.mxcsr |= take_flags();
        self.x87.collect();
    }

    /// Sets MXCSR as an instruction does.
    pub(crate) fn set_mxcsr(&mut self, value: u32) {
        self.begin();
        self.mxcsr = value;
    }
}

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
    if *mxcsr & !FLAGS == MXCSR_INIT {
        // The host has the same modes; flags are collected later.
        // SAFETY: as the caller promises.
        unsafe { O::run(d, a, b, c, imm) };
        return true;
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
    // Flags of the host get lost below.
    *mxcsr |= host_mxcsr() & FLAGS;
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
        if O::IS_HALF && has_tiny_half(&flushed) {
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

/// `true` if an element of half precision is tiny.
fn has_tiny_half(register: &Ymm) -> bool {
    let mut elements =
        register.0.as_chunks::<2>().0.iter().map(|&element| u16::from_le_bytes(element));
    elements.any(|bits| bits & 0x7c00 == 0 && bits & 0x3ff != 0)
}
