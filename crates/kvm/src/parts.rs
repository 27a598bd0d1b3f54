//! The parts of a vCPU's state that depend on the host.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kvm_bindings::KVM_CAP_XSAVE2;
use kvm_ioctls::{Kvm, VmFd};
use nerite_hypervisor::Error;
use parking_lot::Mutex;

use crate::error::failed;

/// Size of the extended state, and the MSRs that KVM has; asked for when the first state is saved
/// or restored, because most machines never are.
pub(crate) struct StateParts {
    kvm: Arc<Kvm>,
    vm: Arc<VmFd>,
    msrs: OnceLock<Vec<u32>>,
    xsave_size: OnceLock<usize>,
    /// Value of the time-stamp counter with which the first vCPU was restored, until the VM is.
    tsc: Mutex<Option<u64>>,
}

impl StateParts {
    pub(crate) const fn new(kvm: Arc<Kvm>, vm: Arc<VmFd>) -> Self {
        Self { kvm, vm, msrs: OnceLock::new(), xsave_size: OnceLock::new(), tsc: Mutex::new(None) }
    }

    /// The MSRs that KVM lists as state.
    pub(crate) fn listed_msrs(&self) -> Result<&[u32], Error> {
        if let Some(listed) = self.msrs.get() {
            return Ok(listed);
        }
        let list = self.kvm.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(self.msrs.get_or_init(|| list.as_slice().to_vec()))
    }

    /// Size of the extended state in bytes; 0 before Linux 5.17, where it always is that of
    /// `kvm_xsave`.
    pub(crate) fn xsave_size(&self) -> usize {
        *self.xsave_size.get_or_init(|| {
            usize::try_from(self.vm.check_extension_raw(KVM_CAP_XSAVE2.into())).unwrap_or(0)
        })
    }
}

impl StateParts {
    /// Notes that a vCPU is restored with this value of the time-stamp counter. Returns `true` if
    /// the one before it was, too.
    pub(crate) fn is_restored_tsc(&self, value: u64) -> bool {
        self.tsc.lock().replace(value) == Some(value)
    }

    /// All vCPUs are restored.
    pub(crate) fn forget_restored_tsc(&self) {
        *self.tsc.lock() = None;
    }
}

impl fmt::Debug for StateParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateParts").finish_non_exhaustive()
    }
}
