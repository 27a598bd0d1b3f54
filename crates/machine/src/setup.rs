//! The part of a configuration that a guest relies on.

use nerite_platform::Identity;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::{Access, Config, ConsoleKind, Protocol};

/// Configuration that a saved guest relies on: it is restored with the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Name of the image, which is the guest's first argument.
    pub image: String,
    /// Boot protocol.
    pub protocol: String,
    /// Memory size, as it was asked for.
    pub memory: Option<u64>,
    /// Number of vCPUs, as it was asked for.
    pub vcpus: Option<u32>,
    /// `true` if there is an interval timer that was asked for.
    pub pit: bool,
    /// `true` if the guest manages power states.
    pub power_management: bool,
    /// Arguments of the kernel.
    pub kernel_args: Vec<String>,
    /// Arguments of the application.
    pub app_args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Command line of a kernel that is not Hermit.
    pub command_line: Option<String>,
    /// Port by which such a kernel ends itself.
    pub debug_exit: Option<u16>,
    /// `true` if there is a source of random numbers.
    pub random: bool,
    /// `true` if there is a balloon.
    #[serde(default)]
    pub balloon: bool,
    /// `true` if there is a virtio console.
    pub virtio_console: bool,
    /// Files and directories of the host, which are given anew.
    pub mounts: Vec<SavedMount>,
}

/// A place where the guest sees files of the host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedMount {
    /// The guest's path.
    pub guest: String,
    /// `true` if the guest may change them.
    pub writable: bool,
}

impl SavedMount {
    fn all(config: &Config) -> Vec<Self> {
        let mounts = config.mounts.iter();
        mounts
            .map(|mount| Self {
                guest: mount.guest.clone(),
                writable: mount.access != Access::ReadOnly,
            })
            .collect()
    }
}

impl Setup {
    /// The setup of a guest that boots as `protocol`.
    pub(crate) fn of(config: &Config, protocol: Protocol) -> Self {
        let Config { image, boot, memory, cpus, guest, devices, .. } = config;
        Self {
            image: image.to_string_lossy().into_owned(),
            protocol: protocol.to_string(),
            memory: memory.size,
            vcpus: cpus.count,
            pit: cpus.pit,
            power_management: cpus.power_management,
            kernel_args: guest.kernel_args.clone(),
            app_args: guest.app_args.clone(),
            env: guest.env.clone(),
            command_line: boot.command_line.clone(),
            debug_exit: boot.debug_exit,
            random: devices.random,
            balloon: devices.balloon,
            virtio_console: devices.console == ConsoleKind::Virtio,
            mounts: SavedMount::all(config),
        }
    }

    /// Takes over the settings that a guest gets anew.
    pub(crate) fn renew(&mut self, identity: &Identity) {
        self.env = identity.env_over(&self.env);
        if let Some(args) = &identity.app_args {
            self.app_args.clone_from(args);
        }
    }

    /// Puts the setup into a configuration that has what the host gives.
    ///
    /// # Errors
    /// Fails if the host gives other mounts than the guest has, or there is no such protocol.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<(), Error> {
        let Self { image, protocol, memory, vcpus, pit, power_management, .. } = self.clone();
        let Self { kernel_args, app_args, env, command_line, debug_exit, mounts, .. } =
            self.clone();
        let Self { random, balloon, virtio_console, .. } = *self;
        check_mounts(&mounts, &SavedMount::all(config))?;
        let known = Protocol::ALL.into_iter().find(|known| known.to_string() == protocol);
        config.boot.protocol = Some(known.ok_or(Error::BadState("the boot protocol is unknown"))?);
        config.boot.command_line = command_line;
        config.boot.debug_exit = debug_exit;
        config.image = image.into();
        config.memory.size = memory;
        config.cpus.count = vcpus;
        config.cpus.pit = pit;
        config.cpus.power_management = power_management;
        config.guest.kernel_args = kernel_args;
        config.guest.app_args = app_args;
        config.guest.env = env;
        config.devices.random = random;
        config.devices.balloon = balloon;
        config.devices.console =
            if virtio_console { ConsoleKind::Virtio } else { ConsoleKind::Serial };
        Ok(())
    }
}

/// Checks that the mounts given are those of the guest, in any order.
fn check_mounts(saved: &[SavedMount], given: &[SavedMount]) -> Result<(), Error> {
    if let Some(missing) = saved.iter().find(|mount| !given.contains(mount)) {
        let rights = if missing.writable { "rw" } else { "ro" };
        return Err(Error::MountOfSnapshot { guest: missing.guest.clone(), rights });
    }
    match given.iter().find(|mount| !saved.contains(mount)) {
        Some(mount) => Err(Error::NotInSnapshot { what: format!("mount {}", mount.guest) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mount;

    fn config(mounts: &[&str]) -> Config {
        let mounts =
            mounts.iter().map(|text| Mount::parse(text, Access::ReadOnly).unwrap()).collect();
        Config { image: "hello".into(), mounts, ..Config::default() }
    }

    #[test]
    fn a_setup_comes_back_with_other_host_paths() {
        let mut saved = config(&["/tmp/a:/data:rw", "/tmp/b:/conf"]);
        saved.memory.size = Some(64 << 20);
        saved.cpus.count = Some(2);
        (saved.devices.random, saved.devices.balloon) = (true, true);
        saved.devices.console = ConsoleKind::Virtio;
        saved.guest.app_args = vec!["x".to_owned()];
        let setup = Setup::of(&saved, Protocol::Hermit);
        let mut given = config(&["/other:/conf:ro", "/elsewhere:/data:rw"]);
        given.image = "snapshot".into();
        setup.apply(&mut given).unwrap();
        assert_eq!((given.memory.size, given.cpus.count), (Some(64 << 20), Some(2)));
        assert_eq!((given.image.to_str(), given.guest.app_args.len()), (Some("hello"), 1));
        assert_eq!((given.devices.random, given.devices.console), (true, ConsoleKind::Virtio));
        assert!(given.devices.balloon);
        assert_eq!(given.mounts[0].host.to_str(), Some("/other"));
    }

    #[test]
    fn other_mounts_are_named() {
        let setup = Setup::of(&config(&["/tmp/a:/data:rw"]), Protocol::Hermit);
        for (given, expected) in [
            (&[][..], "/data (rw)"),
            (&["/tmp/a:/data:ro"], "/data (rw)"),
            (&["/tmp/a:/data:rw", "/x:/more"], "mount /more"),
        ] {
            let error = setup.apply(&mut config(given)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.kind(), crate::ErrorKind::Config);
        }
    }

    #[test]
    fn an_unknown_protocol_is_a_bad_snapshot() {
        let mut setup = Setup::of(&config(&[]), Protocol::Hermit);
        setup.protocol = "cpm".to_owned();
        let error = setup.apply(&mut config(&[])).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Image, "{error}");
    }
}
