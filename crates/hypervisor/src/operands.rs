//! Memory operands of instructions.

use std::fmt;

use nerite_arch::Regs;

use crate::{Error, Vcpu};

/// A memory operand of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Guest-virtual address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
    /// `true` if it is written.
    pub writes: bool,
    /// `true` if it is read.
    pub reads: bool,
}

/// Decodes the memory operands of instructions.
pub trait OperandDecoder: Send + fmt::Debug {
    /// Adds the accesses of the instruction at which `vcpu` is to `accesses`.
    ///
    /// # Errors
    /// Fails if the hypervisor does. An instruction that cannot be read accesses nothing.
    fn accesses(
        &mut self,
        vcpu: &mut dyn Vcpu,
        regs: &Regs,
        accesses: &mut Vec<Access>,
    ) -> Result<(), Error>;

    /// Returns `true` if the instruction at `regs.rip` is a string instruction with a repeat
    /// prefix, of which a step executes one element.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    fn is_repeated(&mut self, vcpu: &mut dyn Vcpu, regs: &Regs) -> Result<bool, Error>;
}
