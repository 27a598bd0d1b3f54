//! The `vmm` program. Everything is in the library `nerite_vmm`, except how the process starts.
//!
//! Rust's runtime makes some 25 system calls before `main` and for each thread, most of them to tell a stack overflow from other
//! faults. This program lives for milliseconds at times, and does without: see [`prepare`].

#![no_main]

use std::ffi::{c_char, c_int};
use std::fs::OpenOptions;
use std::os::fd::IntoRawFd as _;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What the C library calls. It has the arguments from where Rust takes them.
// SAFETY: the C library asks for a function of this name and type (ISO C 5.1.2.2.1), and nothing else here has the name.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    prepare();
    std::process::exit(nerite_vmm::program::main(std::env::args_os()).into())
}

/// What of the runtime's work is needed: descriptors 0 to 2 are open, so that no file is mistaken for standard output, and writing to
/// a closed pipe is an error instead of a signal. And one heap for all threads, because one of its own for each vCPU
/// costs more than it gains: they allocate next to nothing.
fn prepare() {
    let (stdin, stdout, stderr) = (rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr());
    let mut standard = [&stdin, &stdout, &stderr].map(|fd| PollFd::new(fd, PollFlags::empty()));
    // It fails only where there is no memory, and then nothing else will work either.
    if poll(&mut standard, Some(&Timespec::default())).is_ok() {
        for _closed in standard.iter().filter(|fd| fd.revents().contains(PollFlags::NVAL)) {
            if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
                // The lowest number that is free: the closed one's.
                let _ = null.into_raw_fd();
            }
        }
    }
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    #[cfg(target_env = "gnu")]
    // SAFETY: a number within its range; no other thread is there yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
