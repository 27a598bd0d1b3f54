//! Execution of instructions.

pub(crate) mod alu;
pub(crate) mod bcd;
pub(crate) mod bits;
pub(crate) mod branch;
pub(crate) mod data;
pub(crate) mod far;
pub(crate) mod flag;
pub(crate) mod io;
pub(crate) mod muldiv;
pub(crate) mod shift;
pub(crate) mod string;
pub(crate) mod system;
