//! SIGBUS: a page of a snapshot's memory that the host cannot give.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{SIGBUS, c_int, c_void, siginfo_t};
use rustix::event::{EventfdFlags, Timespec, eventfd, poll};

use crate::exit_code;

/// Message, a whole line.
const PAGE_IS_GONE: &str = "vmm: error: a page of the snapshot's memory cannot be read: its file \
    has become shorter, or its file system failed or is full\n";

/// Number of times that [`TERMINAL_IS_RESTORED`] is looked at, 10 ms apart.
const LOOKS: u32 = 30;

/// Readable once a bus error ends the process, if the guest has a terminal.
static EVENT: OnceLock<OwnedFd> = OnceLock::new();
/// `true` once the thread that waits for [`EVENT`] has restored the terminal.
static TERMINAL_IS_RESTORED: AtomicBool = AtomicBool::new(false);

/// Ends the process with a message and [`exit_code::HOST`] at an access to guest RAM that is mapped
/// from a file which has become shorter, instead of by the signal.
///
/// # Errors
///
/// If the system refuses a signal handler.
pub fn report() -> io::Result<()> {
    // SAFETY: for this structure of integers and a pointer all zeros are a valid value: no flags,
    // an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the structure lives through the call, and the handler has the type for its flags.
    if unsafe { libc::sigaction(SIGBUS, &raw const action, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Descriptor that becomes readable when a bus error ends the process. The thread that waits for it
/// restores the terminal, which threads of vCPUs are not allowed to, and calls
/// [`terminal_is_restored`].
///
/// # Errors
///
/// If the system refuses an eventfd.
pub(crate) fn event() -> io::Result<BorrowedFd<'static>> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    Ok(EVENT.get_or_init(|| event).as_fd())
}

/// Lets a process end that a bus error ends.
pub(crate) fn terminal_is_restored() {
    TERMINAL_IS_RESTORED.store(true, Ordering::SeqCst);
}

/// Has the other thread restore the terminal. Safe in a signal handler: system calls and no lock.
fn restore_terminal(event: &OwnedFd) {
    let ten_ms = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    // It can only be full, and then it is readable.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    for _ in 0..LOOKS {
        if TERMINAL_IS_RESTORED.load(Ordering::SeqCst) {
            break;
        }
        let _ = poll(&mut [], Some(&ten_ms));
    }
}

extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel gives each handler of this kind a live structure.
    let is_access = unsafe { (*info).si_code } > 0;
    // From a process, and not from an access: as if there were no handler.
    let mut code = exit_code::from_signal(SIGBUS);
    if is_access {
        code = exit_code::HOST;
        if let Some(event) = EVENT.get() {
            restore_terminal(event);
        }
        if crate::stderr::wait(Timespec::default()) {
            let _ = rustix::io::write(rustix::stdio::stderr(), PAGE_IS_GONE.as_bytes());
        }
    }
    // SAFETY: it ends the process, from wherever it is.
    unsafe { libc::_exit(code.into()) }
}
