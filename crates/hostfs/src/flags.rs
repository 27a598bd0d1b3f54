//! Open flags, decoded and checked once.

use nerite_hypercall::errno::EINVAL;
use nerite_hypercall::file::{
    ALLOWED_OPEN_FLAGS, O_ACCMODE, O_APPEND, O_CREAT, O_DIRECTORY, O_EXCL, O_RDONLY, O_RDWR,
    O_TRUNC, O_WRONLY,
};
use rustix::fs::OFlags;

/// Flags of an open by the guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags {
    pub(crate) access: OFlags,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) append: bool,
    pub(crate) directory: bool,
}

impl Flags {
    /// Decodes the guest's flags; those it may not pass are dropped.
    pub(crate) fn new(raw: i32) -> Result<Self, i32> {
        let raw = raw & ALLOWED_OPEN_FLAGS;
        let has = |flag| raw & flag != 0;
        let access = match raw & O_ACCMODE {
            O_RDONLY => OFlags::RDONLY,
            O_WRONLY => OFlags::WRONLY,
            O_RDWR => OFlags::RDWR,
            _ => return Err(EINVAL),
        };
        // Linux has given this combination several meanings over time.
        if has(O_CREAT) && has(O_DIRECTORY) {
            return Err(EINVAL);
        }
        Ok(Self {
            access,
            create: has(O_CREAT),
            exclusive: has(O_CREAT) && has(O_EXCL),
            truncate: has(O_TRUNC),
            append: has(O_APPEND),
            directory: has(O_DIRECTORY),
        })
    }

    /// Returns `true` if the file can be written through the descriptor.
    pub(crate) fn writes(self) -> bool {
        self.access != OFlags::RDONLY
    }

    /// Returns `true` if an existing file would be changed, now or later.
    pub(crate) fn changes(self) -> bool {
        self.writes() || self.truncate
    }

    /// The host's flags for a file that exists. Never waits for a pipe's other end, never takes a
    /// terminal.
    pub(crate) fn existing(self) -> OFlags {
        let mut flags = self.access | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        flags.set(OFlags::TRUNC, self.truncate);
        flags.set(OFlags::APPEND, self.append);
        flags.set(OFlags::DIRECTORY, self.directory);
        flags
    }

    /// The host's flags for a file that may have to be created.
    pub(crate) fn creating(self) -> OFlags {
        let mut flags = self.existing();
        flags.set(OFlags::CREATE, self.create);
        flags.set(OFlags::EXCL, self.exclusive);
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        assert_eq!(Flags::new(3).unwrap_err(), EINVAL);
        assert_eq!(Flags::new(O_CREAT | O_DIRECTORY).unwrap_err(), EINVAL);
    }

    #[test]
    fn unknown_flags_are_dropped() {
        let flags = Flags::new(O_RDWR | O_APPEND | 0o40000 | i32::MIN).unwrap();
        let fixed = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        assert_eq!(flags.creating(), OFlags::RDWR | OFlags::APPEND | fixed);
        assert!(flags.writes() && flags.changes());
        assert!(Flags::new(O_TRUNC).unwrap().changes());
        assert!(!Flags::new(O_EXCL).unwrap().exclusive);
    }
}
