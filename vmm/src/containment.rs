//! How `vmm` confines itself: the options, and the table `[sandbox]` of a configuration file.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueHint;
use nerite_machine::config::{SandboxLevel, SandboxPolicy, Seccomp, User};
use serde::{Deserialize, Deserializer, de};

/// The settings of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Default, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Containment {
    /// How vmm confines itself before it looks at the image: strict, normal or off [default: normal]
    ///
    /// `normal` takes what the host has and warns about what it lacks, `strict` refuses to run with less than everything.
    #[arg(id = "sandbox", long = "sandbox", value_name = "LEVEL", help_heading = "Containment")]
    #[serde(deserialize_with = "word")]
    pub level: Option<SandboxLevel>,

    /// What happens at a system call that vmm does not make by itself: on, log or off [default: on]
    ///
    /// `on` ends vmm, `log` writes a line into the kernel's log and goes on.
    #[arg(long, value_name = "MODE", help_heading = "Containment")]
    #[serde(deserialize_with = "word")]
    pub seccomp: Option<Seccomp>,

    /// Become this user and group, given by number, once everything is open (root only)
    ///
    /// What is mounted is then accessed as this user.
    #[arg(long, value_name = "UID:GID", help_heading = "Containment")]
    #[serde(deserialize_with = "word")]
    pub user: Option<User>,

    /// Take this directory for the root directory, once everything is open (root only)
    ///
    /// Without it, root gets an empty root directory.
    #[arg(long, value_name = "DIR", help_heading = "Containment", value_hint = ValueHint::DirPath)]
    pub chroot: Option<PathBuf>,
}

impl Containment {
    /// These settings, and those of `lower` where these say nothing.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            level: self.level.or(lower.level),
            seccomp: self.seccomp.or(lower.seccomp),
            user: self.user.or(lower.user),
            chroot: self.chroot.or(lower.chroot),
        }
    }

    /// Checks what the settings say together.
    ///
    /// # Errors
    ///
    /// If not all can be had that `strict` demands.
    pub fn check(&self) -> Result<(), String> {
        match (self.level, self.seccomp) {
            (Some(SandboxLevel::Strict), Some(Seccomp::Log | Seccomp::Off)) => {
                Err("a strict sandbox has seccomp on; leave out one, or take --sandbox normal".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// How much is asked for.
    #[must_use]
    pub fn level(&self) -> SandboxLevel {
        self.level.unwrap_or_default()
    }

    /// What is asked for, with at most so many open files.
    #[must_use]
    pub fn policy(&self, open_files: Option<u64>) -> SandboxPolicy {
        SandboxPolicy {
            level: self.level(),
            seccomp: self.seccomp,
            user: self.user,
            chroot: self.chroot.clone(),
            open_files,
            ..SandboxPolicy::default()
        }
    }
}

fn word<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<Option<T>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_a_file() {
        let file: Containment =
            toml::from_str("level = \"strict\"\nuser = \"1:2\"\nchroot = \"/srv\"").unwrap();
        let line = Containment { level: Some(SandboxLevel::Normal), ..Containment::default() };
        let policy = line.over(file).policy(Some(7));
        let expected = SandboxPolicy {
            level: SandboxLevel::Normal,
            seccomp: None,
            user: Some(User { uid: 1, gid: 2 }),
            chroot: Some("/srv".into()),
            open_files: Some(7),
            ..SandboxPolicy::default()
        };
        assert_eq!(policy, expected);
    }

    #[test]
    fn strict_needs_filters() {
        let containment =
            |level, seccomp| Containment { level: Some(level), seccomp, ..Containment::default() }.check();
        assert!(containment(SandboxLevel::Strict, Some(Seccomp::Log)).is_err());
        assert!(containment(SandboxLevel::Strict, Some(Seccomp::On)).is_ok());
        assert!(containment(SandboxLevel::Normal, Some(Seccomp::Off)).is_ok());
    }
}
