//! A guest gets as much as it is given.

use super::*;

fn limited(limits: Limits) -> (TempDir, HostFs) {
    let folder = tempfile::tempdir().unwrap();
    let files = HostFs::new(&[mount(&folder, "/data", Access::ReadWrite)], &[], limits).unwrap();
    (folder, files)
}

#[test]
fn open_files_are_limited() {
    let (folder, files) = limited(Limits { open_files: 3, ..Limits::default() });
    let open = |name: &str| files.open(name.as_bytes(), O_CREAT | O_RDWR, 0o600);
    assert_eq!((open("/data/a"), open("/b"), open("/data/c")), (Ok(3), Ok(4), Ok(5)));
    assert_eq!((open("/data/d"), open("/e")), (Err(EMFILE), Err(EMFILE)));
    assert!(!folder.path().join("d").exists());
    files.close(4).unwrap();
    assert_eq!(open("/data/d"), Ok(4));
}

#[test]
fn written_bytes_are_limited() {
    let (folder, files) = limited(Limits { bytes_written: 10, ..Limits::default() });
    let fd = files.open(b"/data/a", O_CREAT | O_RDWR, 0o600).unwrap();
    assert_eq!(write(&files, fd, b"1234567"), Ok(7));
    assert_eq!(files.seek(fd, 0, SEEK_SET), Ok(0));
    let reader = files.open(b"/data/a", O_RDONLY, 0).unwrap();
    // What fails costs nothing.
    assert_eq!(write(&files, reader, b"12345"), Err(EBADF));
    assert_eq!(write(&files, fd, b"12345"), Ok(3));
    assert_eq!(write(&files, fd, b"1"), Err(ENOSPC));
    assert_eq!(write(&files, fd, b""), Ok(0));
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"1234567");
}

#[test]
fn temporary_bytes_are_limited_and_come_back() {
    let (_folder, files) = limited(Limits { temporary_bytes: 10, ..Limits::default() });
    let fd = files.open(b"/a", O_CREAT | O_RDWR, 0o600).unwrap();
    assert_eq!(write(&files, fd, b"12345678"), Ok(8));
    // What is there already needs no room.
    files.seek(fd, 0, SEEK_SET).unwrap();
    assert_eq!(write(&files, fd, b"abcdefgh"), Ok(8));
    assert_eq!(create(&files, "/b", b"12"), Ok(()));
    assert_eq!(write(&files, fd, b"x"), Err(ENOSPC));
    files.unlink(b"/b").unwrap();
    assert_eq!(write(&files, fd, b"xyz"), Ok(2));
    assert_eq!(write(&files, fd, b"z"), Err(ENOSPC));
    // A hole counts.
    files.open(b"/a", O_WRONLY | O_TRUNC, 0).unwrap();
    assert_eq!(files.seek(fd, 9, SEEK_SET), Ok(9));
    assert_eq!(write(&files, fd, b"xyz"), Ok(1));
    files.open(b"/a", O_WRONLY | O_TRUNC, 0).unwrap();
    assert_eq!(files.seek(fd, 1 << 40, SEEK_SET), Ok(1 << 40));
    assert_eq!(write(&files, fd, b"xyz"), Err(ENOSPC));
    assert_eq!(files.fstat(fd).unwrap().st_size, 0);
    assert_eq!(create(&files, "/c", b"1234567890"), Ok(()));
    // A removed file that is open still takes room.
    let other = files.open(b"/c", O_RDWR, 0).unwrap();
    files.unlink(b"/c").unwrap();
    assert_eq!(create(&files, "/d", b"1"), Err(ENOSPC));
    files.close(other).unwrap();
    assert_eq!(create(&files, "/d", b"1"), Ok(()));
    // Mounts have nothing to do with it.
    assert_eq!(create(&files, "/data/a", b"12345678901234567890"), Ok(()));
}

#[test]
fn temporary_entries_are_limited() {
    let (_folder, files) = limited(Limits { temporary_entries: 3, ..Limits::default() });
    create(&files, "/a/b", b"").unwrap();
    files.make_directory(b"/c").unwrap();
    assert_eq!(files.make_directory(b"/d"), Err(ENOSPC));
    assert_eq!(create(&files, "/d", b""), Err(ENOSPC));
    files.unlink(b"/a/b").unwrap();
    create(&files, "/d", b"").unwrap();
}

#[test]
fn concurrent_writers_do_not_exceed_the_temporary_room() {
    let limit = 100_000;
    let (_folder, files) = limited(Limits { temporary_bytes: limit, ..Limits::default() });
    let shared = files.open(b"/shared", O_CREAT | O_RDWR, 0).unwrap();
    let appender = files.open(b"/shared", O_WRONLY | O_APPEND, 0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let files = &files;
            scope.spawn(move || {
                let own = files.open(format!("/{thread}").as_bytes(), O_CREAT | O_RDWR, 0).unwrap();
                for round in 0..200_i64 {
                    for fd in [own, shared, appender] {
                        let _: Result<u64, i32> = write(files, fd, &[1; 777]);
                        let _: Result<Vec<u8>, i32> = read(files, fd, 100);
                        let _: Result<u64, i32> = files.seek(fd, round * 100, SEEK_SET);
                    }
                }
            });
        }
    });
    let size = |path: &str| files.stat(path.as_bytes(), true).unwrap().st_size.cast_unsigned();
    let total: u64 = ["/shared", "/0", "/1", "/2", "/3"].into_iter().map(size).sum();
    assert!(total <= limit, "{total}");
    assert!(total > limit - 1000, "{total}");
}

/// After a part of a directory was read, the rest comes in the same order, also with a buffer for a
/// single entry.
#[test]
fn directories_go_on_where_they_stopped() {
    let (folder, files) = limited(Limits::default());
    for index in 0..500 {
        std::fs::write(folder.path().join(format!("file-{index:0>40}")), "").unwrap();
        create(&files, &format!("/memory/file-{index:0>40}"), b"").unwrap();
    }
    for path in ["/data", "/memory"] {
        let fd = files.open(path.as_bytes(), O_DIRECTORY, 0).unwrap();
        let whole = files.read_directory(fd, u64::MAX).unwrap();
        files.seek(fd, 0, SEEK_SET).unwrap();
        let mut parts = Vec::new();
        while parts.len() < whole.len() {
            parts.extend(files.read_directory(fd, 72).unwrap());
        }
        assert_eq!(parts[..whole.len()], whole, "{path}");
    }
}
