//! Options of what the guest gets and of what becomes of its output.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};
use merge::Merge;
use nerite_gdb::Address;
use nerite_machine::config::{GuestConfig, OnCrash, OnReboot, Output, OutputLimits};
use serde::{Deserialize, Deserializer};

use super::value::{self, Rate};

/// Options of the guest's arguments, environment and output; the table `[guest]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Guest")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct GuestOptions {
    /// Set an environment variable of the application; `host` passes all of vmm's own (repeatable)
    ///
    /// A variable that is set wins over the host's of the same name, and the last of several wins.
    #[arg(short, long, alias = "env-vars", value_name = "NAME=VALUE|host")]
    #[arg(action = clap::ArgAction::Append)]
    #[serde(alias = "env_vars", deserialize_with = "value::list")]
    #[merge(strategy = merge::vec::prepend)]
    pub env: Vec<EnvSetting>,

    /// Pass an argument to the kernel (repeatable), such as -k -ip -k 10.0.5.3
    #[arg(
        id = "kernel_arg",
        short,
        long = "kernel-arg",
        value_name = "ARG",
        allow_hyphen_values = true
    )]
    #[arg(action = clap::ArgAction::Append)]
    #[serde(deserialize_with = "words")]
    #[merge(strategy = merge::vec::overwrite_empty)]
    pub kernel_args: Vec<String>,

    /// The application's arguments: the words after the image.
    #[arg(skip)]
    #[serde(deserialize_with = "words")]
    #[merge(strategy = merge::vec::overwrite_empty)]
    pub args: Vec<String>,

    /// Write the guest's output to this file; `none` discards it, `-` is standard output [default:
    /// -]
    #[arg(short, long, value_name = "FILE|none|-", value_hint = ValueHint::FilePath)]
    #[arg(value_parser = OsStringValueParser::new().try_map(OutputSetting::try_from))]
    #[serde(deserialize_with = "output")]
    pub output: Option<OutputSetting>,

    /// Limit of what the guest writes to its output in a second, such as 1M [default: no limit]
    ///
    /// A guest that writes more is slowed down.
    #[arg(long, value_name = "SIZE")]
    #[serde(deserialize_with = "value::parsed")]
    pub max_output_rate: Option<Rate>,

    /// Maximum number of log lines about hypercalls that the guest gets wrong [default: 64]
    #[arg(long, value_name = "N")]
    pub max_log_lines: Option<u32>,

    /// Action when the guest crashes: `report`, `dump[:FILE]` or `gdb[:ADDRESS]` [default: report]
    ///
    /// `report` ends it with exit code 244 and a report on standard error. `dump` also writes an
    /// ELF core for `gdb IMAGE FILE`; without FILE that is IMAGE.core in the current directory. The
    /// file is made at the start. `gdb` keeps the guest until GDB has come to look at it; its
    /// addresses are those of --gdb.
    #[arg(long, value_name = "ACTION")]
    #[serde(deserialize_with = "value::parsed")]
    pub on_crash: Option<CrashAction>,

    /// Action when a guest that is not Hermit reboots: `exit` or `restart` [default: exit]
    ///
    /// `exit` ends vmm with exit code 246 or 247. `restart` starts the guest again as the first
    /// time, with the same kernel, which takes memory of the size of what is loaded; a triple fault
    /// is a reboot then, unless --on-crash asks for more than a report.
    #[arg(long, value_name = "exit|restart", value_parser = parse_on_reboot)]
    #[serde(deserialize_with = "on_reboot")]
    pub on_reboot: Option<OnReboot>,
}

impl GuestOptions {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.kernel_args.iter().any(|word| word == "--") {
            return Err(
                "`--` cannot be an argument of the kernel: it ends them; write the application's arguments \
                 after the image"
                    .to_owned(),
            );
        }
        Ok(())
    }

    pub(super) fn on_crash(&self, image: &Path) -> OnCrash {
        match &self.on_crash {
            None | Some(CrashAction::Report) => OnCrash::Report,
            Some(CrashAction::Dump(Some(path))) => OnCrash::Dump(path.clone()),
            Some(CrashAction::Dump(None)) => OnCrash::Dump(super::default_core(image)),
            Some(CrashAction::Gdb(_)) => OnCrash::Hold,
        }
    }

    pub(super) fn output(&mut self) -> (Output, OutputLimits) {
        let limits = OutputLimits {
            bytes_per_second: self.max_output_rate.map(|rate| rate.0),
            log_lines: self.max_log_lines.unwrap_or(OutputLimits::default().log_lines),
        };
        (self.output.take().map(|output| output.0).unwrap_or_default(), limits)
    }

    pub(super) fn config(self, env: Vec<(String, String)>) -> GuestConfig {
        GuestConfig { kernel_args: self.kernel_args, app_args: self.args, env }
    }
}

fn parse_on_reboot(text: &str) -> Result<OnReboot, &'static str> {
    match text {
        "exit" => Ok(OnReboot::Exit),
        "restart" => Ok(OnReboot::Restart),
        _ => Err("write `exit` or `restart`"),
    }
}

fn on_reboot<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OnReboot>, D::Error> {
    value::parsed_by(deserializer, parse_on_reboot)
}

fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    value::list_by(deserializer, |text| Ok::<_, Infallible>(text.to_owned()))
}

pub(super) fn output<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<OutputSetting>, D::Error> {
    value::parsed_by(deserializer, |text| OutputSetting::try_from(OsString::from(text)))
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

/// The text is not an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A variable without a value.
    #[error(
        "`{0}` has no `=`; write NAME=VALUE to set a variable, or `host` to pass all of vmm's own"
    )]
    Value(String),
    /// A variable without a name.
    #[error("`{0}` has no name before the `=`; write NAME=VALUE")]
    Name(String),
}

impl EnvSetting {
    /// The variable `name` with this value.
    #[must_use]
    pub fn set(name: &str, value: &str) -> Self {
        Self::Set { name: name.to_owned(), value: value.to_owned() }
    }
}

impl FromStr for EnvSetting {
    type Err = EnvError;

    fn from_str(text: &str) -> Result<Self, EnvError> {
        match text.split_once('=') {
            None if text == "host" => Ok(Self::Host),
            None => Err(EnvError::Value(text.to_owned())),
            Some(("", _)) => Err(EnvError::Name(text.to_owned())),
            Some((name, value)) => Ok(Self::set(name, value)),
        }
    }
}

/// Destination of the guest's output: `none`, `-` or a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSetting(pub Output);

/// The path of the output is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of the output file is empty; write a path, `none` or `-`")]
pub struct OutputError;

impl TryFrom<OsString> for OutputSetting {
    type Error = OutputError;

    fn try_from(text: OsString) -> Result<Self, OutputError> {
        Ok(Self(match text.to_str() {
            Some("") => return Err(OutputError),
            Some("-") => Output::Stdout,
            Some("none" | "None") => Output::None,
            _ => Output::File(PathBuf::from(text)),
        }))
    }
}

/// Action at a crash of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrashAction {
    /// End and report.
    Report,
    /// End and report, with memory and registers in a file.
    Dump(Option<PathBuf>),
    /// Keep the guest for GDB, which can connect at this address.
    Gdb(Address),
}

/// The text is not an action at a crash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write `report`, `dump`, `dump:FILE`, `gdb` or `gdb:ADDRESS`")]
pub struct CrashActionError;

impl FromStr for CrashAction {
    type Err = CrashActionError;

    fn from_str(text: &str) -> Result<Self, CrashActionError> {
        match text.split_once(':') {
            None if text == "report" => Ok(Self::Report),
            None if text == "dump" => Ok(Self::Dump(None)),
            None if text == "gdb" => Ok(Self::Gdb(Address::default())),
            Some(("dump", path)) if !path.is_empty() => Ok(Self::Dump(Some(path.into()))),
            Some(("gdb", address)) => address.parse().map(Self::Gdb).map_err(|_| CrashActionError),
            _ => Err(CrashActionError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_split_at_the_first_equals_sign() {
        assert_eq!("A=b=c".parse(), Ok(EnvSetting::set("A", "b=c")));
        assert_eq!("A=".parse(), Ok(EnvSetting::set("A", "")));
        assert_eq!("host=1".parse(), Ok(EnvSetting::set("host", "1")));
        assert_eq!("host".parse(), Ok(EnvSetting::Host));
        assert_eq!("A".parse::<EnvSetting>(), Err(EnvError::Value("A".to_owned())));
        assert_eq!("=b".parse::<EnvSetting>(), Err(EnvError::Name("=b".to_owned())));
    }

    #[test]
    fn output_is_none_standard_output_or_a_path() {
        let output =
            |text: &str| OutputSetting::try_from(OsString::from(text)).map(|setting| setting.0);
        assert_eq!(output("none"), Ok(Output::None));
        assert_eq!(output("-"), Ok(Output::Stdout));
        assert_eq!(output("./none"), Ok(Output::File("./none".into())));
        assert_eq!(output(""), Err(OutputError));
    }

    #[test]
    fn a_reboot_ends_or_restarts_the_guest() {
        assert_eq!(parse_on_reboot("exit"), Ok(OnReboot::Exit));
        assert_eq!(parse_on_reboot("restart"), Ok(OnReboot::Restart));
        assert!(parse_on_reboot("reset").unwrap_err().contains("`exit` or `restart`"));
        let file: GuestOptions = toml::from_str("on_reboot = 'restart'").unwrap();
        assert_eq!(file.on_reboot, Some(OnReboot::Restart));
    }

    #[test]
    fn a_crash_is_reported_dumped_or_kept() {
        assert_eq!("report".parse(), Ok(CrashAction::Report));
        assert_eq!("dump:a:b".parse(), Ok(CrashAction::Dump(Some("a:b".into()))));
        assert_eq!("gdb".parse(), Ok(CrashAction::Gdb(Address::default())));
        assert_eq!("gdb:unix:x".parse(), Ok(CrashAction::Gdb(Address::Unix("x".into()))));
        for bad in ["", "dump:", "core", "report:x", "gdb:x:y"] {
            assert_eq!(bad.parse::<CrashAction>(), Err(CrashActionError), "{bad}");
        }
        let options =
            GuestOptions { on_crash: Some(CrashAction::Dump(None)), ..GuestOptions::default() };
        assert_eq!(options.on_crash(Path::new("/a/hello")), OnCrash::Dump("hello.core".into()));
    }
}
