//! [`Violation`]: the end of a process that makes a forbidden system call.

/// The end of a process that makes a forbidden system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// Text before the number and the arguments of the call.
    pub before: &'static str,
    /// Text after them, with its newline.
    pub after: &'static str,
    /// Exit code of the process.
    pub exit_code: u8,
}

impl Default for Violation {
    fn default() -> Self {
        Self {
            before: "",
            after: " is not allowed in this sandbox, and was not made\n",
            exit_code: 1,
        }
    }
}
