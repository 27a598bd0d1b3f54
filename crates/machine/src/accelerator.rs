//! The choice of the hypervisor: the one place that names any.

use std::sync::Arc;

use nerite_hypervisor::{Error, Hypervisor};
use nerite_kvm::System;
use nerite_kvm::probe::{self, HostKvm};
use nerite_software::Software;

use crate::config::Accelerator;

/// A hypervisor, and the reason why it is not KVM if that was not asked for.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) without_kvm: Option<String>,
}

impl From<Arc<dyn Hypervisor>> for Choice {
    fn from(hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { hypervisor, without_kvm: None }
    }
}

/// Opens the hypervisor that `wanted` names. With [`Accelerator::Auto`] that is KVM where it runs
/// ordinary guests, and the processor in software elsewhere.
///
/// # Errors
/// Fails if the hypervisor cannot be used.
pub(crate) fn open(wanted: Accelerator) -> Result<Choice, Error> {
    let kvm = |system| Ok(Choice { hypervisor: Arc::new(system), without_kvm: None });
    let without_kvm = match wanted {
        Accelerator::Kvm => return kvm(System::open()?),
        Accelerator::Software => None,
        Accelerator::Auto => match System::open() {
            // A guest is tried only where the processor reports that it cannot run any.
            Ok(system) if probe::processor_virtualizes() => return kvm(system),
            Ok(system) => match probe::try_guest(&system) {
                HostKvm::Hardware => return kvm(system),
                host => Some(host.to_string()),
            },
            Err(error) => Some(error.to_string()),
        },
    };
    Ok(Choice { hypervisor: Arc::new(Software::new()?), without_kvm })
}
