//! Interrupts of a local APIC's timer that has expired since the guest ran last.
//!
//! KVM counts them, and requests them in `KVM_RUN` only, at the end of each stay in the guest. What
//! it has counted is in no state that it saves. With TSC deadlines that is no loss, because the
//! deadline stays until the interrupt is requested; a count that has come to its end does not tell.
//! Nor does it tell whether KVM has counted the interrupt already: the host's timer may be late.

use std::io;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use kvm_bindings::kvm_lapic_state;
use nerite_hypervisor::Error;
use vmm_sys_util::signal::{block_signal, unblock_signal};

use crate::kick::{KickFlag, kick_signal};
use crate::{KvmVcpu, lapic};

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;
/// Times that the timer is looked at, each of which it may expire between two system calls.
const TRIES: u32 = 8;

/// The shortest time for which a thread sleeps.
const A_MOMENT: Duration = Duration::from_micros(1);

/// `struct kvm_signal_mask`: signals that are blocked in `KVM_RUN`, as the kernel's `sigset_t`.
#[repr(C, packed)]
struct SignalMask {
    length: u32,
    blocked: u64,
}

/// No signal is blocked.
const NONE_BLOCKED: SignalMask = SignalMask { length: 8, blocked: 0 };

/// Waits until the host has handled its timers that are due: a timer of the calling thread is, that
/// was due after them.
fn wait_for_late_timers() {
    thread::sleep(A_MOMENT);
}

impl KvmVcpu {
    /// The local APIC's registers, with the interrupts of a timer that has expired.
    pub(crate) fn settled_lapic(&mut self) -> Result<kvm_lapic_state, Error> {
        let mut before = self.lapic_page()?;
        for _ in 0..TRIES {
            if !lapic::counts(&before) {
                break;
            }
            if lapic::is_over(&before) {
                wait_for_late_timers();
            }
            self.request_timer_interrupt()?;
            let after = self.lapic_page()?;
            // Otherwise it may have expired behind the request.
            if !lapic::has_expired_between(&before, &after) {
                return Ok(after);
            }
            before = after;
        }
        Ok(before)
    }

    fn lapic_page(&self) -> Result<kvm_lapic_state, Error> {
        self.fd.get_lapic().map_err(self.call_error("KVM_GET_LAPIC"))
    }

    /// Enters `KVM_RUN` with a signal that ends it before the first instruction. A kick would end
    /// it too soon: kicks are taken back meanwhile.
    fn request_timer_interrupt(&mut self) -> Result<(), Error> {
        let index = self.index;
        let failed = |operation, source| Error::Vcpu { index, operation, source };
        let masking = |error: vmm_sys_util::signal::Error| {
            failed("blocking the signal of a kick", io::Error::other(error.to_string()))
        };
        block_signal(kick_signal()).map_err(masking)?;
        let ran = self.run_with_signal();
        // Delivers it, to a handler that ignores it.
        unblock_signal(kick_signal()).map_err(masking)?;
        ran.map_err(|source| failed("KVM_RUN without an instruction", source))
    }

    fn run_with_signal(&mut self) -> Result<(), io::Error> {
        self.set_signal_mask(Some(&NONE_BLOCKED))?;
        let mut kicks = 0;
        let ran = loop {
            kicks |= self.kick.suspend();
            KickFlag::signal_this_thread();
            match self.fd.run() {
                // It ended too early if there was a kick meanwhile.
                Err(error) if error.errno() == libc::EINTR => {
                    if !self.kick.is_set() {
                        break Ok(());
                    }
                }
                Err(error) => break Err(error.into()),
                Ok(exit) => break Err(io::Error::other(format!("unexpected exit {exit:?}"))),
            }
        };
        self.kick.resume(kicks);
        self.registers.after_run();
        self.set_signal_mask(None)?;
        ran
    }

    fn set_signal_mask(&self, mask: Option<&SignalMask>) -> Result<(), io::Error> {
        let mask = mask.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the descriptor is that of an open vCPU; KVM reads a length and as many bytes, or
        // nothing at a null pointer.
        match unsafe { libc::ioctl(self.fd.as_raw_fd(), KVM_SET_SIGNAL_MASK, mask) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
