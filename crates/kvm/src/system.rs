//! `/dev/kvm`: whether it can be used, and what it offers.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::{Cap, Kvm};
use nerite_arch::CpuidEntry;

use nerite_hypervisor::Error;

use crate::error::failed;
use crate::{OpenError, convert};

/// The only version of the KVM API there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// The newest of what no guest can do without (Linux 4.13): where it is, there are
/// KVM_CAP_USER_MEMORY, _IRQCHIP, _EXT_CPUID, _MP_STATE and _SET_TSS_ADDR, which all are from
/// before 2010.
const REQUIRED: (Cap, &str) = (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT");

/// An open `/dev/kvm` that has what Nerite needs.
#[derive(Debug)]
pub struct System {
    pub(crate) kvm: Arc<Kvm>,
    /// Register sets that KVM hands over in a shared page (KVM_CAP_SYNC_REGS, Linux 4.18). With
    /// that it has all that is older, too.
    pub(crate) sync_capability: i32,
}

impl System {
    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// If it is missing, not permitted (with the group that would be), or lacks a capability.
    pub fn open() -> Result<Self, OpenError> {
        let kvm = Arc::new(Kvm::new().map_err(|error| open_error(error.into()))?);
        let sync_capability = kvm.check_extension_int(Cap::SyncRegs);
        if sync_capability > 0 {
            return Ok(Self { kvm, sync_capability });
        }
        let found = kvm.get_api_version();
        if found != API_VERSION {
            return Err(OpenError::ApiVersion { found });
        }
        let (capability, name) = REQUIRED;
        if !kvm.check_extension(capability) {
            return Err(OpenError::Lacks { capability: name });
        }
        Ok(Self { kvm, sync_capability: 0 })
    }

    /// Maximum number of vCPUs of a VM.
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// `true` if the in-kernel local APIC has the TSC-deadline timer.
    pub fn has_tsc_deadline_timer(&self) -> bool {
        // Since Linux 3.2.
        self.sync_capability > 0 || self.kvm.check_extension(Cap::TscDeadlineTimer)
    }

    /// The CPUID leaves that KVM and the host's processor support.
    ///
    /// # Errors
    /// If KVM does not say.
    pub fn supported_cpuid(&self) -> Result<Vec<CpuidEntry>, Error> {
        let cpuid = self
            .kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(cpuid.as_slice().iter().map(convert::cpuid_from_kvm).collect())
    }
}

fn open_error(error: io::Error) -> OpenError {
    match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing,
        io::ErrorKind::PermissionDenied => OpenError::Permission { advice: advice("/dev/kvm") },
        _ => OpenError::Open(error),
    }
}

/// Says who may open `path`.
fn advice(path: &str) -> String {
    let fallback = "run as root, or have an administrator give you access to it".to_owned();
    let Ok(metadata) = fs::metadata(path) else { return fallback };
    // Group read and write (POSIX <sys/stat.h>).
    if metadata.permissions().mode() & 0o060 != 0o060 || metadata.gid() == 0 {
        return fallback;
    }
    let gid = metadata.gid();
    match group_name(&fs::read_to_string("/etc/group").unwrap_or_default(), gid) {
        Some(name) => {
            format!("its group is \"{name}\": run `sudo usermod -aG {name} $USER` and log in again")
        }
        None => format!("its group has the number {gid}, and you are not in it"),
    }
}

/// Finds the name of group `gid` in the text of `/etc/group` (group(5)).
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number = fields.nth(1)?;
        (number.parse() == Ok(gid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_named() {
        let groups = "root:x:0:\nkvm:x:106:alice,bob\nbad line\nkvm2:x:1060:\n";
        assert_eq!(group_name(groups, 106), Some("kvm"));
        assert_eq!(group_name(groups, 1060), Some("kvm2"));
        assert_eq!(group_name(groups, 10), None);
    }

    #[test]
    fn opening_fails_for_a_reason_that_helps() {
        let missing = open_error(io::Error::from(io::ErrorKind::NotFound)).to_string();
        assert!(missing.contains("kvm_intel"), "{missing}");
        let denied = open_error(io::Error::from(io::ErrorKind::PermissionDenied)).to_string();
        assert!(denied.contains("no permission to open /dev/kvm; "), "{denied}");
    }
}
