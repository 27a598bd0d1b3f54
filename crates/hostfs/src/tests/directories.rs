//! Directories: made, listed, looked at.

use super::*;

#[test]
fn large_directories_come_page_by_page() {
    let (folder, files) = data(Access::ReadOnly);
    for index in 0..3000 {
        std::fs::write(folder.path().join(format!("file-{index:0>60}")), "").unwrap();
    }
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for size in [88, 1000, 4096, 1 << 20] {
        let entries = list(&files, "/data", size).unwrap();
        assert_eq!(entries.len(), 3003);
        assert_eq!(entries.iter().filter(|(_, kind)| *kind == 8).count(), 3000);
        assert_eq!(entries.iter().filter(|(_, kind)| *kind == 4).count(), 3);
        assert!(entries.windows(2).all(|pair| pair[0] != pair[1]));
    }
    assert_eq!(list(&files, "/data", 24), Err(EINVAL));
    assert_eq!(list(&files, "/data", 0), Err(EINVAL));
    // What is given at a time is limited, whatever the guest's length.
    let fd = files.open(b"/data", O_DIRECTORY, 0).unwrap();
    assert!(files.read_directory(fd, u64::MAX).unwrap().len() <= 64 << 10);
}

#[test]
fn large_directories_in_memory_come_page_by_page() {
    let data: crate::SharedBytes = Arc::new(Vec::new());
    let image = |index: u32| ImageFile {
        path: format!("d/{index}").into(),
        data: data.clone(),
        mode: 0o644,
    };
    let images: Vec<_> = (0..1000).map(image).collect();
    let files = HostFs::new(&[], &images, Limits::default()).unwrap();
    for size in [24, 100, 4096, 1 << 20] {
        assert_eq!(list(&files, "/d", size).unwrap().len(), 1002);
    }
}

#[test]
fn directories_are_rewound() {
    let (folder, files) = data(Access::ReadOnly);
    std::fs::write(folder.path().join("a"), "").unwrap();
    for path in [&b"/data"[..], b"/"] {
        let fd = files.open(path, O_DIRECTORY, 0).unwrap();
        let first = files.read_directory(fd, 4096).unwrap();
        assert_eq!(files.read_directory(fd, 4096).unwrap(), b"");
        assert_eq!(files.seek(fd, 0, SEEK_SET), Ok(0));
        assert_eq!(files.read_directory(fd, 4096).unwrap(), first);
        assert_eq!(files.seek(fd, 1, SEEK_SET), Err(EINVAL));
        assert_eq!(files.seek(fd, 0, SEEK_END), Err(EINVAL));
        assert_eq!(read(&files, fd, 1), Err(EISDIR));
        assert_eq!(write(&files, fd, b"x"), Err(EBADF));
        assert_eq!(files.fstat(fd).unwrap().st_mode & 0o170_000, 0o040_000);
    }
    let fd = files.open(b"/data/a", O_RDONLY, 0).unwrap();
    assert_eq!(files.read_directory(fd, 4096), Err(ENOTDIR));
}

#[test]
fn directories_are_made() {
    let (folder, files) = data(Access::ReadWrite);
    files.make_directory(b"/data/d").unwrap();
    files.make_directory(b"/data/d/e/").unwrap();
    assert!(folder.path().join("d/e").is_dir());
    assert_eq!(files.make_directory(b"/data/d"), Err(EEXIST));
    assert_eq!(files.make_directory(b"/data"), Err(EEXIST));
    assert_eq!(files.make_directory(b"/data/x/y"), Err(ENOENT));
    assert_eq!(files.unlink(b"/data/d"), Err(EISDIR));
    assert_eq!(files.unlink(b"/data/d/"), Err(EISDIR));
    assert_eq!(files.unlink(b"/data"), Err(EBUSY));
    create(&files, "/data/f", b"").unwrap();
    assert_eq!(files.unlink(b"/data/f/"), Err(ENOTDIR));
    assert_eq!(files.unlink(b"/data/f/x"), Err(ENOTDIR));
    // Nothing is mounted there: in memory.
    files.make_directory(b"/tmp/a").unwrap();
    assert_eq!(files.make_directory(b"/tmp"), Err(EEXIST));
    assert_eq!(files.make_directory(b"/"), Err(EEXIST));
    assert_eq!(files.stat(b"/tmp/a", true).unwrap().st_mode, 0o040_777);
    assert_eq!(
        list(&files, "/", 1000).unwrap()[2..],
        [(b"data".to_vec(), 4), (b"tmp".to_vec(), 4)]
    );
    assert_eq!(files.unlink(b"/tmp"), Err(EISDIR));
    assert_eq!(files.open(b"/tmp", O_RDWR, 0), Err(EISDIR));
}

#[test]
fn metadata_is_the_hosts() {
    use std::os::unix::fs::MetadataExt;
    let (folder, files) = data(Access::ReadOnly);
    let path = folder.path().join("a");
    std::fs::write(&path, vec![1; 5000]).unwrap();
    let host = std::fs::metadata(&path).unwrap();
    let fd = files.open(b"/data/a", O_RDONLY, 0).unwrap();
    for guest in [files.stat(b"/data/a", true).unwrap(), files.fstat(fd).unwrap()] {
        assert_eq!(guest.st_ino, host.ino());
        assert_eq!(guest.st_mode, host.mode());
        assert_eq!(guest.st_size, 5000);
        assert_eq!(guest.st_blocks, i64::try_from(host.blocks()).unwrap());
        assert_eq!(guest.st_mtim.tv_sec, host.mtime());
        assert_eq!(i64::from(guest.st_mtim.tv_nsec), host.mtime_nsec());
    }
    assert_eq!(files.stat(b"/data/a/", true).unwrap_err(), ENOTDIR);
    assert_eq!(files.stat(b"/data/", true).unwrap().st_mode & 0o170_000, 0o040_000);
    assert_eq!(files.stat(b"/", true).unwrap().st_mode, 0o040_755);
    assert_eq!(files.stat(b"/none", true).unwrap_err(), ENOENT);
}
