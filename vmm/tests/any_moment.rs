//! The first signal ends `vmm` at any moment of its life, and the time limit counts all of it.
//!
//! `NERITE_TEST_MOMENTS` is the number of moments that each case is tried at, 3 without it. With
//! 200, on a machine that is otherwise idle, the longest end of each case shows if the second that
//! is promised holds.

#![cfg(test)]
#![allow(clippy::print_stdout, reason = "figures are shown")]

mod common;

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::image;
use common::{Folder, code, full_pipe, hear_signals, wait};
use rustix::process::{Pid, Signal, kill_process};

/// Time in which `vmm` ends, on a machine that may be starved. What it promises is a second.
const LIMIT: Duration = Duration::from_secs(20);

fn moments() -> u32 {
    std::env::var("NERITE_TEST_MOMENTS").map_or(3, |moments| moments.parse().unwrap())
}

/// Sends SIGTERM to what `start` starts, at random moments of its first `life`. A run that has
/// ended by itself before has one of the codes `own`.
#[track_caller]
fn check(name: &str, life: Duration, own: &[i32], mut start: impl FnMut() -> Child) {
    let mut longest = Duration::ZERO;
    let mut own_ends = 0;
    for part in 0..moments() {
        // One in each part of its life; the clock's nanoseconds say where in the part.
        let within =
            f64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()) / 1e9;
        let moment = life.mul_f64((f64::from(part) + within) / f64::from(moments()));
        let child = start();
        std::thread::sleep(moment);
        let sent = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let code = code(wait(child).status);
        let took = sent.elapsed();
        assert!(code == 143 || own.contains(&code), "{name}: exit code {code} after {moment:?}");
        assert!(took < LIMIT, "{name}: {took:?} for a signal after {moment:?}");
        own_ends += u32::from(code != 143);
        longest = longest.max(took);
    }
    println!(
        "{name}: {} signals, {own_ends} after the end, the longest end {longest:?}",
        moments()
    );
}

/// `vmm run` with these words, whose streams are discarded.
fn quiet(folder: &Folder, words: &[&str]) -> Command {
    let mut command = folder.vmm(&[&["run"], words].concat());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    hear_signals(&mut command);
    command
}

fn with_streams(folder: &Folder, words: &[&str], out: OwnedFd, err: OwnedFd) -> Child {
    quiet(folder, words).stdout(out).stderr(err).spawn().unwrap()
}

fn null() -> OwnedFd {
    std::fs::File::options().write(true).open("/dev/null").unwrap().into()
}

/// An image whose kernel ends at once, and that takes a while to unpack.
fn slow_image(folder: &Folder) -> String {
    let zeros = vec![0; 192 << 20];
    let files: [(&str, &[u8]); 3] = [
        ("hermit.toml", image::HERMIT_TOML.as_bytes()),
        ("kernel", &image::elf(&image::exit(0))),
        ("zeros", &zeros),
    ];
    folder.file("slow", image::gzip(&image::tar(&files)))
}

/// Writes of `length` bytes from `buffer` on to the console, without end (SerialWriteBuffer of
/// interface 2: RDI is the address of the length and the buffer's address).
fn writes(buffer: u64, length: u64) -> Vec<u8> {
    // The block lies on the stack: push the buffer, push the length, mov rdi, rsp.
    let mut code = vec![0x48, 0xb8];
    code.extend(buffer.to_le_bytes()); // mov rax, buffer
    code.extend([0x50, 0x48, 0xb8]);
    code.extend(length.to_le_bytes()); // push rax; mov rax, length
    code.extend([0x50, 0x48, 0x89, 0xe7]); // push rax; mov rdi, rsp
    code.extend([0x66, 0xba, 0x30, 0x10, 0xef, 0xeb, 0xfd]); // mov dx, 0x1030; out dx, eax; jmp -3
    code
}

#[test]
fn a_start_and_an_end() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    check("start and end", Duration::from_millis(150), &[0], || {
        quiet(&folder, &["-c", "4", &image]).spawn().unwrap()
    });
}

#[test]
fn an_image_that_is_read_for_long() {
    let folder = Folder::new();
    let image = slow_image(&folder);
    check("reading an image", Duration::from_secs(1), &[0], || {
        quiet(&folder, &[&image]).spawn().unwrap()
    });
}

#[test]
fn guests_that_spin_and_halt() {
    let folder = Folder::new();
    let spin = folder.file("spin", image::elf(&image::SPIN));
    check("spinning", Duration::from_millis(500), &[], || {
        quiet(&folder, &["-c", "4", &spin]).spawn().unwrap()
    });
    let halt = folder.file("halt", image::elf(&image::HALT));
    let words = ["--api-socket", "socket", &halt];
    check("halted", Duration::from_millis(500), &[244], || quiet(&folder, &words).spawn().unwrap());
}

#[test]
fn output_that_is_not_read() {
    let folder = Folder::new();
    let flood = folder.file("flood", image::elf(&writes(0x400, 1024)));
    let (_reader, writer) = full_pipe();
    check("a full pipe for the console", Duration::from_millis(500), &[], || {
        with_streams(&folder, &[&flood], writer.try_clone().unwrap().into(), null())
    });
    check("a flood of the console", Duration::from_millis(500), &[], || {
        quiet(&folder, &[&flood]).spawn().unwrap()
    });
}

#[test]
fn a_log_that_is_not_read() {
    let folder = Folder::new();
    // mov rdi, -1; mov dx, 0x1030; out dx, eax; jmp -3
    let wrong =
        [0x48, 0xc7, 0xc7, 0xff, 0xff, 0xff, 0xff, 0x66, 0xba, 0x30, 0x10, 0xef, 0xeb, 0xfd];
    let flood = folder.file("flood", image::elf(&wrong));
    let (_reader, writer) = full_pipe();
    check("a full pipe for the log", Duration::from_millis(500), &[], || {
        let words = ["--max-log-lines", "4000000000", &flood];
        with_streams(&folder, &words, null(), writer.try_clone().unwrap().into())
    });
}

#[test]
fn one_call_on_much_memory() {
    let folder = Folder::new();
    let call = folder.file("call", image::elf(&writes(0, 60 << 30)));
    check("one call on 64 GiB", Duration::from_secs(1), &[242, 243], || {
        quiet(&folder, &["-m", "64G", &call]).spawn().unwrap()
    });
}

#[test]
fn crashes() {
    let folder = Folder::new();
    let crash = folder.file("crash", image::elf(&image::CRASH));
    let (_reader, writer) = full_pipe();
    check("a report into a full pipe", Duration::from_millis(300), &[244], || {
        with_streams(&folder, &["-c", "4", &crash], null(), writer.try_clone().unwrap().into())
    });
    check("a core file", Duration::from_millis(500), &[244], || {
        let core = folder.path("core");
        let _ = std::fs::remove_file(&core);
        quiet(&folder, &["-c", "4", "-m", "1G", "--on-crash", "dump:core", &crash]).spawn().unwrap()
    });
}

#[test]
fn the_time_limit_counts_from_the_start() {
    let folder = Folder::new();
    // Its guest ends at once, once it runs.
    let image = slow_image(&folder);
    let done = folder.run(&["run", "--time-limit", "50ms", &image]);
    assert_eq!(done.code, 245, "{done:?}");
    assert!(done.stderr.ends_with("vmm: the guest's time is up\n"), "{done:?}");
}
