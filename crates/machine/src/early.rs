//! Creates the VM while the image is read.
//!
//! `KVM_CREATE_VM` takes some milliseconds, nearly all of them waiting inside of the host's kernel, for which nothing of the guest
//! has to be known. A large image takes as long to read, so both are done at the same time; a small one is read sooner than
//! a thread is started.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nerite_kvm::{BareVm, Error, System};

/// Files from this many bytes on take so long that a thread pays. With 0.9 MB it gains nothing: while a processor is busy, the kernel waits
/// for longer.
const LARGE: u64 = 2 << 20;
/// The thread's stack, in bytes: it makes one system call.
const STACK: usize = 64 << 10;

/// A VM that is being created, perhaps.
#[derive(Debug)]
pub(crate) struct EarlyVm(Option<JoinHandle<Result<BareVm, Error>>>);

impl EarlyVm {
    /// None yet.
    pub(crate) const NONE: Self = Self(None);

    /// Has a VM created for an image of so many bytes, if that is worth a thread. The thread is confined as the caller is.
    pub(crate) fn begin(system: &Arc<System>, image_size: u64) -> Self {
        if image_size < LARGE {
            return Self::NONE;
        }
        let system = system.clone();
        let thread = thread::Builder::new().name("create-vm".to_owned()).stack_size(STACK);
        // Without a thread it is created when it is asked for.
        Self(thread.spawn(move || BareVm::new(&system)).ok())
    }

    /// The VM, created now if it has not been.
    pub(crate) fn finish(mut self, system: &System) -> Result<BareVm, Error> {
        match self.0.take().map(JoinHandle::join) {
            Some(Ok(created)) => created,
            _ => BareVm::new(system),
        }
    }
}

impl Drop for EarlyVm {
    /// Nothing of a machine that is not built after all is left behind.
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_created_early_only_for_a_large_image() {
        let Ok(system) = System::open().map(Arc::new) else {
            return;
        };
        let small = EarlyVm::begin(&system, LARGE - 1);
        assert!(small.0.is_none());
        small.finish(&system).unwrap();
        let large = EarlyVm::begin(&system, LARGE);
        assert!(large.0.is_some());
        large.finish(&system).unwrap();
        // Given up: the thread, which has the other reference, has ended.
        drop(EarlyVm::begin(&system, u64::MAX));
        assert_eq!(Arc::strong_count(&system), 1);
    }
}
