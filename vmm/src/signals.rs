//! Ends of the process from outside: SIGINT, SIGTERM, SIGHUP, and the time limit.
//!
//! The first signal asks for an orderly end. A second one ends the process at once, as does a timer
//! if the orderly end takes too long.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::time::Duration;

use libc::{SIGALRM, SIGHUP, SIGINT, SIGTERM, c_int};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::exit_code;

/// Message of the time limit, a whole line.
pub(crate) const TIME_IS_UP: &str = "vmm: the guest's time is up\n";

/// The signals that end a run.
const ENDING: [c_int; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The signal that came first; 0 before.
static FIRST: AtomicI32 = AtomicI32::new(0);
/// An eventfd that stays open for as long as the process lives; -1 before there is one.
static EVENT: AtomicI32 = AtomicI32::new(-1);

/// Microseconds from the first signal to the end of the process; 0 for no such end.
static END_WITHIN: AtomicI64 = AtomicI64::new(0);

/// Signals that have been taken over from the system's default, which is to end the process at
/// once.
///
/// The first one makes a descriptor readable. Another one after that ends the process from within
/// the signal handler, so that a user can get away even if something hangs. They stay taken over
/// for as long as the process lives.
#[derive(Debug)]
pub struct Signals(());

impl Signals {
    /// Takes the signals over, except those that are ignored (as `nohup` arranges for SIGHUP, and a
    /// shell for the SIGINT of a background job). Once a process.
    ///
    /// # Errors
    ///
    /// If the system refuses a signal handler.
    pub fn listen() -> io::Result<Self> {
        ENDING.into_iter().try_for_each(take_over)?;
        Ok(Self(()))
    }

    /// A descriptor that becomes readable with the first signal, or is if it came. Made when it is
    /// asked for first.
    ///
    /// # Errors
    ///
    /// If the system refuses an eventfd.
    pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(event) = event() {
            return Ok(event);
        }
        let event = leak(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        EVENT.store(event.as_raw_fd(), Ordering::SeqCst);
        // One that came before it was there.
        if self.received().is_some() {
            rustix::io::write(event, &1_u64.to_ne_bytes())?;
        }
        Ok(event)
    }

    /// Ends the process from within a signal handler if it still runs this long after the first
    /// signal, whatever its threads wait for: a reader of its output, a disk, a long request of the
    /// guest.
    pub fn end_within(&self, time: Duration) {
        let microseconds = i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1);
        END_WITHIN.store(microseconds, Ordering::SeqCst);
        // One that came before.
        if self.received().is_some() {
            begin_end();
        }
    }

    /// The signal that came, if one did.
    #[must_use]
    pub fn received(&self) -> Option<i32> {
        Some(FIRST.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }
}

/// Forgets signals and their descriptor, which are the parent's, in a process that was forked.
pub(crate) fn forget() {
    EVENT.store(-1, Ordering::SeqCst);
    FIRST.store(0, Ordering::SeqCst);
}

/// Ends the process with [`exit_code::TIME_LIMIT`] from within a signal handler if it still runs
/// after this time, whatever it does then: a large image can be read for longer than its guest may
/// run. A machine with a time limit ends itself in good order before.
///
/// # Errors
///
/// If the system refuses a timer or a signal handler.
pub fn end_after(time: Duration) -> io::Result<()> {
    install(SIGALRM, on_deadline)?;
    // SAFETY: for this structure of integers and pointers all zeros are a valid value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = SIGALRM;
    let mut timer: libc::timer_t = std::ptr::null_mut();
    // SAFETY: both pointers are to live variables of the call's types.
    if unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let once = libc::itimerspec {
        it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: libc::timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().max(1).into(),
        },
    };
    // SAFETY: the timer was just made and is never deleted, and the pointer is to a live structure;
    // the old value is not asked for.
    if unsafe { libc::timer_settime(timer, 0, &raw const once, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Starts the time that [`Signals::end_within`] has set. It is the process's own timer, so that a
/// run without a signal makes none. If the system refuses it, a second signal is left.
///
/// Safe in a signal handler: sigaction(2) is on signal-safety(7)'s list, and setitimer(2) is one
/// system call.
fn begin_end() {
    let microseconds = END_WITHIN.load(Ordering::SeqCst);
    if microseconds == 0 || install(SIGALRM, on_deadline).is_err() {
        return;
    }
    let value = libc::timeval {
        tv_sec: microseconds.checked_div(1_000_000).unwrap_or(0),
        tv_usec: microseconds.checked_rem(1_000_000).unwrap_or(0),
    };
    let once =
        libc::itimerval { it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 }, it_value: value };
    // SAFETY: the pointer is to a live structure; the old value is not asked for.
    unsafe { libc::syscall(libc::SYS_setitimer, libc::ITIMER_REAL, &raw const once, 0) };
}

/// The eventfd, once there is one.
fn event() -> Option<BorrowedFd<'static>> {
    let event = EVENT.load(Ordering::SeqCst);
    // SAFETY: what is stored there is open, and never closed.
    (event >= 0).then(|| unsafe { BorrowedFd::borrow_raw(event) })
}

/// Keeps a descriptor open for as long as the process lives.
fn leak(fd: OwnedFd) -> BorrowedFd<'static> {
    // SAFETY: it is open, its owner has given it up, and nothing else closes it.
    unsafe { BorrowedFd::borrow_raw(fd.into_raw_fd()) }
}

/// Installs a handler, which does only what a signal handler may. Returns what was there before.
fn install(signal: c_int, handler: extern "C" fn(c_int)) -> io::Result<libc::sigaction> {
    // SAFETY: for this structure of integers and a pointer all zeros are a valid value: no flags,
    // an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART;
    let mut old = action;
    // SAFETY: both structures live through the call.
    if unsafe { libc::sigaction(signal, &raw const action, &raw mut old) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(old)
}

/// Installs the handler, and takes it back if the signal was ignored until then.
fn take_over(signal: c_int) -> io::Result<()> {
    let old = install(signal, on_signal)?;
    if old.sa_sigaction == libc::SIG_IGN {
        // SAFETY: as above; this is what was there before.
        if unsafe { libc::sigaction(signal, &raw const old, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A timer has expired: the first signal came a while ago, or else the time limit has passed.
extern "C" fn on_deadline(_: c_int) {
    let code = match FIRST.load(Ordering::SeqCst) {
        0 => {
            say_time_is_up();
            exit_code::TIME_LIMIT
        }
        first => exit_code::from_signal(first),
    };
    // SAFETY: it ends the process, from wherever it is.
    unsafe { libc::_exit(code.into()) }
}

/// Writes the time limit's message to standard error if there is room for it.
///
/// Safe in a signal handler: two system calls, neither of which waits.
fn say_time_is_up() {
    if crate::stderr::wait(Timespec::default()) {
        let _ = rustix::io::write(rustix::stdio::stderr(), TIME_IS_UP.as_bytes());
    }
}

/// Calls only what is safe in a signal handler (signal-safety(7)), and leaves `errno` as it is.
extern "C" fn on_signal(signal: c_int) {
    if FIRST.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        // SAFETY: it ends the process, from wherever it is.
        unsafe { libc::_exit(exit_code::from_signal(signal).into()) }
    }
    begin_end();
    if let Some(event) = event() {
        // It can only be full, and then it is readable.
        let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
    }
}
