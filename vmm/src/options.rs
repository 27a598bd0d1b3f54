//! The options of `vmm run`: one struct for the command line, the environment and a configuration
//! file.
//!
//! Each group of options is one struct that derives its command line (clap), its table of a
//! configuration file (serde) and its precedence ([`merge::Merge`]), and builds its part of the
//! [`Config`]. A new option is one field with its documentation.

mod boot;
mod cpu;
mod devices;
mod files;
mod guest;
mod memory;
mod network;
mod observe;
mod sandbox;
mod uhyve;
pub(crate) mod value;

use std::path::{Path, PathBuf};

use clap::Args;
use merge::Merge;
use nerite_machine::config::{Config, Output};
use serde::Deserialize;

pub use boot::BootOptions;
pub use cpu::{CpuCount, CpuOptions};
pub use devices::DeviceOptions;
pub use files::{FileCount, FileOptions};
pub use guest::{CrashAction, EnvSetting, GuestOptions, OutputSetting};
pub use memory::MemoryOptions;
pub use network::NetworkOptions;
pub use observe::{CountSetting, ObserveOptions, StatsSetting, parse_time};
pub use sandbox::SandboxOptions;
use uhyve::UhyveOptions;

/// One layer of options. An option that is `None` or empty is left to the layer below.
#[derive(Debug, Clone, PartialEq, Default, Args, Deserialize, Merge)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Boot protocol and its parameters.
    #[command(flatten)]
    pub boot: BootOptions,
    /// Guest memory.
    #[command(flatten)]
    pub memory: MemoryOptions,
    /// vCPUs.
    #[command(flatten)]
    pub cpu: CpuOptions,
    /// Files of the host.
    #[command(flatten)]
    pub files: FileOptions,
    /// Network cards.
    #[command(flatten)]
    pub net: NetworkOptions,
    /// Disks and other devices.
    #[command(flatten)]
    pub devices: DeviceOptions,
    /// Arguments, environment and output.
    #[command(flatten)]
    pub guest: GuestOptions,
    /// Confinement of `vmm`.
    #[command(flatten)]
    pub sandbox: SandboxOptions,
    /// Statistics, limits and debugging; command line only.
    #[command(flatten)]
    #[serde(skip)]
    pub observe: ObserveOptions,
    /// The peer's own table of a configuration file.
    #[arg(skip)]
    #[merge(skip)]
    uhyve: UhyveOptions,
}

impl Options {
    /// These options, with those of `lower` where these are unset.
    #[must_use]
    pub fn over(mut self, lower: Self) -> Self {
        self.merge(lower);
        self
    }

    /// Replaces the spellings that only configuration files have by those of the command line.
    /// Returns a warning for each key that has no effect.
    ///
    /// # Errors
    /// If two spellings of the same option are present.
    pub(crate) fn normalize(&mut self) -> Result<Vec<String>, String> {
        self.memory.normalize()?;
        self.files.normalize();
        self.observe.normalize();
        std::mem::take(&mut self.uhyve).fold_into(self)
    }

    /// The first key of a configuration file that gives a guest more of the host than it has
    /// without a file, or `vmm` less protection from it.
    ///
    /// A file that is found in the current folder may have come with the image, and has no say in
    /// these.
    #[must_use]
    pub fn widening_key(&self) -> Option<&'static str> {
        let Self { guest, .. } = self;
        let writes =
            guest.output.as_ref().is_some_and(|output| matches!(output.0, Output::File(_)));
        let reacts = guest.on_crash.as_ref().is_some_and(|action| *action != CrashAction::Report);
        [
            (!self.files.mounts.is_empty(), "`mounts` in [files], or `file_mapping` in [uhyve],"),
            (!self.net.cards.is_empty(), "`cards` in [net], or `net` in [uhyve],"),
            (!self.devices.disks.is_empty(), "`disks` in [devices]"),
            (self.devices.vsock.is_some(), "`vsock` in [devices]"),
            (!self.boot.initrd.is_empty(), "`initrd` in [boot]"),
            (writes, "`output` in [guest] or [uhyve]"),
            (guest.env.contains(&EnvSetting::Host), "`host` in `env` of [guest]"),
            (reacts, "`on_crash` in [guest]"),
            (self.sandbox.is_looser(), "[sandbox]"),
        ]
        .into_iter()
        .find_map(|(is_given, key)| is_given.then_some(key))
    }

    /// The first option that says what a guest is started with, and so not how one goes on that was
    /// saved.
    #[must_use]
    pub(crate) fn of_the_guest(&self) -> Option<&'static str> {
        let Self { boot, memory, cpu, devices, guest, .. } = self;
        [
            (boot.protocol.is_some(), "--boot"),
            (!boot.initrd.is_empty(), "--initrd"),
            (boot.cmdline.is_some(), "--cmdline"),
            (boot.debug_exit.is_some(), "--debug-exit"),
            (memory.size.is_some(), "--memory"),
            (memory.no_aslr.is_some(), "--no-aslr"),
            (cpu.count.is_some(), "--cpus"),
            (cpu.model.is_some(), "--cpu"),
            (cpu.cpu_pm.is_some(), "--cpu-pm"),
            (cpu.pit.is_some(), "--pit"),
            (cpu.irqchip.is_some(), "--irqchip"),
            (devices.rng.is_some(), "--rng"),
            (devices.balloon.is_some(), "--balloon"),
            (devices.console.is_some(), "--console"),
            (!guest.kernel_args.is_empty(), "--kernel-arg"),
        ]
        .into_iter()
        .find_map(|(is_given, option)| is_given.then_some(option))
    }

    /// Checks options that constrain each other. `host_cpus` returns the host CPUs that this
    /// process may use, empty if unknown.
    ///
    /// # Errors
    /// If they contradict each other or the host.
    pub fn check(&self, host_cpus: impl FnOnce() -> Vec<usize>) -> Result<(), String> {
        self.memory.check()?;
        self.guest.check()?;
        self.sandbox.check()?;
        if self.observe.snapshot.is_some() && self.sandbox.user.is_some() {
            return Err(
                "--snapshot makes a directory of the user who runs vmm, and is not for --user"
                    .to_owned(),
            );
        }
        self.cpu.check(host_cpus)
    }

    /// The machine for `image` with the guest's environment variables `env`.
    #[must_use]
    pub fn config(mut self, image: PathBuf, env: Vec<(String, String)>) -> Config {
        let on_reboot = self.guest.on_reboot.unwrap_or_default();
        let observe = self.observe.config(
            self.guest.on_crash(&image),
            on_reboot,
            self.debugger().map(|(_, start)| start),
        );
        let (output, output_limits) = self.guest.output();
        Config {
            accelerator: self.cpu.accel.unwrap_or_default(),
            boot: self.boot.config(),
            memory: self.memory.config(),
            cpus: self.cpu.config(self.observe.count.is_some()),
            file_limits: self.files.limits(),
            mounts: self.files.mounts,
            network: self.net.cards,
            devices: self.devices.config(),
            output,
            output_limits,
            guest: self.guest.config(env),
            observe,
            image,
            restore: None,
        }
    }

    /// Address for GDB, and the state in which the guest waits for it.
    #[must_use]
    pub fn debugger(&self) -> Option<(&nerite_gdb::Address, nerite_machine::config::Debug)> {
        self.observe.debugger(self.guest.on_crash.as_ref())
    }
}

/// Name of the core file of `image` when none is given: `IMAGE.core` in the current directory.
fn default_core(image: &Path) -> PathBuf {
    let mut name = image.file_name().unwrap_or_default().to_owned();
    name.push(".core");
    name.into()
}
