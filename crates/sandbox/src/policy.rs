//! Policy of confinement.

use std::path::PathBuf;
use std::str::FromStr;

use crate::{Program, Violation};

/// Required degree of confinement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// All of it; an error if the host lacks something.
    Strict,
    /// As much as the host offers.
    #[default]
    Normal,
    /// None, except for what is asked for by name: a user, a directory, seccomp.
    Off,
}

/// Treatment of a system call that no thread should make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// It ends the process.
    On,
    /// The call is executed, and written to the kernel's log.
    Log,
    /// Nothing.
    Off,
}

/// A text is none of the words for a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not one of {}", words.join(", "))]
pub struct WordError {
    text: String,
    words: [&'static str; 3],
}

/// Finds the value that a word stands for.
fn value<T: Copy>(text: &str, words: [(&'static str, T); 3]) -> Result<T, WordError> {
    let found = words.iter().find(|(word, _)| *word == text);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| WordError { text: text.to_owned(), words: words.map(|(word, _)| word) })
}

impl FromStr for Level {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        value(text, [("strict", Self::Strict), ("normal", Self::Normal), ("off", Self::Off)])
    }
}

impl FromStr for Seccomp {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        value(text, [("on", Self::On), ("log", Self::Log), ("off", Self::Off)])
    }
}

/// Another user to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's only group.
    pub gid: u32,
}

/// A text is not `UID:GID`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not of the form UID:GID with two numbers, such as 1000:1000")]
pub struct UserError(String);

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        // The largest number means "as it is" to the system calls.
        let number = |text: &str| text.parse().ok().filter(|&number: &u32| number != u32::MAX);
        let parsed = text.split_once(':').and_then(|(uid, gid)| Some((number(uid)?, number(gid)?)));
        let (uid, gid) = parsed.ok_or_else(|| UserError(text.to_owned()))?;
        Ok(Self { uid, gid })
    }
}

/// Policy of confinement, for [`enter`](crate::enter).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Required degree of confinement.
    pub level: Level,
    /// System call filters; `None` for those that go with the level.
    pub seccomp: Option<Seccomp>,
    /// The user to become. Needs the privilege to do so.
    pub user: Option<User>,
    /// The directory to take for the root directory. Needs the privilege to do so.
    pub chroot: Option<PathBuf>,
    /// `true` if the process works on the queues of network cards.
    pub network: bool,
    /// `true` if network cards open connections of the host by themselves: with `network`, the
    /// main thread and those that inherit its filter may open IPv4 sockets, but not bind them.
    pub sockets: bool,
    /// `true` if there are other devices with a thread of their own, such as disks.
    pub devices: bool,
    /// `true` if guests run on KVM: its system calls are allowed.
    pub kvm: bool,
    /// `true` if a guest can be handed over to KVM later, or restarted: with `kvm`, threads may set
    /// the state of its VM.
    pub switch: bool,
    /// Let a debugger work on it.
    pub debug: bool,
    /// System calls of the main thread; `None` for this crate's tables for a virtual machine
    /// monitor.
    pub calls: Option<Program>,
    /// The end of a process that makes a forbidden system call.
    pub violation: Violation,
    /// The largest number of open files from now on, or what the host allows if that is less;
    /// `None` for what it is now.
    pub open_files: Option<u64>,
}

impl Policy {
    /// Treatment of forbidden system calls: that of `seccomp`, or else that of the level.
    #[must_use]
    pub fn effective_seccomp(&self) -> Seccomp {
        let usual = if self.level == Level::Off { Seccomp::Off } else { Seccomp::On };
        self.seccomp.unwrap_or(usual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_two_numbers() {
        assert_eq!("1000:100".parse(), Ok(User { uid: 1000, gid: 100 }));
        for bad in
            ["", "1000", ":", "1:", ":1", "a:1", "-1:1", "1:2:3", "4294967295:0", "root:root"]
        {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
    }

    #[test]
    fn levels_and_filters_are_words() {
        assert_eq!("strict".parse(), Ok(Level::Strict));
        assert_eq!("log".parse(), Ok(Seccomp::Log));
        assert_eq!(
            "On".parse::<Seccomp>().unwrap_err().to_string(),
            "`On` is not one of on, log, off"
        );
        assert!("on".parse::<Level>().is_err());
    }

    #[test]
    fn filters_go_with_the_level() {
        let policy =
            |level, seccomp| Policy { level, seccomp, ..Policy::default() }.effective_seccomp();
        assert_eq!(policy(Level::Normal, None), Seccomp::On);
        assert_eq!(policy(Level::Off, None), Seccomp::Off);
        assert_eq!(policy(Level::Off, Some(Seccomp::On)), Seccomp::On);
        assert_eq!(policy(Level::Normal, Some(Seccomp::Log)), Seccomp::Log);
    }
}
