//! Files: with no other guard than Landlock, so as the thread that asks would be if it could ask
//! anything.

use std::path::{Path, PathBuf};

use nerite_testkit::skip;

use crate::{Attempt, is_root};

/// A folder with something in it, and something beside it.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/file"), "inside").unwrap();
        std::fs::write(folder.path().join("out"), "outside").unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An attempt with the folder mounted, and no filter of system calls that could be in the way.
    fn attempt(&self, action: &str, target: &str, access: &str) -> Attempt {
        alone(Attempt::to(action).mounting(&self.path("in"), access))
            .with("TARGET", self.path(target))
    }
}

/// Without the other guards: filters, and the empty file system that root gets.
fn alone(attempt: Attempt) -> Attempt {
    let attempt = attempt.with("SECCOMP", "off");
    if is_root() { attempt.with("CHROOT", "/") } else { attempt }
}

/// Returns `true` if this kernel has Landlock in at least this version; prints a note if not.
fn landlock(version: i64) -> bool {
    // SAFETY: with this flag and no attributes the call gives a number and touches nothing
    // (landlock_create_ruleset(2)).
    let found = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if found < version {
        skip(&format!("this kernel's Landlock has version {found}, and this needs {version}"));
    }
    found >= version
}

const EACCES: &str = "13";

#[test]
fn a_read_only_directory_is_only_read() {
    if !landlock(3) {
        return;
    }
    let folder = Folder::new();
    for action in ["read", "list"] {
        let target = if action == "list" { "in" } else { "in/file" };
        folder.attempt(action, target, "ro").finds("ok");
    }
    for action in ["write", "truncate", "remove"] {
        folder.attempt(action, "in/file", "ro").finds(EACCES);
    }
    for action in ["create", "mkdir"] {
        folder.attempt(action, "in/new", "ro").finds(EACCES);
    }
    assert_eq!(std::fs::read(folder.path("in/file")).unwrap(), b"inside");
    assert!(!folder.path("in/new").exists());
}

#[test]
fn a_writable_directory_can_be_changed() {
    if !landlock(1) {
        return;
    }
    let folder = Folder::new();
    for (action, target) in [
        ("write", "in/file"),
        ("create", "in/new"),
        ("mkdir", "in/folder"),
        ("truncate", "in/file"),
        ("remove", "in/file"),
    ] {
        folder.attempt(action, target, "rw").finds("ok");
    }
    assert!(folder.path("in/folder").is_dir() && !folder.path("in/file").exists());
}

#[test]
fn what_is_beside_it_is_out_of_reach() {
    if !landlock(1) {
        return;
    }
    let folder = Folder::new();
    for access in ["ro", "rw"] {
        for action in ["read", "write", "remove"] {
            folder.attempt(action, "out", access).finds(EACCES);
            folder.attempt(action, "in/../out", access).finds(EACCES);
        }
        folder.attempt("create", "beside", access).finds(EACCES);
        folder.attempt("list", "", access).finds(EACCES);
        folder.attempt("read", "/etc/passwd", access).finds(EACCES);
        // Not every host has a KVM.
        for device in ["/dev/zero", "/dev/kvm"].iter().filter(|device| Path::new(device).exists()) {
            folder.attempt("read", device, access).finds(EACCES);
        }
    }
    std::os::unix::fs::symlink(folder.path("out"), folder.path("in/link")).unwrap();
    folder.attempt("read", "in/link", "rw").finds(EACCES);
    assert_eq!(std::fs::read(folder.path("out")).unwrap(), b"outside");
}

#[test]
fn the_folder_of_a_socket_is_for_removing() {
    if !landlock(1) {
        return;
    }
    let folder = Folder::new();
    for action in ["read", "write"] {
        folder.attempt(action, "in/file", "rm").finds(EACCES);
    }
    for action in ["create", "mkdir"] {
        folder.attempt(action, "in/new", "rm").finds(EACCES);
    }
    folder.attempt("remove", "out", "rm").finds(EACCES);
    folder.attempt("remove", "in/file", "rm").finds("ok");
}

#[test]
fn directories_are_renamed_where_that_is_asked_for() {
    if !landlock(1) {
        return;
    }
    let folder = Folder::new();
    std::fs::create_dir(folder.path("in/made")).unwrap();
    for access in ["ro", "rw", "rm"] {
        folder.attempt("rename", "in/made", access).finds(EACCES);
    }
    for action in ["read", "write"] {
        folder.attempt(action, "in/file", "mv").finds(EACCES);
    }
    folder.attempt("create", "in/new", "mv").finds(EACCES);
    // A file gets no other name.
    folder.attempt("rename", "in/file", "mv").finds(EACCES);
    folder.attempt("rename", "in", "mv").finds(EACCES);
    folder.attempt("rename", "in/made", "mv").finds("ok");
    assert!(folder.path("in/renamed").is_dir());
}

#[test]
fn a_single_file_stays_one() {
    if !landlock(3) {
        return;
    }
    let folder = Folder::new();
    let attempt = |action: &str, target: &str, access: &str| {
        alone(Attempt::to(action).mounting(&folder.path("in/file"), access))
            .with("TARGET", folder.path(target))
    };
    attempt("reopen", "", "ro").finds("ok");
    attempt("read", "in/file", "ro").finds("ok");
    attempt("write", "in/file", "ro").finds(EACCES);
    attempt("truncate", "in/file", "ro").finds(EACCES);
    attempt("write", "in/file", "rw").finds("ok");
    attempt("remove", "in/file", "rw").finds(EACCES);
    attempt("create", "in/new", "rw").finds(EACCES);
    attempt("read", "out", "rw").finds(EACCES);
}

#[test]
fn no_port_and_no_process_is_in_reach() {
    if !landlock(6) {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    alone(Attempt::to("connect")).with("TARGET", &address).finds(EACCES);
    alone(Attempt::to("connect")).with("TARGET", &address).with("LEVEL", "off").finds("ok");
    let with_sockets =
        |action| alone(Attempt::to(action)).with("TARGET", &address).with("SOCKETS", "1");
    with_sockets("connect").with("NETWORK", "1").finds("ok");
    with_sockets("connect").finds(EACCES);
    let any_port = |action| alone(Attempt::to(action)).with("TARGET", "127.0.0.1:0");
    any_port("listen").with("NETWORK", "1").with("SOCKETS", "1").finds(EACCES);
    any_port("listen").with("LEVEL", "off").finds("ok");
    let parent = std::process::id().to_string();
    alone(Attempt::to("kill")).with("TARGET", &parent).finds(&libc::EPERM.to_string());
    alone(Attempt::to("kill")).with("TARGET", &parent).with("LEVEL", "off").finds("ok");
}

#[test]
fn sockets_are_reached_in_their_directory() {
    use std::os::unix::net::UnixListener;
    let folder = Folder::new();
    let _inside = UnixListener::bind(folder.path("in/socket")).unwrap();
    let _outside = UnixListener::bind(folder.path("outer")).unwrap();
    let attempt = |target: &str| {
        let attempt = Attempt::to("connect to").mounting(&folder.path("in"), "sockets");
        attempt.with("DEVICES", "1").with("TARGET", target)
    };
    attempt("socket").finds("ok");
    attempt("none").finds(&libc::ENOENT.to_string());
    attempt("file").finds(&libc::ECONNREFUSED.to_string());
    let absolute = folder.path("outer").display().to_string();
    if is_root() {
        // Neither up, nor from the root directory.
        attempt("../outer").finds(&libc::ENOENT.to_string());
        attempt(&absolute).finds(&libc::ENOENT.to_string());
        attempt("../outer").with("CHROOT", folder.path("")).finds(&libc::ENOENT.to_string());
    }
    // Nothing is opened there, and only files are removed.
    let alone = |action: &str| {
        let attempt = folder.attempt(action, "in/file", "sockets");
        attempt.with("DEVICES", "1")
    };
    if landlock(1) {
        alone("read").finds(EACCES);
        alone("write").finds(EACCES);
        alone("remove").finds("ok");
    }
}
