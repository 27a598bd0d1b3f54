//! Standard error is a pipe that is full, and never read: nothing waits for it.

#![cfg(test)]

mod common;

use std::io::{PipeWriter, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::image;
use common::{Folder, code, full_pipe, hear_signals, wait};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::process::{Pid, Signal, kill_process};

fn start(mut command: Command, stderr: &PipeWriter) -> Child {
    command.stdout(Stdio::piped()).stderr(stderr.try_clone().unwrap());
    hear_signals(&mut command).spawn().unwrap()
}

/// Code that makes wrong hypercalls without end, and says so on its output after the first
/// thousand.
fn wrong_calls() -> Vec<u8> {
    // mov rdi, -1; mov dx, 0x1030 (SerialWriteBuffer); out dx, eax
    let call = [0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, 0x66, 0xba, 0x30, 0x10, 0xef];
    let forever = [&call.repeat(5)[..], &[0xeb, (-62_i8).cast_unsigned()]].concat();
    [&call.repeat(1000)[..], &image::print("x"), &forever].concat()
}

#[test]
#[ignore = "needs a KVM"]
fn a_flood_of_lines_ends_with_the_first_signal() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&wrong_calls()));
    let (mut reader, writer) = full_pipe();
    let command = folder.vmm(&["run", "--max-log-lines", "4000000000", &image]);
    let mut child = start(command, &writer);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let start = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(code(wait(child).status), 143);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    // What the parent shares with it is as it was.
    assert!(!fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));
    drop(writer);
    let mut said = Vec::new();
    reader.read_to_end(&mut said).unwrap();
    assert!(said.iter().all(|&byte| byte == b'.'), "{} bytes", said.len());
}

#[test]
#[ignore = "needs a KVM"]
fn the_time_limit_and_reports_do_not_wait_either() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&wrong_calls()));
    let (_reader, writer) = full_pipe();
    let flood = ["run", "--time-limit=1s", "--max-log-lines", "4000000000", &image];
    assert_eq!(code(wait(start(folder.vmm(&flood), &writer)).status), 245);
    let crash = folder.file("crash", image::elf(&image::CRASH));
    assert_eq!(code(wait(start(folder.vmm(&["run", "--stats", &crash]), &writer)).status), 244);
}

#[test]
fn an_error_does_not_wait() {
    let folder = Folder::new();
    let (_reader, writer) = full_pipe();
    assert_eq!(code(wait(start(folder.vmm(&["-vvv", "run", "missing"]), &writer)).status), 242);
}

/// Lines that found no room are counted, and the next that finds some says how many they were.
#[test]
#[ignore = "needs a KVM"]
fn dropped_lines_are_counted() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&wrong_calls()));
    let (mut reader, writer) = full_pipe();
    let mut child = start(folder.vmm(&["run", "--max-log-lines", "4000000000", &image]), &writer);
    drop(writer);
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&said).contains("of the log are left out here") {
        let read = reader.read(&mut piece).unwrap();
        assert!(read > 0 && said.len() < 4 << 20, "{} bytes", said.len());
        said.extend(&piece[..read]);
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    // It ends while it is read or not.
    assert_eq!(code(wait(child).status), 143);
    let text = String::from_utf8(said).unwrap();
    let lines = text.trim_start_matches('.').lines();
    assert!(
        lines.clone().count() > 1 && lines.take(10).all(|line| line.starts_with("vmm: ")),
        "{text}"
    );
}
