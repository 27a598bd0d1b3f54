//! A vCPU's registers, read and written as rarely as can be.
//!
//! What was read or written since the guest ran last is *valid* here; what was written and KVM has
//! not seen yet is *dirty*. Where KVM synchronises registers through the shared page
//! (`KVM_CAP_SYNC_REGS`), the general ones are valid after every exit, and dirty ones go in with
//! the next `KVM_RUN`: neither takes a system call. Segments and control registers are read at most
//! once between two runs; an exit does not make them valid, because KVM would have to collect them
//! at each, and most exits need none. They are written at once, so that a combination that KVM
//! refuses is an error of the call that sets it, and not of the next run. Only those that a vCPU
//! starts with, which are known to be good, go in with the first `KVM_RUN`.

use kvm_bindings::{KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_sregs};
use kvm_ioctls::{SyncReg, VcpuFd};
use nerite_arch::{Regs, SpecialRegs};

use crate::convert;

/// Which registers of a vCPU are known. The general ones themselves are in the shared page.
#[derive(Debug)]
pub(crate) struct Registers {
    /// KVM takes the general registers from the shared page, and leaves them there.
    syncs: bool,
    /// It can do so with segments and control registers, too.
    syncs_special: bool,
    /// The general registers in the page are what the guest has, or will have when it resumes.
    valid: bool,
    /// KVM has not seen the general registers in the page.
    dirty: bool,
    /// Segments and control registers, if they are known.
    special: Option<kvm_sregs>,
    /// KVM has not seen them. They are known then, and in the page.
    special_dirty: bool,
    /// System calls made for registers.
    calls: u64,
}

/// A failed call's name, and why it failed.
type Failed = (&'static str, kvm_ioctls::Error);

impl Registers {
    /// Nothing is known yet. `capability` is what the VM says of `KVM_CAP_SYNC_REGS`.
    pub(crate) fn new(fd: &mut VcpuFd, capability: i32) -> Self {
        let syncs = capability.cast_unsigned() & KVM_SYNC_X86_REGS != 0;
        if syncs {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        let syncs_special = capability.cast_unsigned() & KVM_SYNC_X86_SREGS != 0;
        Self {
            syncs,
            syncs_special,
            valid: false,
            dirty: false,
            special: None,
            special_dirty: false,
            calls: 0,
        }
    }

    /// Number of system calls that were made for registers.
    pub(crate) const fn calls(&self) -> u64 {
        self.calls
    }

    fn called(&mut self) {
        self.calls = self.calls.wrapping_add(1);
    }

    pub(crate) fn general(&mut self, fd: &mut VcpuFd) -> Result<Regs, Failed> {
        if !self.valid {
            self.called();
            let regs = fd.get_regs().map_err(|error| ("KVM_GET_REGS", error))?;
            fd.sync_regs_mut().regs = regs;
            self.valid = true;
        }
        Ok(convert::regs_from_kvm(&fd.sync_regs_mut().regs))
    }

    pub(crate) fn set_general(&mut self, fd: &mut VcpuFd, regs: &Regs) {
        fd.sync_regs_mut().regs = convert::regs_to_kvm(regs);
        self.valid = true;
        self.dirty = true;
    }

    fn read_special(&mut self, fd: &VcpuFd) -> Result<kvm_sregs, Failed> {
        if let Some(special) = self.special {
            return Ok(special);
        }
        self.called();
        let special = fd.get_sregs().map_err(|error| ("KVM_GET_SREGS", error))?;
        Ok(*self.special.insert(special))
    }

    pub(crate) fn special(&mut self, fd: &VcpuFd) -> Result<SpecialRegs, Failed> {
        Ok(convert::special_regs_from_kvm(&self.read_special(fd)?))
    }

    pub(crate) fn set_special(
        &mut self,
        fd: &mut VcpuFd,
        regs: &SpecialRegs,
    ) -> Result<(), Failed> {
        let mut special = self.read_special(fd)?;
        convert::special_regs_to_kvm(regs, &mut special);
        // KVM may change what it is given.
        self.special = None;
        self.special_dirty = false;
        self.called();
        fd.set_sregs(&special).map_err(|error| ("KVM_SET_SREGS", error))?;
        // Without an interrupt controller in the kernel it takes the priority from here at every
        // entry.
        fd.get_kvm_run().cr8 = special.cr8;
        Ok(())
    }

    /// Registers that a vCPU starts with, which KVM will not refuse.
    pub(crate) fn start_special(
        &mut self,
        fd: &mut VcpuFd,
        special: kvm_sregs,
    ) -> Result<(), Failed> {
        if self.syncs_special {
            fd.sync_regs_mut().sregs = special;
            self.special = Some(special);
            self.special_dirty = true;
            return Ok(());
        }
        self.called();
        fd.set_sregs(&special).map_err(|error| ("KVM_SET_SREGS", error))
    }

    /// Tells KVM everything now, for a call that looks at registers or changes them. Nothing is
    /// known after it.
    pub(crate) fn flush(&mut self, fd: &mut VcpuFd) -> Result<(), Failed> {
        if std::mem::take(&mut self.dirty) {
            self.called();
            let regs = fd.sync_regs_mut().regs;
            fd.set_regs(&regs).map_err(|error| ("KVM_SET_REGS", error))?;
        }
        if let Some(special) = self.special.take_if(|_| std::mem::take(&mut self.special_dirty)) {
            self.called();
            fd.set_sregs(&special).map_err(|error| ("KVM_SET_SREGS", error))?;
        }
        self.valid = false;
        self.special = None;
        Ok(())
    }

    /// Before `KVM_RUN`: what is dirty goes in with it.
    pub(crate) fn before_run(&mut self, fd: &mut VcpuFd) -> Result<(), Failed> {
        if std::mem::take(&mut self.special_dirty) {
            fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        }
        if !self.dirty {
            return Ok(());
        }
        if !self.syncs {
            return self.flush(fd);
        }
        fd.set_sync_dirty_reg(SyncReg::Register);
        self.dirty = false;
        Ok(())
    }

    /// After `KVM_RUN`, also one that a signal ended: KVM leaves the general registers in the page
    /// on every way out.
    pub(crate) const fn after_run(&mut self) {
        self.valid = self.syncs;
        self.special = None;
    }
}
