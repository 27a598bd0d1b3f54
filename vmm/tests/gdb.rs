//! The real GDB, where there is one, against guests of a few integer instructions.

#![cfg(test)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use common::{Folder, code, finish, image, wait, wait_until};

/// Output of GDB for a list of commands, and the end of `vmm`.
struct Session {
    text: String,
    code: i32,
    vmm: String,
}

/// GDB, which is somewhere else in the lab.
fn gdb_program() -> String {
    std::env::var("NERITE_TEST_GDB").unwrap_or_else(|_| "gdb".to_owned())
}

fn debug(options: &[&str], program: &[u8], commands: &[&str]) -> Session {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(program));
    let words = [&["run", "--gdb=unix:socket"][..], options, &[&image]].concat();
    let mut command = folder.vmm(&words);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the socket", || folder.path("socket").exists());
    let socket = folder.path("socket");
    let mut gdb = Command::new(gdb_program());
    gdb.args([
        "-nx",
        "-batch",
        "-ex",
        "set tcp connect-timeout 10",
        "-ex",
        "set architecture i386:x86-64",
    ]);
    gdb.args(["-ex", &format!("target remote {}", socket.display())]);
    commands.iter().for_each(|command| {
        gdb.args(["-ex", command]);
    });
    let done = finish(gdb.stdin(Stdio::null()));
    let output = wait(child);
    Session {
        text: format!("{}{}", done.stdout, done.stderr),
        code: code(output.status),
        vmm: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Session {
    #[track_caller]
    fn has(&self, parts: &[&str]) {
        let mut rest = &*self.text;
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => {
                    panic!("{part:?} is missing, or not in order:\n{}\n{}", self.text, self.vmm)
                }
            }
        }
    }
}

/// Ten times `inc ebx`, `mov [rsp-0x100], ebx`, `out 0x80, al`; then the exit code is EBX.
#[rustfmt::skip]
const COUNT: [u8; 28] = [
    0x31, 0xdb, //                               0: xor ebx, ebx
    0xff, 0xc3, //                               2: inc ebx
    0x89, 0x9c, 0x24, 0x00, 0xff, 0xff, 0xff, // 4: mov [rsp-0x100], ebx
    0xe6, 0x80, //                               b: out 0x80, al
    0x83, 0xfb, 0x0a, //                         d: cmp ebx, 10
    0x75, 0xf0, //                              10: jne 2
    0x89, 0xdf, //                              12: mov edi, ebx
    0x66, 0xba, 0x10, 0x10, //                  14: mov dx, 0x1010
    0xef, //                                    18: out dx, eax
    0x90, 0x90, 0x90,
];

#[test]
#[ignore = "needs a KVM"]
fn breakpoints_steps_and_registers() {
    breakpoints(&["--accel", "kvm"]);
}

/// Breakpoints without --accel: a KVM that does not stop at them has the guest handed over.
#[test]
#[ignore = "needs a KVM"]
fn breakpoints_with_any_kvm() {
    breakpoints(&[]);
}

fn breakpoints(options: &[&str]) {
    let session = debug(
        options,
        &COUNT,
        &[
            "set $start = $pc",
            "p/x (long)$pc & 0xfff",
            "p $ebx = 77",
            "stepi",
            "p $pc - $start",
            "p $ebx",
            "break *($start + 0xd)",
            "continue",
            "p $ebx",
            "p $pc - $start",
            "stepi",
            "p $pc - $start",
            "continue",
            "p $ebx",
            "delete",
            "p $ebx = 9",
            "x/2xb $start",
            "info registers cr3 efer cs gs_base",
            "continue",
        ],
    );
    session.has(&[
        "$1 = 0x400",
        "= 77",
        "= 2",
        "= 0",
        "Breakpoint 1,",
        "= 1",
        "= 13",
        "= 16",
        "Breakpoint 1,",
        "= 2",
        "= 9",
        "0x31\t0xdb",
        "cr3 ",
        "efer ",
        "0xd00",
        "cs ",
        "0x8",
        "exited with code 012",
    ]);
    assert_eq!(session.code, 10, "{}", session.vmm);
}

#[test]
#[ignore = "needs a KVM"]
fn watchpoints_by_stepping() {
    watchpoints(&["--accel", "kvm"]);
    watchpoints(&["--accel", "kvm,software"]);
}

#[test]
#[ignore = "needs a KVM"]
fn watchpoints_in_software_for_a_while() {
    let session = debug(
        &["--accel", "kvm,software", "-vv"],
        &COUNT,
        &[
            "set $cell = (int*)($rsp - 0x100)",
            "watch *$cell",
            "continue",
            "continue",
            "delete",
            "continue",
        ],
    );
    session.has(&["New value = 1", "New value = 2", "exited with code 012"]);
    assert_eq!(session.code, 10, "{}", session.vmm);
    let (stepped, then) = session.vmm.split_once("handed over to software").unwrap();
    assert!(!stepped.contains("handed over") && then.contains("handed over to kvm"), "{then}");
    assert!(!session.vmm.contains("one instruction at a time"), "{}", session.vmm);
}

/// Stops at watchpoints and after them at a breakpoint.
fn watchpoints(options: &[&str]) {
    let session = debug(
        options,
        &COUNT,
        &[
            "set $start = $pc",
            "set $cell = (int*)($rsp - 0x100)",
            "watch *$cell",
            "continue",
            "p *$cell",
            "continue",
            "p *$cell",
            "p $pc - $start",
            "delete",
            "awatch *$cell",
            "continue",
            "delete",
            "hbreak *($start + 0x12)",
            "continue",
            "p $ebx",
            "x/1xb 0x1234567890000000",
            "monitor help",
            "monitor exits",
            "monitor pagetable 0",
            "kill",
        ],
    );
    session.has(&[
        "Hardware watchpoint 1",
        "New value = 1",
        "= 1",
        "New value = 2",
        "= 2",
        "= 11",
        "Hardware access",
        "= 3",
        "Breakpoint 3,",
        "= 10",
        "Cannot access memory at address 0x1234567890000000",
        "pagetable ADDR",
        "vCPU 0: ",
        "vCPU 0: ",
    ]);
    assert_eq!(session.code, 143, "{}", session.vmm);
}

#[test]
#[ignore = "needs a KVM"]
fn a_crash_waits_for_a_debugger() {
    for cpus in ["1", "4"] {
        let folder = Folder::new();
        // nop; ud2 without a handler
        let image = folder.file("image", image::elf(&[&[0x90], &image::CRASH[..]].concat()));
        let mut command = folder.vmm(&["run", "--on-crash", "gdb:unix:socket", "-c", cpus, &image]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_until("the socket", || folder.path("socket").exists());
        // It has crashed long before, or will in a moment: either way GDB stops at it when the
        // guest continues, and the machine ends after the crash of each vCPU was reported.
        let mut gdb = Command::new(gdb_program());
        gdb.args(["-nx", "-batch", "-ex", "set architecture i386:x86-64"]);
        gdb.args(["-ex", &format!("target remote {}", folder.path("socket").display())]);
        gdb.args(["-ex", "continue", "-ex", "p $_siginfo"]);
        (0..cpus.parse().unwrap()).for_each(|_| {
            gdb.args(["-ex", "continue"]);
        });
        let said = finish(gdb.stdin(Stdio::null()));
        assert!(said.stdout.contains("SIGSEGV"), "{said:?}");
        let output = wait(child);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(code(output.status), 244, "{text}");
        assert!(text.contains("guest crashed on vCPU "), "{text}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn four_vcpus_are_four_threads() {
    let session = debug(
        &["-c", "4"],
        &image::SPIN,
        &[
            "info threads",
            "thread 3",
            "p $rsi",
            "set $start = $pc",
            "stepi",
            "p $pc - $start",
            "thread 4",
            "p $rsi",
            "kill",
        ],
    );
    session.has(&[
        "4    Thread 1.4",
        "[Switching to thread 3",
        "= 2",
        "= 0",
        "[Switching to thread 4",
        "= 3",
    ]);
}

/// By the two ways to name a port. The sandbox is on, as always: a socket of its kind has to work
/// there, too.
#[test]
#[ignore = "needs a KVM"]
fn a_debugger_over_tcp() {
    for by_environment in [false, true] {
        let folder = Folder::new();
        let image = folder.file("image", image::elf(&COUNT));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let option = format!("--gdb={port}");
        let words = if by_environment { vec!["run", &image] } else { vec!["run", &option, &image] };
        let mut command = folder.vmm(&words);
        if by_environment {
            command.env("HERMIT_GDB_PORT", port.to_string());
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut debugger = None;
        wait_until("the port", || {
            debugger = TcpStream::connect(("127.0.0.1", port)).ok();
            debugger.is_some()
        });
        let mut debugger = debugger.unwrap();
        debugger.write_all(b"$?#3f").unwrap();
        let mut answer = [0; 4];
        debugger.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+$T0", "what it stopped for");
        debugger.write_all(b"+$D#44").unwrap();
        let output = wait(child);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(code(output.status), 10, "{text}");
        assert!(text.contains(&format!("GDB can connect to 127.0.0.1:{port}")), "{text}");
    }
}
