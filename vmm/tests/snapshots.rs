//! Snapshots from outside: `vmm ctl snapshot`, `vmm run --restore`, `vmm inspect`.
//!
//! `NERITE_TEST_SNAPSHOTS` is the number of snapshots that a guest goes through at most, 3 without
//! it.

#![cfg(test)]

mod common;

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use common::long_runs::{PC_RIGHT, RIGHT, STEPS, copier, expected, next, pc_worker, worker};
use common::running::{ATTEMPTS, Guest};
use common::{Folder, image, wait_until, without_host_warnings};

/// Runs a guest, which returns the number of its snapshots, until there is one: on a busy machine
/// it can come to its own end before the first request is there.
fn until_saved(run: impl Fn() -> u64) {
    let is_saved = (0..ATTEMPTS).any(|_| run() > 0);
    assert!(is_saved, "a guest was at its end before its first snapshot {ATTEMPTS} times");
}

/// Lets a guest go on in one process after the other, on these hypervisors in turn, and expects
/// that it does not notice. Returns the number of snapshots.
fn goes_on(image: &[u8], vcpus: &str, right: i32, accelerators: &[&str]) -> u64 {
    let folder = Folder::new();
    let image = folder.file("image", image);
    let mut accelerators = accelerators.iter().cycle();
    let mut output = String::new();
    let mut guest = Guest::start(&folder, accelerators.next().unwrap(), &["-c", vcpus, &image]);
    let most = std::env::var("NERITE_TEST_SNAPSHOTS").map_or(3, |most| most.parse().unwrap());
    let mut saved = 0_u64;
    loop {
        // Moments that have nothing to do with those of the guest.
        std::thread::sleep(Duration::from_millis(10 + saved * 37 % 90));
        let name = format!("saved{saved}");
        let done = guest.ctl(&["snapshot", "--stop", &name]);
        let (code, printed, said) = guest.end();
        output += &printed;
        if done.code != 0 {
            assert_eq!(code, right, "after {saved} snapshots: {done:?} {said}");
            break;
        }
        assert_eq!(code, 143, "{done:?} {said}");
        std::fs::remove_file(folder.path("output")).unwrap();
        if let Some(before) = saved.checked_sub(1) {
            // The guest that used it has ended. On a tmpfs each takes memory.
            std::fs::remove_dir_all(folder.path(&format!("saved{before}"))).unwrap();
        }
        guest =
            Guest::start(&folder, accelerators.next().unwrap(), &["--restore", &name, "--verify"]);
        saved += 1;
        // The rest without snapshots.
        if saved == most {
            let (code, printed, said) = guest.end();
            output += &printed;
            assert_eq!(code, right, "{said}");
            break;
        }
    }
    assert!(output == expected(), "after {saved} snapshots: {} of {STEPS} steps", output.len());
    saved
}

fn hermit_goes_on(vcpus: u32, accelerators: &[&str]) {
    let image = image::elf(&worker(vcpus));
    until_saved(|| goes_on(&image, &vcpus.to_string(), RIGHT, accelerators));
}

#[test]
fn a_guest_goes_on_in_other_processes() {
    hermit_goes_on(1, &["software"]);
}

#[test]
fn a_guest_with_two_vcpus_goes_on_in_other_processes() {
    hermit_goes_on(2, &["software"]);
}

#[test]
fn a_pc_goes_on_in_other_processes() {
    until_saved(|| goes_on(&pc_worker(), "1", PC_RIGHT, &["software"]));
}

#[test]
#[ignore = "needs a KVM"]
fn guests_go_on_in_other_processes_on_kvm() {
    hermit_goes_on(1, &["kvm"]);
    hermit_goes_on(2, &["kvm"]);
    until_saved(|| goes_on(&pc_worker(), "1", PC_RIGHT, &["kvm"]));
}

/// The first hypervisor is both, so that the guest sees only what the others have, too.
#[test]
#[ignore = "needs a KVM"]
fn guests_go_on_with_one_hypervisor_after_the_other() {
    let accelerators = ["kvm,software", "software", "kvm"];
    hermit_goes_on(1, &accelerators);
    hermit_goes_on(2, &accelerators);
    until_saved(|| goes_on(&pc_worker(), "1", PC_RIGHT, &accelerators));
}

/// A guest of one hypervisor goes on with the other, or the feature of the processor that is
/// missing there is named.
#[test]
#[ignore = "needs a KVM"]
fn a_guest_goes_on_with_the_other_hypervisor() {
    for [first, second] in [["software", "kvm"], ["kvm", "software"]] {
        let folder = Folder::new();
        let image = folder.file("image", image::elf(&worker(1)));
        let before = Guest::saved(&folder, first, &[&image], RIGHT);
        let done = folder.run(&["run", "--accel", second, "--restore", "saved"]);
        if done.code == RIGHT {
            assert!(before + &done.stdout == expected(), "{first} to {second}");
        } else {
            done.is_error(243, &["uses ", "which this host or hypervisor lacks"]);
        }
    }
}

/// A guest that was shown a level of features goes on in software after KVM. The other way round it
/// takes a processor that scales the time-stamp counter.
#[test]
#[ignore = "needs a KVM"]
fn a_guest_of_a_level_goes_on_in_software_after_kvm() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    let before = Guest::saved(&folder, "kvm", &["--cpu", "x86-64-v2", &image], RIGHT);
    let done = folder.run(&["run", "--accel", "software", "--restore", "saved"]);
    assert_eq!(done.code, RIGHT, "{}", done.stderr);
    assert!(before + &done.stdout == expected());
}

/// Lets a guest that copies a file go on in one process after the other. Returns the number of
/// snapshots.
fn copies(accelerator: &str) -> u64 {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&copier()));
    let contents: Vec<_> = (0..120_000_u32).map(|index| next(index).to_le_bytes()[3]).collect();
    folder.file("data/in", &contents);
    let mount = ["--mount", "data:/data:rw"];
    let mut guest = Guest::start(&folder, accelerator, &[&mount[..], &[&image]].concat());
    let mut saved = 0_u64;
    loop {
        std::thread::sleep(Duration::from_millis(10 + saved * 37 % 50));
        let name = format!("saved{saved}");
        let done = guest.ctl(&["snapshot", "--stop", &name]);
        let (code, _, said) = guest.end();
        if done.code != 0 {
            assert_eq!(code, RIGHT, "after {saved} snapshots: {done:?} {said}");
            break;
        }
        saved += 1;
        guest = Guest::start(&folder, accelerator, &[&mount[..], &["--restore", &name]].concat());
        if saved == 10 {
            let (code, _, said) = guest.end();
            assert_eq!(code, RIGHT, "{said}");
            break;
        }
    }
    assert!(std::fs::read(folder.path("data/out")).unwrap() == contents, "after {saved} snapshots");
    saved
}

#[test]
fn a_copy_of_a_file_goes_on_in_other_processes() {
    until_saved(|| copies("software"));
}

#[test]
#[ignore = "needs a KVM"]
fn a_copy_of_a_file_goes_on_in_other_processes_on_kvm() {
    until_saved(|| copies("kvm"));
}

#[test]
fn a_guest_whose_open_file_has_changed_does_not_go_on() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&copier()));
    folder.file("data/in", vec![7; 4_000_000]);
    let guest = Guest::start(&folder, "software", &["--mount", "data:/data:rw", &image]);
    let copied = || folder.path("data/out").metadata().is_ok_and(|it| it.len() > 0);
    wait_until("a copy", copied);
    assert_eq!(guest.ctl(&["snapshot", "--stop", "saved"]).code, 0);
    assert_eq!(guest.end().0, 143);
    folder.file("data/in", vec![8; 4_000_000]);
    let restore = ["run", "--accel", "software", "--mount", "data:/data:rw", "--restore", "saved"];
    folder.run(&restore).is_error(242, &["/data/in"]);
}

/// A folder with a snapshot `saved` of a guest that prints.
fn saved() -> Folder {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&worker(1)));
    folder.file("data/file", "x");
    let words = ["--mount", "data:/data", &image, "a word"];
    let output = Guest::saved(&folder, "software", &words, RIGHT);
    assert!(expected().starts_with(&output), "nothing is printed behind the snapshot");
    std::fs::rename(folder.path("output"), folder.path("before")).unwrap();
    folder
}

#[test]
fn a_guest_runs_on_after_a_snapshot_and_can_be_cloned() {
    let folder = Folder::new();
    // The second processor computes long after the first one has printed all, and the machine is
    // still there for both requests.
    let image = folder.file("image", image::elf(&worker(2)));
    let guest = Guest::start(&folder, "software", &["-c", "2", &image]);
    guest.prints();
    let done = guest.ctl(&["snapshot", "saved"]);
    assert_eq!(done.code, 0, "{done:?}");
    let report: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(report["data"].as_u64().unwrap() < report["memory"].as_u64().unwrap(), "{report}");
    let again = guest.ctl(&["snapshot", "saved"]);
    again.is_error(243, &["saved", "never overwritten"]);
    let (code, output, said) = guest.end();
    assert!((code, output == expected()) == (RIGHT, true), "{said}");
    let clones: Vec<_> = (0..2)
        .map(|_| {
            let done = folder.run(&["run", "--accel", "software", "--restore", "saved"]);
            assert_eq!((done.code, &*without_host_warnings(&done.stderr)), (RIGHT, ""));
            done.stdout
        })
        .collect();
    assert!(clones[0] == clones[1] && output.ends_with(&clones[0]));
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path("")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["image", "output", "saved"], "nothing temporary is left");
}

#[test]
fn what_a_snapshot_is_can_be_printed() {
    let folder = saved();
    let done = folder.run(&["inspect", "--verify", "saved"]);
    assert_eq!((done.code, &*done.stderr), (0, ""));
    for part in
        ["nerite", "software", "hermit, ", "[\"a word\"]", "/data (ro)", "65536 KiB", "digest"]
    {
        assert!(done.stdout.contains(part), "{part:?}: {}", done.stdout);
    }
    folder.run(&["inspect", "--verify", "image"]).is_error(240, &["--verify"]);
}

/// Changes a byte of a file.
fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn what_does_not_fit_a_snapshot_is_named() {
    let folder = saved();
    let run = |words: &[&str]| folder.run(&[&["run", "--accel", "software"][..], words].concat());
    run(&["--restore", "nowhere"]).is_error(243, &["nowhere", "No such file"]);
    run(&["--restore", "image"]).is_error(243, &["image", "Not a directory"]);
    run(&["--restore", "saved"]).is_error(240, &["--mount HOST:/data:ro"]);
    let mount = ["--mount", "data:/data", "--restore", "saved"];
    run(&[&["--mount", "data:/more"], &mount[..]].concat()).is_error(240, &["no mount /more"]);
    run(&[&["--disk", "image"], &mount[..]].concat()).is_error(240, &["takes no disk"]);
    for option in [&["-m", "64M"][..], &["-c", "2"], &["--pit"], &["--no-aslr"]] {
        run(&[option, &mount[..]].concat()).is_error(240, &["--restore"]);
    }
    for words in [&["--verify", "image"][..], &["--on-changed", "eio", "image"]] {
        assert_eq!(run(words).code, 240, "{words:?}");
    }
    let done = run(&mount);
    assert_eq!((done.code, &*without_host_warnings(&done.stderr)), (RIGHT, ""));
    assert!(std::fs::read_to_string(folder.path("before")).unwrap() + &done.stdout == expected());
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let folder = saved();
    let restore = ["run", "--accel", "software", "--mount", "data:/data", "--restore", "saved"];
    let file = |name: &str| folder.path("saved").join(name);
    let verified = [&restore[..], &["--verify"]].concat();
    assert_eq!(folder.run(&verified).code, RIGHT);
    flip(&file("memory"), 12345);
    folder.run(&verified).is_error(242, &["memory", "damaged"]);
    folder.run(&["inspect", "--verify", "saved"]).is_error(242, &["memory", "damaged"]);
    flip(&file("memory"), 12345);
    let text = std::fs::read_to_string(file("snapshot.json")).unwrap();
    for (changed, part) in [
        (text.replace("\"format\":1", "\"format\":2"), "format 2"),
        (text.replace("\"vcpus\"", "\"VCPUS\""), "damaged"),
        (text[..text.len() / 2].to_owned(), "malformed"),
        (String::new(), "malformed"),
    ] {
        std::fs::write(file("snapshot.json"), changed).unwrap();
        folder.run(&restore).is_error(242, &[part]);
    }
    std::fs::write(file("snapshot.json"), text).unwrap();
    let memory = std::fs::File::options().write(true).open(file("memory")).unwrap();
    memory.set_len(memory.metadata().unwrap().len() - 4096).unwrap();
    folder.run(&restore).is_error(242, &["memory", "truncated"]);
    std::fs::remove_file(file("memory")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", file("memory")).unwrap();
    folder.run(&restore).is_error(243, &["memory"]);
}
