//! Identity of guests that are restored from one snapshot: `vmm run --restore DIR`.

#![cfg(test)]

mod common;

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::clone_guest::{self, Told, forgetter, teller};
use common::{Folder, code, wait};

/// A folder with the snapshot `saved` of a guest, and the file that it waits for.
fn saved(accelerator: &str) -> Folder {
    saved_of(accelerator, &teller())
}

fn saved_of(accelerator: &str, guest: &[u8]) -> Folder {
    let folder = clone_guest::saved(accelerator, guest);
    folder.file("data/go", "");
    folder
}

/// Report of a restored guest.
fn told(folder: &Folder, accelerator: &str, words: &[&str]) -> Told {
    let run = ["run", "--accel", accelerator, "--mount", "data:/data", "--restore", "saved"];
    let mut command = folder.vmm(&[&run[..], words].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = wait(child);
    assert_eq!(code(output.status), 0, "{}", String::from_utf8_lossy(&output.stderr));
    Told::read(&output.stdout)
}

/// Time of day as nanoseconds.
fn now() -> i128 {
    i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn all_differ(accelerator: &str) {
    let folder = saved(accelerator);
    // A counter that cannot be set runs since the host was started.
    let year = Duration::from_secs(365 * 24 * 3600);
    let started = now() - i128::try_from(year.as_nanos()).unwrap();
    let (mut random, mut times) = (HashSet::new(), HashSet::new());
    let count = std::env::var("NERITE_TEST_CLONES").map_or(12, |count| count.parse().unwrap());
    for index in 0..count {
        let (word, variable) = (format!("word-{index}-"), format!("WHO=clone{index}-"));
        let told = told(&folder, accelerator, &["-e", &variable, "--", &word, "-e"]);
        assert!(told.knows(&word) && told.knows(&variable), "{told:?}");
        assert!(!told.knows("first"), "the first guest's words are gone: {told:?}");
        assert!(random.insert(told.random), "random bytes twice");
        assert!(times.insert(told.boot_time), "a time twice");
        assert!((started..now()).contains(&told.boot_time), "{}", told.boot_time);
    }
}

#[test]
fn no_two_guests_of_a_snapshot_are_alike() {
    all_differ("software");
}

#[test]
#[ignore = "needs a KVM"]
fn no_two_guests_of_a_snapshot_are_alike_on_kvm() {
    all_differ("kvm");
}

#[test]
fn words_that_are_not_given_stay() {
    let folder = saved("software");
    let same = told(&folder, "software", &[]);
    assert!(same.knows("first-word") && same.knows("WHO=first"), "{same:?}");
    let other = told(&folder, "software", &["-e", "MORE=1"]);
    assert!(other.knows("first-word") && other.knows("WHO=first") && other.knows("MORE=1"));
}

#[test]
fn a_guest_that_has_taken_the_memory_of_its_words_keeps_it() {
    let folder = saved_of("software", &forgetter());
    let restore = ["run", "--accel", "software", "--mount", "data:/data", "--restore", "saved"];
    folder.run(&[&restore[..], &["--", "x"]].concat()).is_error(240, &["has read them"]);
    assert!(told(&folder, "software", &[]).knows("first-word"));
}

#[test]
fn words_that_do_not_fit_are_refused() {
    let folder = saved("software");
    let restore = ["run", "--accel", "software", "--mount", "data:/data", "--restore", "saved"];
    let long = "x".repeat(20_000);
    folder.run(&[&restore[..], &["--", &long]].concat()).is_error(240, &["command line", "16384"]);
}
