//! `cargo xtask doctor`: what this machine has of what guests need, and what to do about the rest.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use nerite_kvm::probe::{self, HostKvm};

use crate::lab::kernel;
use crate::packages::{self, BUSYBOX, QEMU};
use crate::{paths, progress};

/// Memory that should be free for a lab in which guests have 5 GiB, in MiB.
const MEMORY_MIB: u64 = 8192;
/// Space for what is built and for the lab's files, in MiB.
const DISK_MIB: u64 = 6144;

fn line(good: bool, what: &str, text: &str) {
    progress::print(&format!("{} {what:<8} {text}", if good { "ok  " } else { "miss" }));
}

/// Prints the list; the status is 1 if guests can run neither on this host nor in a lab.
pub(crate) fn main() -> Result<i32> {
    let hardware = kvm();
    let lab = tools() & lab_kernel();
    memory();
    disk();
    let verdict = match (hardware, lab) {
        (true, _) => "guests run on this host's hardware KVM",
        (false, true) => {
            "guests run in the lab: an emulated machine with real KVM, slower but complete"
        }
        (false, false) => "guests cannot run here yet: see above for what to do, then ask again",
    };
    progress::print(verdict);
    Ok(i32::from(!hardware && !lab))
}

fn kvm() -> bool {
    let found = probe::host();
    let hardware = matches!(found, HostKvm::Hardware);
    line(hardware, "kvm", &found.to_string());
    let device = Path::new("/dev/kvm");
    let Ok(meta) = fs::metadata(device) else {
        if !hardware {
            progress::print(
                "              no /dev/kvm; hardware KVM needs VT-x or AMD-V turned on, and `modprobe kvm_intel` or kvm_amd",
            );
        }
        return hardware;
    };
    let group = group_name(meta.gid()).unwrap_or_else(|| meta.gid().to_string());
    match fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => line(true, "access", &format!("/dev/kvm opens (its group is {group})")),
        Err(error) => {
            line(false, "access", &format!("/dev/kvm does not open: {error}"));
            let user = std::env::var("USER").unwrap_or_else(|_| "YOUR_NAME".to_owned());
            progress::print(&format!(
                "              type: sudo usermod -aG {group} {user}   and log in again"
            ));
        }
    }
    hardware
}

fn group_name(gid: u32) -> Option<String> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid.to_string()).then(|| name.to_owned())
    })
}

fn tools() -> bool {
    let mut all = true;
    for tool in [QEMU, BUSYBOX] {
        match packages::find(tool) {
            Some(path) => line(true, "lab", &format!("{} at {}", tool.program, path.display())),
            None => {
                all = false;
                line(false, "lab", &format!("{} is not installed", tool.program));
                progress::print(&format!(
                    "              type: {}",
                    packages::install_command(&[tool.package])
                ));
            }
        }
    }
    all
}

/// The kernel is downloaded when a lab first starts, so it is enough that this can be done.
fn lab_kernel() -> bool {
    if let Ok(Some(kernel)) = kernel::cached() {
        line(true, "lab", &format!("Linux {} is in {}", kernel.release, paths::lab().display()));
        return true;
    }
    match packages::known_kernel_package(kernel::META_PACKAGE) {
        Some(package) => {
            line(true, "lab", &format!("{package} is downloaded when the lab first starts"));
            true
        }
        None => {
            line(false, "lab", &format!("the package lists do not know {}", kernel::META_PACKAGE));
            progress::print("              type: sudo apt-get update");
            false
        }
    }
}

/// Memory that programs can still get on this host, in MiB.
pub(crate) fn free_mib() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value =
        info.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    value.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn memory() {
    let mib = free_mib();
    line(
        mib >= MEMORY_MIB,
        "memory",
        &format!("{mib} MiB free; the largest test guests want {MEMORY_MIB} MiB"),
    );
}

fn disk() {
    let folder = paths::root();
    match rustix::fs::statvfs(&folder) {
        Ok(found) => {
            let mib = found.f_bavail.saturating_mul(found.f_frsize) >> 20;
            let text = format!(
                "{mib} MiB free at {}; a full test run wants {DISK_MIB} MiB",
                folder.display()
            );
            line(mib >= DISK_MIB, "disk", &text);
        }
        Err(error) => line(
            false,
            "disk",
            &format!("cannot tell what is free at {}: {error}", folder.display()),
        ),
    }
}
