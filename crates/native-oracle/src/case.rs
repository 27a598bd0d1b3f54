//! A case: an instruction, and the state before or after it.

/// Bytes of memory that a case has.
pub const MEMORY_SIZE: usize = 1024;
/// Address of the memory of a case. What follows it is not mapped.
pub const MEMORY_ADDRESS: u64 = 0x2000_0000 + 4096 - MEMORY_SIZE as u64;

/// An instruction with the state before, or after, it is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Case {
    /// XSAVE image in the standard format.
    pub vector: [u8; 832],
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15. RSP is left as it is.
    pub registers: [u64; 16],
    /// RFLAGS, of which the status flags count.
    pub flags: u64,
    /// Bytes of the instruction.
    pub code: [u8; 15],
    /// Number of these bytes.
    pub length: u8,
    /// Number of the exception that ended it, and its error code.
    pub(crate) trap: [u32; 2],
    /// Memory at [`MEMORY_ADDRESS`].
    pub memory: [u8; MEMORY_SIZE],
}

impl Default for Case {
    fn default() -> Self {
        let mut vector = [0; 832];
        vector[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        vector[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self {
            vector,
            registers: [0; 16],
            flags: 2,
            code: [0x90; 15],
            length: 0,
            trap: [Self::NONE, 0],
            memory: [0; MEMORY_SIZE],
        }
    }
}

impl Case {
    /// The number of no exception.
    pub(crate) const NONE: u32 = u32::MAX;

    /// Sets the bytes of the instruction, at most 15.
    pub fn set_code(&mut self, code: &[u8]) {
        self.code[..code.len()].copy_from_slice(code);
        self.length = code.len() as u8;
    }

    /// The exception that ended the instruction: its vector, and its error code.
    #[must_use]
    pub fn exception(&self) -> Option<(u32, u32)> {
        let [vector, code] = self.trap;
        (vector != Self::NONE).then_some((vector, code))
    }
}
