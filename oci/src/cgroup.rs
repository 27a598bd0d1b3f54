//! The cgroup of a container, which holds its virtual machine monitor and the guest's memory.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager as _, ControllerOpt, FreezerState,
    create_cgroup_manager,
};
use nix::unistd::Pid;
use oci_spec::runtime::{
    LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxResources,
};

use crate::bundle::Bundle;

/// Devices of the host that a virtual machine monitor opens, by major and minor number.
const DEVICES: [(i64, i64); 2] = [KVM, TUN];
const KVM: (i64, i64) = (10, 232);
const TUN: (i64, i64) = (10, 200);

/// A container's cgroup, made when the first process joins.
pub struct Cgroup(AnyCgroupManager);

impl std::fmt::Debug for Cgroup {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Cgroup").finish_non_exhaustive()
    }
}

impl Cgroup {
    /// Cgroup of the container `id`, at the place that its bundle names.
    ///
    /// # Errors
    /// If the host has no cgroups, or they cannot be managed.
    pub fn of(bundle: &Bundle, id: &str, systemd: bool) -> Result<Self> {
        let linux = bundle.spec.linux().as_ref();
        let given = linux.and_then(|linux| linux.cgroups_path().clone());
        let cgroup_path = given.unwrap_or_else(|| PathBuf::from(format!("/nerite-oci/{id}")));
        let config =
            CgroupConfig { cgroup_path, systemd_cgroup: systemd, container_name: id.to_owned() };
        create_cgroup_manager(config).map(Self).context("cgroup")
    }

    /// Puts a process into the cgroup and applies the bundle's limits.
    ///
    /// # Errors
    /// If the host does not allow it.
    pub fn join(&self, bundle: &Bundle, pid: i32) -> Result<()> {
        self.0.add_task(Pid::from_raw(pid)).context("cgroup")?;
        let resources = resources(bundle)?;
        let options = ControllerOpt {
            resources: &resources,
            disable_oom_killer: false,
            oom_score_adj: None,
            freezer_state: None,
        };
        self.0.apply(&options).context("cgroup")
    }

    /// Freezes or thaws all processes.
    ///
    /// # Errors
    /// If the host does not allow it.
    pub fn freeze(&self, freeze: bool) -> Result<()> {
        let state = if freeze { FreezerState::Frozen } else { FreezerState::Thawed };
        self.0.freeze(state).context("cgroup")
    }

    /// Identifiers of the processes.
    ///
    /// # Errors
    /// If the cgroup cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let pids = self.0.get_all_pids().context("cgroup")?;
        Ok(pids.into_iter().map(Pid::as_raw).collect())
    }

    /// Removes the cgroup, the processes of which have ended.
    ///
    /// # Errors
    /// If the host does not allow it.
    pub fn remove(&self) -> Result<()> {
        self.0.remove().context("cgroup")
    }
}

/// The limits of a bundle, with the devices that a virtual machine monitor needs.
fn resources(bundle: &Bundle) -> Result<LinuxResources> {
    let given = bundle.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
    let mut resources = given.unwrap_or_default();
    let mut devices = resources.devices().clone().unwrap_or_default();
    for (major, minor) in DEVICES {
        devices.push(device(major, minor)?);
    }
    resources.set_devices(Some(devices));
    Ok(resources)
}

fn device(major: i64, minor: i64) -> Result<LinuxDeviceCgroup> {
    Ok(LinuxDeviceCgroupBuilder::default()
        .allow(true)
        .typ(LinuxDeviceType::C)
        .major(major)
        .minor(minor)
        .access("rw")
        .build()?)
}
