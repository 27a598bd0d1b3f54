//! Whole runs of guests that are a few instructions long, so that they run on an emulating KVM,
//! too.
//!
//! They show how a run ends: exit codes, signals, output without a reader. Boot information and
//! devices are tested with the guests in `tests/kernels`.

#![cfg(test)]

mod common;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::image::{self, Elf};
use common::{Folder, code, finish, hear_signals, wait, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a guest of this code.
#[track_caller]
fn run(code: &[u8]) -> common::Done {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(code));
    folder.run(&["run", &image])
}

/// Starts a guest whose vCPU 0 prints a line and then runs `rest`, while the others spin; returns
/// the process once the line is there.
fn start(folder: &Folder, change: impl FnOnce(&mut Command), rest: &[u8]) -> Child {
    let image = folder
        .file("image", image::elf(&[&image::ON_VCPU_0[..], &image::print("up\n"), rest].concat()));
    let mut command = folder.vmm(&["run"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    change(&mut command);
    let mut child = hear_signals(command.arg(image)).spawn().unwrap();
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"up\n");
    child
}

#[test]
#[ignore = "needs a KVM"]
fn the_guests_exit_code() {
    for (guest, expected) in [(0, 0), (1, 1), (42, 42), (255, 255), (-1, 255), (-128, 128)] {
        let done = run(&image::exit(guest));
        assert_eq!((done.code, done.stderr.as_str()), (expected, ""), "{guest}: {done:?}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_code_that_is_no_exit_code_is_told() {
    for guest in [256, -129, i32::MAX, i32::MIN] {
        let done = run(&image::exit(guest));
        assert_eq!(done.code, 255, "{done:?}");
        assert!(done.stderr.contains(&format!("ended with {guest},")), "{done:?}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn output_to_standard_output_a_file_or_nowhere() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&[image::print("a\nb"), image::exit(0)].concat()));
    let done = folder.run(&["run", &image]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "a\nb"), "{done:?}");
    let done = folder.run(&["run", "-o", "none", &image]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    folder.file("out", "something longer that was there before");
    let done = folder.run(&["run", "-o", "out", &image]);
    assert_eq!((done.code, done.stdout.as_str()), (0, ""), "{done:?}");
    assert_eq!(std::fs::read(folder.path("out")).unwrap(), b"a\nb");
    folder.file("nerite.toml", "[guest]\noutput = 'none'");
    assert_eq!(folder.run(&["run", &image]).stdout, "");
    assert_eq!(folder.run(&["run", "-o", "-", &image]).stdout, "a\nb");
}

#[test]
#[ignore = "needs a KVM"]
fn a_packed_image_runs() {
    let folder = Folder::new();
    let kernel = image::elf(&image::exit(7));
    let packed = image::tar(&[("hermit.toml", image::HERMIT_TOML.as_bytes()), ("kernel", &kernel)]);
    let image = folder.file("image.tar.gz", image::gzip(&packed));
    assert_eq!(folder.run(&["run", &image]).code, 7);
}

#[test]
#[ignore = "needs a KVM"]
fn memory_and_vcpus_of_many_sizes() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(3)));
    let mut fixed = Elf::new(&image::exit(3));
    fixed.file_type = 2;
    fixed.loads[0].0 = 0x20_0000;
    fixed.entry += 0x20_0000;
    let fixed = folder.file("fixed", fixed.build());
    // Exit of interface v1 is port 0x540; EAX is the address of the code, which is in the image
    // itself.
    let mut v1 =
        Elf::new(&[0x8d, 0x05, 0x06, 0, 0, 0, 0x66, 0xba, 0x40, 0x05, 0xef, 0xf4, 3, 0, 0, 0]);
    v1.interface = None;
    let v1 = folder.file("v1", v1.build());
    for image in [&image, &fixed, &v1] {
        for options in [
            &["-m", "16M"][..],
            &["-m", "5G"],
            &["-c", "16"],
            &["--no-aslr"],
            &["--thp"],
            &["--ksm"],
            &["--pit"],
            &["--cpu-pm"],
            &["-a", "0"],
        ] {
            let done = folder.run(&[&["run"], options, &[image]].concat());
            // Only features that this host or hypercall interface v1 lacks are reported.
            let told = ["page merging", "huge pages", "memory below 3 GiB"];
            let quiet = done.stderr.lines().all(|line| told.iter().any(|part| line.contains(part)));
            assert!(done.code == 3 && quiet, "{image} {options:?}: {done:?}");
        }
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_crash_is_reported_on_standard_error() {
    let done = run(&[&image::print("before\n")[..], &image::CRASH].concat());
    assert_eq!(done.code, 244, "{done:?}");
    assert_eq!(done.stdout, "before\n");
    assert!(done.stderr.to_lowercase().contains("rip"), "{done:?}");
    done.is_orderly();
}

#[test]
#[ignore = "needs a KVM"]
fn signals_end_a_guest_that_loops_or_halts() {
    for (signal, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        for rest in [&image::SPIN[..], &image::HALT] {
            let folder = Folder::new();
            let child = start(&folder, |_| (), rest);
            kill_process(Pid::from_child(&child), signal).unwrap();
            let output = wait(child);
            assert_eq!(code(output.status), expected, "{signal:?}: {output:?}");
            assert_eq!(output.stderr, b"", "{output:?}");
        }
    }
}

/// The names of a process's threads, without those that newer kernels' KVM makes in it.
fn threads(child: &Child) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap();
    let names = tasks.map(|task| name(task.unwrap()).trim_end().to_owned());
    names.filter(|name| !name.starts_with("kvm-")).collect()
}

#[test]
#[ignore = "needs a KVM"]
fn each_vcpu_has_a_thread() {
    let folder = Folder::new();
    for (options, expected) in
        [(&[][..], &["vmm", "vcpu0"][..]), (&["-c", "2"], &["vmm", "vcpu0", "vcpu1"])]
    {
        let add = |command: &mut Command| _ = command.args(options);
        let child = start(&folder, add, &image::SPIN);
        // A thread that has just started has no name of its own yet.
        wait_until(&format!("{expected:?}"), || threads(&child) == expected);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(code(wait(child).status), 143);
    }
}

/// The vCPU does not leave the guest while the line is written.
#[test]
#[ignore = "needs a KVM"]
fn a_line_without_end_is_seen_while_the_guest_loops_or_halts() {
    for rest in [&image::SPIN[..], &image::HALT] {
        let folder = Folder::new();
        let mut child = start(&folder, |_| (), &[&image::print("$ ")[..], rest].concat());
        let mut prompt = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut prompt).unwrap();
        assert_eq!(&prompt, b"$ ");
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(code(wait(child).status), 143);
    }
}

#[test]
#[ignore = "needs a KVM"]
fn an_ignored_signal_stays_ignored() {
    let folder = Folder::new();
    let image =
        folder.file("image", image::elf(&[&image::print("up\n")[..], &image::SPIN].concat()));
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_vmm"), "run", &image])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::HUP).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "SIGHUP ended it");
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(code(wait(child).status), 143);
}

/// Starts a guest that prints `line` without end, and returns its process once the output has not
/// been read for so long that a vCPU sleeps in a write, or the machine holds a partial line that it
/// cannot write.
fn start_and_fill_the_pipe(folder: &Folder, line: &str) -> Child {
    let mut guest = image::print(line);
    let back = -i8::try_from(guest.len() + 2).unwrap();
    guest.extend([0xeb, back.cast_unsigned()]);
    let image = folder.file("image", image::elf(&guest));
    let child =
        folder.vmm(&["run", &image]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let tasks = format!("/proc/{}/task", child.id());
    wait_until("the pipe to fill up", || {
        let call = |task: &Path| std::fs::read_to_string(task.join("syscall")).unwrap_or_default();
        // System call 1 is write.
        std::fs::read_dir(&tasks)
            .unwrap()
            .flatten()
            .any(|task| call(&task.path()).starts_with("1 0x"))
    });
    // Time for other threads to start waiting.
    std::thread::sleep(std::time::Duration::from_millis(50));
    child
}

#[test]
#[ignore = "needs a KVM"]
fn one_signal_is_enough_while_nobody_takes_the_output() {
    let folder = Folder::new();
    for line in ["x\n", "x"] {
        let mut child = start_and_fill_the_pipe(&folder, line);
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        wait_until("the process to end", || child.try_wait().unwrap().is_some());
        assert_eq!(code(child.wait().unwrap()), 143, "{line:?}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_that_waits_for_input_can_be_stopped() {
    // SerialReadByte is port 0x1040, and the address of the byte is in RDI.
    let read = [0x48, 0x8d, 0x3d, 0x10, 0, 0, 0, 0x66, 0xba, 0x40, 0x10, 0xef, 0xf4, 0xeb, 0xfd];
    let folder = Folder::new();
    let child = start(&folder, |command| _ = command.stdin(Stdio::piped()), &read);
    std::thread::sleep(std::time::Duration::from_millis(50));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(code(wait(child).status), 143);
}

#[test]
#[ignore = "needs a KVM"]
fn nobody_reads_the_output() {
    let folder = Folder::new();
    let mut guest = image::print("up\n");
    let line = image::print("x\n");
    let back = -i8::try_from(line.len() + 2).unwrap();
    guest.extend(&line);
    guest.extend([0xeb, back.cast_unsigned()]);
    let image = folder.file("image", image::elf(&guest));
    let mut command = folder.vmm(&["run", &image]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = wait(child);
    assert_eq!((code(output.status), output.stderr.as_slice()), (141, &b""[..]), "{output:?}");
}

#[test]
#[ignore = "needs a KVM"]
fn the_output_cannot_be_written() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&[image::print("a\n"), image::exit(0)].concat()));
    folder
        .run(&["run", "-o", "/dev/full", &image])
        .is_error(243, &["/dev/full: cannot write", "No space left"]);
    let mut command = folder.vmm(&["run", &image]);
    command.stdout(File::options().write(true).open("/dev/full").unwrap());
    let output = wait(command.stderr(Stdio::piped()).spawn().unwrap());
    assert_eq!(code(output.status), 243, "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("standard output: cannot write the guest's output: No space left"),
        "{text}"
    );
}

#[test]
#[ignore = "needs a KVM"]
fn nothing_is_left_behind() {
    let folder = Folder::new();
    let child =
        start(&folder, |command| _ = command.env("TMPDIR", folder.path("tmp")), &image::SPIN);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(code(wait(child).status), 130);
    let left: Vec<_> = std::fs::read_dir(folder.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["image"]);
}

/// Standard input, output and error that are closed are nothing to stumble over.
#[test]
#[ignore = "needs a KVM"]
fn closed_standard_streams() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&[image::print("a\n"), image::exit(5)].concat()));
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "exec \"$@\" <&- >&- 2>&-",
        "sh",
        env!("CARGO_BIN_EXE_vmm"),
        "run",
        &image,
    ]);
    assert_eq!(finish(&mut command).code, 5);
}

/// A guest's output and `vmm`'s own messages do not mix: the log is on standard error.
#[test]
#[ignore = "needs a KVM"]
fn the_log_is_on_standard_error() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&[image::print("a\n"), image::exit(0)].concat()));
    let quiet = folder.run(&["run", &image]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("a\n", ""));
    for words in [&["-v", "run", &image][..], &["run", "-v", &image], &["run", "-vvv", &image]] {
        let loud = folder.run(words);
        assert_eq!(loud.stdout, "a\n");
        assert!(loud.stderr.lines().all(|line| line.starts_with("vmm: ")), "{loud:?}");
        assert!(!loud.stderr.is_empty(), "{loud:?}");
    }
    let mut command = folder.vmm(&["run", &image]);
    let filtered = finish(command.env("RUST_LOG", "nerite_machine=info"));
    assert!(!filtered.stderr.is_empty(), "{filtered:?}");
}
