//! Files of a guest that resumes in another process.

use std::io::Write as _;
use std::sync::Arc;

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use proptest::prelude::*;

use super::*;
use crate::{Extent, FilesState, ImageFile, OnChanged, OpenState};

fn image() -> [ImageFile; 2] {
    ["etc/motd", "etc/other"].map(|path| ImageFile {
        path: path.into(),
        data: Arc::new(b"of the image".to_vec()),
        mode: 0o644,
    })
}

/// A guest with `folder` on `/data`, and an image.
fn guest(folder: &TempDir) -> HostFs {
    let mounts = [mount(folder, "/data", Access::ReadWrite)];
    HostFs::new(&mounts, &image(), Limits::default()).unwrap()
}

/// The files of the same guest after a way through a saved state.
fn moved(files: HostFs, folder: &TempDir) -> HostFs {
    let saved = through_json(&files.save().unwrap());
    drop(files);
    let files = guest(folder);
    files.restore(&saved, OnChanged::Refuse).unwrap();
    assert_eq!(files.save().unwrap(), saved);
    files
}

fn open(files: &HostFs, path: &str, flags: i32) -> i32 {
    files.open(path.as_bytes(), flags, 0o600).unwrap()
}

#[test]
fn open_files_keep_numbers_positions_and_rights() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "0123456789").unwrap();
    let files = guest(&folder);
    let closed = open(&files, "/data/text", O_RDONLY);
    let reader = open(&files, "/data/../data/text", O_RDONLY);
    let writer = open(&files, "/data/new", O_CREAT | O_EXCL | O_TRUNC | O_RDWR);
    let log = open(&files, "/data/log", O_CREAT | O_WRONLY | O_APPEND);
    let motd = open(&files, "/etc/motd", O_RDONLY);
    assert_eq!(read(&files, reader, 4).unwrap(), b"0123");
    assert_eq!(write(&files, writer, b"ab"), Ok(2));
    assert_eq!(write(&files, log, b"one,"), Ok(4));
    assert_eq!(read(&files, motd, 3).unwrap(), b"of ");
    files.close(closed).unwrap();

    let files = moved(moved(files, &folder), &folder);
    assert_eq!(read(&files, reader, 100).unwrap(), b"456789");
    assert_eq!(write(&files, reader, b"x"), Err(EBADF));
    assert_eq!(write(&files, writer, b"cd"), Ok(2));
    assert_eq!(files.seek(log, 0, SEEK_SET), Ok(0));
    assert_eq!(write(&files, log, b"two"), Ok(3));
    assert_eq!(read(&files, motd, 100).unwrap(), b"the image");
    assert_eq!(std::fs::read(folder.path().join("new")).unwrap(), b"abcd");
    assert_eq!(std::fs::read(folder.path().join("log")).unwrap(), b"one,two");
    assert_eq!(open(&files, "/data/text", O_RDONLY), closed, "the lowest free number");
}

#[test]
fn temporary_files_come_with_contents_holes_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let files = guest(&folder);
    create(&files, "/tmp/deep/file", b"hello").unwrap();
    files.make_directory(b"/tmp/empty").unwrap();
    create(&files, "/etc/beside", b"").unwrap();
    let fd = open(&files, "/tmp/deep/file", O_RDWR | O_APPEND);
    let again = open(&files, "/tmp/deep/file", O_RDONLY);
    assert_eq!(files.seek(again, 2, SEEK_SET), Ok(2));
    let unlinked = open(&files, "/tmp/gone", O_CREAT | O_RDWR);
    assert_eq!(files.seek(unlinked, 1 << 20, SEEK_SET), Ok(1 << 20));
    assert_eq!(write(&files, unlinked, b"end"), Ok(3));
    files.unlink(b"/tmp/gone").unwrap();
    let inode = files.fstat(unlinked).unwrap().st_ino;
    let saved = files.save().unwrap();
    let sparse = saved.temporary.iter().find(|file| file.size == (1 << 20) + 3).unwrap();
    assert!(
        sparse.extents.iter().map(|extent| extent.bytes.len()).sum::<usize>() < 1 << 17,
        "holes"
    );

    let files = moved(files, &folder);
    assert_eq!(write(&files, fd, b" you"), Ok(4));
    assert_eq!(read(&files, again, 100).unwrap(), b"llo you");
    assert_eq!(contents(&files, "/tmp/deep/file").unwrap(), b"hello you");
    assert_eq!(
        list(&files, "/tmp", 1000).unwrap()[2..],
        [(b"deep".to_vec(), 4), (b"empty".to_vec(), 4)]
    );
    assert_eq!(list(&files, "/etc", 1000).unwrap().len(), 5);
    assert_eq!(files.fstat(unlinked).unwrap().st_ino, inode);
    assert_eq!(files.seek(unlinked, -3, SEEK_END), Ok(1 << 20));
    assert_eq!(read(&files, unlinked, 100).unwrap(), b"end");
    assert_eq!(files.open(b"/tmp/gone", O_RDONLY, 0), Err(ENOENT));
    let new = open(&files, "/tmp/new", O_CREAT | O_RDWR);
    assert!(files.fstat(new).unwrap().st_ino > inode, "numbers are not used twice");
}

#[test]
fn directories_go_on_where_they_were_read_to() {
    let folder = tempfile::tempdir().unwrap();
    for name in 0..40 {
        std::fs::write(folder.path().join(format!("file{name}")), "").unwrap();
    }
    let read_all = |moves: bool, path: &str| {
        let mut files = guest(&folder);
        let fd = open(&files, path, O_RDONLY | O_DIRECTORY);
        let mut all = Vec::new();
        loop {
            let entries = files.read_directory(fd, 100).unwrap();
            if entries.is_empty() {
                return all;
            }
            all.extend(entries);
            if moves {
                files = moved(files, &folder);
            }
        }
    };
    for path in ["/data", "/etc", "/"] {
        assert_eq!(read_all(true, path), read_all(false, path), "{path}");
    }
}

#[test]
fn a_file_that_changed_or_vanished_is_an_error_or_lost() {
    for change in [
        (|path| std::fs::remove_file(path).unwrap()) as fn(std::path::PathBuf),
        |path| std::fs::write(path, "0123456789").unwrap(),
        |path| std::fs::File::options().append(true).open(path).unwrap().write_all(b"x").unwrap(),
        |path| {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        },
        |path| {
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, "0123456789").unwrap();
        let files = guest(&folder);
        let (fd, other) = (open(&files, "/data/text", O_RDWR), open(&files, "/etc/motd", O_RDONLY));
        let saved = files.save().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(path);
        let error = guest(&folder).restore(&saved, OnChanged::Refuse).unwrap_err();
        let error = nerite_log_budget::Causes(&error).to_string();
        assert!(error.contains("/data/text was open and"), "{error}");
        let files = guest(&folder);
        files.restore(&saved, OnChanged::Eio).unwrap();
        let files = moved(files, &folder);
        assert_eq!(read(&files, fd, 1), Err(EIO));
        assert_eq!(write(&files, fd, b"x"), Err(EIO));
        assert_eq!(files.seek(fd, 0, SEEK_SET), Err(EIO));
        assert_eq!(files.fstat(fd).unwrap_err(), EIO);
        assert_eq!(files.read_directory(fd, 1000), Err(EIO));
        assert_eq!(read(&files, other, 2).unwrap(), b"of");
        files.close(fd).unwrap();
        assert_eq!(read(&files, fd, 1), Err(EBADF));
    }
}

#[test]
fn a_guest_with_other_mounts_or_limits_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = guest(&folder);
    create(&files, "/tmp/file", &[7; 5000]).unwrap();
    let saved = files.save().unwrap();
    let refused = |mounts: &[Mount], limits| {
        let files = HostFs::new(mounts, &image(), limits).unwrap();
        files.restore(&saved, OnChanged::Eio).unwrap_err().to_string()
    };
    let mounts = [mount(&folder, "/data", Access::ReadWrite)];
    assert!(refused(&[], Limits::default()).contains("mounts or image"));
    for (expected, limits) in [
        ("temporary file", Limits { temporary_bytes: 4999, ..Limits::default() }),
        ("name", Limits { temporary_entries: 1, ..Limits::default() }),
        ("bytes written", Limits { bytes_written: 4999, ..Limits::default() }),
    ] {
        let text = refused(&mounts, limits);
        assert!(text.contains(expected), "{text}");
    }
    let limits = Limits { bytes_written: 5003, temporary_bytes: 5003, ..Limits::default() };
    let files = HostFs::new(&mounts, &image(), limits).unwrap();
    // Twice: what the first one took is given back.
    files.restore(&saved, OnChanged::Refuse).unwrap();
    files.restore(&saved, OnChanged::Refuse).unwrap();
    let fd = open(&files, "/tmp/file", O_WRONLY | O_APPEND);
    assert_eq!(write(&files, fd, b"12345"), Ok(3), "what is left of the limit");
}

/// Files of every kind.
fn busy(folder: &TempDir) -> FilesState {
    std::fs::write(folder.path().join("text"), "0123456789").unwrap();
    let files = guest(folder);
    create(&files, "/tmp/deep/file", b"hello").unwrap();
    for (path, flags) in [
        ("/data/text", O_RDWR | O_APPEND),
        ("/data", O_RDONLY),
        ("/tmp/deep/file", O_RDWR),
        ("/etc/motd", O_RDONLY),
        ("/tmp", O_RDONLY),
    ] {
        open(&files, path, flags);
    }
    files.read_directory(7, 40).unwrap();
    files.save().unwrap()
}

#[test]
fn states_of_version_1_can_be_restored() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = busy(&folder);
    for (_, open) in &mut state.open {
        if let OpenState::Regular { origin, .. } | OpenState::HostDirectory { origin, .. } = open {
            origin.identity.device = 0;
        }
    }
    let saved = golden("src/tests/state_v1.json", &state);
    let files = guest(&folder);
    // The files of the host were others.
    files.restore(&saved, OnChanged::Eio).unwrap();
    let mut expected = state;
    for (fd, open) in &mut expected.open {
        if matches!(fd, 3 | 4) {
            *open = OpenState::Lost;
        }
    }
    assert_eq!(files.save().unwrap(), expected);
}

#[test]
fn impossible_states_are_refused_by_name() {
    type Change = fn(&mut FilesState);
    let changes: [(&str, Change); 14] = [
        ("version 0", |saved| saved.version = 0),
        ("next inode", |saved| saved.next_inode = 1),
        ("temporary file", |saved| saved.temporary[0].size = u64::MAX),
        ("temporary file", |saved| {
            saved.temporary[0].extents = vec![Extent { offset: 5, bytes: vec![0] }];
        }),
        ("temporary file", |saved| saved.temporary.clear()),
        ("name", |saved| saved.names[0].name = b"..".to_vec()),
        ("name", |saved| saved.names[0].name = b"a/b".to_vec()),
        ("name", |saved| saved.names[0].parent = 77),
        ("name", |saved| saved.names.reverse()),
        ("number of an open file", |saved| saved.open[0].0 = 2),
        ("number of an open file", |saved| saved.open.swap(0, 1)),
        ("number of an open file", |saved| saved.open[4].0 = 2000),
        ("image file", |saved| saved.open[3].1 = OpenState::Image { inode: 1, position: 0 }),
        ("position", |saved| {
            if let OpenState::Image { position, .. } = &mut saved.open[3].1 {
                *position = u64::MAX;
            }
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (expected, change) in changes {
        let mut saved = busy(&folder);
        change(&mut saved);
        let text = guest(&folder).restore(&saved, OnChanged::Refuse).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

proptest! {
    /// Nothing in a saved state panics or reaches a file that is not mounted.
    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        if let Some(saved) = mutated(&busy(&folder), &mutations) {
            let files = guest(&folder);
            if files.restore(&saved, OnChanged::Eio).is_ok() {
                files.save().unwrap();
                create(&files, "/tmp/other", b"works").unwrap();
                prop_assert_eq!(contents(&files, "/tmp/other").unwrap(), b"works");
            }
            for fd in 0..10 {
                let _ = read(&files, fd, 100);
                let _ = write(&files, fd, b"x");
                let _ = files.read_directory(fd, 100);
                let _ = files.close(fd);
            }
        }
    }
}
