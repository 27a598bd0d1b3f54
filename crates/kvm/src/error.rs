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
