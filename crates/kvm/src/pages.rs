//! The pages that KVM shares with user space for a vCPU: `kvm_run`, its port data, and the VM's
//! ring of coalesced writes.

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::{NonNull, null_mut};

/// The size of a page.
pub(crate) const PAGE: usize = 4096;
/// `kvm_run`, port data (`KVM_PIO_PAGE_OFFSET`), ring (`KVM_COALESCED_MMIO_PAGE_OFFSET`): on x86
/// always these three.
const PAGES: usize = 3;

/// A mapping of our own of a vCPU's shared pages, beside the one of `kvm_ioctls`. It may outlive
/// the vCPU.
#[derive(Debug)]
pub(crate) struct SharedPages(NonNull<u8>);

// SAFETY: the mapping stays where it is until the value is dropped. What lies in it is accessed by
// others through atomics, or under the lock of the ring's only reader.
unsafe impl Send for SharedPages {}
// SAFETY: as for Send.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// Maps the pages of the vCPU behind `vcpu`.
    pub(crate) fn new(vcpu: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: a new shared mapping at an address of the kernel's choice replaces nothing.
        // `vcpu` is an open vCPU whose file holds these pages at offset 0 (KVM API, 4.5 and 5).
        let pages = unsafe {
            libc::mmap(
                null_mut(),
                PAGE * PAGES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                0,
            )
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(pages.cast())
            .map(Self)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Address of the first page.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.0
    }

    /// Address of page number `KVM_COALESCED_MMIO_PAGE_OFFSET`.
    pub(crate) const fn ring(&self) -> NonNull<u8> {
        const OFFSET: usize = kvm_bindings::KVM_COALESCED_MMIO_PAGE_OFFSET as usize * PAGE;
        const { assert!(OFFSET < PAGE * PAGES) };
        // SAFETY: the offset lies within the mapping.
        unsafe { self.0.add(OFFSET) }
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        // SAFETY: this is our own mapping of that size, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE * PAGES) };
    }
}
