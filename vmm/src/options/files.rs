//! Options of the host's files that a guest sees.

use std::str::FromStr;

use clap::Args;
use merge::Merge;
use nerite_machine::config::{Access, FileLimits, Mount, MountError};
use serde::{Deserialize, Deserializer};

use super::value::{self, Bytes};

/// Options of files; the table `[files]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Files")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct FileOptions {
    /// Let the guest see a file or directory of the host (repeatable), such as ./site:/www:ro
    ///
    /// `ro` is for reading only and the default, `rw` for changing it, too. The guest path is
    /// absolute. Nothing else of the host is visible; what a guest creates elsewhere is gone when
    /// it ends. Links are followed only inside of the directory.
    #[arg(id = "mount", long = "mount", value_name = "HOST:GUEST[:ro|rw]")]
    #[arg(action = clap::ArgAction::Append, value_parser = read_only_mount)]
    #[serde(deserialize_with = "mounts")]
    #[merge(strategy = below)]
    pub mounts: Vec<Mount>,

    /// The same as --mount HOST:GUEST:rw, as uhyve spells it; a file need not exist (repeatable)
    ///
    /// The guest may remove a file that is mapped, and create one that does not exist; vmm keeps
    /// the right to change the files of its folder then.
    #[arg(long, value_name = "HOST:GUEST")]
    #[arg(action = clap::ArgAction::Append, value_parser = file_mapping)]
    #[serde(skip)]
    #[merge(skip)]
    pub(super) file_mapping: Vec<Mount>,

    /// Maximum number of files that the guest has open at a time [default: 1024]
    #[arg(long, value_name = "N")]
    #[serde(deserialize_with = "value::parsed")]
    pub max_open_files: Option<FileCount>,

    /// Limit of all that the guest writes to files, such as 10G [default: no limit]
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "value::parsed")]
    pub max_written: Option<Bytes>,

    /// Maximum size of the guest's temporary files together [default: 256M]
    ///
    /// They are what it creates where nothing is mounted, in memory and without names on the host,
    /// at most 1024 of them. 0 allows only empty ones.
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "value::parsed")]
    pub max_temporary: Option<Bytes>,
}

impl FileOptions {
    pub(super) fn normalize(&mut self) {
        self.mounts.append(&mut self.file_mapping);
    }

    pub(super) fn limits(&self) -> FileLimits {
        let default = FileLimits::default();
        FileLimits {
            open_files: self.max_open_files.map_or(default.open_files, FileCount::get),
            bytes_written: self.max_written.map_or(default.bytes_written, |bytes| bytes.0),
            temporary_bytes: self.max_temporary.map_or(default.temporary_bytes, |bytes| bytes.0),
            ..default
        }
    }
}

/// Puts `low` before `high`, without those whose guest path `high` has, too.
fn below(high: &mut Vec<Mount>, mut low: Vec<Mount>) {
    low.retain(|low| high.iter().all(|high| high.guest != low.guest));
    high.splice(0..0, low);
}

/// Reads a mount that is read-only unless it says otherwise.
fn read_only_mount(text: &str) -> Result<Mount, MountError> {
    Mount::parse(text, Access::ReadOnly)
}

fn mounts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mount>, D::Error> {
    value::list_by(deserializer, read_only_mount)
}

/// Reads a mount as the peer understands it: writable, the name of a file too, and with a guest
/// path that may be relative to the root.
fn file_mapping(text: &str) -> Result<Mount, MountError> {
    Mount::parse(text, Access::ReadWriteName).or_else(|error| match text.rsplit_once(':') {
        Some((host, guest)) if !guest.is_empty() && !guest.starts_with('/') => {
            Mount::parse(&format!("{host}:/{guest}"), Access::ReadWriteName)
        }
        _ => Err(error),
    })
}

pub(super) fn file_mappings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Mount>, D::Error> {
    value::list_by(deserializer, file_mapping)
}

/// Maximum number of open files that a guest can be allowed. Each takes a descriptor of `vmm`.
const MAX_FILES: u32 = 1 << 20;

/// A number of open files, 1 to 1 048 576.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCount(u32);

/// The text is not a number of open files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of open files; allow 1 to {MAX_FILES}")]
pub struct FileCountError(String);

impl FileCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for FileCount {
    type Err = FileCountError;

    fn from_str(text: &str) -> Result<Self, FileCountError> {
        match text.trim().parse() {
            Ok(count @ 1..=MAX_FILES) => Ok(Self(count)),
            _ => Err(FileCountError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_all_layers_count() {
        let layer = |mounts: &[&str]| FileOptions {
            mounts: mounts.iter().map(|text| read_only_mount(text).unwrap()).collect(),
            ..FileOptions::default()
        };
        let mut both = layer(&["high:/a", "high:/b"]);
        both.merge(layer(&["low:/a:rw", "low:/c"]));
        let all: Vec<_> = both
            .mounts
            .iter()
            .map(|mount| (mount.host.to_str().unwrap(), mount.guest.as_str()))
            .collect();
        assert_eq!(all, [("low", "/c"), ("high", "/a"), ("high", "/b")]);
    }

    #[test]
    fn the_peers_mappings_may_be_relative() {
        let guest = |text: &str| file_mapping(text).map(|mount| (mount.guest, mount.access)).ok();
        assert_eq!(guest("a:b/c"), Some(("/b/c".to_owned(), Access::ReadWriteName)));
        assert_eq!(guest("a:/b"), Some(("/b".to_owned(), Access::ReadWriteName)));
        assert_eq!(guest("a:/b:rw"), Some(("/b".to_owned(), Access::ReadWrite)));
        assert_eq!(guest("a:/b:ro"), Some(("/b".to_owned(), Access::ReadOnly)));
        assert_eq!((guest("a"), guest("a:"), guest(":b")), (None, None, None));
    }

    #[test]
    fn a_guest_may_open_at_least_one_file() {
        assert_eq!("1".parse().map(FileCount::get), Ok(1));
        for bad in ["0", "-1", "x", "1048577", ""] {
            assert!(bad.parse::<FileCount>().is_err(), "{bad}");
        }
    }
}
