//! Guests under podman and containerd, with images and networks of theirs.
//!
//! Everything that the engines keep is in a folder of the test.

#![cfg(test)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Runtime, SPIN, exit, print, wait_until};
use nerite_image::nerite_loader::Limits;
use nerite_image::{HermitImage, Kind, Layout, Manifest, Pack, Process, Reference, Rootfs};

const RUNTIME: &str = env!("CARGO_BIN_EXE_nerite-oci");

/// Limits that this machine allows; engines ask for more by default.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/// podman with a store of its own.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    /// Makes images, each of which has a guest of this code as `/image`.
    fn new(images: &[(&str, Vec<u8>)]) -> Self {
        let podman = Self { folder: tempfile::tempdir().unwrap() };
        for (name, code) in images {
            // The bundle's root file system has the file that the image is made of.
            let runtime = Runtime::new(code);
            let context = runtime.path("bundle/rootfs");
            fs::create_dir(context.join("data")).unwrap();
            fs::write(context.join("data/file"), "in the image").unwrap();
            let file = "FROM scratch\nCOPY . /\nENTRYPOINT [\"/image\"]\n";
            fs::write(context.join("Containerfile"), file).unwrap();
            podman.succeeds(&["build", "-q", "-t", name, context.to_str().unwrap()]);
        }
        podman
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            RUNTIME,
        ]);
        command.arg("--root").arg(self.path("store")).arg("--runroot").arg(self.path("run"));
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Exit code and output.
    fn call(&self, words: &[&str]) -> (i32, String, String) {
        let output = self.command(words).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    #[track_caller]
    fn succeeds(&self, words: &[&str]) -> String {
        let (code, stdout, stderr) = self.call(words);
        assert_eq!(code, 0, "{words:?}: {stdout}{stderr}");
        stdout
    }

    fn run(&self, words: &[&str]) -> (i32, String, String) {
        self.call(&[&["run", "--annotation", "nerite.accel=software"], &LIMITS[..], words].concat())
    }

    fn inspect(&self, name: &str, what: &str) -> String {
        self.succeeds(&["inspect", name, "--format", &format!("{{{{.State.{what}}}}}")])
            .trim_end()
            .to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.call(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
#[ignore = "needs root and container engines"]
fn podman_run_prints_and_ends_as_the_guest() {
    let podman = Podman::new(&[("guest", [print("hello\n"), exit(42)].concat())]);
    let (code, stdout, stderr) = podman.run(&["--rm", "-m", "64m", "--cpus", "0.5", "guest"]);
    assert_eq!((code, &*stdout), (42, "hello\n"), "{stderr}");
    let (code, stdout, _) = podman.run(&["--name", "kept", "-t", "guest"]);
    assert_eq!((code, stdout.contains("hello\r\n")), (42, true), "{stdout:?}");
    assert_eq!(podman.inspect("kept", "ExitCode"), "42");
    assert!(podman.succeeds(&["logs", "kept"]).contains("hello"));
    // What a guest cannot have is one line.
    let (code, _, stderr) = podman.run(&["--rm", "-m", "20m", "guest"]);
    assert_ne!(code, 0);
    assert!(stderr.contains("a memory limit of 20971520 bytes is too small"), "{stderr}");
    let (_, _, stderr) = podman.run(&["--rm", "--entrypoint", "/none", "guest"]);
    assert!(stderr.contains("/none in the root file system"), "{stderr}");
}

#[test]
#[ignore = "needs root and container engines"]
fn podman_stops_pauses_restarts_and_removes() {
    let podman = Podman::new(&[("guest", [print("up\n"), SPIN.to_vec()].concat())]);
    let (code, _, stderr) = podman.run(&["-d", "--name", "a", "--network", "none", "guest"]);
    assert_eq!(code, 0, "{stderr}");
    wait_until("the guest", || podman.succeeds(&["logs", "a"]).contains("up"));
    assert_eq!(podman.inspect("a", "Status"), "running");
    podman.succeeds(&["pause", "a"]);
    assert_eq!(podman.inspect("a", "Status"), "paused");
    podman.succeeds(&["unpause", "a"]);
    podman.succeeds(&["stop", "a"]);
    assert_eq!(podman.inspect("a", "ExitCode"), "143");
    podman.succeeds(&["start", "a"]);
    wait_until("the guest, again", || podman.succeeds(&["logs", "a"]).matches("up").count() == 2);
    podman.succeeds(&["kill", "a"]);
    assert_eq!(podman.succeeds(&["wait", "a"]), "137\n");
    podman.succeeds(&["restart", "a"]);
    podman.succeeds(&["rm", "--force", "--time", "0", "a"]);
    assert_eq!(podman.succeeds(&["ps", "--all", "-q"]), "");
}

#[test]
#[ignore = "needs root and container engines"]
fn podman_runs_a_packed_image_from_its_layout() {
    let podman = Podman { folder: tempfile::tempdir().unwrap() };
    let runtime = Runtime::new(&[print("packed\n"), exit(42)].concat());
    let elf = fs::read(runtime.path("bundle/rootfs/image")).unwrap();
    let mut pack = Pack::new("image", elf, None).unwrap();
    pack.file("/data/file", false, b"in the image".to_vec()).unwrap();
    // The image gets its name from the path, in which podman takes no capital letters.
    let prefix = format!("nerite-layout-{}", std::process::id());
    let layout = tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir().unwrap();
    pack.finish().unwrap().store(layout.path(), "latest").unwrap();
    let name = format!("oci:{}:latest", layout.path().display());
    let (code, stdout, stderr) = podman.run(&["--rm", "-m", "64m", &name]);
    assert_eq!((code, &*stdout), (42, "packed\n"), "{stderr}");
}

#[test]
#[ignore = "needs root and container engines"]
fn layouts_of_podman_have_the_application_and_its_files() {
    let podman = Podman::new(&[("guest", exit(42))]);
    let (layout, archive) = (podman.path("layout"), podman.path("guest.tar"));
    let name = format!("oci:{}:test", layout.display());
    podman.succeeds(&["push", "-q", "guest", &name]);
    let file = archive.to_str().unwrap();
    podman.succeeds(&["save", "-q", "--format", "oci-archive", "-o", file, "guest"]);
    for (kind, path, tag) in [(Kind::Directory, layout, "test"), (Kind::Archive, archive, "latest")]
    {
        let tag = Some(tag.to_owned());
        let mut layout = Layout::open(&Reference { kind, path, tag: tag.clone() }).unwrap();
        let manifest = Manifest::read(&mut layout, tag.as_deref()).unwrap();
        let limits = Limits::default();
        let rootfs = Rootfs::read(&mut layout, &manifest, &limits).unwrap();
        assert_eq!(rootfs.file(b"data/file").unwrap(), b"in the image");
        let process = Process::of(&manifest.config, &[]).unwrap();
        let guest = HermitImage::new(&rootfs, &process, &limits).unwrap();
        assert_eq!(guest.path(), Path::new("/image"));
        assert!(guest.application().starts_with(b"\x7fELF"));
    }
}

/// A daemon that ends with the test.
struct Containerd {
    child: Child,
    folder: tempfile::TempDir,
}

impl Containerd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("socket")
        );
        fs::write(path("config.toml"), config).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path("config.toml"));
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let daemon = Self { child, folder };
        wait_until("containerd", || daemon.ctr(&["version"]).is_ok());
        daemon
    }

    fn ctr(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.folder.path().join("socket")).args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(format!("{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Its shims end with their containers, which the test has removed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn monitors() -> usize {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let is_monitor = |folder: &Path| {
        let command = fs::read_to_string(folder.join("cmdline")).unwrap_or_default();
        command.contains("/runc/nerite\0") && command.contains("\0monitor\0")
    };
    entries.filter(|entry| is_monitor(&entry.path())).count()
}

#[test]
#[ignore = "needs root and container engines"]
fn containerd_runs_fifty_guests_at_once() {
    const GUESTS: usize = 50;
    let podman = Podman::new(&[
        ("guest", [print("up\n"), SPIN.to_vec()].concat()),
        ("short", [print("hello\n"), exit(42)].concat()),
    ]);
    let archive = podman.path("images.tar");
    let archive = archive.to_str().unwrap();
    let daemon = Containerd::start();
    for name in ["guest", "short"] {
        podman.succeeds(&["save", "-q", "--format", "oci-archive", "-o", archive, name]);
        daemon.ctr(&["image", "import", "--snapshotter", "native", archive]).unwrap();
        fs::remove_file(archive).unwrap();
    }
    let ctr = |words: &[&str], image: &str, id: &str| {
        let options = ["--snapshotter", "native", "--runc-binary", RUNTIME];
        let accel = ["--annotation", "nerite.accel=software", "--annotation", "nerite.memory=16M"];
        let image = format!("localhost/{image}:latest");
        daemon.ctr(&[&["run"], words, &options, &accel, &[&image, id]].concat())
    };
    let error = ctr(&["--rm"], "short", "short").unwrap_err();
    assert!(error.contains("hello"), "{error}\n{}", daemon.log());

    let ids: Vec<String> = (0..GUESTS).map(|number| format!("guest-{number}")).collect();
    for id in &ids {
        ctr(&["--detach"], "guest", id).unwrap_or_else(|error| panic!("{error}\n{}", daemon.log()));
    }
    let tasks = daemon.ctr(&["task", "ls"]).unwrap();
    assert_eq!(tasks.matches("RUNNING").count(), GUESTS, "{tasks}");
    for id in &ids {
        daemon.ctr(&["task", "kill", "--signal", "SIGKILL", id]).unwrap();
        wait_until("its end", || daemon.ctr(&["task", "rm", id]).is_ok());
        daemon.ctr(&["container", "rm", id]).unwrap();
    }
    assert_eq!(daemon.ctr(&["container", "ls", "-q"]).unwrap(), "");
    wait_until("no monitor to be left", || monitors() == 0);
    let state = daemon.folder.path().join("state");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(state.to_str().unwrap()), "{mounts}");
}
