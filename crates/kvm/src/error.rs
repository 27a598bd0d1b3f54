//! Failures of opening KVM.

use std::io;

use nerite_hypervisor::Error;

/// KVM cannot be used on this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm does not exist; load the module kvm_intel or kvm_amd, and check that virtualisation is enabled in \
         the firmware (or, inside a virtual machine, that nested virtualisation is)"
    )]
    Missing,
    /// The user may not open `/dev/kvm`.
    #[error("no permission to open /dev/kvm; {advice}")]
    Permission {
        /// Remedy: a command that gives the permission.
        advice: String,
    },
    /// `/dev/kvm` is there and cannot be opened.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// `/dev/kvm` speaks another API.
    #[error(
        "/dev/kvm has API version {found}, and only version 12 is known; this kernel cannot be used"
    )]
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
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Names the call that failed.
pub(crate) fn failed(operation: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::Call { operation, source: error.into() }
}
