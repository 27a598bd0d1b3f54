//! Snapshots whose files are gone, changed or without room, while they are written and used.

#![cfg(test)]

mod common;

use common::long_runs::worker;
use common::running::Guest;
use common::{Folder, image};

/// Makes a snapshot `saved` of a guest that prints.
fn save(folder: &Folder) {
    let image = folder.file("image", image::elf(&worker(1)));
    let guest = Guest::start(folder, "software", &[&image]);
    guest.prints();
    assert_eq!(guest.ctl(&["snapshot", "--stop", "saved"]).code, 0);
    assert_eq!(guest.end().0, 143);
    std::fs::remove_file(folder.path("output")).unwrap();
}

/// Takes the memory away from a guest that uses it, and expects a message of one line.
fn memory_is_taken_away(accelerator: &str) {
    let folder = Folder::new();
    save(&folder);
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
