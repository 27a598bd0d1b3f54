//! A runtime with a root and a bundle of its own.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses a part of this"
)]

#[path = "../../../vmm/tests/common/image.rs"]
mod image;

use std::fs::{self, File, OpenOptions};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub use image::{SPIN, exit, print};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

/// A runtime with a directory for its state, and a bundle.
pub struct Runtime {
    folder: tempfile::TempDir,
}

/// Output of a command, and its exit code.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Runtime {
    /// Makes a bundle whose guest runs this code.
    pub fn new(code: &[u8]) -> Self {
        let runtime = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(runtime.path("bundle/rootfs")).unwrap();
        fs::write(runtime.path("bundle/rootfs/image"), image::elf(code)).unwrap();
        // The paths of cgroups must not be those of a test beside this one.
        let cgroup = format!("/nerite-test/{}", runtime.name());
        runtime.write(&json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/image"], "cwd": "/", "env": ["A=b"] },
            "annotations": { "nerite.accel": "software" },
            "linux": {
                "cgroupsPath": cgroup,
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "network" }],
            },
        }));
        runtime
    }

    fn name(&self) -> String {
        self.folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn bundle(&self) -> String {
        self.path("bundle").to_str().unwrap().to_owned()
    }

    pub fn config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("bundle/config.json")).unwrap()).unwrap()
    }

    pub fn write(&self, config: &Value) {
        fs::write(self.path("bundle/config.json"), config.to_string()).unwrap();
    }

    /// Changes the bundle's configuration.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.config();
        change(&mut config);
        self.write(&config);
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nerite-oci"));
        command.arg("--root").arg(self.path("root")).args(words).stdin(Stdio::null());
        command
    }

    pub fn call(&self, words: &[&str]) -> Done {
        let output = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Output of a command that must succeed.
    #[track_caller]
    pub fn succeeds(&self, words: &[&str]) -> String {
        let done = self.call(words);
        assert_eq!((done.code, &*done.stderr), (0, ""), "{words:?}: {done:?}");
        done.stdout
    }

    /// A command that must fail with one line.
    #[track_caller]
    pub fn fails(&self, words: &[&str], expected: &str) {
        let done = self.call(words);
        assert_eq!((done.code, done.stderr.lines().count()), (1, 1), "{words:?}: {done:?}");
        assert!(done.stderr.contains(expected), "{words:?}, {expected:?}: {done:?}");
    }

    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.succeeds(words)).unwrap()
    }

    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        self.json(&["state", id])
    }

    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    /// Creates a container whose output goes to a file.
    #[track_caller]
    pub fn create(&self, id: &str) {
        let file = OpenOptions::new().append(true).create(true).open(self.path("output")).unwrap();
        let pid_file = self.path("pid");
        let words =
            ["create", "--bundle", &self.bundle(), "--pid-file", pid_file.to_str().unwrap(), id];
        let mut child =
            self.command(&words).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.output());
    }

    /// Output of the containers.
    pub fn output(&self) -> String {
        fs::read_to_string(self.path("output")).unwrap_or_default()
    }

    /// Processes of this runtime's containers.
    pub fn processes(&self) -> Vec<String> {
        let root = self.path("root").to_str().unwrap().to_owned();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        entries
            .filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok())
            .filter(|command| command.contains(&root) && command.contains("\0monitor\0"))
            .collect()
    }

    /// Nothing is left of any container: no process, no state, no cgroup.
    #[track_caller]
    pub fn is_clean(&self) {
        assert_eq!(self.processes(), [""; 0]);
        let left = fs::read_dir(self.path("root")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "state of containers");
        for hierarchy in ["", "memory", "cpu", "devices", "freezer", "pids", "unified", "systemd"] {
            let path = PathBuf::from("/sys/fs/cgroup")
                .join(hierarchy)
                .join("nerite-test")
                .join(self.name());
            assert!(!path.exists(), "{}", path.display());
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A test that failed leaves no container behind.
        for id in self.call(&["list", "--quiet"]).stdout.lines() {
            self.call(&["delete", "--force", id]);
        }
    }
}

/// Receives a descriptor as an engine does.
pub fn receive(listener: &UnixListener) -> File {
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let buffers = &mut [IoSliceMut::new(&mut name)];
    recvmsg(&stream, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    File::from(fds.next().expect("no descriptor came"))
}

/// Waits for something that happens by itself.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(300), "waited for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
