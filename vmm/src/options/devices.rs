//! Options of disks and other devices.

use clap::Args;
use merge::Merge;
use nerite_machine::config::{ConsoleKind, DeviceConfig, DiskSpec, VsockSpec};
use serde::{Deserialize, Deserializer};

use super::value;

/// Options of devices; the table `[devices]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args, Deserialize, Merge)]
#[command(next_help_heading = "Devices")]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct DeviceOptions {
    /// Give a guest that is not Hermit a disk (repeatable): a raw file or block device, such as
    /// disk.img or disk.img,ro
    ///
    /// `ro` is for reading only; `serial=TEXT` is the serial number that the guest sees, by default
    /// the file's name. The guest reads and writes the file itself: byte for byte, up to its last
    /// whole sector of 512 bytes. It is locked meanwhile. Flushes of the guest go through to the
    /// file's own storage.
    #[arg(id = "disk", long = "disk", value_name = "PATH[,ro][,serial=TEXT]")]
    #[arg(action = clap::ArgAction::Append)]
    #[serde(deserialize_with = "value::list")]
    #[merge(strategy = merge::vec::overwrite_empty)]
    pub disks: Vec<DiskSpec>,

    /// Give the guest random numbers of the host's kernel (virtio-rng)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub rng: Option<bool>,

    /// Give the guest a balloon, by which `vmm ctl SOCKET balloon SIZE` takes memory of it for the
    /// host
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", hide_possible_values = true)]
    pub balloon: Option<bool>,

    /// Connect sockets of the guest (AF_VSOCK) with Unix sockets of the host, such as
    /// cid=3,socket=/run/guest/v.sock
    ///
    /// `cid` is the guest's context identifier. A client connects to `socket`, sends `CONNECT PORT`
    /// and a line feed, and reads `OK` and a number when the guest has accepted. A guest that
    /// connects to CID 2 and port P gets to the socket that is called the same with `_P` at its
    /// end. Stream sockets only.
    #[arg(long, value_name = "cid=N,socket=PATH")]
    #[serde(deserialize_with = "value::parsed")]
    pub vsock: Option<VsockSpec>,

    /// Console that takes the guest's input: `serial`, the serial port or a Hermit guest's
    /// hypercalls, or `virtio`, a virtio console (hvc0) [default: serial]
    ///
    /// Output comes from both. Without a command line, a Linux kernel gets one that names this
    /// console.
    #[arg(long, value_name = "KIND", value_parser = parse_console)]
    #[serde(deserialize_with = "console")]
    pub console: Option<ConsoleKind>,
}

impl DeviceOptions {
    pub(super) fn config(self) -> DeviceConfig {
        DeviceConfig {
            disks: self.disks,
            random: self.rng.unwrap_or_default(),
            balloon: self.balloon.unwrap_or_default(),
            vsock: self.vsock,
            console: self.console.unwrap_or_default(),
        }
    }
}

fn parse_console(text: &str) -> Result<ConsoleKind, String> {
    match text {
        "serial" => Ok(ConsoleKind::Serial),
        "virtio" => Ok(ConsoleKind::Virtio),
        _ => Err(format!("unknown console kind `{text}` (expected `serial` or `virtio`)")),
    }
}

fn console<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ConsoleKind>, D::Error> {
    value::parsed_by(deserializer, parse_console)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_layer_wins() {
        let low = DeviceOptions {
            disks: vec!["low".parse().unwrap()],
            rng: Some(true),
            balloon: Some(true),
            vsock: Some("cid=3,socket=low".parse().unwrap()),
            console: Some(ConsoleKind::Virtio),
        };
        let over = |mut high: DeviceOptions| {
            high.merge(low.clone());
            high
        };
        let high = DeviceOptions {
            disks: vec!["high,ro".parse().unwrap()],
            rng: Some(false),
            balloon: None,
            vsock: Some("cid=4,socket=high".parse().unwrap()),
            console: None,
        };
        let both = over(high).config();
        assert_eq!(both.disks, ["high,ro".parse().unwrap()]);
        assert_eq!((both.random, both.balloon), (false, true));
        assert_eq!(both.console, ConsoleKind::Virtio);
        assert_eq!(both.vsock, Some("cid=4,socket=high".parse().unwrap()));
        assert_eq!(over(DeviceOptions::default()), low);
        assert_eq!(DeviceOptions::default().config(), DeviceConfig::default());
    }

    #[test]
    fn a_file_names_the_fault() {
        let options: DeviceOptions =
            toml::from_str("disks = ['a.img', 'b.img,ro']\nrng = true\nconsole = 'virtio'")
                .unwrap();
        let config = options.config();
        assert_eq!((config.disks.len(), config.disks[1].read_only, config.random), (2, true, true));
        let error = |text: &str| toml::from_str::<DeviceOptions>(text).unwrap_err().to_string();
        assert!(error("console = 'vga'").contains("`serial` or `virtio`"));
        assert!(error("vsock = 'cid=2,socket=v'").contains("`2` is no context identifier"));
        assert!(error("disks = ['a,b']").contains("`b` is no option of a disk"));
        assert!(error("disk = 'a'").contains("unknown field"));
    }
}
