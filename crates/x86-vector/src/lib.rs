#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod control;
mod deferred;
mod features;
mod host;
mod image;
mod masked;
mod mmx;
mod operands;
mod save;
mod shapes;
mod shuffle;
mod state;
mod string;
mod table;
mod tables;
mod template;
mod x87;

// Crates whose types are in this one's interface.
pub use iced_x86;
pub use nerite_arch;

pub use features::{Features, supported};
pub use image::{
    AVX_OFFSET, AVX_SIZE, FXSAVE_SIZE, XSAVE_SIZE, XSTATE_ALL, XSTATE_AVX, XSTATE_SSE, XSTATE_X87,
    xsave_size,
};
pub use operands::{Fields, Operands, VectorException};
pub use state::{MXCSR_INIT, MXCSR_MASK, VectorState, X87, Ymm};

use iced_x86::Instruction;

/// Function that executes an instruction on a processor.
///
/// Between [`VectorState::begin`] and [`VectorState::collect`], the host's MXCSR may have flags of
/// the state.
///
/// If it returns an error, registers and memory are as before the instruction, but for what the
/// architecture allows (gathers, status flags of an unmasked floating-point exception, parts of an
/// XSAVE area).
pub type Handler<C> = fn(&mut C, &<C as Operands>::Op) -> Result<(), <C as Operands>::Fault>;

/// Returns the handler of an instruction; `None` if it is none of this crate's, or of a set that
/// the host does not have.
///
/// The handler depends on nothing but [`Instruction::code`], so that it can be kept with the
/// decoded instruction. What gates the sets is the caller's: CR0.EM and TS, CR4.OSFXSR and OSXSAVE,
/// XCR0 (#UD, #NM).
#[must_use]
pub fn lookup<C: Operands>(instruction: &Instruction) -> Option<Handler<C>> {
    let code = instruction.code();
    if !features::available(code) {
        return None;
    }
    tables::handler(code)
        .or_else(|| masked::handler(code))
        .or_else(|| control::handler(code))
        .or_else(|| save::handler(code))
        .or_else(|| x87::handler(code))
}
