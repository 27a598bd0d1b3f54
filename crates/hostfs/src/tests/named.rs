//! Single files of which the name is mounted.

use std::os::unix::fs::symlink;

use nerite_log_budget::Causes;

use super::*;
use crate::Needs;

/// The file `host` of a folder, mounted on `/data/file`.
fn mapped(folder: &TempDir, host: &str) -> HostFs {
    let mounts = [mount(folder.path().join(host), "/data/file", Access::ReadWriteName)];
    HostFs::new(&mounts, &[], Limits::default()).unwrap()
}

#[test]
fn a_file_that_does_not_exist_is_created_by_the_first_write() {
    let folder = tempfile::tempdir().unwrap();
    let files = mapped(&folder, "new");
    assert_eq!(files.stat(b"/data/file", true), Err(ENOENT));
    assert_eq!(files.open(b"/data/file", O_RDWR, 0), Err(ENOENT));
    assert_eq!(files.unlink(b"/data/file"), Err(ENOENT));
    assert!(!folder.path().join("new").exists());
    create(&files, "/data/file", b"Hello, world!").unwrap();
    assert_eq!(std::fs::read(folder.path().join("new")).unwrap(), b"Hello, world!");
    assert_eq!(contents(&files, "/data/file").unwrap(), b"Hello, world!");
    assert_eq!(files.open(b"/data/file", O_RDWR | O_CREAT | O_EXCL, 0), Err(EEXIST));
    for path in [&b"/data/file/"[..], b"/data/file/x", b"/data/file/../other"] {
        assert!(files.open(path, O_RDONLY, 0).is_err());
    }
}

#[test]
fn a_file_is_removed_while_it_is_open_and_not_twice() {
    let folder = tempfile::tempdir().unwrap();
    let files = mapped(&folder, "new");
    let fd = files.open(b"/data/file", O_RDWR | O_CREAT | O_TRUNC, 0o644).unwrap();
    write(&files, fd, b"Hello, world!").unwrap();
    assert_eq!(files.unlink(b"/data/file/"), Err(ENOTDIR));
    files.unlink(b"/data/file").unwrap();
    assert_eq!(files.unlink(b"/data/file"), Err(ENOENT));
    assert_eq!(files.seek(fd, 7, SEEK_SET), Ok(7));
    assert_eq!(read(&files, fd, 100).unwrap(), b"world!");
    files.close(fd).unwrap();
    assert_eq!(files.unlink(b"/data/file"), Err(ENOENT));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    create(&files, "/data/file", b"again").unwrap();
}

#[test]
fn a_file_that_was_there_is_removed_and_not_created_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("old"), "old").unwrap();
    let files = mapped(&folder, "old");
    create(&files, "/data/file", b"new").unwrap();
    assert_eq!(std::fs::read(folder.path().join("old")).unwrap(), b"new");
    files.unlink(b"/data/file").unwrap();
    assert!(!folder.path().join("old").exists());
    for flags in [O_RDWR | O_CREAT, O_RDWR | O_CREAT | O_EXCL] {
        assert_eq!(files.open(b"/data/file", flags, 0o644), Err(EACCES));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_link_in_the_place_of_the_file_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let files = mapped(&folder, "new");
    for target in ["secret", "missing", "/etc/passwd"] {
        symlink(target, folder.path().join("new")).unwrap();
        for flags in [O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC, O_CREAT | O_RDWR] {
            assert!(files.open(b"/data/file", flags, 0o600).is_err(), "{target} {flags:o}");
        }
        assert_eq!(files.stat(b"/data/file", true).unwrap().st_mode & 0o170_000, 0o120_000);
        std::fs::remove_file(folder.path().join("new")).unwrap();
    }
    std::fs::create_dir(folder.path().join("new")).unwrap();
    assert_eq!(files.open(b"/data/file", O_RDONLY, 0), Err(EISDIR));
    assert_eq!(files.unlink(b"/data/file"), Err(EISDIR));
    assert_eq!(std::fs::read(folder.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn links_and_directories_are_mounted_as_ever() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("target"), "target").unwrap();
    symlink("target", folder.path().join("link")).unwrap();
    let files = mapped(&folder, "link");
    assert_eq!(contents(&files, "/data/file").unwrap(), b"target");
    assert_eq!(files.unlink(b"/data/file"), Err(EBUSY));
    let mounts = [mount(&folder, "/data", Access::ReadWriteName)];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap();
    create(&files, "/data/new", b"new").unwrap();
    for missing in ["no/such", "missing/"] {
        let mounts = [mount(folder.path().join(missing), "/x", Access::ReadWriteName)];
        let error = Causes(&Mounts::open(&mounts).unwrap_err()).to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}

#[test]
fn a_sandbox_hears_what_a_name_needs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("old"), "old").unwrap();
    let needs = |host: &str, access| {
        let mounts = Mounts::open(&[mount(folder.path().join(host), "/x", access)]).unwrap();
        mounts.paths().map(|path| (path.needs, path.is_directory)).collect::<Vec<_>>()
    };
    assert_eq!(needs("old", Access::ReadOnly), [(Needs::Read, false)]);
    assert_eq!(needs("old", Access::ReadWrite), [(Needs::Write, false)]);
    let named = [(Needs::Write, false), (Needs::RemoveFiles, true)];
    assert_eq!(needs("old", Access::ReadWriteName), named);
    assert_eq!(needs("new", Access::ReadWriteName), [(Needs::MakeFiles, true)]);
    assert_eq!(needs("", Access::ReadWriteName), [(Needs::Write, true)]);
}
