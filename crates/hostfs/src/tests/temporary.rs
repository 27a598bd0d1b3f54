//! Files where nothing is mounted.

use super::*;

#[test]
fn files_come_and_go() {
    let files = nothing();
    create(&files, "/root/deep/file", b"hello").unwrap();
    assert_eq!(contents(&files, "/root/deep/file").unwrap(), b"hello");
    // Made with the file, because the guest's kernel believes it to exist.
    assert_eq!(list(&files, "/root/deep", 1000).unwrap()[2..], [(b"file".to_vec(), 8)]);
    let attributes = files.stat(b"/root/deep/file", true).unwrap();
    assert_eq!((attributes.st_mode, attributes.st_size, attributes.st_nlink), (0o100_644, 5, 1));
    assert_eq!(files.guest_directories(), [b"/root/deep"]);

    let fd = files.open(b"/root/deep/file", O_RDWR | O_APPEND, 0).unwrap();
    files.unlink(b"/root/deep/file").unwrap();
    assert_eq!(files.open(b"/root/deep/file", O_RDONLY, 0), Err(ENOENT));
    // As long as it is open it lives on.
    assert_eq!(write(&files, fd, b" you"), Ok(4));
    assert_eq!(files.seek(fd, 0, SEEK_SET), Ok(0));
    assert_eq!(read(&files, fd, 100).unwrap(), b"hello you");
    files.close(fd).unwrap();
    create(&files, "/root/deep/file", b"").unwrap();
    assert_eq!(contents(&files, "/root/deep/file").unwrap(), b"");
}

#[test]
fn flags_mean_what_they_say() {
    let files = nothing();
    let exclusive = O_CREAT | O_EXCL | O_RDWR;
    let fd = files.open(b"/a", exclusive, 0o4000).unwrap();
    assert_eq!(files.open(b"/a", exclusive, 0), Err(EEXIST));
    assert_eq!(files.fstat(fd).unwrap().st_mode, 0o100_000);
    assert_eq!(files.open(b"/a", O_DIRECTORY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/a/", O_RDONLY, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/a/b", O_CREAT, 0), Err(ENOTDIR));
    assert_eq!(files.open(b"/new/", O_CREAT, 0), Err(EISDIR));
    assert_eq!(files.open(b"/", O_CREAT, 0), Err(EISDIR));
    assert_eq!(files.open(b"/b", O_RDWR, 0), Err(ENOENT));
    assert_eq!(write(&files, fd, b"abc"), Ok(3));
    assert_eq!(files.seek(fd, -1, SEEK_SET), Err(EINVAL));
    let reader = files.open(b"/a", O_RDONLY, 0).unwrap();
    assert_eq!(write(&files, reader, b"x"), Err(EBADF));
    assert_eq!(read(&files, reader, 2).unwrap(), b"ab");
    files.open(b"/a", O_WRONLY | O_TRUNC, 0).unwrap();
    assert_eq!(read(&files, reader, 2).unwrap(), b"");
}

#[test]
fn threads_agree_on_who_created() {
    let files = nothing();
    for round in 0..50 {
        let path = format!("/{round}");
        let created: usize = std::thread::scope(|scope| {
            let open =
                || usize::from(files.open(path.as_bytes(), O_CREAT | O_EXCL | O_RDWR, 0).is_ok());
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(created, 1);
    }
}
