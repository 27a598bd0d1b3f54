//! What can go wrong between Nerite and KVM.

use std::io;

/// KVM cannot be used, or a call of it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm does not exist; load the module kvm_intel or kvm_amd, and check that virtualisation is enabled in \
         the firmware (or, inside a virtual machine, that nested virtualisation is)"
    )]
    Missing,
    /// The user may not open `/dev/kvm`.
    #[error("no permission to open /dev/kvm; {advice}")]
    Permission {
        /// What gives the permission.
        advice: String,
    },
    /// `/dev/kvm` is there and cannot be opened.
    #[error("cannot open /dev/kvm: {0}")]
    Open(#[source] io::Error),
    /// `/dev/kvm` speaks another API.
    #[error("/dev/kvm has API version {found}, and only version 12 is known; this kernel cannot be used")]
    ApiVersion {
        /// The version it has.
        found: i32,
    },
    /// The host's KVM lacks something that cannot be done without.
    #[error("this host's KVM lacks {capability}; a newer kernel has it")]
    Lacks {
        /// The capability's name.
        capability: &'static str,
    },
    /// More vCPUs than the host's KVM allows.
    #[error("{asked} vCPUs are more than the {allowed} that this host's KVM allows")]
    TooManyVcpus {
        /// How many were asked for.
        asked: u32,
        /// How many there can be.
        allowed: usize,
    },
    /// More RAM in one piece than KVM takes.
    #[error(
        "{} GiB of guest memory in one piece (at {start:#x}) are more than KVM takes, which is just below {} GiB: pass \
         less to --memory",
        size >> 30, limit.div_ceil(1 << 30)
    )]
    TooMuchRam {
        /// Guest-physical address of the piece.
        start: u64,
        /// Its size in bytes.
        size: u64,
        /// The most that KVM takes, in bytes.
        limit: u64,
    },
    /// KVM cannot use host memory as RAM.
    #[error(
        "KVM refuses {} MiB of guest memory at {start:#x} (KVM_SET_USER_MEMORY_REGION): {source}; pass less to --memory, \
         or free memory on this host",
        size >> 20
    )]
    Ram {
        /// Guest-physical address of the piece.
        start: u64,
        /// Its size in bytes.
        size: u64,
        /// Why not.
        source: io::Error,
    },
    /// A call failed.
    #[error("{operation} failed: {source}")]
    Call {
        /// The call.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A vCPU cannot be set up.
    #[error(transparent)]
    Vcpu(#[from] nerite_vcpu::Error),
}

impl Error {
    /// Names the call that failed.
    pub(crate) fn call(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Call { operation, source: error.into() }
    }
}
