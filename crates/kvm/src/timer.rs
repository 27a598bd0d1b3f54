//! A kick that comes by itself after a time.
//!
//! The kernel's timer signals the vCPU's own thread (`SIGEV_THREAD_ID`, timer_create(2)), so no
//! other thread has to run in time. The handler sets the kick flag of the thread's vCPU before it
//! returns: a signal that comes just before `KVM_RUN` is not lost either.

use std::io;
use std::mem::zeroed;
use std::sync::Arc;
use std::time::Duration;

use crate::kick::{KickFlag, kick_signal, thread_id};

/// A timer that kicks a vCPU until it is dropped.
#[derive(Debug)]
pub(crate) struct KickTimer {
    id: libc::c_int,
}

impl KickTimer {
    /// A timer for the vCPU that the calling thread runs, which is not set.
    pub(crate) fn new(flag: &Arc<KickFlag>) -> io::Result<Self> {
        // SAFETY: all fields of the structure are integers or pointers, for which zero is a value.
        let mut event: libc::sigevent = unsafe { zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = kick_signal();
        event.sigev_notify_thread_id = thread_id();
        let mut id: libc::c_int = 0;
        // SAFETY: both pointers are to live structures of the kernel's layout for this call.
        let made = unsafe {
            libc::syscall(
                libc::SYS_timer_create,
                libc::CLOCK_MONOTONIC,
                &raw mut event,
                &raw mut id,
            )
        };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        flag.kick_by_itself();
        Ok(Self { id })
    }

    fn set_time(&self, first: Duration, interval: Duration) -> io::Result<()> {
        let spec = libc::itimerspec { it_interval: timespec(interval), it_value: timespec(first) };
        // SAFETY: the timer is ours, and the pointer is to a live structure of the kernel's layout.
        let set = unsafe {
            libc::syscall(
                libc::SYS_timer_settime,
                self.id,
                0,
                &raw const spec,
                std::ptr::null_mut::<libc::itimerspec>(),
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// All a call does is a system call that signal-safety(7) lists, timer_settime(2).
impl nerite_hypervisor::KickTimer for KickTimer {
    fn set(&self, first: Duration, interval: Duration) -> io::Result<()> {
        // A time of zero would switch the timer off.
        self.set_time(first.max(Duration::from_nanos(1)), interval)
    }

    fn stop(&self) -> io::Result<()> {
        self.set_time(Duration::ZERO, Duration::ZERO)
    }
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

impl Drop for KickTimer {
    fn drop(&mut self) {
        // SAFETY: the timer is ours and not used after this.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.id) };
    }
}
