//! Containers from `create` to `delete`, as an engine calls the runtime, with guests that are a few
//! instructions long, on the processor in software.

#![cfg(test)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use common::{Runtime, SPIN, exit, print, wait_until};
use serde_json::json;

#[test]
#[ignore = "needs root and cgroups"]
fn run_prints_and_returns_the_guests_code() {
    let runtime = Runtime::new(&[print("hello\n"), exit(42)].concat());
    let done = runtime.call(&["run", "--bundle", &runtime.bundle(), "a"]);
    assert_eq!((done.code, &*done.stdout), (42, "hello\n"), "{done:?}");
    runtime.is_clean();
}

#[test]
#[ignore = "needs root and cgroups"]
fn a_container_from_create_to_delete() {
    let runtime = Runtime::new(&[print("up\n"), SPIN.to_vec()].concat());
    runtime.create("a");
    assert_eq!(runtime.status("a"), "created");
    let pid = runtime.state("a")["pid"].clone();
    assert_eq!(std::fs::read_to_string(runtime.path("pid")).unwrap(), pid.to_string());
    runtime.fails(&["delete", "a"], "container a is created, not stopped");
    runtime.fails(&["create", "--bundle", &runtime.bundle(), "a"], "container a exists already");
    runtime.fails(&["resume", "a"], "container a is created, not paused");

    runtime.succeeds(&["start", "a"]);
    wait_until("the guest to print", || runtime.output().contains("up\n"));
    assert_eq!(runtime.status("a"), "running");
    assert_eq!(runtime.state("a")["pid"], pid);
    runtime.fails(&["start", "a"], "container a is running, not created");
    assert_eq!(runtime.json(&["ps", "--format", "json", "a"]), json!([pid]));
    assert_eq!(runtime.succeeds(&["list", "--quiet"]), "a\n");

    runtime.succeeds(&["pause", "a"]);
    assert_eq!(runtime.status("a"), "paused");
    runtime.fails(&["pause", "a"], "container a is paused, not running");
    runtime.succeeds(&["resume", "a"]);
    assert_eq!(runtime.status("a"), "running");

    runtime.succeeds(&["kill", "a", "TERM"]);
    wait_until("the guest to end", || runtime.status("a") == "stopped");
    assert!(runtime.state("a").get("pid").is_none());
    runtime.fails(&["kill", "a", "9"], "container a is stopped");
    runtime.succeeds(&["kill", "--all", "a", "9"]);
    runtime.fails(&["start", "a"], "container a is stopped, not created");
    runtime.succeeds(&["delete", "a"]);
    runtime.fails(&["state", "a"], "container a does not exist");
    runtime.fails(&["delete", "a"], "container a does not exist");
    runtime.succeeds(&["delete", "--force", "a"]);
    runtime.is_clean();
}

#[test]
#[ignore = "needs root and cgroups"]
fn force_deletes_in_every_state() {
    let runtime = Runtime::new(&SPIN);
    for state in ["created", "running", "paused", "stopped"] {
        runtime.create("a");
        if state != "created" {
            runtime.succeeds(&["start", "a"]);
        }
        match state {
            "paused" => drop(runtime.succeeds(&["pause", "a"])),
            "stopped" => {
                runtime.succeeds(&["kill", "a", "KILL"]);
                wait_until("its end", || runtime.status("a") == "stopped");
            }
            _ => (),
        }
        assert_eq!(runtime.status("a"), state);
        runtime.succeeds(&["delete", "--force", "a"]);
        runtime.is_clean();
    }
}

/// A `create` that is killed at any moment leaves a container that can be deleted, and no process.
#[test]
#[ignore = "needs root and cgroups"]
fn create_is_killed_at_any_moment() {
    let runtime = Runtime::new(&SPIN);
    let moments = std::env::var("NERITE_TEST_MOMENTS").map_or(20, |text| text.parse().unwrap());
    for moment in 0..moments {
        let mut create = runtime.command(&["create", "--bundle", &runtime.bundle(), "a"]);
        let mut child = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Spread over the 20 ms or so that it takes.
        std::thread::sleep(Duration::from_micros(25_000 * moment / moments));
        child.kill().unwrap();
        child.wait().unwrap();
        runtime.succeeds(&["delete", "--force", "a"]);
        wait_until("nothing to be left", || runtime.processes().is_empty());
        runtime.is_clean();
    }
}

/// The container that engines make for a pod is no guest: its image is a Linux program.
#[test]
#[ignore = "needs root and cgroups"]
fn the_container_of_a_pod_waits() {
    let runtime = Runtime::new(&exit(0));
    for name in ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"] {
        runtime.change(|config| {
            config["annotations"] = json!({ name: "sandbox" });
            config["process"]["args"] = json!(["/pause"]);
        });
        runtime.create("pod");
        runtime.succeeds(&["start", "pod"]);
        assert_eq!(runtime.status("pod"), "running");
        // It may not have come to wait for it yet, and is the first process of its namespace.
        wait_until("its end", || {
            runtime.call(&["kill", "pod", "TERM"]);
            runtime.status("pod") == "stopped"
        });
        runtime.succeeds(&["delete", "pod"]);
        runtime.is_clean();
    }
}

#[test]
#[ignore = "needs root and cgroups"]
fn many_at_once() {
    let runtime = Runtime::new(&[print("up\n"), SPIN.to_vec()].concat());
    let ids: Vec<String> = (0..8).map(|number| format!("c{number}")).collect();
    ids.iter().for_each(|id| runtime.create(id));
    ids.iter().for_each(|id| drop(runtime.succeeds(&["start", id])));
    wait_until("all to print", || runtime.output().matches("up\n").count() == ids.len());
    assert_eq!(runtime.json(&["list", "--format", "json"]).as_array().unwrap().len(), ids.len());
    ids.iter().for_each(|id| drop(runtime.succeeds(&["delete", "--force", id])));
    runtime.is_clean();
}

#[test]
#[ignore = "needs root and cgroups"]
fn a_terminal_is_sent_to_the_engine() {
    let runtime = Runtime::new(&[print("hello\n"), exit(0)].concat());
    runtime.change(|config| config["process"]["terminal"] = json!(true));
    runtime.fails(&["create", "--bundle", &runtime.bundle(), "a"], "--console-socket is needed");
    let socket = runtime.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    let engine = std::thread::spawn(move || common::receive(&listener));
    let words = ["create", "--bundle", &runtime.bundle(), "--console-socket"];
    runtime.succeeds(&[&words[..], &[socket.to_str().unwrap(), "a"]].concat());
    let terminal = engine.join().unwrap();
    runtime.succeeds(&["start", "a"]);
    let mut line = String::new();
    let mut reader = BufReader::new(terminal);
    while !line.contains("hello") {
        line.clear();
        // A warning about the host may come before.
        assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the terminal was closed");
    }
    assert_eq!(line, "hello\r\n");
    wait_until("its end", || runtime.status("a") == "stopped");
    runtime.succeeds(&["delete", "a"]);
}

#[test]
#[ignore = "needs root and cgroups"]
fn hooks_run_in_their_order() {
    let runtime = Runtime::new(&exit(0));
    let log = runtime.path("hooks");
    let names =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    runtime.change(|config| {
        for name in names {
            let text = format!(
                "read state; echo {name} $(echo \"$state\" | sed 's/.*\"status\":\"\\([a-z]*\\).*/\\1/') >> {}",
                log.display()
            );
            config["hooks"][name] =
                json!([{ "path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/bin:/usr/bin"] }]);
        }
    });
    let done = runtime.call(&["run", "--bundle", &runtime.bundle(), "a"]);
    assert_eq!(done.code, 0, "{done:?}");
    let ran = std::fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = ran.lines().collect();
    // These two are of different processes.
    lines[3..5].sort_by_key(|line| line.starts_with("poststart"));
    assert_eq!(
        lines,
        [
            "prestart creating",
            "createRuntime creating",
            "createContainer creating",
            "startContainer created",
            "poststart running",
            "poststop stopped"
        ]
    );
    // One that fails leaves nothing.
    for name in ["createRuntime", "createContainer"] {
        runtime.change(|config| config["hooks"] = json!({ name: [{ "path": "/bin/false" }] }));
        runtime.fails(&["create", "--bundle", &runtime.bundle(), "a"], "hook /bin/false");
        runtime.is_clean();
    }
}

#[test]
#[ignore = "needs root and cgroups"]
fn bad_bundles_are_one_clear_line() {
    let runtime = Runtime::new(&exit(0));
    let good = runtime.config();
    let fails = |change: &dyn Fn(&mut serde_json::Value), expected: &str| {
        runtime.write(&good);
        runtime.change(change);
        let log = runtime.path("log");
        let _ = std::fs::remove_file(&log);
        let words = ["--log", log.to_str().unwrap(), "--log-format", "json"];
        let done =
            runtime.call(&[&words[..], &["create", "--bundle", &runtime.bundle(), "a"]].concat());
        assert_eq!((done.code, done.stderr.lines().count()), (1, 1), "{done:?}");
        assert!(done.stderr.contains(expected), "{expected}: {done:?}");
        let line: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
        assert!(line["msg"].as_str().unwrap().contains(expected), "{line}");
        assert_eq!(line["level"], "error");
        runtime.is_clean();
    };
    fails(&|config| config["process"]["args"] = json!([]), "process.args is empty");
    fails(&|config| config["process"]["args"] = json!(["/none"]), "/none in the root file system");
    fails(&|config| config["process"]["args"] = json!(["none"]), "not found in PATH");
    fails(&|config| config["root"]["path"] = json!("none"), "No such file");
    fails(&|config| config["ociVersion"] = json!("2.0.0"), "ociVersion \"2.0.0\"");
    fails(
        &|config| config["linux"]["namespaces"] = json!([{ "type": "user" }]),
        "user namespace is not supported",
    );
    fails(
        &|config| config["linux"]["namespaces"] = json!([{ "type": "network", "path": "/none" }]),
        "namespace /none: No such file",
    );
    fails(
        &|config| config["linux"]["resources"] = json!({ "memory": { "limit": 20_000_000 } }),
        "a memory limit of 20000000 bytes is too small",
    );
    fails(&|config| config["annotations"] = json!({ "nerite.foo": "x" }), "nerite.foo is unknown");
    fails(&|config| config["annotations"] = json!({ "nerite.accel": "x" }), "'x' for '--accel");
    fails(&|config| config["annotations"] = json!({ "nerite.sandbox": "off" }), "nerite.sandbox");
    fails(
        &|config| config["mounts"] = json!([{ "destination": "/a", "type": "nfs", "source": "x" }]),
        "file system \"nfs\" is not supported",
    );
    std::fs::write(runtime.path("bundle/config.json"), "{").unwrap();
    runtime.fails(&["create", "--bundle", &runtime.bundle(), "a"], "config.json: EOF");
    runtime.fails(&["create", "--bundle", "/none", "a"], "bundle /none: No such file");
    for command in ["exec", "update", "checkpoint", "restore", "events"] {
        runtime.fails(&[command, "--any", "thing"], "not supported: ");
    }
}

/// The network of a container: what arrives at the namespace's interface reaches the guest.
#[test]
#[ignore = "needs root and cgroups"]
fn frames_of_the_interface_reach_a_tap() {
    let runtime = Runtime::new(&SPIN);
    let name = format!("nerite-test-{}", std::process::id());
    let ip = |words: &str| {
        let status = std::process::Command::new("ip").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "ip {words}");
    };
    struct Namespace<'a>(&'a dyn Fn(&str), &'a str);
    impl Drop for Namespace<'_> {
        fn drop(&mut self) {
            self.0(&format!("netns delete {}", self.1));
        }
    }
    ip(&format!("netns add {name}"));
    let _namespace = Namespace(&ip, &name);
    ip(&format!("-n {name} link add outside type veth peer name eth0"));
    ip(&format!("-n {name} address add 10.99.0.2/24 dev eth0"));
    ip(&format!("-n {name} link set eth0 up"));
    ip(&format!("-n {name} link set outside up"));
    ip(&format!("-n {name} route add default via 10.99.0.1"));
    runtime.change(|config| {
        config["linux"]["namespaces"] =
            json!([{ "type": "network", "path": format!("/run/netns/{name}") }]);
    });
    runtime.create("a");
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", runtime.state("a")["pid"]));
    assert!(command.unwrap().contains("monitor"));
    let show = |words: &str| {
        let words = format!("-n {name} {words}");
        let output = std::process::Command::new("ip").args(words.split(' ')).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!show("address show dev eth0").contains("10.99.0.2"), "the namespace has it, too");
    assert!(show("link show dev nerite0").contains("mtu 1500"));
    let filters = std::process::Command::new("tc")
        .args(["-n", &name, "filter", "show", "dev", "eth0", "ingress"])
        .output()
        .unwrap();
    let filters = String::from_utf8(filters.stdout).unwrap();
    assert!(filters.contains("mirred (Egress Redirect to device nerite0)"), "{filters}");
    // A second guest in the same network would take the first one's frames.
    runtime.fails(
        &["create", "--bundle", &runtime.bundle(), "b"],
        "interface nerite0: this network already has a guest",
    );
    runtime.succeeds(&["delete", "--force", "a"]);
    assert_eq!(show("link show dev nerite0"), "", "the tap has gone with its guest");
    runtime.is_clean();
}

#[test]
#[ignore = "needs root and cgroups"]
fn features_and_an_example_are_what_engines_read() {
    let runtime = Runtime::new(&exit(0));
    let features = runtime.json(&["features"]);
    assert_eq!(features["ociVersionMin"], "1.0.0");
    let folder = tempfile::tempdir().unwrap();
    let words = ["spec", "--bundle", folder.path().to_str().unwrap()];
    runtime.succeeds(&words);
    runtime.fails(&words, "File exists");
    std::fs::create_dir(folder.path().join("rootfs")).unwrap();
    std::fs::copy(runtime.path("bundle/rootfs/image"), folder.path().join("rootfs/hello")).unwrap();
    let done = runtime.call(&["run", "--bundle", folder.path().to_str().unwrap(), "a"]);
    assert_eq!(done.code, 0, "{done:?}");
}
