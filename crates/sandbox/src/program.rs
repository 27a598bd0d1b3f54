//! [`Program`]: a table of system calls, compiled.

use crate::rules::Rule;
use crate::{Error, compile};

/// `struct sock_filter` of `<linux/filter.h>`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) jt: u8,
    pub(crate) jf: u8,
    pub(crate) k: u32,
}

/// System calls that a thread may make, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Compiles a table: `rules` are allowed, `refused` fail with an error number, all others are
    /// violations.
    ///
    /// # Errors
    /// [`Error::Table`] if an argument does not exist or the program would be larger than the
    /// kernel takes.
    pub fn compile(rules: &[Rule], refused: &[(i64, i32)]) -> Result<Self, Error> {
        let instructions =
            compile::compile(rules, refused).map_err(|error| Error::Table(error.to_string()))?;
        Ok(Self(
            instructions
                .into_iter()
                .map(|(code, jt, jf, k)| Instruction { code, jt, jf, k })
                .collect(),
        ))
    }
    pub(crate) fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}
