//! A terminal as the guest's console: every key goes to the guest, and one combination ends it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

/// A terminal in raw mode. Its old mode comes back when this is dropped, or by [`Restore::now`]
/// from wherever else a process ends.
#[derive(Debug)]
pub struct RawMode {
    restore: Restore,
}

/// Gives a terminal its old mode back; does so once.
#[derive(Debug, Clone)]
pub struct Restore(Arc<Mutex<Option<(OwnedFd, Termios)>>>);

impl RawMode {
    /// Puts the terminal into raw mode; `None` if this is none.
    ///
    /// # Errors
    /// If the terminal refuses.
    pub fn enter(terminal: impl AsFd) -> io::Result<Option<Self>> {
        if !isatty(&terminal) {
            return Ok(None);
        }
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let old = tcgetattr(&terminal)?;
        let mut raw = old.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Some(Self { restore: Restore(Arc::new(Mutex::new(Some((terminal, old))))) }))
    }

    /// A handle that restores the old mode before this is dropped: for a panic hook.
    pub fn restore(&self) -> Restore {
        self.restore.clone()
    }
}

impl Restore {
    /// Restores the old mode, unless that was done already.
    pub fn now(&self) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((terminal, old)) = taken
            && let Err(error) = tcsetattr(&terminal, OptionalActions::Now, &old)
        {
            log::error!("restoring the terminal's mode: {error}");
        }
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.restore.now();
    }
}

/// Finds the escape key in what is typed: Ctrl-A, then `x` to leave; Ctrl-A twice is one Ctrl-A for
/// the guest.
#[derive(Debug, Default)]
pub struct Escape {
    pending: bool,
}

impl Escape {
    /// Ctrl-A.
    pub const KEY: u8 = 1;

    /// Takes what was typed and gives what is meant for the guest. `None`: the guest is to be left.
    pub fn filter(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut meant = Vec::with_capacity(typed.len());
        for byte in typed {
            match (self.pending, *byte) {
                (false, Self::KEY) => self.pending = true,
                (true, b'x' | b'X') => return None,
                (true, Self::KEY) => {
                    meant.push(Self::KEY);
                    self.pending = false;
                }
                // Not an escape after all: both are the guest's.
                (true, other) => {
                    meant.extend([Self::KEY, other]);
                    self.pending = false;
                }
                (false, other) => meant.push(other),
            }
        }
        Some(meant)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    fn terminal() -> (OwnedFd, OwnedFd) {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let user = OpenOptions::new().read(true).write(true).open(name).unwrap();
        (controller, user.into())
    }

    fn is_cooked(terminal: &OwnedFd) -> bool {
        tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    #[test]
    fn the_old_mode_comes_back() {
        let (_controller, user) = terminal();
        assert!(is_cooked(&user));
        let raw = RawMode::enter(&user).unwrap().unwrap();
        assert!(!is_cooked(&user));
        drop(raw);
        assert!(is_cooked(&user));

        let raw = RawMode::enter(&user).unwrap().unwrap();
        raw.restore().now();
        assert!(is_cooked(&user), "from elsewhere");
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        let (reader, _writer) = io::pipe().unwrap();
        assert!(RawMode::enter(&reader).unwrap().is_none());
    }

    #[test]
    fn the_escape_key_is_found_across_reads() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"ls\x03\r").unwrap(), b"ls\x03\r");
        assert_eq!(escape.filter(b"a\x01").unwrap(), b"a");
        assert_eq!(escape.filter(b"\x01b").unwrap(), b"\x01b");
        assert_eq!(escape.filter(b"\x01c").unwrap(), b"\x01c");
        assert_eq!(escape.filter(b"\x01").unwrap(), b"");
        assert_eq!(escape.filter(b"xyz"), None);
    }
}
