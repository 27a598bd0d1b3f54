//! Descriptors that `vmm` starts with: those of the parent process are closed, the standard ones
//! are open.

#![cfg(test)]

mod common;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use common::{Folder, code, hear_signals, image, wait, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Has the child of a command start with these descriptors closed, and with one more open at this
/// number.
fn with_descriptors(command: &mut Command, closed: &'static [i32], open: Option<i32>) {
    let change = move || {
        for fd in closed {
            // SAFETY: it is the child's own, and close is safe between fork and exec
            // (signal-safety(7)).
            unsafe { libc::close(*fd) };
        }
        if let Some(open) = open {
            // SAFETY: as above; the text ends with a zero byte.
            let file = unsafe { libc::open(c"/proc/self/exe".as_ptr(), libc::O_RDONLY) };
            // SAFETY: as above.
            unsafe { libc::dup2(file, open) };
        }
        Ok(())
    };
    // SAFETY: `change` calls only what may be called between fork and exec.
    unsafe { command.pre_exec(change) };
}

/// Descriptors of a process: number and target.
fn descriptors(process: u32) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let each = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, std::fs::read_link(&path).ok()?.to_str()?.to_owned()))
    });
    each.collect()
}

#[test]
#[ignore = "needs a KVM"]
fn what_the_parent_left_open_is_closed() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&[&image::print("x")[..], &image::SPIN].concat()));
    for number in [3, 5, 100, 900] {
        let mut command = folder.vmm(&["run", &image]);
        with_descriptors(&mut command, &[], Some(number));
        hear_signals(&mut command);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The guest runs once its threads are there.
        wait_until("the machine", || {
            descriptors(child.id()).iter().any(|(_, what)| what.contains("kvm-vcpu"))
        });
        let open = descriptors(child.id());
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(code(wait(child).status), 143);
        assert!(!open.iter().any(|(_, what)| what.contains("passwd")), "{open:?}");
    }
}

#[test]
fn a_tap_that_the_parent_opened_stays() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    // It is looked at, and is none.
    let mut command = folder.vmm(&["run", "--net", "fd=7", &image]);
    with_descriptors(&mut command, &[], Some(7));
    common::finish(&mut command).is_error(240, &["fd=7", "it is no tap"]);
}

#[test]
fn closed_standard_descriptors_are_no_files() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 1, 2]] {
        let mut command = folder.vmm(&["inspect", &image]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let closed: &'static [i32] = closed;
        with_descriptors(&mut command, closed, None);
        assert_eq!(code(wait(command.spawn().unwrap()).status), 0, "{closed:?}");
    }
}
