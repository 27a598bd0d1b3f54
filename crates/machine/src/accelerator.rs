//! The choice of the hypervisor: the one place that names any.

use std::sync::Arc;

use nerite_hypervisor::{Error, Hypervisor};
use nerite_kvm::System;

/// Opens the hypervisor of this host: KVM.
///
/// # Errors
/// Fails if it cannot be used.
pub(crate) fn open() -> Result<Arc<dyn Hypervisor>, Error> {
    Ok(Arc::new(System::open()?))
}
