//! The choice of the hypervisor: the one place that names any.

use std::sync::Arc;

use nerite_hypervisor::{Error, Hypervisor};
use nerite_kvm::System;
use nerite_kvm::probe::{self, HostKvm};
use nerite_software::Software;

use crate::config::Accelerator;

/// Opens the hypervisor that `wanted` names. With [`Accelerator::Auto`] that is KVM where it runs
/// ordinary guests, and the processor in software elsewhere, which is reported in the log.
///
/// # Errors
/// Fails if the hypervisor cannot be used.
pub(crate) fn open(wanted: Accelerator) -> Result<Arc<dyn Hypervisor>, Error> {
    let reason = match wanted {
        Accelerator::Kvm => return Ok(Arc::new(System::open()?)),
        Accelerator::Software => return Ok(Arc::new(Software::new())),
        Accelerator::Auto => match System::open() {
            // A guest is tried only where the processor says that it cannot run any.
            Ok(system) if probe::processor_virtualizes() => return Ok(Arc::new(system)),
            Ok(system) => match probe::try_guest(&system) {
                HostKvm::Hardware => return Ok(Arc::new(system)),
                host => host.to_string(),
            },
            Err(error) => error.to_string(),
        },
    };
    log::warn!("the guest runs on a processor in software: {reason}");
    Ok(Arc::new(Software::new()))
}
