//! Files, opened in every way.

use super::*;

#[test]
fn files_are_written_and_read() {
    let (folder, files) = data(Access::ReadWrite);
    create(&files, "/data/a", b"hello").unwrap();
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"hello");
    assert_eq!(contents(&files, "/data/a").unwrap(), b"hello");
    assert_eq!(contents(&files, "data//./a").unwrap(), b"hello");

    let fd = files.open(b"/data/a", O_RDWR | O_APPEND, 0).unwrap();
    assert_eq!(write(&files, fd, b" you"), Ok(4));
    assert_eq!(files.seek(fd, 0, SEEK_SET), Ok(0));
    assert_eq!(write(&files, fd, b"!"), Ok(1));
    assert_eq!(files.seek(fd, -4, SEEK_END), Ok(6));
    assert_eq!(read(&files, fd, 3).unwrap(), b"you");
    assert_eq!(files.seek(fd, 1, SEEK_CUR), Ok(10));
    assert_eq!(read(&files, fd, 3).unwrap(), b"");
    assert_eq!(files.seek(fd, -11, SEEK_CUR), Err(EINVAL));
    assert_eq!(files.seek(fd, -1, SEEK_SET), Err(EINVAL));
    assert_eq!(files.seek(fd, 0, 3), Err(EINVAL));
    assert_eq!(files.fstat(fd).unwrap().st_size, 10);
    files.close(fd).unwrap();

    files.open(b"/data/a", O_WRONLY | O_TRUNC, 0).unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("a")).unwrap().len(), 0);
    files.unlink(b"/data/a").unwrap();
    assert_eq!(files.unlink(b"/data/a"), Err(ENOENT));
    assert!(!folder.path().join("a").exists());
}

#[test]
fn flags_mean_what_they_say() {
    let (folder, files) = data(Access::ReadWrite);
    std::fs::write(folder.path().join("a"), "abc").unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    assert_eq!(files.open(b"/data/a", O_CREAT | O_EXCL | O_RDWR, 0o600), Err(EEXIST));
    assert_eq!(files.open(b"/data/a", O_DIRECTORY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/data/a/", O_RDONLY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/data/a/b", O_RDONLY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/data/d", O_WRONLY, 0), Err(EISDIR));
    assert_eq!(files.open(b"/data/d/", O_CREAT | O_WRONLY, 0o600), Err(EISDIR));
    assert_eq!(files.open(b"/data/none", O_WRONLY, 0), Err(ENOENT));
    assert_eq!(files.open(b"/data/none/a", O_CREAT | O_WRONLY, 0o600), Err(ENOENT));
    assert_eq!(files.open(b"/data/a", O_CREAT | O_DIRECTORY, 0), Err(EINVAL));
    assert_eq!(files.open(b"/data/a", O_WRONLY | O_RDWR, 0), Err(EINVAL));
    let fd = files.open(b"/data/a", O_RDONLY, 0).unwrap();
    assert_eq!(write(&files, fd, b"x"), Err(EBADF));
    let fd = files.open(b"/data/a", O_WRONLY, 0).unwrap();
    assert_eq!(read(&files, fd, 1), Err(EBADF));
    let fd = files.open(b"/data/new", O_CREAT | O_EXCL | O_RDWR, 0o6600).unwrap();
    assert_eq!(files.fstat(fd).unwrap().st_mode, 0o100_600);
}

#[test]
fn several_pieces_are_one_transfer() {
    let (_folder, files) = data(Access::ReadWrite);
    let fd = files.open(b"/data/a", O_CREAT | O_RDWR, 0o600).unwrap();
    let (mut first, mut second) = (*b"hello ", *b"you");
    let pieces = [VolatileSlice::from(&mut first[..]), VolatileSlice::from(&mut second[..])];
    assert_eq!(files.write(fd, pieces), Ok(9));
    files.seek(fd, 0, SEEK_SET).unwrap();
    let (mut first, mut second, mut third) = ([0; 4], [0; 4], [0xff; 4]);
    let pieces =
        [&mut first, &mut second, &mut third].map(|piece| VolatileSlice::from(&mut piece[..]));
    assert_eq!(files.read(fd, pieces), Ok(9));
    assert_eq!((&first, &second, &third), (b"hell", b"o yo", b"u\xff\xff\xff"));
    assert_eq!(files.read(fd, []), Ok(0));
}

#[test]
fn descriptors_are_the_lowest_and_end() {
    let (_folder, files) = data(Access::ReadWrite);
    let open = || files.open(b"/data/a", O_CREAT | O_RDWR, 0o600).unwrap();
    assert_eq!((open(), open(), open()), (3, 4, 5));
    files.close(4).unwrap();
    assert_eq!(files.close(4), Err(EBADF));
    assert_eq!(read(&files, 4, 1), Err(EBADF));
    assert_eq!((open(), open()), (4, 6));
    for fd in [-1, 0, 1, 2, 7, i32::MAX, i32::MIN] {
        assert_eq!(files.close(fd), Err(EBADF));
        assert_eq!(files.read(fd, []), Err(EBADF));
        assert_eq!(files.write(fd, []), Err(EBADF));
        assert_eq!(files.seek(fd, 0, 0), Err(EBADF));
        assert_eq!(files.fstat(fd).unwrap_err(), EBADF);
        assert_eq!(files.read_directory(fd, 100), Err(EBADF));
    }
}

#[test]
fn read_only_mounts_cannot_be_changed() {
    let (folder, files) = data(Access::ReadOnly);
    let file = folder.path().join("a");
    std::fs::write(&file, "abc").unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(contents(&files, "/data/a").unwrap(), b"abc");
    for flags in [O_WRONLY, O_RDWR, O_TRUNC, O_CREAT | O_RDWR, O_APPEND | O_WRONLY] {
        assert_eq!(files.open(b"/data/a", flags, 0o600), Err(EROFS), "{flags:o}");
    }
    assert_eq!(files.open(b"/data/d", O_RDWR, 0o600), Err(EISDIR));
    assert_eq!(files.open(b"/data/b", O_CREAT, 0o600), Err(EROFS));
    assert_eq!(files.open(b"/data/b", O_CREAT | O_EXCL, 0o600), Err(EROFS));
    assert_eq!(files.open(b"/data/a", O_CREAT | O_EXCL, 0o600), Err(EEXIST));
    // What exists need not be created.
    assert!(files.open(b"/data/a", O_CREAT, 0o600).is_ok());
    assert_eq!(files.unlink(b"/data/a"), Err(EROFS));
    assert_eq!(files.make_directory(b"/data/x"), Err(EROFS));
    assert_eq!(files.make_directory(b"/data/d"), Err(EEXIST));
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), before);
}

#[test]
fn single_files_are_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    std::fs::write(&one, "1").unwrap();
    std::fs::write(&two, "2").unwrap();
    let mounts =
        [mount(&one, "/etc/one", Access::ReadOnly), mount(&two, "/etc/two", Access::ReadWrite)];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap();
    assert_eq!(contents(&files, "/etc/one").unwrap(), b"1");
    create(&files, "/etc/two", b"22").unwrap();
    assert_eq!(std::fs::read(&two).unwrap(), b"22");
    assert_eq!(files.open(b"/etc/one", O_RDWR, 0), Err(EROFS));
    assert_eq!(files.open(b"/etc/one", O_CREAT | O_EXCL, 0), Err(EEXIST));
    assert_eq!(files.open(b"/etc/one/", O_RDONLY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/etc/one/x", O_RDONLY, 0), Err(ENOTDIR));
    assert_eq!(files.unlink(b"/etc/two"), Err(EBUSY));
    assert_eq!(files.make_directory(b"/etc/two"), Err(EEXIST));
    assert_eq!(files.stat(b"/etc/two", true).unwrap().st_size, 2);
    assert_eq!(
        list(&files, "/etc", 1000).unwrap()[2..],
        [(b"one".to_vec(), 8), (b"two".to_vec(), 8)]
    );
    // Two descriptors have two positions.
    let (a, b) = (files.open(b"/etc/two", 0, 0).unwrap(), files.open(b"/etc/two", 0, 0).unwrap());
    assert_eq!(
        (read(&files, a, 9).unwrap(), read(&files, b, 9).unwrap()),
        (b"22".to_vec(), b"22".to_vec())
    );
    assert_eq!(files.guest_directories(), [b"/etc"]);
}

#[test]
fn the_longest_mount_is_the_one() {
    let (outer, inner) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(inner.path().join("a"), "inner").unwrap();
    std::fs::write(outer.path().join("a"), "outer").unwrap();
    let mounts =
        [mount(&outer, "/m", Access::ReadWrite), mount(&inner, "/m/x/y", Access::ReadOnly)];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap();
    assert_eq!(contents(&files, "/m/a").unwrap(), b"outer");
    assert_eq!(contents(&files, "/m/x/y/a").unwrap(), b"inner");
    assert_eq!(contents(&files, "/m/x/y/../../a").unwrap(), b"outer");
    // The directory in between is on no host.
    assert_eq!(files.stat(b"/m/x", true).unwrap().st_mode & 0o170_000, 0o040_000);
    assert_eq!(list(&files, "/m/x", 1000).unwrap().last().unwrap().0, b"y");
    assert_eq!(files.open(b"/m/x/y/b", O_CREAT | O_RDWR, 0o600), Err(EROFS));
    assert_eq!(files.guest_directories(), [b"/m"]);
}

#[test]
fn bad_mounts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let new = |mounts: &[Mount]| HostFs::new(mounts, &[], Limits::default()).unwrap_err();
    assert!(matches!(new(&[mount("/nowhere/x", "/a", Access::ReadOnly)]), Error::Open { .. }));
    assert!(matches!(new(&[mount(&folder, "a", Access::ReadOnly)]), Error::GuestPath { .. }));
    let twice =
        [mount(&folder, "/a", Access::ReadOnly), mount(&folder, "/b/../a/", Access::ReadOnly)];
    assert!(matches!(new(&twice), Error::Duplicate { .. }));
    // A file cannot be a directory as well, in whatever order.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let mut both = [mount(&file, "/a", Access::ReadOnly), mount(&folder, "/a/b", Access::ReadOnly)];
    assert!(matches!(new(&both), Error::GuestPath { .. }));
    both.reverse();
    assert!(matches!(new(&both), Error::GuestPath { .. }));
    assert!(matches!(new(&[mount(&file, "/", Access::ReadOnly)]), Error::GuestPath { .. }));
}

#[test]
fn image_files_are_served_without_copies() {
    let data: crate::SharedBytes = Arc::new(b"contents".to_vec());
    let image = |path: &str| ImageFile { path: path.into(), data: data.clone(), mode: 0o644 };
    let folder = tempfile::tempdir().unwrap();
    let mounts = [mount(&folder, "/hidden", Access::ReadOnly)];
    let images = [image("app/etc/conf"), image("/hidden/file"), image("top")];
    let files = HostFs::new(&mounts, &images, Limits::default()).unwrap();
    assert_eq!(Arc::strong_count(&data), 1 + 2 * images.len());
    assert_eq!(contents(&files, "/app/etc/conf").unwrap(), b"contents");
    assert_eq!(contents(&files, "/hidden/file"), Err(ENOENT));
    let attributes = files.stat(b"/app/etc/conf", true).unwrap();
    assert_eq!((attributes.st_mode, attributes.st_size, attributes.st_blocks), (0o100_444, 8, 1));
    assert_eq!(files.open(b"/top", O_RDWR, 0), Err(EROFS));
    assert_eq!(files.open(b"/top", O_TRUNC, 0), Err(EROFS));
    assert_eq!(files.open(b"/top/x", O_RDONLY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/top/x", O_CREAT, 0), Err(ENOTDIR));
    assert_eq!(files.unlink(b"/top"), Err(EROFS));
    assert_eq!(list(&files, "/app", 100).unwrap()[2..], [(b"etc".to_vec(), 4)]);

    let fd = files.open(b"/top", O_RDONLY, 0).unwrap();
    assert_eq!(write(&files, fd, b"x"), Err(EBADF));
    assert_eq!(files.seek(fd, -3, SEEK_END), Ok(5));
    assert_eq!(read(&files, fd, 100).unwrap(), b"nts");
    assert_eq!(files.seek(fd, i64::MAX, SEEK_SET), Ok(i64::MAX.cast_unsigned()));
    assert_eq!(read(&files, fd, 100).unwrap(), b"");
    assert_eq!(files.seek(fd, 1, SEEK_CUR), Err(EOVERFLOW));
    assert_eq!(files.seek(fd, -9, SEEK_END), Err(EINVAL));
    assert_eq!(files.seek(fd, 0, SEEK_CUR), Ok(i64::MAX.cast_unsigned()));

    let dot = [ImageFile { path: b"a/..".to_vec(), data, mode: 0 }];
    assert!(matches!(HostFs::new(&[], &dot, Limits::default()), Err(Error::ImageFile { .. })));
}

/// Numbers of system calls of this thread that read and that wrote, from `/proc/thread-self/io`.
fn transfers() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    let field = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    (field("syscr: "), field("syscw: "))
}

#[test]
fn a_megabyte_is_one_system_call() {
    let (_folder, files) = data(Access::ReadWrite);
    let mut memory = vec![1; 1 << 20];
    let fd = files.open(b"/data/a", O_CREAT | O_RDWR, 0o600).unwrap();
    let start = transfers();
    // What looking itself takes.
    let own = transfers().0 - start.0;
    assert_eq!(files.write(fd, [VolatileSlice::from(&mut memory[..])]), Ok(1 << 20));
    let written = transfers();
    assert_eq!((written.0 - start.0, written.1 - start.1), (2 * own, 1));
    files.seek(fd, 0, SEEK_SET).unwrap();
    assert_eq!(files.read(fd, [VolatileSlice::from(&mut memory[..])]), Ok(1 << 20));
    let read = transfers();
    assert_eq!((read.0 - written.0, read.1 - written.1), (own + 1, 0));
}
