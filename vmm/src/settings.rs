//! What can be set, as one layer of many: the command line, the environment or a configuration file.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;

use nerite_machine::config::{Access, CardSpec, MAX_CPUS, Mount, Output};

use crate::affinity::Affinity;
use crate::boot::BootArgs;
use crate::cli::SettingsArgs;
use crate::containment::Containment;
use crate::devices::DeviceArgs;
use crate::size::{MemorySize, SizeError, parse_bytes};

/// One layer of settings. What is `None` or empty is left to the layer below.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// How the guest is started.
    pub boot: BootArgs,
    /// Guest memory.
    pub memory: Option<MemorySize>,
    /// Whether to place the guest at a random address.
    pub aslr: Option<bool>,
    /// Transparent huge pages.
    pub thp: Option<bool>,
    /// Kernel same-page merging.
    pub ksm: Option<bool>,
    /// Reserved huge pages.
    pub hugepages: Option<bool>,
    /// Number of vCPUs.
    pub cpus: Option<CpuCount>,
    /// The host CPU of each vCPU.
    pub affinity: Option<Affinity>,
    /// Let the guest manage CPU power states.
    pub cpu_pm: Option<bool>,
    /// An interval timer.
    pub pit: Option<bool>,
    /// Environment variables, in order. All layers count, a higher one's last.
    pub env: Vec<EnvSetting>,
    /// The kernel's arguments.
    pub kernel_args: Vec<String>,
    /// The application's arguments.
    pub app_args: Vec<String>,
    /// Where output goes.
    pub output: Option<OutputSetting>,
    /// What the guest sees of the host's files. All layers count; of two with the same guest path a higher one's.
    pub mounts: Vec<Mount>,
    /// How many files the guest may have open.
    pub max_open_files: Option<FileCount>,
    /// How many bytes the guest may write to files.
    pub max_written: Option<u64>,
    /// How many bytes the guest may have in temporary files.
    pub max_temporary: Option<u64>,
    /// Network cards.
    pub network: Vec<CardSpec>,
    /// Disks and other devices.
    pub devices: DeviceArgs,
    /// How many bytes of output the guest may write in a second.
    pub max_output_rate: Option<NonZeroU64>,
    /// How many lines of the log may be about what the guest does wrong.
    pub max_log_lines: Option<u32>,
    /// How `vmm` confines itself.
    pub containment: Containment,
}

impl Settings {
    /// These settings, and those of `lower` where these say nothing.
    #[must_use]
    pub fn over(self, lower: Settings) -> Settings {
        let list = |high: Vec<String>, low: Vec<String>| if high.is_empty() { low } else { high };
        let mut env = lower.env;
        env.extend(self.env);
        let mut mounts = lower.mounts;
        mounts.retain(|low| self.mounts.iter().all(|high| high.guest != low.guest));
        mounts.extend(self.mounts);
        Settings {
            boot: self.boot.over(lower.boot),
            memory: self.memory.or(lower.memory),
            aslr: self.aslr.or(lower.aslr),
            thp: self.thp.or(lower.thp),
            ksm: self.ksm.or(lower.ksm),
            hugepages: self.hugepages.or(lower.hugepages),
            cpus: self.cpus.or(lower.cpus),
            affinity: self.affinity.or(lower.affinity),
            cpu_pm: self.cpu_pm.or(lower.cpu_pm),
            pit: self.pit.or(lower.pit),
            env,
            kernel_args: list(self.kernel_args, lower.kernel_args),
            app_args: list(self.app_args, lower.app_args),
            output: self.output.or(lower.output),
            mounts,
            max_open_files: self.max_open_files.or(lower.max_open_files),
            max_written: self.max_written.or(lower.max_written),
            max_temporary: self.max_temporary.or(lower.max_temporary),
            network: if self.network.is_empty() { lower.network } else { self.network },
            devices: self.devices.over(lower.devices),
            max_output_rate: self.max_output_rate.or(lower.max_output_rate),
            max_log_lines: self.max_log_lines.or(lower.max_log_lines),
            containment: self.containment.over(lower.containment),
        }
    }
}

impl From<SettingsArgs> for Settings {
    fn from(args: SettingsArgs) -> Self {
        Self {
            boot: args.boot,
            memory: args.memory,
            aslr: args.no_aslr.map(|no_aslr| !no_aslr),
            thp: args.thp,
            ksm: args.ksm,
            hugepages: args.hugepages,
            cpus: args.cpus,
            affinity: args.affinity,
            cpu_pm: args.cpu_pm,
            pit: args.pit,
            env: args.env,
            kernel_args: args.kernel_arg,
            app_args: Vec::new(),
            output: args.output,
            mounts: args.mount.into_iter().chain(args.file_mapping).collect(),
            max_open_files: args.max_open_files,
            max_written: args.max_written,
            max_temporary: args.max_temporary,
            network: args.net,
            devices: args.devices,
            max_output_rate: args.max_output_rate,
            max_log_lines: args.max_log_lines,
            containment: args.containment,
        }
    }
}

/// Why a text is not the value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// Not a number of vCPUs.
    #[error("`{0}` is not a number of vCPUs; a guest has 1 to {MAX_CPUS}")]
    Cpus(String),
    /// An environment variable without a value.
    #[error("`{0}` has no `=`; write NAME=VALUE to set a variable, or `host` to pass all of vmm's own")]
    EnvValue(String),
    /// An environment variable without a name.
    #[error("`{0}` has no name before the `=`; write NAME=VALUE")]
    EnvName(String),
    /// Not a number of files.
    #[error("`{0}` is not a number of open files; allow 1 to {MAX_FILES}")]
    Files(String),
    /// A rate that is no size, with why.
    #[error(transparent)]
    Rate(#[from] SizeError),
    /// A rate of nothing.
    #[error("a guest must be allowed at least one byte of output in a second")]
    NoRate,
    /// The path of the output is empty.
    #[error("the name of the output file is empty; write a path, `none` or `-`")]
    Output,
}

/// A number of vCPUs, 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuCount(u32);

impl CpuCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for CpuCount {
    type Error = SettingError;

    fn try_from(count: i64) -> Result<Self, SettingError> {
        match u32::try_from(count) {
            Ok(count @ 1..=MAX_CPUS) => Ok(Self(count)),
            _ => Err(SettingError::Cpus(count.to_string())),
        }
    }
}

impl FromStr for CpuCount {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let count: i64 = text.trim().parse().map_err(|_| SettingError::Cpus(text.to_owned()))?;
        Self::try_from(count)
    }
}

/// The most files that a guest can be allowed to have open. Each takes a descriptor of this process.
const MAX_FILES: u32 = 1 << 20;

/// A number of open files, 1 to 1 048 576.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileCount(u32);

impl FileCount {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl TryFrom<i64> for FileCount {
    type Error = SettingError;

    fn try_from(count: i64) -> Result<Self, SettingError> {
        match u32::try_from(count) {
            Ok(count @ 1..=MAX_FILES) => Ok(Self(count)),
            _ => Err(SettingError::Files(count.to_string())),
        }
    }
}

impl FromStr for FileCount {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let count: i64 = text.trim().parse().map_err(|_| SettingError::Files(text.to_owned()))?;
        Self::try_from(count)
    }
}

/// Reads a number of bytes a second, which must not be 0.
///
/// # Errors
///
/// If it is not a size, or 0.
pub fn parse_rate(text: &str) -> Result<NonZeroU64, SettingError> {
    NonZeroU64::new(parse_bytes(text)?).ok_or(SettingError::NoRate)
}

/// Reads a mount that is read-only unless it says otherwise.
///
/// # Errors
///
/// If it is not of the form `HOST:GUEST[:ro|rw]`.
pub fn read_only_mount(text: &str) -> Result<Mount, nerite_machine::config::MountError> {
    Mount::parse(text, Access::ReadOnly)
}

/// Reads a mount as the peer understands it: one that can be written.
///
/// # Errors
///
/// If it is not of the form `HOST:GUEST`.
pub fn file_mapping(text: &str) -> Result<Mount, nerite_machine::config::MountError> {
    // There a guest path may be relative, and starts at the root.
    Mount::parse(text, Access::ReadWrite).or_else(|error| match text.rsplit_once(':') {
        Some((host, guest)) if !guest.is_empty() && !guest.starts_with('/') => {
            Mount::parse(&format!("{host}:/{guest}"), Access::ReadWrite)
        }
        _ => Err(error),
    })
}

/// One word of `--env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvSetting {
    /// All variables of the host.
    Host,
    /// One variable.
    Set {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

impl EnvSetting {
    /// The variable `name` with this value.
    #[must_use]
    pub fn set(name: &str, value: &str) -> Self {
        Self::Set { name: name.to_owned(), value: value.to_owned() }
    }
}

impl FromStr for EnvSetting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        match text.split_once('=') {
            None if text == "host" => Ok(Self::Host),
            None => Err(SettingError::EnvValue(text.to_owned())),
            Some(("", _)) => Err(SettingError::EnvName(text.to_owned())),
            Some((name, value)) => Ok(Self::set(name, value)),
        }
    }
}

/// Where the guest's output goes: `none`, `-` or a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSetting(pub Output);

impl TryFrom<OsString> for OutputSetting {
    type Error = SettingError;

    fn try_from(text: OsString) -> Result<Self, SettingError> {
        Ok(Self(match text.to_str() {
            Some("") => return Err(SettingError::Output),
            Some("-") => Output::Stdout,
            Some("none" | "None") => Output::None,
            _ => Output::File(PathBuf::from(text)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_layer_wins_key_by_key() {
        let high = Settings {
            thp: Some(false),
            env: vec![EnvSetting::set("A", "high")],
            app_args: vec!["high".to_owned()],
            ..Settings::default()
        };
        let low = Settings {
            thp: Some(true),
            ksm: Some(true),
            env: vec![EnvSetting::Host, EnvSetting::set("A", "low")],
            kernel_args: vec!["-low".to_owned()],
            app_args: vec!["low".to_owned(), "low".to_owned()],
            ..Settings::default()
        };
        let both = high.over(low);
        assert_eq!(both.thp, Some(false));
        assert_eq!(both.ksm, Some(true));
        assert_eq!(both.env, [EnvSetting::Host, EnvSetting::set("A", "low"), EnvSetting::set("A", "high")]);
        assert_eq!(both.kernel_args, ["-low"]);
        assert_eq!(both.app_args, ["high"]);
    }

    #[test]
    fn mounts_of_all_layers_count() {
        let layer = |mounts: &[&str]| Settings {
            mounts: mounts.iter().map(|text| read_only_mount(text).unwrap()).collect(),
            ..Settings::default()
        };
        let both = layer(&["high:/a", "high:/b"]).over(layer(&["low:/a:rw", "low:/c"]));
        let all: Vec<_> =
            both.mounts.iter().map(|mount| (mount.host.to_str().unwrap(), mount.guest.as_str())).collect();
        assert_eq!(all, [("low", "/c"), ("high", "/a"), ("high", "/b")]);
    }

    #[test]
    fn the_peers_mappings_may_be_relative() {
        let guest = |text: &str| file_mapping(text).map(|mount| (mount.guest, mount.access)).ok();
        assert_eq!(guest("a:b/c"), Some(("/b/c".to_owned(), Access::ReadWrite)));
        assert_eq!(guest("a:/b"), Some(("/b".to_owned(), Access::ReadWrite)));
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

    #[test]
    fn variables_split_at_the_first_equals_sign() {
        assert_eq!("A=b=c".parse(), Ok(EnvSetting::set("A", "b=c")));
        assert_eq!("A=".parse(), Ok(EnvSetting::set("A", "")));
        assert_eq!("host=1".parse(), Ok(EnvSetting::set("host", "1")));
        assert_eq!("host".parse(), Ok(EnvSetting::Host));
        assert_eq!("A".parse::<EnvSetting>(), Err(SettingError::EnvValue("A".to_owned())));
        assert_eq!("=b".parse::<EnvSetting>(), Err(SettingError::EnvName("=b".to_owned())));
    }

    #[test]
    fn output_is_none_standard_output_or_a_path() {
        let output = |text: &str| OutputSetting::try_from(OsString::from(text)).map(|setting| setting.0);
        assert_eq!(output("none"), Ok(Output::None));
        assert_eq!(output("-"), Ok(Output::Stdout));
        assert_eq!(output("./none"), Ok(Output::File("./none".into())));
        assert_eq!(output(""), Err(SettingError::Output));
    }

    #[test]
    fn a_guest_has_one_to_sixteen_vcpus() {
        assert_eq!("1".parse().map(CpuCount::get), Ok(1));
        assert_eq!("16".parse().map(CpuCount::get), Ok(16));
        for bad in ["0", "17", "-1", "x", "", "1.5", "99999999999"] {
            assert!(bad.parse::<CpuCount>().is_err(), "{bad}");
        }
    }
}
