//! The `vmm` program. Everything is in the library `nerite_vmm`, except how the process starts.
//!
//! Rust's runtime makes some 25 system calls before `main` and for each thread, most of them to
//! tell a stack overflow from other faults. This program lives for milliseconds at times, and does
//! without: see [`prepare`].

#![no_main]

use std::ffi::{c_char, c_int};
use std::fs::OpenOptions;
use std::os::fd::IntoRawFd as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Entry point for the C library. The arguments come from where Rust takes them.
// SAFETY: the C library asks for a function of this name and type (ISO C 5.1.2.2.1), and nothing
// else here has the name.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    prepare();
    std::process::exit(nerite_vmm::program::main(std::env::args_os()).into())
}

/// Does the part of the runtime's work that is needed: descriptors 0 to 2 are open, so that no file
/// is mistaken for standard output, and writing to a closed pipe is an error instead of a signal.
/// And it makes the heap one for all threads, because a heap for each vCPU costs more than it
/// gains: they allocate next to nothing.
fn prepare() {
    let (stdin, stdout, stderr) =
        (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let mut standard = [&stdin, &stdout, &stderr].map(|fd| PollFd::new(fd, PollFlags::empty()));
    let polled = poll(&mut standard, Some(&Timespec::default()));
    let closed = standard.iter().filter(|fd| fd.revents().contains(PollFlags::NVAL)).count();
    // Each gets the lowest number that is free: that of a closed one.
    let opened = (0..closed).all(|_| {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        null.is_ok_and(|null| (0..3).contains(&null.into_raw_fd()))
    });
    if polled.is_err() || !opened {
        // Any file that is opened could be taken for one of them, and there is nowhere to say so.
        std::process::exit(nerite_vmm::exit_code::HOST.into());
    }
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    #[cfg(target_env = "gnu")]
    // SAFETY: a number within its range; no other thread is there yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
