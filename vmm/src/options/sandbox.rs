//! Options of how `vmm` confines itself.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use merge::Merge;
use nerite_machine::config::{SandboxLevel, SandboxPolicy, Seccomp, User};
use nerite_sandbox::Violation;
use serde::Deserialize;

use super::value;
use crate::exit_code;

/// The end of `vmm` at a system call that it does not make by itself: as if the host had failed.
const VIOLATION: Violation = Violation {
    before: "vmm: ",
    after: " is not one that this thread should make, and was not made. This is an attack or a bug, please report it; \
            --seccomp log goes on instead\n",
    exit_code: exit_code::HOST,
};

/// Options of confinement; the table `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Containment")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct SandboxOptions {
    /// Confinement of vmm before it reads the image: strict, normal or off [default: normal]
    ///
    /// `normal` takes what the host has and warns about what it lacks, `strict` refuses to run with
    /// less than everything.
    #[arg(id = "sandbox", long = "sandbox", value_name = "LEVEL")]
    #[serde(deserialize_with = "value::parsed")]
    pub level: Option<SandboxLevel>,

    /// Treatment of system calls that vmm does not make by itself: on, log or off [default: on]
    ///
    /// `on` ends vmm, `log` writes a line into the kernel's log and continues.
    #[arg(long, value_name = "MODE")]
    #[serde(deserialize_with = "value::parsed")]
    pub seccomp: Option<Seccomp>,

    /// Become this user and group, given by number, once everything is open (root only)
    ///
    /// What is mounted is then accessed as this user.
    #[arg(long, value_name = "UID:GID")]
    #[serde(deserialize_with = "value::parsed")]
    pub user: Option<User>,

    /// Take this directory for the root directory, once everything is open (root only)
    ///
    /// Without it, root gets an empty root directory.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub chroot: Option<PathBuf>,
}

impl SandboxOptions {
    /// Checks options that constrain each other.
    ///
    /// # Errors
    /// If not all can be had that `strict` demands.
    pub fn check(&self) -> Result<(), String> {
        match (self.level, self.seccomp) {
            (Some(SandboxLevel::Strict), Some(Seccomp::Log | Seccomp::Off)) => {
                Err("a strict sandbox has seccomp on; leave out one, or take --sandbox normal"
                    .to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Returns `true` if these take protection away, or name a user or folder.
    pub(super) fn is_looser(&self) -> bool {
        self.level.is_some_and(|level| level == SandboxLevel::Off)
            || self.seccomp.is_some_and(|seccomp| seccomp != Seccomp::On)
            || self.user.is_some()
            || self.chroot.is_some()
    }

    /// The level, or the default one.
    #[must_use]
    pub fn level(&self) -> SandboxLevel {
        self.level.unwrap_or_default()
    }

    /// The policy, with at most `open_files` descriptors.
    #[must_use]
    pub fn policy(&self, open_files: Option<u64>) -> SandboxPolicy {
        SandboxPolicy {
            level: self.level(),
            seccomp: self.seccomp,
            user: self.user,
            chroot: self.chroot.clone(),
            open_files,
            violation: VIOLATION,
            ..SandboxPolicy::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_a_file() {
        let file: SandboxOptions =
            toml::from_str("level = \"strict\"\nuser = \"1:2\"\nchroot = \"/srv\"").unwrap();
        let mut line =
            SandboxOptions { level: Some(SandboxLevel::Normal), ..SandboxOptions::default() };
        line.merge(file);
        let expected = SandboxPolicy {
            level: SandboxLevel::Normal,
            seccomp: None,
            user: Some(User { uid: 1, gid: 2 }),
            chroot: Some("/srv".into()),
            open_files: Some(7),
            violation: VIOLATION,
            ..SandboxPolicy::default()
        };
        assert_eq!(line.policy(Some(7)), expected);
    }

    #[test]
    fn strict_needs_filters() {
        let check = |level, seccomp| {
            SandboxOptions { level: Some(level), seccomp, ..SandboxOptions::default() }.check()
        };
        assert!(check(SandboxLevel::Strict, Some(Seccomp::Log)).is_err());
        assert!(check(SandboxLevel::Strict, Some(Seccomp::On)).is_ok());
        assert!(check(SandboxLevel::Normal, Some(Seccomp::Off)).is_ok());
    }
}
