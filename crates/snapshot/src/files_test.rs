use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{Region, Staging};

const PAGE: u64 = 4096;

fn describe(files: &Files, state: Value) -> Result<(), Error> {
    files.describe(|memory_digest, image_digest| Manifest {
        writer: "test 1".to_owned(),
        memory: vec![
            Region { start: 0, size: 64 * PAGE },
            Region { start: 1 << 32, size: 64 * PAGE },
        ],
        memory_digest,
        image_digest,
        state,
    })
}

fn fill(files: &Files) {
    files.memory.set_len(128 * PAGE).unwrap();
    files.memory.write_all_at(b"guest", 70 * PAGE + 3).unwrap();
    files.image.write_all_at(b"\x7fELF", 0).unwrap();
}

/// A folder with a snapshot `saved` in it.
fn saved() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let staging = Staging::create(&folder.path().join("saved")).unwrap();
    fill(staging.files());
    describe(staging.files(), json!({ "answer": 42 })).unwrap();
    staging.commit().unwrap();
    folder
}

/// Everything in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let folder = saved();
    let path = folder.path().join("saved");
    assert_eq!(names(folder.path()), ["saved"]);
    assert_eq!(names(&path), ["image", "memory", "snapshot.json"]);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(NAMES.map(|name| mode(&path.join(name))), [0o600; 3]);
    let snapshot = Snapshot::open(&path).unwrap();
    let manifest = snapshot.read::<Value>().unwrap();
    assert_eq!(manifest.state, json!({ "answer": 42 }));
    snapshot.verify(&manifest).unwrap();
    let mut bytes = [0; 5];
    snapshot.memory().read_exact_at(&mut bytes, 70 * PAGE + 3).unwrap();
    assert_eq!(&bytes, b"guest");
}

#[test]
fn a_snapshot_is_never_overwritten() {
    let folder = saved();
    let path = folder.path().join("saved");
    assert!(matches!(Staging::create(&path), Err(Error::Exists(_))));
    // Also not if the name is taken while it is being written.
    let late = folder.path().join("late");
    let staging = Staging::create(&late).unwrap();
    fill(staging.files());
    describe(staging.files(), Value::Null).unwrap();
    std::fs::create_dir(&late).unwrap();
    assert!(matches!(staging.commit(), Err(Error::Exists(_))));
    assert_eq!(names(&late), [""; 0]);
    assert_eq!(names(folder.path()), ["late", "saved"], "the temporary directory is gone");
    for path in ["", "/", "..", "a/.."] {
        assert!(matches!(Staging::create(Path::new(path)), Err(Error::NoName(_))), "{path:?}");
    }
}

#[test]
fn an_interrupted_snapshot_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let staging = Staging::create(&path).unwrap();
    fill(staging.files());
    assert_eq!(names(folder.path()), [".saved.partial"]);
    assert!(matches!(Staging::create(&path), Err(Error::InUse { .. })));
    drop(staging);
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn the_remains_of_a_killed_writer_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved");
    let remains = folder.path().join(".saved.partial");
    std::fs::create_dir(&remains).unwrap();
    std::fs::write(remains.join("memory"), "half").unwrap();
    let staging = Staging::create(&path).unwrap();
    assert!(staging.replaced_remains());
    fill(staging.files());
    describe(staging.files(), Value::Null).unwrap();
    staging.commit().unwrap();
    assert_eq!(names(folder.path()), ["saved"]);
    Snapshot::open(&path).unwrap().read::<Value>().unwrap();
    // A link is not followed to a directory elsewhere.
    symlink(&path, folder.path().join(".other.partial")).unwrap();
    assert!(Staging::create(&folder.path().join("other")).is_err());
    assert_eq!(names(&path).len(), 3);
}

#[test]
fn memory_of_another_size_is_refused() {
    for size in [0, 128 * PAGE - 1, 128 * PAGE + 1] {
        let folder = saved();
        let path = folder.path().join("saved");
        File::options().write(true).open(path.join("memory")).unwrap().set_len(size).unwrap();
        let error = Snapshot::open(&path).unwrap().read::<Value>().unwrap_err();
        assert!(matches!(error, Error::Size { size: found, .. } if found == size), "{error}");
    }
}

#[test]
fn damage_is_found_when_it_is_looked_for() {
    for (name, offset) in
        [("memory", 0), ("memory", 70 * PAGE + 4), ("memory", 128 * PAGE - 1), ("image", 2)]
    {
        let folder = saved();
        let path = folder.path().join("saved");
        let file = File::options().read(true).write(true).open(path.join(name)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
        let snapshot = Snapshot::open(&path).unwrap();
        let manifest = snapshot.read::<Value>().unwrap();
        let error = snapshot.verify(&manifest).unwrap_err();
        assert!(matches!(error, Error::Damaged { name: found } if found == name), "{error}");
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    for name in NAMES {
        let folder = saved();
        let path = folder.path().join("saved");
        let file = path.join(name);
        std::fs::rename(&file, folder.path().join("elsewhere")).unwrap();
        assert!(matches!(Snapshot::open(&path), Err(Error::Host { .. })), "{name} is missing");
        symlink("../elsewhere", &file).unwrap();
        assert!(Snapshot::open(&path).is_err(), "{name} is a link");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(
            matches!(Snapshot::open(&path), Err(Error::NotAFile { .. })),
            "{name} is a directory"
        );
        std::fs::remove_dir(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .unwrap();
        assert!(matches!(Snapshot::open(&path), Err(Error::NotAFile { .. })), "{name} is a pipe");
    }
    assert!(Snapshot::open(Path::new("/nonexistent")).is_err());
    assert!(Snapshot::open(Path::new("/etc/passwd")).is_err());
}

#[test]
fn a_description_that_is_too_large_is_not_read() {
    let folder = saved();
    let path = folder.path().join("saved");
    File::options()
        .write(true)
        .open(path.join("snapshot.json"))
        .unwrap()
        .set_len(MAX_STATE + 1)
        .unwrap();
    let error = Snapshot::open(&path).unwrap().read::<Value>().unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
}
