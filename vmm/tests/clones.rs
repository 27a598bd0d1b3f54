//! Clones of a snapshot from a pool of processes: `vmm clones` and `vmm ctl SOCKET clone`.

#![cfg(test)]

mod common;

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use common::clone_guest::{self, Told, teller};
use common::tracer::Tracer;
use common::{Done, Folder, code, finish, hear_signals, wait, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A server of clones of the guest that waits for `data/go`.
struct Clones {
    folder: Folder,
    server: Child,
}

impl Clones {
    fn start(accelerator: &str, words: &[&str]) -> Self {
        let folder = clone_guest::saved(accelerator, &teller());
        let clones = ["clones", "saved", "--listen", "pool", "--accel", accelerator];
        let all = [&clones[..], &["--mount", "data:/data"], words].concat();
        let mut command = folder.vmm(&all);
        hear_signals(&mut command);
        let server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the socket", || UnixStream::connect(folder.path("pool")).is_ok());
        Self { folder, server }
    }

    /// Lets the guests go on to their end.
    fn go(&self) {
        self.folder.file("data/go", "");
    }

    fn status(&self) -> Value {
        let done = self.folder.run(&["ctl", "pool", "status"]);
        assert_eq!(done.code, 0, "{done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// Number of guests or requests in a state.
    fn count(&self, name: &str) -> usize {
        let status = self.status();
        let value = &status[name];
        value.as_array().map_or_else(|| value.as_u64().unwrap().try_into().unwrap(), Vec::len)
    }

    fn clone(&self, words: &[&str]) -> Child {
        let mut command = self.folder.vmm(&[&["ctl", "pool", "clone"][..], words].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Processes of the server.
    fn shells(&self) -> Vec<i32> {
        let pid = self.server.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().map(|word| word.parse().unwrap()).collect()
    }

    /// Ends the server by a signal, and gives what it said.
    fn end(self) -> String {
        kill_process(Pid::from_child(&self.server), Signal::TERM).unwrap();
        let output = wait(self.server);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(code(output.status), 143, "{said}");
        assert!(!self.folder.path("pool").exists(), "the socket is removed");
        said
    }
}

/// Output of the process of a client.
fn told(client: Child) -> Told {
    let output = wait(client);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(code(output.status), 0, "{said}");
    assert!(said.contains("vmm: the clone is process "), "{said}");
    Told::read(&output.stdout)
}

fn clones_differ(accelerator: &str) {
    let clones = Clones::start(accelerator, &["--pool", "3"]);
    clones.go();
    let (mut random, mut times) = (HashSet::new(), HashSet::new());
    let count = std::env::var("NERITE_TEST_CLONES").map_or(12, |count| count.parse().unwrap());
    for index in 0..count {
        let (word, variable) = (format!("word-{index}-"), format!("WHO=clone{index}-"));
        let told = told(clones.clone(&["-e", &variable, "--", &word, "-x"]));
        assert!(told.knows(&word) && told.knows(&variable), "{told:?}");
        assert!(random.insert(told.random), "random bytes twice");
        assert!(times.insert(told.boot_time), "a time twice");
    }
    let same = told(clones.clone(&[]));
    assert!(same.knows("first-word") && same.knows("WHO=first"));
    clones.end();
}

#[test]
fn clones_of_a_pool_differ() {
    clones_differ("software");
}

#[test]
#[ignore = "needs a KVM"]
fn clones_of_a_pool_differ_on_kvm() {
    clones_differ("kvm");
}

#[test]
fn requests_beyond_the_limit_wait() {
    let clones = Clones::start("software", &["--pool", "2", "--max-running", "2"]);
    let clients: Vec<_> = (0..4).map(|_| clones.clone(&[])).collect();
    wait_until("two clones", || clones.count("running") == 2 && clones.count("waiting") == 2);
    assert_eq!(clones.shells().len(), 2, "no process is made that may not run");
    clones.go();
    let random: HashSet<_> = clients.into_iter().map(|client| told(client).random).collect();
    assert_eq!(random.len(), 4);
    assert_eq!((clones.count("running"), clones.count("waiting")), (0, 0));
    clones.end();
}

#[test]
fn a_clone_whose_client_has_gone_is_ended() {
    let clones = Clones::start("software", &["--pool", "1", "--max-running", "1"]);
    let mut clients = [clones.clone(&[]), clones.clone(&[])];
    wait_until("a clone", || clones.count("running") == 1 && clones.count("waiting") == 1);
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait_until("their end", || clones.count("running") == 0 && clones.count("waiting") == 0);
    clones.go();
    told(clones.clone(&[]));
    clones.end();
}

#[test]
fn a_signal_ends_the_server_and_all_clones() {
    let clones = Clones::start("software", &["--pool", "2"]);
    let clients: Vec<_> = (0..3).map(|_| clones.clone(&[])).collect();
    wait_until("clones", || clones.count("running") == 3 && clones.count("ready") == 2);
    let shells = clones.shells();
    assert_eq!(shells.len(), 5);
    clones.end();
    for client in clients {
        assert_eq!(code(wait(client).status), 143);
    }
    for shell in shells {
        assert!(!std::path::Path::new(&format!("/proc/{shell}")).exists(), "{shell} lives");
    }
}

#[test]
fn clones_end_with_a_server_that_is_killed() {
    let mut clones = Clones::start("software", &["--pool", "1"]);
    let client = clones.clone(&[]);
    wait_until("a clone", || clones.count("running") == 1 && clones.count("ready") == 1);
    let shells = clones.shells();
    clones.server.kill().unwrap();
    clones.server.wait().unwrap();
    wait_until("their end", || {
        shells.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists())
    });
    assert_eq!(code(wait(client).status), 243);
    // Its socket is replaced.
    let again = ["clones", "saved", "--listen", "pool", "--accel", "software"];
    let mut command = clones.folder.vmm(&[&again[..], &["--mount", "data:/data"]].concat());
    clones.server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the socket", || UnixStream::connect(clones.folder.path("pool")).is_ok());
    let done = clones.folder.run(&["ctl", "pool", "stop"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(code(wait(clones.server).status), 143);
}

#[test]
fn a_clone_whose_time_is_up_is_ended() {
    let clones = Clones::start("software", &["--pool", "1", "--time-limit", "100ms"]);
    let done: Done = finish(&mut clones.folder.vmm(&["ctl", "pool", "clone"]));
    assert_eq!(done.code, 245, "{done:?}");
    assert!(done.stderr.contains("the guest's time is up"), "{done:?}");
    clones.end();
}

#[test]
fn what_cannot_be_served_is_refused() {
    let folder = clone_guest::saved("software", &teller());
    let serve = |words: &[&str]| {
        folder.run(&[&["clones", "--listen", "pool", "--accel", "software"][..], words].concat())
    };
    let mount = ["--mount", "data:/data", "saved"];
    for option in ["--api-socket", "--output", "--trace"] {
        serve(&[&[option, "x"], &mount[..]].concat()).is_error(240, &[option, "clones"]);
    }
    serve(&["saved"]).is_error(240, &["--mount HOST:/data:ro"]);
    serve(&["nowhere"]).is_error(243, &["nowhere"]);
    std::fs::write(folder.path("saved/snapshot.json"), "{").unwrap();
    serve(&mount).is_error(242, &["malformed"]);
    assert!(!folder.path("pool").exists());
    folder.run(&["ctl", "pool", "clone"]).is_error(243, &["pool", "cannot connect"]);
}

/// Number of kilobytes of private memory of a process, without huge pages: some hosts give one to
/// any heap, whatever is used of it.
fn private(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    field("Private_Dirty:").saturating_sub(field("AnonHugePages:"))
}

/// Limit of that. A program without optimisation has stack frames of ten times the size, and the
/// lab's kernel shares less with the process that was forked; `cargo xtask bench clone` measures
/// the program that ships.
const PRIVATE: u64 = if cfg!(debug_assertions) { 4000 } else { 200 };

/// The guest's first call, which is the first one of a process after a request that opens a file,
/// comes after few others, none of which creates a VM or a vCPU.
fn a_clone_is_cheap(accelerator: &str) {
    const CREATE_VM: u64 = 0xae01;
    const CREATE_VCPU: u64 = 0xae41;
    let clones = Clones::start(accelerator, &["--pool", "1", "--max-running", "1"]);
    wait_until("the pool", || clones.count("ready") == 1);
    let shell = clones.shells()[0];
    let private = private(shell);
    assert!(private <= PRIVATE, "{private} KiB");
    let tracer = Tracer::seize(shell);
    let mut client = clones.clone(&["--", "word"]);
    let calls = tracer.calls_until(libc::SYS_openat2);
    assert!(calls.len() <= 40, "{calls:?}");
    for (call, argument) in calls {
        let creates = call == libc::SYS_ioctl && [CREATE_VM, CREATE_VCPU].contains(&argument);
        assert!(!creates && call != libc::SYS_clone && call != libc::SYS_clone3);
    }
    client.kill().unwrap();
    client.wait().unwrap();
    clones.end();
}

#[test]
fn a_clone_costs_little_memory_and_few_calls() {
    a_clone_is_cheap("software");
}

#[test]
#[ignore = "needs a KVM"]
fn a_clone_costs_little_memory_and_few_calls_on_kvm() {
    a_clone_is_cheap("kvm");
}
