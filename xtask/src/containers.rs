//! The tests of the OCI runtime that need root, cgroups and container engines.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::build::cargo;
use crate::libtest::cargo::{self as tests, Tests};
use crate::results::Results;

/// Programs that the tests call.
const PROGRAMS: [&str; 6] = ["podman", "runc", "containerd", "ctr", "ip", "tc"];
/// Folders in which cgroups are made: version 2, or the hierarchy of version 1 for memory.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];

/// Runs them.
pub(crate) fn run() -> Result<Results> {
    let command = || {
        let mut command = cargo();
        command.args(["test", "--package", "nerite-oci", "--tests", "--no-fail-fast"]);
        command
    };
    tests::run(Tests {
        command: &command,
        documentation: false,
        later: false,
        options: &["--ignored"],
    })
}

/// Reason why this host cannot run them.
pub(crate) fn obstacle() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can make network namespaces and cgroups".to_owned());
    }
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        return Some(format!(
            "not installed: {} (apt-get install podman runc containerd netavark iptables iproute2)",
            missing.join(", ")
        ));
    }
    cgroup_obstacle().or_else(network_obstacle)
}

/// Engines make a network namespace for a container, and forward its ports.
fn network_obstacle() -> Option<String> {
    let name = format!("nerite-probe-{}", std::process::id());
    let script = "ip netns add $1 && ip netns delete $1 && iptables -t nat -L -n";
    let output = Command::new("sh").args(["-c", script, "sh", &name]).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "no network for containers: {}",
            String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
        )),
        Err(error) => Some(format!("no shell: {error}")),
    }
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "command -v \"$1\"", "sh", program]);
    command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn cgroup_obstacle() -> Option<String> {
    let folder = CGROUPS.map(Path::new).into_iter().find(|folder| folder.is_dir());
    let Some(folder) = folder else {
        return Some("this host has no cgroups in /sys/fs/cgroup".to_owned());
    };
    let probe = folder.join(format!("nerite-probe-{}", std::process::id()));
    let made = fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe));
    made.err().map(|error| format!("no cgroup can be made in {}: {error}", folder.display()))
}
