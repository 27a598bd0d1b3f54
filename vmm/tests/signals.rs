//! The first signal is reported, the second one ends the process: seen on a process that does
//! nothing but listen.

#![cfg(test)]

mod common;

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nerite_vmm::signals::Signals;
use rustix::process::{Pid, Signal, kill_process};

/// Set in the process that listens.
const LISTENER: &str = "NERITE_TEST_LISTENER";

/// Set for a process that ends so many milliseconds after the first signal.
const LIMIT: &str = "NERITE_TEST_LIMIT";

/// Starts this test program again as the process that listens, and waits until it does.
fn listener() -> Child {
    started(&mut Command::new(std::env::current_exe().unwrap()))
}

fn started(command: &mut Command) -> Child {
    command
        .args(["--exact", "listen", "--ignored", "--nocapture"])
        .env(LISTENER, "1")
        .stdout(Stdio::piped());
    let mut child = common::hear_signals(command).spawn().unwrap();
    read_until(&mut child, "listening;");
    child
}

fn read_until(child: &mut Child, word: &str) {
    let out = child.stdout.as_mut().unwrap();
    let mut text = Vec::new();
    while !text.ends_with(word.as_bytes()) {
        let mut byte = [0];
        assert_eq!(out.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.extend(byte);
    }
}

/// The listener: it prints the first signal, and would never end.
#[test]
#[ignore = "the other tests start it"]
fn listen() {
    if std::env::var_os(LISTENER).is_none() {
        return;
    }
    let signals = Signals::listen().unwrap();
    if let Ok(limit) = std::env::var(LIMIT) {
        signals.end_within(Duration::from_millis(limit.parse().unwrap()));
    }
    let say = |text: &str| {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    assert_eq!(signals.received(), None);
    say("listening;");
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(
        signals.fd().unwrap(),
        rustix::event::PollFlags::IN,
    )];
    while rustix::event::poll(&mut polled, None).is_err() {}
    say(&format!("{:?};", signals.received()));
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn the_second_signal_ends_the_process() {
    for (first, second, told, code) in [
        (Signal::INT, Signal::INT, "Some(2);", 130),
        (Signal::TERM, Signal::INT, "Some(15);", 130),
        (Signal::HUP, Signal::TERM, "Some(1);", 143),
    ] {
        let mut child = listener();
        let pid = Pid::from_child(&child);
        kill_process(pid, first).unwrap();
        read_until(&mut child, told);
        assert!(child.try_wait().unwrap().is_none(), "the first signal is only told");
        kill_process(pid, second).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
    }
}

#[test]
fn the_first_signal_ends_a_process_that_hangs() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut child = started(command.env(LIMIT, "50"));
    let pid = Pid::from_child(&child);
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the time begins with the signal");
    kill_process(pid, Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(143), None));
}
