//! Settings of how a guest is started: one module for command line, configuration file and layers.

use std::num::IntErrorKind;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use nerite_machine::config::{BootConfig, Protocol};
use serde::{Deserialize, Deserializer, de};

/// The options about it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct BootArgs {
    /// Start the image as this kind of kernel: hermit, linux, pvh or multiboot [default: what the image is recognised as]
    #[arg(long, value_name = "KIND", help_heading = "Boot")]
    pub boot: Option<Protocol>,

    /// The initial file system of a Linux or PVH kernel, or a module of a multiboot kernel (then repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Boot", value_hint = ValueHint::FilePath)]
    #[arg(action = clap::ArgAction::Append)]
    pub initrd: Vec<PathBuf>,

    /// The command line of a Linux, PVH or multiboot kernel [default: console=ttyS0]
    ///
    /// Words after the image are appended. A multiboot kernel's begins with the image's path.
    #[arg(long, value_name = "TEXT", help_heading = "Boot", allow_hyphen_values = true)]
    pub cmdline: Option<String>,

    /// The port by which the guest ends vmm: a write of N ends it with the code 2N+1 [default: 0xf4 with multiboot]
    #[arg(long, value_name = "PORT", help_heading = "Boot", value_parser = parse_port)]
    pub debug_exit: Option<u16>,
}

/// The table `[boot]` of a configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BootTable {
    #[serde(deserialize_with = "protocol")]
    protocol: Option<Protocol>,
    initrd: Vec<PathBuf>,
    #[serde(deserialize_with = "text")]
    cmdline: Option<String>,
    debug_exit: Option<u16>,
}

impl From<BootTable> for BootArgs {
    fn from(table: BootTable) -> Self {
        let BootTable { protocol: boot, initrd, cmdline, debug_exit } = table;
        Self { boot, initrd, cmdline, debug_exit }
    }
}

impl BootArgs {
    /// These settings, and those of `lower` where these say nothing.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            boot: self.boot.or(lower.boot),
            initrd: if self.initrd.is_empty() { lower.initrd } else { self.initrd },
            cmdline: self.cmdline.or(lower.cmdline),
            debug_exit: self.debug_exit.or(lower.debug_exit),
        }
    }

    /// What the machine is told.
    #[must_use]
    pub fn config(self) -> BootConfig {
        BootConfig {
            protocol: self.boot,
            initrd: self.initrd,
            command_line: self.cmdline,
            debug_exit: self.debug_exit,
        }
    }
}

/// Reads a port number, decimal or with `0x`.
fn parse_port(text: &str) -> Result<u16, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow => format!("`{text}` is beyond the last port, 0xffff"),
        _ => format!("`{text}` is not a port; write a number such as 0xf4"),
    })
}

fn protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Protocol>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

/// A text without zero bytes, which would end it early.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.contains('\0') {
        return Err(de::Error::custom(format_args!("{text:?} contains a zero byte")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_decimal_or_hexadecimal() {
        assert_eq!(parse_port("0xf4"), Ok(0xf4));
        assert_eq!(parse_port("1281"), Ok(0x501));
        for (bad, reason) in
            [("", "not a port"), ("f4", "not a port"), ("0x10000", "beyond"), ("-1", "not a port")]
        {
            assert!(parse_port(bad).unwrap_err().contains(reason), "{bad}");
        }
    }

    #[test]
    fn a_higher_layer_wins() {
        let high = BootArgs { cmdline: Some(String::new()), ..BootArgs::default() };
        let low = BootArgs {
            boot: Some(Protocol::Pvh),
            initrd: vec!["low".into()],
            cmdline: Some("quiet".to_owned()),
            debug_exit: Some(1),
        };
        let both = high.over(low).config();
        assert_eq!((both.protocol, both.debug_exit), (Some(Protocol::Pvh), Some(1)));
        assert_eq!((both.initrd, both.command_line), (vec!["low".into()], Some(String::new())));
    }

    #[test]
    fn a_file_names_what_is_wrong() {
        let table: BootTable =
            toml::from_str("protocol = 'linux'\ninitrd = ['a']\ncmdline = 'x y'\ndebug_exit = 0x501")
                .unwrap();
        let args = BootArgs::from(table);
        assert_eq!((args.boot, args.debug_exit), (Some(Protocol::Linux), Some(0x501)));
        let error = |text: &str| toml::from_str::<BootTable>(text).unwrap_err().to_string();
        assert!(error("protocol = 'dos'").contains("hermit, linux, pvh and multiboot"));
        assert!(error("cmdline = \"a\\u0000b\"").contains("zero byte"));
    }
}
