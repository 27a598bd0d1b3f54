//! The control socket and `vmm ctl`, seen from outside.

#![cfg(test)]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

use common::{Done, Folder, code, image, wait, wait_until};
use serde_json::Value;

/// A guest that is running, with a control socket.
struct Guest {
    folder: Folder,
    child: Option<Child>,
}

impl Guest {
    fn start(options: &[&str], code: &[u8]) -> Self {
        let folder = Folder::new();
        let image = folder.file("image", image::elf(code));
        let words = [&["run", "--api-socket", "socket"][..], options, &[&image]].concat();
        let mut command = folder.vmm(&words);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().unwrap();
        wait_until("the socket", || UnixStream::connect(folder.path("socket")).is_ok());
        Self { folder, child: Some(child) }
    }

    fn ctl(&self, words: &[&str]) -> Done {
        self.folder.run(&[&["ctl", "socket"][..], words].concat())
    }

    /// Result of a command that must succeed.
    #[track_caller]
    fn answer(&self, words: &[&str]) -> Value {
        let done = self.ctl(words);
        assert_eq!((done.code, &*done.stderr), (0, ""), "{words:?}: {done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.folder.path("socket")).unwrap())
    }

    fn end(&mut self) -> std::process::Output {
        wait(self.child.take().unwrap())
    }
}

/// `mov ecx, count`, then as often: `mov edi, 'x'`, `mov dx, 0x1020`, `out dx, eax`, `dec ecx`,
/// `jnz`.
fn flood(count: u32) -> Vec<u8> {
    let mut code = vec![0xb9];
    code.extend(count.to_le_bytes());
    code.extend([0xbf, b'x', 0, 0, 0, 0x66, 0xba, 0x20, 0x10, 0xef, 0xff, 0xc9, 0x75, 0xf2]);
    code
}

fn ask(connection: &mut BufReader<UnixStream>, line: &str) -> Value {
    connection.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_is_paused_looked_at_and_stopped() {
    let mut guest = Guest::start(&["-c", "2", "--no-aslr"], &image::SPIN);
    let mode = std::fs::metadata(guest.folder.path("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    wait_until("both to run", || {
        guest.answer(&["status"])["vcpus"] == serde_json::json!(["running", "running"])
    });
    assert_eq!(guest.answer(&["pause"])["vcpus"], serde_json::json!(["paused", "paused"]));
    let status = guest.answer(&["status"]);
    assert_eq!(status["vcpus"], serde_json::json!(["paused", "paused"]));
    assert_eq!(status["paused"], serde_json::json!([0, 1]));
    let regs = guest.answer(&["regs"]);
    let rip = regs["vcpus"][1]["general"]["rip"].as_str().unwrap();
    assert!(rip.ends_with("40400"), "{rip}");
    assert_eq!(guest.answer(&["regs", "--vcpu", "0"])["vcpus"][0]["general"]["rip"], rip);
    assert_eq!(guest.answer(&["resume", "--vcpu", "1"])["resumed"], 1);
    wait_until("one to run", || {
        guest.answer(&["status"])["vcpus"] == serde_json::json!(["paused", "running"])
    });
    assert_eq!(guest.answer(&["regs", "--vcpu", "1"])["vcpus"][0]["general"]["rip"], rip);
    guest.answer_nothing(&["dump-memory", "dump", rip, "2"]);
    assert_eq!(std::fs::read(guest.folder.path("dump")).unwrap(), image::SPIN);
    guest.answer(&["stop"]);
    let output = guest.end();
    assert_eq!(code(output.status), 143, "{output:?}");
    assert_eq!(output.stderr, b"");
    assert!(!guest.folder.path("socket").exists());
}

impl Guest {
    #[track_caller]
    fn answer_nothing(&self, words: &[&str]) {
        let done = self.ctl(words);
        assert_eq!((done.code, &*done.stdout, &*done.stderr), (0, "", ""), "{words:?}: {done:?}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn pauses_in_a_flood_of_output_change_nothing() {
    // More than enough for the pauses; `control_flood` has a thousand of them.
    const COUNT: u32 = 60_000;
    let mut guest = Guest::start(&[], &[&flood(COUNT)[..], &image::exit(9)].concat());
    let reader = std::thread::spawn({
        let mut output = guest.child.as_mut().unwrap().stdout.take().unwrap();
        move || {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).unwrap();
            bytes
        }
    });
    let mut connection = guest.connect();
    let mut cycles = 0;
    while cycles < 300 {
        let answer = ask(&mut connection, r#"{"version":1,"command":"pause"}"#);
        if answer["ok"]["vcpus"] != serde_json::json!(["paused"]) {
            break;
        }
        let regs = ask(&mut connection, r#"{"version":1,"command":"regs"}"#);
        assert!(regs["ok"]["vcpus"][0]["general"]["rcx"].is_string(), "{regs}");
        ask(&mut connection, r#"{"version":1,"command":"resume"}"#);
        cycles += 1;
    }
    assert!(cycles > 30, "the guest was through after {cycles} pauses");
    let output = guest.end();
    assert_eq!(code(output.status), 9, "{output:?}");
    let bytes = reader.join().unwrap();
    assert_eq!(bytes.len(), COUNT as usize);
    assert!(bytes.iter().all(|byte| *byte == b'x'));
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_that_halts_or_waits_for_input_can_be_paused() {
    let mut halted = Guest::start(&[], &image::HALT);
    for _ in 0..3 {
        assert_eq!(halted.answer(&["pause"])["vcpus"], serde_json::json!(["paused"]));
        assert_eq!(halted.answer(&["resume"])["resumed"], 1);
    }
    halted.answer(&["stop"]);
    assert_eq!(code(halted.end().status), 143);

    // in eax, dx: SerialReadByte; then the byte is the exit code.
    let read = [0x66, 0xba, 0x40, 0x10, 0xed, 0x89, 0xc7, 0x66, 0xba, 0x10, 0x10, 0xef];
    let mut waiting = Guest::start(&[], &read);
    wait_until("the read", || {
        waiting.answer(&["status"])["vcpus"] == serde_json::json!(["in service"])
    });
    assert_eq!(waiting.answer(&["pause"])["vcpus"], serde_json::json!(["in service"]));
    assert_eq!(waiting.answer(&["regs"])["vcpus"][0]["general"]["rdx"], "0x1040");
    waiting.child.as_mut().unwrap().stdin.as_mut().unwrap().write_all(b"A").unwrap();
    assert_eq!(waiting.answer(&["status"])["vcpus"], serde_json::json!(["in service"]));
    waiting.answer(&["resume"]);
    assert_eq!(code(waiting.end().status), 65);
}

#[test]
#[ignore = "needs a KVM"]
fn nonsense_gets_an_error_and_the_guest_runs_on() {
    let mut guest = Guest::start(&[], &image::SPIN);
    let mut connection = guest.connect();
    for (line, expected) in [
        ("", "bad-request"),
        ("{", "bad-request"),
        (r#"{"version":1,"command":"explode"}"#, "bad-request"),
        (r#"{"version":9,"command":"stop"}"#, "bad-request"),
        (r#"{"version":1,"command":"pause","vcpu":1}"#, "not-there"),
        (r#"{"version":1,"command":"nmi","vcpu":99999}"#, "not-there"),
        (r#"{"version":1,"command":"read-memory"}"#, "bad-request"),
        (r#"{"version":1,"command":"read-memory","address":0,"length":65537}"#, "bad-request"),
        (
            r#"{"version":1,"command":"read-memory","address":18446744073709551615,"length":2}"#,
            "not-there",
        ),
    ] {
        let answer = ask(&mut connection, line);
        assert_eq!(answer["error"]["code"], expected, "{line}: {answer}");
    }
    // A request without end: an error, and the connection is closed. The others are not.
    let mut flood = guest.connect();
    let _ = flood.get_mut().write_all(&[b' '; 20_000]);
    let mut answer = String::new();
    let _ = flood.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.contains("too-large"), "{answer}");
    let many: Vec<_> = (0..40).map(|_| guest.connect()).collect();
    drop(many);
    assert_eq!(ask(&mut connection, r#"{"version":1,"id":5,"command":"status"}"#)["id"], 5);
    let done = guest.ctl(&["kill"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(code(guest.end().status), 137);
}

#[test]
fn an_old_socket_is_replaced() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    for option in ["--api-socket=socket", "--gdb-attach=unix:socket"] {
        drop(std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap());
        let done = folder.run(&["run", option, &image]);
        assert_eq!(done.code, 0, "{option}: {done:?}");
        assert!(!std::path::Path::new(&folder.path("socket")).exists(), "{option}");
    }
}

#[test]
fn a_socket_in_use_is_left_alone() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let _listener = std::os::unix::net::UnixListener::bind(folder.path("socket")).unwrap();
    folder.file("plain", "text");
    for option in ["--api-socket=", "--gdb=unix:"] {
        folder
            .run(&["run", &format!("{option}socket"), &image])
            .is_error(243, &["socket", "another process"]);
        folder
            .run(&["run", &format!("{option}plain"), &image])
            .is_error(243, &["plain", "something else than a socket"]);
    }
    folder.run(&["ctl", "nothing", "status"]).is_error(243, &["nothing", "--api-socket"]);
}
