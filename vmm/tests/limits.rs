//! A guest that floods its output or the log.

#![cfg(test)]

mod common;

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::image;
use common::{Folder, code, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Code that repeats `body` without end.
fn forever(body: &[u8]) -> Vec<u8> {
    let back = -i8::try_from(body.len() + 2).unwrap();
    [body, &[0xeb, back.cast_unsigned()]].concat()
}

#[test]
#[ignore = "needs a KVM"]
fn output_is_slowed_down() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&forever(&image::print("x\n"))));
    let start = Instant::now();
    let mut command = folder.vmm(&["run", "--max-output-rate", "1000", &image]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first second's worth comes at once.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1500]).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
    // The vCPU waits now, and can be stopped.
    let signalled = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let output = wait(child);
    assert_eq!(code(output.status), 143, "{output:?}");
    assert!(signalled.elapsed() < Duration::from_secs(20));
    let most = 10 + usize::try_from(start.elapsed().as_millis()).unwrap();
    assert!(output.stdout.len() < most, "{} bytes after the first 1500", output.stdout.len());
}

#[test]
#[ignore = "needs a KVM"]
fn a_very_low_rate_can_be_stopped() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&forever(&image::print("x\n"))));
    let mut command = folder.vmm(&["run", "--max-output-rate", "1", &image]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(code(wait(child).status), 143);
}

#[test]
#[ignore = "needs a KVM"]
fn the_log_has_as_many_lines_as_it_may() {
    let folder = Folder::new();
    // mov rdi, -1; mov dx, 0x1030 (SerialWriteBuffer); out dx, eax
    let call = [0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, 0x66, 0xba, 0x30, 0x10, 0xef];
    let code = [&call.repeat(20)[..], &image::exit(0)].concat();
    let image = folder.file("image", image::elf(&code));
    for (lines, expected) in [("0", 0), ("5", 6), ("100", 20)] {
        let done = folder.run(&["run", "--max-log-lines", lines, &image]);
        assert_eq!((done.code, done.stderr.lines().count()), (0, expected), "{done:?}");
    }
}

#[test]
#[ignore = "needs a KVM"]
fn the_log_has_an_end() {
    let folder = Folder::new();
    // mov rdi, -1; mov dx, 0x1030 (SerialWriteBuffer); out dx, eax
    let call = [0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, 0x66, 0xba, 0x30, 0x10, 0xef];
    // mov ebx, 40_000; the call; dec ebx; jnz
    let count = [&[0xbb][..], &40_000_u32.to_le_bytes()].concat();
    let code = [&count[..], &call, &[0xff, 0xcb, 0x75, 0xf0], &image::exit(0)].concat();
    let image = folder.file("image", image::elf(&code));
    let done = folder.run(&["run", "--max-log-lines", "4000000000", &image]);
    assert_eq!(done.code, 0, "{:?}", done.stderr.lines().next());
    assert!((1 << 19..(1 << 20) + 100).contains(&done.stderr.len()), "{} bytes", done.stderr.len());
    let last = done.stderr.lines().last().unwrap();
    let lines: usize = last.split(' ').nth(2).unwrap().parse().unwrap();
    assert_eq!(lines + done.stderr.lines().count() - 1, 40_000, "{last}");
}
