//! Snapshots whose files are gone, changed or without room, while they are written and used.

#![cfg(test)]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::long_runs::{PC_RIGHT, RIGHT, copier, expected, pc_worker, worker};
use common::running::Guest;
use common::{Folder, image, wait, wait_until, without_host_warnings};
use rustix::process::{Pid, Signal, kill_process};

/// Makes a snapshot `saved` of a guest that prints.
fn save(folder: &Folder, accelerator: &str) {
    let image = folder.file("image", image::elf(&worker(1)));
    Guest::saved(folder, accelerator, &[&image], RIGHT);
    std::fs::remove_file(folder.path("output")).unwrap();
}

/// Takes the memory away from a guest that uses it, and expects a message of one line.
fn memory_is_taken_away(accelerator: &str) {
    let folder = Folder::new();
    save(&folder, accelerator);
    let guest = Guest::start(&folder, accelerator, &["--restore", "saved"]);
    guest.prints();
    let memory = std::fs::File::options().write(true).open(folder.path("saved/memory")).unwrap();
    memory.set_len(0).unwrap();
    let (code, _, said) = guest.end();
    assert_eq!(code, 243, "{said}");
    assert!(said.contains("snapshot's memory") && said.contains("shorter"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn memory_that_becomes_shorter_ends_the_guest_with_a_message() {
    memory_is_taken_away("software");
}

#[test]
#[ignore = "needs a KVM"]
fn memory_that_becomes_shorter_ends_the_guest_with_a_message_on_kvm() {
    memory_is_taken_away("kvm");
}

#[test]
fn disks_that_are_missing_or_others_are_named() {
    let folder = Folder::new();
    let image = folder.file("image", pc_worker());
    for (name, size) in [("disk", 1 << 20), ("small", 1 << 19)] {
        folder.file(name, vec![0; size]);
    }
    let before =
        Guest::saved(&folder, "software", &["--disk", "disk,serial=one", &image], PC_RIGHT);
    let restore = ["run", "--accel", "software", "--restore", "saved"];
    let with = |words: &[&str]| folder.run(&[&restore[..], words].concat());
    with(&[]).is_error(240, &["disk"]);
    with(&["--disk", "disk,serial=one", "--disk", "small"]).is_error(240, &["disk"]);
    with(&["--disk", "nowhere,serial=one"]).is_error(240, &["nowhere"]);
    with(&["--disk", "small,serial=one"]).is_error(240, &["disk small", "number of sectors"]);
    let done = with(&["--disk", "disk,serial=one"]);
    assert_eq!((done.code, &*without_host_warnings(&done.stderr)), (PC_RIGHT, ""));
    assert!(before + &done.stdout == expected());
}

#[test]
fn an_open_file_that_was_moved_is_named() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&copier()));
    folder.file("data/in", vec![7; 700_000]);
    let guest = Guest::start(&folder, "software", &["--mount", "data:/data:rw", &image]);
    let copied = || folder.path("data/out").metadata().is_ok_and(|it| it.len() > 0);
    wait_until("a copy", copied);
    assert_eq!(guest.ctl(&["snapshot", "--stop", "saved"]).code, 0);
    assert_eq!(guest.end().0, 143);
    let restore = ["run", "--accel", "software", "--mount", "data:/data:rw", "--restore", "saved"];
    std::fs::rename(folder.path("data/in"), folder.path("data/elsewhere")).unwrap();
    folder.run(&restore).is_error(242, &["/data/in"]);
    std::fs::rename(folder.path("data/elsewhere"), folder.path("data/in")).unwrap();
    assert_eq!(folder.run(&restore).code, RIGHT);
}

#[test]
fn a_damaged_image_is_found() {
    let folder = Folder::new();
    save(&folder, "software");
    let path = folder.path("saved/image");
    let mut image = std::fs::read(&path).unwrap();
    *image.last_mut().unwrap() ^= 1;
    std::fs::write(&path, image).unwrap();
    let words = ["run", "--accel", "software", "--restore", "saved", "--verify"];
    folder.run(&words).is_error(242, &["image", "damaged"]);
}

/// Ends one of the two processes that make a snapshot at moments that have nothing to do with
/// theirs. The snapshot is whole or not there, and a guest that is left goes on.
#[test]
fn a_snapshot_whose_makers_are_killed_is_whole_or_not_there() {
    for moment in 0..8 {
        let folder = Folder::new();
        let image = folder.file("image", image::elf(&worker(1)));
        let guest = Guest::start(&folder, "software", &[&image]);
        guest.prints();
        let mut ctl = folder
            .vmm(&["ctl", "socket", "snapshot", "saved"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(300 * moment));
        let kills_guest = moment % 2 == 0;
        let killed = if kills_guest { &guest.child } else { &ctl };
        kill_process(Pid::from_child(killed), Signal::KILL).unwrap();
        if kills_guest {
            let done = ctl.wait().unwrap();
            assert_eq!(done.success(), folder.path("saved").exists(), "moment {moment}");
            wait(guest.child);
        } else {
            ctl.wait().unwrap();
            let (code, output, said) = guest.end();
            assert_eq!((code, output == expected()), (RIGHT, true), "moment {moment}: {said}");
        }
        if folder.path("saved").exists() {
            assert_eq!(folder.run(&["inspect", "--verify", "saved"]).code, 0, "moment {moment}");
        }
    }
}

#[test]
fn a_snapshot_on_the_base_of_another_is_whole_and_writes_less() {
    let folder = Folder::new();
    // The second processor computes for some seconds, in which the first one waits.
    let image = folder.file("image", image::elf(&worker(2)));
    let guest = Guest::start(&folder, "software", &["-c", "2", &image]);
    guest.prints();
    let save = |words: &[&str]| {
        let done = guest.ctl(&[&["snapshot"][..], words].concat());
        assert_eq!(done.code, 0, "{done:?}");
        let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        report["data"].as_u64().unwrap()
    };
    let whole = save(&["first"]);
    let differs = save(&["--base", "first", "second"]);
    assert!(differs < whole, "{differs} of {whole}");
    let other = ["snapshot", "--base", "other", "third"];
    guest.ctl(&other).is_error(243, &["other", "No such file"]);
    std::fs::create_dir(folder.path("other")).unwrap();
    for name in ["snapshot.json", "image"] {
        std::fs::copy(folder.path("first").join(name), folder.path("other").join(name)).unwrap();
    }
    folder.file("other/memory", [1; 4096]);
    guest.ctl(&other).is_error(243, &["another size"]);
    assert!(!folder.path("third").exists() && !folder.path(".third.partial").exists());
    let (code, output, said) = guest.end();
    assert_eq!((code, output == expected()), (RIGHT, true), "{said}");
    std::fs::remove_dir_all(folder.path("first")).unwrap();
    let done = folder.run(&["run", "--accel", "software", "--restore", "second", "--verify"]);
    assert_eq!((done.code, &*without_host_warnings(&done.stderr)), (RIGHT, ""));
    assert!(expected().ends_with(&done.stdout));
}
