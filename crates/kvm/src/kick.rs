//! Kicking a vCPU out of the guest without a race.
//!
//! KVM checks `kvm_run.immediate_exit` after it has blocked the way back into the guest, so a flag
//! that is set there before a signal is sent cannot be missed: either the signal finds the thread
//! in `KVM_RUN` and ends it, or the thread is elsewhere and the flag ends the next `KVM_RUN` at
//! once. The flag is the whole state. It lies in a page that KVM shares with user space; each
//! vCPU's kicker maps that page a second time and keeps the mapping for as long as a handle lives,
//! so a handle may outlive its vCPU.

use std::cell::Cell;
use std::io;
use std::mem::offset_of;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use kvm_bindings::kvm_run;
use nerite_hypervisor::Kick;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::pages::SharedPages;

/// Bit of the flag: a kick is pending. KVM tests only whether the byte is zero.
const KICK: u8 = 1;
/// Bit of the flag: the vCPU is being drained.
const DRAIN: u8 = 2;

/// The signal that ends `KVM_RUN`: the first real-time signal.
pub fn kick_signal() -> i32 {
    SIGRTMIN()
}

extern "C" fn on_kick(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // Of a kick from another thread it is enough that it was delivered: system calls that wait end
    // with EINTR. A timer or counter cannot have set the flag. What else the signal brings is
    // ignored, because every process of this user can make it up. SAFETY: the kernel hands a valid
    // structure to a handler that was installed with SA_SIGINFO.
    let code = unsafe { &*info }.si_code;
    if !matches!(code, libc::SI_TIMER | POLL_IN) {
        return;
    }
    let flag = OWN_FLAG.with(Cell::get);
    if !flag.is_null() {
        // SAFETY: what is stored there stays valid as long as the process and is accessed through
        // atomics only.
        unsafe { AtomicU8::from_ptr(flag) }.fetch_or(KICK, Ordering::SeqCst);
    }
}

/// Installs the handler of [`kick_signal`], once a process.
fn install_handler() -> io::Result<()> {
    static RESULT: OnceLock<Result<(), i32>> = OnceLock::new();
    RESULT
        .get_or_init(|| {
            register_signal_handler(kick_signal(), on_kick).map_err(|error| error.errno())
        })
        .map_err(io::Error::from_raw_os_error)
}

/// `si_code` of a signal that comes from a descriptor: a counter has overflowed
/// (`<asm-generic/siginfo.h>`).
const POLL_IN: i32 = 1;

thread_local! {
    /// The flag of the vCPU that this thread runs, if it is kicked by timers or counters. Without a
    /// destructor and without anything to make first, so that the handler can look at it.
    static OWN_FLAG: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
    static THREAD_ID: Cell<i32> = const { Cell::new(0) };
}

pub(crate) fn thread_id() -> i32 {
    THREAD_ID.with(|id| {
        if id.get() == 0 {
            // SAFETY: gettid takes no arguments, touches no memory and cannot fail.
            id.set(unsafe { libc::gettid() });
        }
        id.get()
    })
}

/// The kick flag of one vCPU and the thread that runs it.
pub(crate) struct KickFlag {
    /// The flag is in the first page, `kvm_run`.
    pages: Arc<SharedPages>,
    /// The thread that ran the vCPU last; 0 before the first run.
    thread: AtomicI32,
}

impl KickFlag {
    /// The flag of the vCPU of these pages.
    pub(crate) fn new(pages: Arc<SharedPages>) -> io::Result<Arc<Self>> {
        install_handler()?;
        Ok(Arc::new(Self { pages, thread: AtomicI32::new(0) }))
    }

    /// Address of the flag, valid for as long as `self`.
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: the offset lies in the first page, which `pages` maps readable and writable until
        // `self` is dropped.
        unsafe { self.pages.start().add(offset_of!(kvm_run, immediate_exit)) }.as_ptr()
    }

    fn flag(&self) -> &AtomicU8 {
        let byte = self.address();
        // SAFETY: the byte is valid for as long as `self`, and user space accesses it through
        // atomics only: nothing in this crate touches the field in the vCPU's own mapping. The
        // kernel only reads it.
        unsafe { AtomicU8::from_ptr(byte) }
    }

    /// Timers that expire and counters that overflow on the calling thread kick this vCPU from now
    /// on.
    pub(crate) fn kick_by_itself(self: &Arc<Self>) {
        if OWN_FLAG.with(Cell::get) != self.address() {
            // A signal may be on its way even when the vCPU is gone: its page stays mapped as long
            // as the process.
            std::mem::forget(self.clone());
            OWN_FLAG.with(|flag| flag.set(self.address()));
        }
    }

    /// Says that the calling thread is about to run the vCPU.
    pub(crate) fn bind(&self) {
        let this = thread_id();
        if self.thread.load(Ordering::Relaxed) != this {
            self.thread.store(this, Ordering::SeqCst);
        }
    }

    /// Takes a kick: whether there was one since the last call.
    pub(crate) fn take(&self) -> bool {
        self.flag().fetch_and(!KICK, Ordering::SeqCst) & KICK != 0
    }

    /// From now on every `KVM_RUN` ends before the first guest instruction.
    pub(crate) fn begin_drain(&self) {
        self.flag().fetch_or(DRAIN, Ordering::SeqCst);
    }

    /// Takes the flag back for a while, in which kicks do not end `KVM_RUN` early: returns what it
    /// was.
    pub(crate) fn suspend(&self) -> u8 {
        self.flag().swap(0, Ordering::SeqCst)
    }

    /// Ends what [`Self::suspend`] began, with what it returned.
    pub(crate) fn resume(&self, flag: u8) {
        self.flag().fetch_or(flag, Ordering::SeqCst);
    }

    /// Returns `true` if there was a kick since [`Self::suspend`].
    pub(crate) fn is_set(&self) -> bool {
        self.flag().load(Ordering::SeqCst) != 0
    }

    /// Sends the signal of a kick to the calling thread.
    pub(crate) fn signal_this_thread() {
        send_signal(thread_id());
    }

    /// Ends what [`Self::begin_drain`] began. A kick that came meanwhile stays for the next run.
    pub(crate) fn end_drain(&self) {
        self.flag().fetch_and(!DRAIN, Ordering::SeqCst);
    }
}

fn send_signal(thread: i32) {
    // SAFETY: tgkill touches no memory of ours; should the thread be gone and its id belong to
    // another thread of this process, that one runs an empty handler.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, kick_signal()) };
}

impl Kick for KickFlag {
    fn kick(&self) {
        // Before the signal: a thread on its way into KVM_RUN sees one or the other.
        self.flag().fetch_or(KICK, Ordering::SeqCst);
        let thread = self.thread.load(Ordering::SeqCst);
        if thread != 0 {
            send_signal(thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends this thread a signal as another process of the same user can (rt_tgsigqueueinfo(2)).
    fn forge(code: i32, value: *mut u8) {
        // SAFETY: zeros are a value of this structure of integers and pointers.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_signo = kick_signal();
        info.si_code = code;
        // SAFETY: `si_value` lies 24 bytes from the start (`<asm-generic/siginfo.h>`), well inside
        // of the structure's 128 bytes.
        unsafe {
            (&raw mut info).cast::<u8>().wrapping_add(24).cast::<*mut u8>().write_unaligned(value)
        };
        // SAFETY: the pointer is to a live structure, which the kernel only reads.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_rt_tgsigqueueinfo,
                std::process::id(),
                thread_id(),
                kick_signal(),
                &raw const info,
            )
        };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn a_forged_signal_changes_nothing_but_the_own_flag() {
        install_handler().unwrap();
        let (own, other) = (AtomicU8::new(0), AtomicU8::new(0));
        for value in [other.as_ptr(), std::ptr::without_provenance_mut(0x10)] {
            for code in [libc::SI_TIMER, libc::SI_QUEUE, libc::SI_MESGQ] {
                forge(code, value);
            }
        }
        OWN_FLAG.with(|flag| flag.set(own.as_ptr()));
        forge(libc::SI_TIMER, other.as_ptr());
        OWN_FLAG.with(|flag| flag.set(std::ptr::null_mut()));
        assert_eq!((own.load(Ordering::SeqCst), other.load(Ordering::SeqCst)), (KICK, 0));
    }
}
