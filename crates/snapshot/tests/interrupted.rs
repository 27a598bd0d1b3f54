//! Writers that are killed, or have no room left.

#![cfg(test)]

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nerite_snapshot::{Manifest, Region, Snapshot, Staging};

/// Names the snapshot to write to a process of this program that is started as a writer.
const WRITER: &str = "NERITE_SNAPSHOT_TEST_WRITER";
const PAGE: u64 = 4096;
const PAGES: u64 = 1 << 14;

/// Writes a snapshot, slowly, so that it can be killed.
#[test]
#[ignore = "the other tests start it"]
fn writer() {
    let path = std::env::var(WRITER).unwrap();
    let staging = Staging::create(Path::new(&path)).unwrap();
    let files = staging.files();
    for page in 0..PAGES {
        if let Err(error) = files.memory.write_all_at(&[1; 4096], page * PAGE) {
            drop(staging);
            panic!("{error}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The process that writes a snapshot, after `shell`.
fn start(path: &Path, shell: &str) -> Child {
    let script = format!("{shell} exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "writer",
        "--ignored",
    ]);
    command.env(WRITER, path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_killed_writer_leaves_nothing_under_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let remains = folder.path().join(".saved.partial/memory");
    let mut child = start(&path, "");
    let begin = Instant::now();
    while remains.metadata().map_or(0, |it| it.len()) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(300), "the writer does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    let in_use = Staging::create(&path).unwrap_err();
    assert!(in_use.to_string().contains("another process is writing it"), "{in_use}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!path.exists() && remains.exists());
    let staging = Staging::create(&path).unwrap();
    assert!(staging.replaced_remains());
    staging.files().memory.set_len(PAGE).unwrap();
    let make = |memory_digest, image_digest| Manifest {
        writer: String::new(),
        memory: vec![Region { start: 0, size: PAGE }],
        memory_digest,
        image_digest,
        state: (),
    };
    staging.files().describe(make).unwrap();
    staging.commit().unwrap();
    let snapshot = Snapshot::open(&path).unwrap();
    snapshot.verify(&snapshot.read::<()>().unwrap()).unwrap();
}

#[test]
fn a_writer_without_room_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    // 32 KiB, and a signal that is ignored, so that a write fails as on a full disk.
    let status = start(&path, "trap '' XFSZ; ulimit -f 64;").wait().unwrap();
    assert!(!status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
