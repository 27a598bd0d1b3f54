//! Handlers by the shape of an instruction: which operands it reads and writes.

mod general;
mod memory;
mod vector;

use iced_x86::Register;

use crate::host::{Float, Operation, float};
use crate::operands::{Fields, Operands, VectorException};
use crate::state::Ymm;

pub(crate) use general::*;
pub(crate) use memory::*;
pub(crate) use vector::*;

/// Result of a handler.
pub(crate) type Outcome<C> = Result<(), <C as Operands>::Fault>;

/// Status flags of RFLAGS: OF, SF, ZF, AF, PF, CF.
pub(crate) const STATUS_FLAGS: u64 = 0x8d5;

/// An operation as all shapes call it: returns `false` if an unmasked floating-point exception was
/// raised.
pub(crate) trait Execute {
    /// `true` if it may raise floating-point exceptions.
    const IS_FLOAT: bool;

    /// Executes the operation.
    ///
    /// # Safety
    ///
    /// As for [`Operation::run`].
    unsafe fn execute(
        mxcsr: &mut u32,
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
    ) -> bool;
}

/// An operation that leaves MXCSR alone.
pub(crate) struct Plain<O>(std::marker::PhantomData<O>);

impl<O: Operation> Execute for Plain<O> {
    const IS_FLOAT: bool = false;

    #[inline(always)]
    unsafe fn execute(
        _: &mut u32,
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
    ) -> bool {
        // SAFETY: as the caller promises.
        unsafe { O::run(d, a, b, c, imm) };
        true
    }
}

/// An operation with MXCSR.
pub(crate) struct Floating<O>(std::marker::PhantomData<O>);

impl<O: Float> Execute for Floating<O> {
    const IS_FLOAT: bool = true;

    #[inline(always)]
    unsafe fn execute(
        mxcsr: &mut u32,
        d: *mut Ymm,
        a: *const Ymm,
        b: *const Ymm,
        c: *const Ymm,
        imm: u8,
    ) -> bool {
        // SAFETY: as the caller promises.
        unsafe { float::<O>(mxcsr, d, a, b, c, imm) }
    }
}

/// A shape.
pub(crate) trait Handle {
    /// Executes an instruction with `SIZE` bytes of memory, which are aligned if `ALIGNED`.
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C>;
}

/// Operand that may be memory, by its number, and what it is otherwise.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    /// There is none.
    None,
    /// A vector register.
    Vector(usize),
    /// A general register.
    General(usize),
}

/// Operands from which an operation's are chosen.
pub(crate) struct Available<'a> {
    fields: &'a Fields,
    registers: *mut Ymm,
    /// The operand that may be memory.
    pub(crate) source: *const Ymm,
    /// A place for a result that no vector register gets.
    pub(crate) result: *mut Ymm,
}

impl Available<'_> {
    /// The vector register of an operand.
    #[inline(always)]
    pub(crate) fn register(&self, operand: usize) -> *mut Ymm {
        // The number is below 16, the length of the array that `registers` points to.
        self.registers.wrapping_add(number(self.fields.register(operand)))
    }

    /// XMM0, the implied source.
    #[inline(always)]
    pub(crate) fn first(&self) -> *const Ymm {
        self.registers
    }

    /// The vector register of operand 0, or the place for a result where that is memory.
    #[inline(always)]
    pub(crate) fn register_or_result(&self) -> *mut Ymm {
        if self.fields.is_register(0) { self.register(0) } else { self.result }
    }
}

/// `d`, `a`, `b` and `c` of an [`Operation`].
pub(crate) type Places = (*mut Ymm, *const Ymm, *const Ymm, *const Ymm);

/// A shape that executes its operation on vector registers, memory and general registers.
pub(crate) trait Shape {
    /// The operand that is loaded first.
    const SOURCE: Source;
    /// `true` if operand 0 may be memory.
    const STORES: bool = false;

    /// Chooses the operation's operands.
    fn places(available: &Available<'_>) -> Places;

    /// The immediate operand.
    #[inline(always)]
    fn immediate(fields: &Fields) -> u8 {
        fields.immediate
    }

    /// Brings the result to its place, where no vector register is that.
    #[inline(always)]
    fn finish<C: Operands, const SIZE: usize, const ALIGNED: bool>(
        _: &mut C,
        _: &C::Op,
        _: &Ymm,
    ) -> Outcome<C> {
        Ok(())
    }
}

impl<S: Shape> Handle for S {
    #[inline(always)]
    fn handle<C: Operands, O: Execute, const SIZE: usize, const ALIGNED: bool>(
        context: &mut C,
        op: &C::Op,
    ) -> Outcome<C> {
        let fields = *op.as_ref();
        let memory: Ymm;
        let loaded = match S::SOURCE {
            Source::Vector(operand) | Source::General(operand) if !fields.is_register(operand) => {
                memory = load::<C, SIZE, ALIGNED>(context, op)?;
                Some(&raw const memory)
            }
            Source::General(operand) => {
                memory = Ymm::low64(context.gpr(fields.register(operand)));
                Some(&raw const memory)
            }
            Source::Vector(_) | Source::None => None,
        };
        if S::STORES && O::IS_FLOAT && !fields.is_register(0) {
            // Flags of MXCSR are not set if the operand cannot be written.
            context.check_store(op, SIZE)?;
        }
        let mut result = Ymm::default();
        let state = context.vector_mut();
        let mut available = Available {
            fields: &fields,
            registers: state.ymm.as_mut_ptr(),
            source: &raw const result,
            result: &raw mut result,
        };
        match (loaded, S::SOURCE) {
            (Some(memory), _) => available.source = memory,
            (None, Source::Vector(operand)) => available.source = available.register(operand),
            (None, _) => {}
        }
        let (d, a, b, c) = S::places(&available);
        let immediate = S::immediate(&fields);
        // SAFETY: registers are named by numbers below 16, and `lookup` asks if the host has the
        // instruction.
        let executed = unsafe { O::execute(&mut state.mxcsr, d, a, b, c, immediate) };
        if !executed {
            return Err(context.exception(VectorException::SimdFloatingPoint));
        }
        S::finish::<C, SIZE, ALIGNED>(context, op, &result)
    }
}

/// Number of the XMM or YMM register.
#[inline(always)]
pub(crate) fn number(register: Register) -> usize {
    (register as usize).wrapping_sub(Register::XMM0 as usize) & 15
}

/// Reads `SIZE` bytes of the memory operand; all others are zero.
#[inline(always)]
pub(crate) fn load<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    context: &mut C,
    op: &C::Op,
) -> Result<Ymm, C::Fault> {
    if !ALIGNED && SIZE == 8 {
        let mut bytes = [0; 8];
        context.load(op, &mut bytes)?;
        return Ok(Ymm::scalar(u64::from_le_bytes(bytes)));
    }
    if !ALIGNED && SIZE == 4 {
        let mut bytes = [0; 4];
        context.load(op, &mut bytes)?;
        return Ok(Ymm::scalar(u32::from_le_bytes(bytes).into()));
    }
    let mut value = Ymm::default();
    if let Some(bytes) = value.0.first_chunk_mut::<SIZE>() {
        if ALIGNED {
            context.load_aligned(op, bytes)?;
        } else {
            context.load(op, bytes)?;
        }
    }
    Ok(value)
}

/// Writes `SIZE` bytes to the memory operand.
#[inline(always)]
pub(crate) fn store<C: Operands, const SIZE: usize, const ALIGNED: bool>(
    context: &mut C,
    op: &C::Op,
    value: &Ymm,
) -> Outcome<C> {
    let Some(bytes) = value.0.first_chunk::<SIZE>() else { return Ok(()) };
    if ALIGNED { context.store_aligned(op, bytes) } else { context.store(op, bytes) }
}
