//! `cargo xtask doctor`: what this machine has of what guests and their tests need, what to do
//! about the rest, and where each command runs guests.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

use crate::lab::kernel;
use crate::packages::{self, BUSYBOX, QEMU};
use crate::{host, paths, progress};

/// Memory that should be free for a lab in which guests have 5 GiB, in MiB.
const MEMORY_MIB: u64 = 8192;
/// Space for what is built and for the lab's files, in MiB.
const DISK_MIB: u64 = 6144;
/// Columns of a terminal, and the column at which texts begin.
const WIDTH: usize = 80;
const INDENT: usize = 16;

/// State of something that guests or tests need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is there.
    Good,
    /// It is not there, and something else takes its place.
    Absent,
    /// It is not there, and some commands need it.
    Missing,
}

fn line(state: State, what: &str, text: &str) {
    let word = match state {
        State::Good => "ok",
        State::Absent => "no",
        State::Missing => "miss",
    };
    progress::print(&wrapped(&format!("{word:<4} {what}"), text));
}

/// Advice below a line.
fn advice(text: &str) {
    progress::print(&wrapped("", text));
}

/// `text` behind `name`, wrapped at the width of a terminal.
fn wrapped(name: &str, text: &str) -> String {
    let mut lines = format!("{name:<INDENT$}");
    let mut column = INDENT;
    for (place, word) in text.split(' ').enumerate() {
        if place > 0 && column + 1 + word.len() > WIDTH {
            let _ = write!(lines, "\n{:INDENT$}", "");
            column = INDENT;
        } else if place > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += word.len();
    }
    lines
}

/// Prints the lists; the status is 1 if tests can run guests neither on this host's KVM nor in a
/// lab.
pub(crate) fn main() -> Result<i32> {
    // Said before the list, where it is built.
    host::program()?;
    progress::print("This machine:");
    let hardware = kvm()?;
    let lab = tools(hardware) & lab_kernel(hardware);
    memory();
    disk();
    progress::print("\nWhere commands run guests here:");
    for (command, place) in places(hardware, lab) {
        progress::print(&wrapped(&format!("  {command}"), place));
    }
    if !hardware && !lab {
        progress::print("\nGuests run, but not all tests can: see above for what to do.");
    }
    Ok(i32::from(!hardware && !lab))
}

/// Commands of `cargo xtask`, and where each runs guests.
fn places(hardware: bool, lab: bool) -> [(&'static str, &'static str); 4] {
    let tests = match (hardware, lab) {
        (true, _) => "on this host's KVM",
        (false, true) => "in the lab: an emulated machine with real KVM inside, slow but complete",
        (false, false) => "nowhere yet: the lab needs what is missing above",
    };
    let run = if hardware {
        "on this host's KVM"
    } else {
        "on vmm's processor in software, as without KVM; --lab: on KVM in the lab"
    };
    [
        ("run", run),
        ("test-kernels", tests),
        ("  --software", "on vmm's processor in software"),
        ("test and rest", tests),
    ]
}

fn kvm() -> Result<bool> {
    let host::Kvm { is_hardware: hardware, kind } = host::kvm()?;
    line(if hardware { State::Good } else { State::Absent }, "KVM", &kind);
    let device = Path::new("/dev/kvm");
    let Ok(meta) = fs::metadata(device) else {
        if !hardware {
            advice(
                "Guests run without. For hardware KVM, turn on VT-x or AMD-V, then type: \
                 sudo modprobe kvm_intel (or kvm_amd)",
            );
        }
        return Ok(hardware);
    };
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(device) {
        let group = group_name(meta.gid()).unwrap_or_else(|| meta.gid().to_string());
        line(State::Absent, "/dev/kvm", &format!("it does not open: {error}"));
        let user = std::env::var("USER").unwrap_or_else(|_| "YOUR_NAME".to_owned());
        advice(&format!("type: sudo usermod -aG {group} {user}   and log in again"));
    }
    Ok(hardware)
}

fn group_name(gid: u32) -> Option<String> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid.to_string()).then(|| name.to_owned())
    })
}

/// State of something that only the lab needs.
fn of_lab(is_there: bool, hardware: bool) -> State {
    match (is_there, hardware) {
        (true, _) => State::Good,
        (false, true) => State::Absent,
        (false, false) => State::Missing,
    }
}

fn tools(hardware: bool) -> bool {
    let mut all = true;
    for (tool, name) in [(QEMU, "QEMU"), (BUSYBOX, "busybox")] {
        let found = packages::find(tool);
        let state = of_lab(found.is_some(), hardware);
        match found {
            Some(path) => line(state, name, &path.display().to_string()),
            None => {
                all = false;
                line(state, name, "not installed; the lab needs it, for tests without KVM");
                advice(&format!("type: {}", packages::install_command(&[tool.package])));
            }
        }
    }
    all
}

/// The kernel is downloaded when a lab first starts, so it is enough that this can be done.
fn lab_kernel(hardware: bool) -> bool {
    let name = "lab kernel";
    if let Ok(Some(kernel)) = kernel::cached() {
        let text = format!("Linux {} in {}", kernel.release, paths::lab().display());
        line(State::Good, name, &text);
        return true;
    }
    let package = packages::known_kernel_package(kernel::META_PACKAGE);
    let state = of_lab(package.is_some(), hardware);
    match &package {
        Some(package) => {
            line(state, name, &format!("{package} is downloaded when the lab first starts"));
        }
        None => {
            line(state, name, &format!("the package lists do not know {}", kernel::META_PACKAGE));
            advice("type: sudo apt-get update");
        }
    }
    package.is_some()
}

/// Memory that programs can still get on this host, in MiB.
pub(crate) fn free_mib() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value =
        info.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
    value.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

/// State of something of which there should be so much.
fn enough(mib: u64, wanted: u64) -> State {
    if mib >= wanted { State::Good } else { State::Missing }
}

fn memory() {
    let mib = free_mib();
    let text = format!("{mib} MiB free; the largest tests want {MEMORY_MIB} MiB, `run` far less");
    line(enough(mib, MEMORY_MIB), "memory", &text);
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
            line(enough(mib, DISK_MIB), "disk", &text);
        }
        Err(error) => {
            let text = format!("cannot tell what is free at {}: {error}", folder.display());
            line(State::Missing, "disk", &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_below_their_beginning() {
        let text = wrapped("ok   KVM", &"word ".repeat(30));
        let lines: Vec<_> = text.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert!(lines[0].starts_with("ok   KVM        word"), "{text}");
        assert!(lines[1].starts_with("                word"), "{text}");
    }

    #[test]
    fn each_command_has_a_place_where_it_runs_guests() {
        let place = |hardware, lab, at: usize| places(hardware, lab)[at].1;
        assert!(place(true, false, 0).contains("KVM") && place(true, false, 1).contains("KVM"));
        assert!(
            place(false, true, 0).contains("software") && place(false, true, 1).contains("lab")
        );
        assert!(place(false, false, 0).contains("software"));
        assert!(place(false, false, 3).starts_with("nowhere"));
    }
}
