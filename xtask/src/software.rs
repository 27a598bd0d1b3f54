//! Guest tests on the processor in software: on this host, as the user who runs them.
//!
//! A test that changes the network or mounts something gets namespaces of its own, in which an
//! ordinary user may do so.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::job::Job;
use crate::net_peer::Link;
use crate::suite::Test;
use crate::{exec, packages, wrapper};

/// Runs a command as root of new namespaces, with their own `/sys` and loopback interface.
const IN_NAMESPACES: [&str; 8] = [
    "unshare",
    "--map-root-user",
    "--net",
    "--mount",
    "/bin/sh",
    "-c",
    "mount -t sysfs sysfs /sys && ip link set lo up && exec \"$@\"",
    "sh",
];
/// Factor by which a test may take longer than on KVM: a guest competes with all else on the host.
const PATIENCE: u64 = 4;
/// Programs that tests take from busybox, as in the lab.
const APPLETS: [&str; 4] = ["ping", "tunctl", "httpd", "wget"];

/// This host, as far as tests need something of it.
pub(crate) struct Host {
    /// Folders in which tests run, programs for them, and a lock for the ports that lead to guests.
    folder: TempDir,
    /// Reason why no test can have namespaces with a tap.
    without_namespaces: Option<String>,
}

impl Host {
    /// Tries what this host allows.
    pub(crate) fn probe() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder for tests")?;
        fs::create_dir(folder.path().join("bin"))?;
        let mut host = Self { folder, without_namespaces: None };
        host.without_namespaces = match packages::find(packages::BUSYBOX) {
            None => Some("busybox-static is not installed".to_owned()),
            Some(busybox) => {
                for applet in APPLETS {
                    symlink(&busybox, host.programs().join(applet))?;
                }
                host.try_namespaces()
            }
        };
        Ok(host)
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn path(&self) -> String {
        format!("{}:{}", self.programs().display(), exec::PATH)
    }

    /// Makes a tap in new namespaces. Returns the reason why that cannot be done.
    fn try_namespaces(&self) -> Option<String> {
        let [program, words @ ..] = IN_NAMESPACES;
        let mut command = Command::new(program);
        command
            .args(words)
            .args(["tunctl", "-t", "probe"])
            .env("PATH", self.path())
            .stdin(Stdio::null());
        let why = match command.output() {
            Ok(Output { status, .. }) if status.success() => return None,
            Ok(Output { stderr, .. }) => String::from_utf8_lossy(&stderr).trim().to_owned(),
            Err(error) => format!("unshare: {error}"),
        };
        Some(format!("this host allows this user no tap in a namespace ({why})"))
    }

    /// Reason why `test` cannot run here, if there is one.
    pub(crate) fn refuses<'a>(&'a self, test: &'a Test) -> Option<&'a str> {
        let without_namespaces =
            self.without_namespaces.as_deref().filter(|_| test.wants_namespaces());
        let unfit = test.not_on_host.as_deref();
        test.kvm_only().or(unfit).or(without_namespaces)
    }

    /// Makes the job of `test` one that can run here, beside others.
    pub(crate) fn adapt(&self, test: &Test, mut job: Job) -> Job {
        if test.wants_namespaces() {
            job.command.splice(0..0, IN_NAMESPACES.map(str::to_owned));
        }
        if test.link() == Some(Link::User) {
            let lock = self.folder.path().join("ports").display().to_string();
            job.command.splice(0..0, ["flock".to_owned(), lock]);
        }
        job.env.insert("PATH".to_owned(), self.path());
        job.timeout = job.timeout.saturating_mul(PATIENCE);
        job
    }
}

/// A program that runs `vmm` with `--accel software`, for tests that know only its path.
pub(crate) fn wrap(vmm: &Path) -> Result<PathBuf> {
    wrapper::write("vmm-software", vmm, "", "--accel software")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    /// A host that has these reasons, and the tests of all suites that are not built from source.
    fn refusals(without_namespaces: Option<&str>) -> Vec<(String, String)> {
        let host = Host {
            folder: tempfile::tempdir().unwrap(),
            without_namespaces: without_namespaces.map(str::to_owned),
        };
        let tests =
            Suite::load().unwrap().tests.into_iter().chain(Suite::load_linux().unwrap().tests);
        let refusal = |test: Test| Some((test.name.clone(), host.refuses(&test)?.to_owned()));
        tests.filter_map(refusal).collect()
    }

    #[test]
    fn tests_that_this_host_cannot_run_have_a_reason() {
        let reason = |refusals: &[(String, String)], name: &str| {
            refusals.iter().find(|(other, _)| other == name).map(|(_, reason)| reason.clone())
        };
        let all = refusals(Some("no tap"));
        let tap = [
            "net over tap",
            "linux, 2 processors, 256 MiB, a network card",
            "linux, disks that fail",
        ];
        for name in tap {
            assert_eq!(reason(&all, name).as_deref(), Some("no tap"), "{name}");
        }
        assert_eq!(reason(&all, "net in user mode, address by DHCP"), None);
        assert_eq!(reason(&all, "net over vhost").as_deref(), Some("vhost needs KVM"));
        assert_eq!(reason(&all, "hello"), None);
        let memory = "it takes 5 GiB of this host's memory";
        assert!(all.iter().any(|(_, reason)| reason == memory));
        let few = refusals(None);
        assert!(tap.iter().all(|name| reason(&few, name).is_none()));
    }

    #[test]
    fn jobs_are_adapted_to_the_host() {
        let host = Host { folder: tempfile::tempdir().unwrap(), without_namespaces: None };
        let adapted = |name: &str| {
            let tests =
                Suite::load().unwrap().tests.into_iter().chain(Suite::load_linux().unwrap().tests);
            let test = tests.into_iter().find(|test| test.name == name).unwrap();
            let job = Job { command: vec!["it".to_owned()], timeout: 7, ..Job::default() };
            host.adapt(&test, job)
        };
        let tap = adapted("net over tap");
        assert_eq!(
            (tap.command[0].as_str(), tap.command.last().unwrap().as_str()),
            ("unshare", "it")
        );
        assert!(tap.env["PATH"].starts_with(host.programs().to_str().unwrap()));
        assert_eq!(adapted("net in user mode, address by DHCP").command[0], "flock");
        assert_eq!(
            (adapted("hello").command, adapted("hello").timeout),
            (vec!["it".to_owned()], 4 * 7)
        );
    }
}
