//! Snapshots at a moment of the run: `--snapshot` and `--snapshot-at`.

#![cfg(test)]

mod common;

use common::long_runs::{PC_RIGHT, RIGHT, pc_printer, printed, printer};
use common::{Done, Folder, image, without_host_warnings};

/// Number of letters that the guests print: several times as many as a line that does not end has
/// when it goes out.
const LETTERS: u32 = 20_000;

/// Runs a guest with a snapshot at `moment`, and expects that nothing temporary is left.
fn run(folder: &Folder, accelerator: &str, moment: &str, words: &[&str]) -> Done {
    let planned = ["--snapshot", "saved", "--snapshot-at", moment];
    let done = folder.run(&[&["run", "--accel", accelerator][..], &planned, words].concat());
    assert!(!folder.path(".saved.partial").exists(), "{done:?}");
    done
}

fn restore(folder: &Folder, accelerator: &str) -> Done {
    folder.run(&["run", "--accel", accelerator, "--restore", "saved", "--verify"])
}

/// A guest that is saved at its end ends again, and does nothing else.
fn is_saved_at_its_exit(accelerator: &str) {
    // The second vCPU is in an endless loop: test esi, esi; jz over; jmp self.
    let two = [&[0x85, 0xf6, 0x74, 2, 0xeb, 0xfe][..], &image::exit(7)].concat();
    for (image, vcpus, right, output) in [
        (image::elf(&printer(LETTERS)), "1", RIGHT, printed(LETTERS)),
        (image::elf(&two), "2", 7, String::new()),
        (pc_printer(LETTERS), "1", PC_RIGHT, printed(LETTERS)),
    ] {
        let folder = Folder::new();
        let image = folder.file("image", image);
        let done = run(&folder, accelerator, "exit", &["-c", vcpus, &image]);
        assert_eq!((done.code, &*without_host_warnings(&done.stderr)), (right, ""));
        assert!(done.stdout == output);
        for _ in 0..2 {
            let again = restore(&folder, accelerator);
            assert_eq!((again.code, &*again.stdout), (right, ""), "{again:?}");
        }
    }
}

/// A guest that is saved at its first output has printed that, and not the rest.
fn is_saved_at_its_first_output(accelerator: &str) {
    let expected = printed(LETTERS);
    for (image, right) in [(image::elf(&printer(LETTERS)), RIGHT), (pc_printer(LETTERS), PC_RIGHT)]
    {
        let folder = Folder::new();
        let image = folder.file("image", image);
        let done = run(&folder, accelerator, "first-output", &[&image]);
        assert_eq!((done.code, &*without_host_warnings(&done.stderr)), (right, ""));
        assert!(done.stdout == expected);
        let again = restore(&folder, accelerator);
        assert_eq!(again.code, right, "{}", again.stderr);
        let before = expected.len() - again.stdout.len();
        assert!(expected.ends_with(&again.stdout));
        // A line that does not end goes out when it has 4096 bytes, if not before.
        assert!((1..=2 * 4096).contains(&before), "{before} bytes are printed before");
    }
}

#[test]
fn a_guest_is_saved_at_its_exit() {
    is_saved_at_its_exit("software");
}

#[test]
fn a_guest_is_saved_at_its_first_output() {
    is_saved_at_its_first_output("software");
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_is_saved_at_its_exit_on_kvm() {
    is_saved_at_its_exit("kvm");
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_is_saved_at_its_first_output_on_kvm() {
    is_saved_at_its_first_output("kvm");
}

#[test]
fn a_guest_that_does_not_come_to_the_moment_is_not_saved() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(7)));
    let done = run(&folder, "software", "first-output", &[&image]);
    assert_eq!(done.code, 7);
    assert!(done.stderr.contains("has ended before the moment of its snapshot"), "{done:?}");
    assert!(!folder.path("saved").exists());
    // ud2
    let image = folder.file("image", image::elf(&[0x0f, 0x0b]));
    let done = run(&folder, "software", "exit", &[&image]);
    assert_eq!(done.code, 244, "{done:?}");
    assert!(!folder.path("saved").exists());
}

#[test]
fn a_snapshot_that_cannot_be_made_is_refused_at_the_start() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(7)));
    for (words, part) in [
        (&["--snapshot", "saved"][..], "--snapshot-at"),
        (&["--snapshot-at", "exit"], "--snapshot"),
        (&["--snapshot", "saved", "--snapshot-at", "noon"], "first-output"),
        (&["--snapshot", "saved", "--snapshot-at", "exit", "--user", "1:1"], "--user"),
        (&["--snapshot", "saved", "--snapshot-at", "exit", "--irqchip", "user"], "--snapshot"),
    ] {
        let done = folder.run(&[&["run", "--accel", "software"], words, &[&image]].concat());
        assert_eq!(done.code, 240, "{done:?}");
        assert!(done.stderr.contains(part), "{done:?}");
    }
    folder.file("saved/file", "");
    run(&folder, "software", "exit", &[&image]).is_error(243, &["saved", "never overwritten"]);
}
