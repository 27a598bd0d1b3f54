//! Failures of a hypervisor.

use std::io;

use crate::StateError;

/// The hypervisor failed. Nothing a guest does is reported this way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call about a vCPU failed.
    #[error("vCPU {index}: {operation} failed")]
    Vcpu {
        /// Index of the vCPU.
        index: u32,
        /// The call, for example `KVM_RUN`.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The hypervisor took fewer items than it was given.
    #[error(
        "vCPU {index}: {operation} took {taken} of {given} items and refused {refused}; \
         this host cannot run such a guest"
    )]
    Partial {
        /// Index of the vCPU.
        index: u32,
        /// The call, for example `KVM_SET_MSRS`.
        operation: &'static str,
        /// Number of items that were accepted.
        taken: usize,
        /// Number of items.
        given: usize,
        /// The first item that was not accepted.
        refused: String,
    },
    /// The hypervisor cannot do this.
    #[error("vCPU {index}: {operation} is not possible with this hypervisor")]
    Unsupported {
        /// Index of the vCPU.
        index: u32,
        /// The operation.
        operation: &'static str,
    },
    /// More vCPUs than a VM can have.
    #[error("{asked} vCPUs are more than the {allowed} that {hypervisor} allows on this host")]
    TooManyVcpus {
        /// Number that was asked for.
        asked: u32,
        /// Maximum number.
        allowed: usize,
        /// Name of the hypervisor.
        hypervisor: &'static str,
    },
    /// More RAM in one piece than a memory slot takes.
    #[error(
        "{} GiB of guest memory in one piece (at {start:#x}) are more than a memory slot takes, which is just below {} GiB",
        size >> 30, limit.div_ceil(1 << 30)
    )]
    TooMuchRam {
        /// Guest-physical address of the piece.
        start: u64,
        /// Its size in bytes.
        size: u64,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// Host memory cannot be used as RAM.
    #[error("cannot use {} MiB of host memory as RAM at {start:#x}", size >> 20)]
    Ram {
        /// Guest-physical address of the piece.
        start: u64,
        /// Its size in bytes.
        size: u64,
        /// Cause.
        source: io::Error,
    },
    /// The host's hypervisor lacks a feature that is needed.
    #[error("this host's hypervisor lacks {capability}; a newer kernel has it")]
    Lacks {
        /// Name of the feature.
        capability: &'static str,
    },
    /// The hypervisor cannot be used on this host.
    #[error(transparent)]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// A saved state cannot be restored into a vCPU, or the vCPU is not one that can be saved.
    #[error("vCPU {index}")]
    State {
        /// Index of the vCPU.
        index: u32,
        /// Cause.
        source: StateError,
    },
    /// A saved state cannot be restored into the chips that vCPUs share.
    #[error("saved VM")]
    VmState(#[source] StateError),
    /// Another call failed.
    #[error("{operation} failed")]
    Call {
        /// The call.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
}
