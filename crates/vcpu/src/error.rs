//! What can go wrong with the engine itself.

use std::io;

/// The engine of a vCPU failed. Nothing a guest does is reported this way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call of the engine failed.
    #[error("vCPU {index}: {operation} failed: {source}")]
    Engine {
        /// Which vCPU.
        index: u32,
        /// What was tried, for example `KVM_RUN`.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The engine took fewer items than it was given.
    #[error(
        "vCPU {index}: {operation} took {taken} of {given} items and refused {refused}; \
         this host cannot run such a guest"
    )]
    Partial {
        /// Which vCPU.
        index: u32,
        /// What was tried, for example `KVM_SET_MSRS`.
        operation: &'static str,
        /// How many items were accepted.
        taken: usize,
        /// How many items there were.
        given: usize,
        /// The first item that was not accepted.
        refused: String,
    },
    /// The engine cannot do this.
    #[error("vCPU {index}: {what} is not possible with this engine")]
    Unsupported {
        /// Which vCPU.
        index: u32,
        /// What was tried.
        what: &'static str,
    },
}
