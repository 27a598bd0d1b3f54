//! Ending on SIGINT, SIGTERM and SIGHUP: the first one is asked for politely, the second one is not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

use crate::exit_code;

/// The signals that end a run.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Signals that have been taken over from the system's default, which is to end the process at once.
///
/// The first one makes a descriptor readable. Another one after that ends the process from within the signal handler,
/// so that a user can get away even if something hangs. They stay taken over for as long as the process lives.
#[derive(Debug)]
pub struct Signals {
    readable: UnixStream,
    first: Arc<AtomicUsize>,
}

impl Signals {
    /// Takes the signals over, except those that are ignored (as `nohup` arranges for SIGHUP, and a shell for the SIGINT
    /// of a background job).
    ///
    /// # Errors
    ///
    /// If the system refuses a socket or a signal handler.
    pub fn listen() -> io::Result<Self> {
        let (readable, writable) = UnixStream::pair()?;
        let seen = Arc::new(AtomicBool::new(false));
        let first = Arc::new(AtomicUsize::new(0));
        let ignored = ignored_signals();
        for signal in ENDING.into_iter().filter(|&signal| !is_in(ignored, signal)) {
            // The order counts: on the first signal, the flag that means "not the first" is not set yet.
            let code = i32::from(exit_code::from_signal(signal));
            flag::register_conditional_shutdown(signal, code, Arc::clone(&seen))?;
            flag::register(signal, Arc::clone(&seen))?;
            flag::register_usize(signal, Arc::clone(&first), usize::try_from(signal).unwrap_or_default())?;
            pipe::register(signal, writable.try_clone()?)?;
        }
        Ok(Self { readable, first })
    }

    /// A descriptor that becomes readable with the first signal.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// The signal that came, if one did.
    #[must_use]
    pub fn received(&self) -> Option<i32> {
        i32::try_from(self.first.load(Ordering::SeqCst)).ok().filter(|&signal| signal != 0)
    }
}

/// The mask of ignored signals, bit n-1 for signal n (proc(5), `SigIgn` in `/proc/pid/status`); 0 if it is not known.
fn ignored_signals() -> u64 {
    fs::read_to_string("/proc/self/status").ok().and_then(|status| parse_ignored(&status)).unwrap_or(0)
}

fn parse_ignored(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn is_in(mask: u64, signal: i32) -> bool {
    u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals() {
        let status = "Name:\tvmm\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let mask = parse_ignored(status).unwrap();
        assert!(is_in(mask, SIGHUP));
        assert!(is_in(mask, 13));
        assert!(!is_in(mask, SIGINT));
        assert!(!is_in(mask, 0) && !is_in(mask, 65));
        assert_eq!(parse_ignored("Name:\tvmm\n"), None);
    }

    #[test]
    fn this_process_has_a_mask() {
        // Rust's runtime ignores SIGPIPE.
        assert!(is_in(ignored_signals(), 13));
    }
}
