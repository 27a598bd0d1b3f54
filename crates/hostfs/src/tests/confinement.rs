//! Nothing outside of a mount can be reached.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A folder with `inside` (mounted on `/data`) and `secret` next to it.
fn prison() -> (TempDir, HostFs) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("inside")).unwrap();
    std::fs::create_dir(folder.path().join("outside")).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::fs::write(folder.path().join("outside/secret"), "secret").unwrap();
    let mounts = [mount(folder.path().join("inside"), "/data", Access::ReadWrite)];
    let files = HostFs::new(&mounts, &[], Limits::default()).unwrap();
    (folder, files)
}

/// Every call on a path fails.
fn unreachable(files: &HostFs, path: &str) {
    let name = path.as_bytes();
    for flags in [O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC, O_CREAT | O_RDWR, O_DIRECTORY] {
        assert!(files.open(name, flags, 0o600).is_err(), "{path} {flags:o}");
    }
    assert!(files.stat(name, true).is_err(), "{path}");
}

#[test]
fn parents_end_at_the_guests_root() {
    let (_folder, files) = prison();
    for path in [
        "/data/../secret",
        "/data/../../../etc/passwd",
        "/../../etc/passwd",
        "../secret",
        "/data/..",
    ] {
        assert!(contents(&files, path).is_err(), "{path}");
    }
    assert_eq!(list(&files, "/data/../..", 1000).unwrap().last().unwrap().0, b"data");
}

#[test]
fn links_out_of_the_tree_lead_nowhere() {
    let (folder, files) = prison();
    let inside = folder.path().join("inside");
    symlink("../secret", inside.join("relative")).unwrap();
    symlink(folder.path().join("secret"), inside.join("absolute")).unwrap();
    symlink("..", inside.join("parent")).unwrap();
    symlink(folder.path(), inside.join("folder")).unwrap();
    symlink("/proc/self/root", inside.join("proc")).unwrap();
    symlink("/", inside.join("root")).unwrap();
    symlink("new-outside", inside.join("dangling")).unwrap();
    symlink("../new", inside.join("dangling-outside")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    for path in [
        "relative",
        "absolute",
        "parent/secret",
        "folder/secret",
        "proc/etc/passwd",
        "root/etc/passwd",
        "root",
        "dangling-outside",
        "loop",
        "parent/outside/secret",
    ] {
        unreachable(&files, &format!("/data/{path}"));
    }
    assert_eq!(files.open(b"/data/relative", O_RDONLY, 0), Err(EXDEV));
    assert_eq!(files.open(b"/data/loop", O_RDONLY, 0), Err(ELOOP));
    assert_eq!(files.unlink(b"/data/parent/secret"), Err(EXDEV));
    assert_eq!(files.unlink(b"/data/folder/outside/secret"), Err(EXDEV));
    assert_eq!(files.make_directory(b"/data/parent/new"), Err(EXDEV));
    assert!(!folder.path().join("new").exists());
    assert_eq!(std::fs::read(folder.path().join("secret")).unwrap(), b"secret");
    // The links themselves are the mount's.
    assert_eq!(files.stat(b"/data/absolute", false).unwrap().st_mode & 0o170_000, 0o120_000);
    files.unlink(b"/data/absolute").unwrap();
    assert!(folder.path().join("secret").exists());
}

#[test]
fn links_inside_of_the_tree_work() {
    let (folder, files) = prison();
    let inside = folder.path().join("inside");
    std::fs::create_dir(inside.join("d")).unwrap();
    std::fs::write(inside.join("d/file"), "here").unwrap();
    symlink("d/file", inside.join("link")).unwrap();
    symlink("../d", inside.join("d/self")).unwrap();
    symlink("d/new", inside.join("dangling")).unwrap();
    assert_eq!(contents(&files, "/data/link").unwrap(), b"here");
    assert_eq!(contents(&files, "/data/d/self/self/file").unwrap(), b"here");
    assert_eq!(files.stat(b"/data/link", true).unwrap().st_size, 4);
    assert_eq!(contents(&files, "/data/dangling"), Err(ENOENT));
    create(&files, "/data/dangling", b"new").unwrap();
    assert_eq!(std::fs::read(inside.join("d/new")).unwrap(), b"new");
}

#[test]
fn hosts_descriptors_have_no_way_in() {
    let files = nothing();
    for path in ["/proc/self/fd/0", "/dev/stdin", "/etc/passwd", "/"] {
        assert!(contents(&files, path).is_err());
    }
    // With all of the host mounted, what are magic links there still is not followed.
    let files =
        HostFs::new(&[mount("/", "/host", Access::ReadOnly)], &[], Limits::default()).unwrap();
    assert!(contents(&files, "/host/etc/passwd").is_ok());
    for path in [
        "/host/proc/self/fd/1",
        "/host/proc/self/root/etc/passwd",
        "/host/proc/self/cwd/Cargo.toml",
    ] {
        assert!(files.open(path.as_bytes(), O_RDONLY, 0).is_err(), "{path}");
    }
}

#[test]
fn names_are_bytes() {
    let (folder, files) = prison();
    let name = b"\xff\xfe \n\x01\xc3";
    let path = [b"/data/", &name[..]].concat();
    let fd = files.open(&path, O_CREAT | O_RDWR, 0o600).unwrap();
    assert_eq!(write(&files, fd, b"x"), Ok(1));
    assert!(folder.path().join("inside").join(OsStr::from_bytes(name)).exists());
    assert!(list(&files, "/data", 1000).unwrap().iter().any(|(found, _)| found == name));
    let long = [b"/data/", &[b'a'; 256][..]].concat();
    assert_eq!(files.open(&long, O_CREAT | O_RDWR, 0o600), Err(ENAMETOOLONG));
    assert_eq!(files.stat(&[b'/'; 5000], true).unwrap_err(), ENAMETOOLONG);
    assert_eq!(files.open(b"", O_CREAT, 0), Err(ENOENT));
    assert_eq!(files.open(b"/data/a\0b", O_CREAT, 0), Err(EINVAL));
}

/// Ends a thread that looks at this value.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Swaps a directory and a link out of the mount while a guest goes through it.
#[test]
fn renames_meanwhile_do_not_help() {
    let (folder, files) = prison();
    let inside = folder.path().join("inside");
    let (place, directory, link) =
        (inside.join("x"), inside.join("directory"), inside.join("link"));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("secret"), "public").unwrap();
    symlink("../outside", &link).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::fs::rename(&place, &directory).unwrap();
                std::fs::rename(&link, &place).unwrap();
                std::fs::rename(&place, &link).unwrap();
                std::fs::rename(&directory, &place).unwrap();
                // On a busy machine this thread waits most likely here, not in between.
                std::thread::yield_now();
            }
        });
        // Also when an assertion fails: the scope waits for the thread.
        let _end = SetOnDrop(&done);
        let (mut seen, mut round) = (0, 0);
        while round < 3000 || (seen == 0 && round < 100_000) {
            round += 1;
            match contents(&files, "/data/x/secret") {
                Ok(bytes) => {
                    assert_eq!(bytes, b"public");
                    seen += 1;
                }
                Err(errno) => assert!(matches!(errno, ENOENT | EXDEV | EAGAIN), "{errno}"),
            }
            let name = format!("/data/x/{round}");
            let made = create(&files, &name, b"1");
            assert!(made.is_ok() || matches!(made, Err(ENOENT | EXDEV | EAGAIN)), "{made:?}");
            let removed = files.unlink(b"/data/x/secret-not-there");
            assert!(matches!(removed, Err(ENOENT | EXDEV | EAGAIN)), "{removed:?}");
            assert!(matches!(
                files.make_directory(name.as_bytes()),
                Ok(()) | Err(ENOENT | EXDEV | EAGAIN | EEXIST)
            ));
        }
        assert!(seen > 0);
    });
    let outside: Vec<_> = std::fs::read_dir(folder.path().join("outside")).unwrap().collect();
    assert_eq!(outside.len(), 1, "{outside:?}");
}
