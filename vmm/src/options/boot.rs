//! Boot options.

use std::num::IntErrorKind;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use merge::Merge;
use nerite_machine::config::{BootConfig, Protocol};
use serde::Deserialize;

use super::value;

/// Options of how a guest is started; the table `[boot]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Boot")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct BootOptions {
    /// Start the image as this kind of kernel: hermit, linux, pvh or multiboot [default: what the
    /// image is recognised as]
    #[arg(id = "boot", long, value_name = "KIND")]
    #[serde(deserialize_with = "value::parsed")]
    pub protocol: Option<Protocol>,

    /// The initial file system of a Linux or PVH kernel, or a module of a multiboot kernel (then
    /// repeatable)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, action = clap::ArgAction::Append)]
    #[merge(strategy = merge::vec::overwrite_empty)]
    pub initrd: Vec<PathBuf>,

    /// The command line of a Linux, PVH or multiboot kernel [default: console=ttyS0]
    ///
    /// Words after the image are appended. A multiboot kernel's begins with the image's path.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(deserialize_with = "value::text")]
    pub cmdline: Option<String>,

    /// The port by which the guest ends vmm: a write of N ends it with the code 2N+1 [default: 0xf4
    /// with multiboot]
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub debug_exit: Option<u16>,
}

impl BootOptions {
    pub(super) fn config(self) -> BootConfig {
        BootConfig {
            protocol: self.protocol,
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
        let mut both = BootOptions { cmdline: Some(String::new()), ..BootOptions::default() };
        both.merge(BootOptions {
            protocol: Some(Protocol::Pvh),
            initrd: vec!["low".into()],
            cmdline: Some("quiet".to_owned()),
            debug_exit: Some(1),
        });
        let both = both.config();
        assert_eq!((both.protocol, both.debug_exit), (Some(Protocol::Pvh), Some(1)));
        assert_eq!((both.initrd, both.command_line), (vec!["low".into()], Some(String::new())));
    }

    #[test]
    fn a_file_names_the_fault() {
        let boot: BootOptions = toml::from_str(
            "protocol = 'linux'\ninitrd = ['a']\ncmdline = 'x y'\ndebug_exit = 0x501",
        )
        .unwrap();
        assert_eq!((boot.protocol, boot.debug_exit), (Some(Protocol::Linux), Some(0x501)));
        let error = |text: &str| toml::from_str::<BootOptions>(text).unwrap_err().to_string();
        assert!(error("protocol = 'dos'").contains("hermit, linux, pvh and multiboot"));
        assert!(error("cmdline = \"a\\u0000b\"").contains("zero byte"));
    }
}
