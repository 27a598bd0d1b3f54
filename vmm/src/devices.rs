//! Settings of disks and of other devices: one module for command line, configuration file and layers.

use std::str::FromStr;

use clap::Args;
use nerite_machine::config::{ConsoleKind, DeviceConfig, DiskSpec};
use serde::{Deserialize, Deserializer, de};

/// The options about them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct DeviceArgs {
    /// Give a guest that is not Hermit a disk (repeatable): a raw file or block device, such as disk.img or disk.img,ro
    ///
    /// `ro` is for reading only; `serial=TEXT` is what the guest is told as the serial number, without it the file's name. The
    /// guest reads and writes the file itself: byte for byte, up to its last whole sector of 512 bytes. It is locked
    /// meanwhile. Flushes of the guest go through to the file's own storage.
    #[arg(long, value_name = "PATH[,ro][,serial=TEXT]", help_heading = "Devices")]
    #[arg(action = clap::ArgAction::Append)]
    pub disk: Vec<DiskSpec>,

    /// Give a guest that is not Hermit random numbers of the host's kernel (virtio-rng)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Devices", hide_possible_values = true)]
    pub rng: Option<bool>,

    /// Where input goes for a guest that is not Hermit: `serial`, the serial port, or `virtio`, a virtio console (hvc0)
    /// [default: serial]
    ///
    /// Output comes from both. Without a command line, a Linux kernel is told to use this console.
    #[arg(long, value_name = "KIND", help_heading = "Devices", value_parser = parse_console)]
    pub console: Option<ConsoleKind>,
}

/// The table `[devices]` of a configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeviceTable {
    #[serde(deserialize_with = "disks")]
    disks: Vec<DiskSpec>,
    rng: Option<bool>,
    #[serde(deserialize_with = "console")]
    console: Option<ConsoleKind>,
}

impl From<DeviceTable> for DeviceArgs {
    fn from(table: DeviceTable) -> Self {
        let DeviceTable { disks: disk, rng, console } = table;
        Self { disk, rng, console }
    }
}

impl DeviceArgs {
    /// These settings, and those of `lower` where these say nothing.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            disk: if self.disk.is_empty() { lower.disk } else { self.disk },
            rng: self.rng.or(lower.rng),
            console: self.console.or(lower.console),
        }
    }

    /// What the machine is told.
    #[must_use]
    pub fn config(self) -> DeviceConfig {
        DeviceConfig {
            disks: self.disk,
            random: self.rng.unwrap_or_default(),
            console: self.console.unwrap_or_default(),
        }
    }
}

fn parse_console(text: &str) -> Result<ConsoleKind, String> {
    match text {
        "serial" => Ok(ConsoleKind::Serial),
        "virtio" => Ok(ConsoleKind::Virtio),
        _ => Err(format!("`{text}` is no console; there are serial and virtio")),
    }
}

fn disks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DiskSpec>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let disk = |text: &String| DiskSpec::from_str(text).map_err(de::Error::custom);
    texts.iter().map(disk).collect()
}

fn console<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ConsoleKind>, D::Error> {
    parse_console(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_layer_wins() {
        let low = DeviceArgs {
            disk: vec!["low".parse().unwrap()],
            rng: Some(true),
            console: Some(ConsoleKind::Virtio),
        };
        let high = DeviceArgs { disk: vec!["high,ro".parse().unwrap()], rng: Some(false), console: None };
        let both = high.over(low.clone()).config();
        assert_eq!(both.disks, ["high,ro".parse().unwrap()]);
        assert_eq!((both.random, both.console), (false, ConsoleKind::Virtio));
        assert_eq!(DeviceArgs::default().over(low.clone()), low);
        assert_eq!(DeviceArgs::default().config(), DeviceConfig::default());
    }

    #[test]
    fn a_file_names_what_is_wrong() {
        let table: DeviceTable =
            toml::from_str("disks = ['a.img', 'b.img,ro']\nrng = true\nconsole = 'virtio'").unwrap();
        let config = DeviceArgs::from(table).config();
        assert_eq!((config.disks.len(), config.disks[1].read_only, config.random), (2, true, true));
        let error = |text: &str| toml::from_str::<DeviceTable>(text).unwrap_err().to_string();
        assert!(error("console = 'vga'").contains("serial and virtio"));
        assert!(error("disks = ['a,b']").contains("`b` is no option of a disk"));
        assert!(error("disk = 'a'").contains("unknown field"));
    }
}
