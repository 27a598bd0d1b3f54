//! Confinement that only root can have.

use std::fs;

use nerite_testkit::skip;

use crate::{Attempt, is_root, status};

fn skipped() -> bool {
    if !is_root() {
        skip("only root can do this");
    }
    !is_root()
}

/// The task that entered: the newest one.
fn task(process: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let ids =
        tasks.map(|task| task.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap());
    format!("/proc/{process}/task/{}", ids.max().unwrap())
}

#[test]
fn the_root_directory_is_empty_and_the_namespaces_are_its_own() {
    if skipped() {
        return;
    }
    for (level, namespaces) in [("normal", &["mnt"][..]), ("strict", &["mnt", "ipc", "uts"])] {
        Attempt::to("wait").with("LEVEL", level).observed(|process| {
            let task = task(process);
            assert_eq!(fs::read_dir(format!("{task}/root/")).unwrap().count(), 0);
            for namespace in namespaces {
                let of = |path: &str| fs::read_link(format!("{path}/ns/{namespace}")).unwrap();
                assert_ne!(of(&task), of("/proc/self"), "{namespace}");
            }
            assert!(fs::write(format!("{task}/root/file"), "").is_err(), "it can be written");
        });
    }
    // With nothing else in the way, not even the mount points of the host are there.
    Attempt::to("read")
        .with("SECCOMP", "off")
        .with("TARGET", "/etc/passwd")
        .finds(&libc::ENOENT.to_string());
}

#[test]
fn another_directory_can_be_the_root() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("here"), "").unwrap();
    for level in ["strict", "normal", "off"] {
        Attempt::to("wait").with("CHROOT", folder.path()).with("LEVEL", level).observed(
            |process| {
                let names = fs::read_dir(format!("{}/root/", task(process))).unwrap();
                let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
                assert_eq!(names, ["here"]);
            },
        );
    }
    let ended = Attempt::to("wait").with("CHROOT", folder.path().join("missing")).run();
    assert!(ended.found.contains("the root directory: No such file"), "{ended:?}");
}

#[test]
fn another_user_is_another_user() {
    if skipped() {
        return;
    }
    for level in ["strict", "normal", "off"] {
        Attempt::to("wait").with("USER", "65534:65533").with("LEVEL", level).observed(|process| {
            assert_eq!(status(process, "Uid"), "65534\t65534\t65534\t65534");
            assert_eq!(status(process, "Gid"), "65533\t65533\t65533\t65533");
            assert_eq!(status(process, "Groups"), "");
            assert_eq!(status(process, "CapEff"), "0000000000000000");
        });
    }
}
