#![doc = include_str!("../README.md")]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod features;
mod operands;
mod state;

pub use features::{Features, supported};
pub use operands::{Operands, VectorException};
pub use state::{MXCSR_INIT, MXCSR_MASK, VectorState, X87, Ymm};

use iced_x86::Instruction;

/// Function that executes an instruction on the state and the rest of the processor.
///
/// If it returns an error, registers and memory are as before the instruction, but for what the architecture allows (gathers, status
/// flags of an unmasked floating-point exception, parts of an XSAVE area).
pub type Handler<C> = fn(&mut VectorState, &Instruction, &mut C) -> Result<(), <C as Operands>::Fault>;

/// Returns the handler of an instruction; `None` if it is none of this crate's, or of a set that the host does not have.
///
/// The handler depends on nothing but [`Instruction::code`], so that it can be kept with the decoded instruction. What gates the sets
/// is the caller's: CR0.EM and TS, CR4.OSFXSR and OSXSAVE, XCR0 (#UD, #NM).
#[must_use]
pub fn lookup<C: Operands>(instruction: &Instruction) -> Option<Handler<C>> {
    let _ = instruction;
    None
}
