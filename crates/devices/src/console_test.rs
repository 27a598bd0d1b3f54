use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

fn console() -> (Console, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Console::new(Sink::Fd(ours.into())), theirs)
}

fn arrived(stream: &mut UnixStream) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(text).unwrap()
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let no_wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&no_wait)).unwrap() > 0
}

#[test]
fn bytes_wait_for_their_line_and_buffers_do_not() {
    let (console, mut end) = console();
    for byte in *b"ab" {
        console.put(byte).unwrap();
    }
    assert_eq!(arrived(&mut end), "");
    console.put(b'\n').unwrap();
    assert_eq!(arrived(&mut end), "ab\n");
    console.put(b'c').unwrap();
    console.write(b"prompt> ").unwrap();
    assert_eq!(arrived(&mut end), "cprompt> ");
}

#[test]
fn a_partial_line_is_announced_once_and_flushed() {
    let (console, mut end) = console();
    assert!(!is_readable(console.watch().unwrap()));
    for byte in *b"name? " {
        console.put(byte).unwrap();
    }
    assert!(is_readable(console.watch().unwrap()));
    console.flush().unwrap();
    assert_eq!(arrived(&mut end), "name? ");
    assert!(!is_readable(console.watch().unwrap()));
    console.put(b'x').unwrap();
    assert!(is_readable(console.watch().unwrap()));
}

#[test]
fn a_line_without_end_goes_out_in_pieces() {
    let (console, mut end) = console();
    for _ in 0..Console::LINE_CAPACITY + 1 {
        console.put(b'z').unwrap();
    }
    assert_eq!(arrived(&mut end).len(), Console::LINE_CAPACITY);
    console.flush().unwrap();
    assert_eq!(arrived(&mut end).len(), 1);
}

#[test]
fn a_closed_sink_is_an_error_each_time() {
    let (console, end) = console();
    drop(end);
    assert_eq!(console.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(console.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_nonblocking_sink_loses_nothing() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let console = Console::new(Sink::Fd(ours.into()));
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        got
    });
    console.write(&sent).unwrap();
    drop(console);
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn null_takes_everything() {
    let console = Console::new(Sink::Null);
    console.write(b"gone").unwrap();
    console.put(b'\n').unwrap();
    console.flush().unwrap();
}

#[test]
fn input_is_read_as_it_comes_until_its_end() {
    let (mut user, ours) = UnixStream::pair().unwrap();
    let (_stop_write, stop) = UnixStream::pair().unwrap();
    let input = Input::new(Some(ours.into()));
    user.write_all(b"hello").unwrap();
    let mut buffer = [0; 3];
    assert_eq!(input.read(&mut buffer, stop.as_fd()).unwrap(), 3);
    assert_eq!(&buffer, b"hel");
    assert_eq!(input.read(&mut buffer, stop.as_fd()).unwrap(), 2);
    drop(user);
    assert_eq!(input.read(&mut buffer, stop.as_fd()).unwrap(), 0);
    assert_eq!(Input::new(None).read(&mut buffer, stop.as_fd()).unwrap(), 0);
}

#[test]
fn a_stop_ends_a_waiting_read() {
    let (_user, ours) = UnixStream::pair().unwrap();
    let (mut stop_write, stop) = UnixStream::pair().unwrap();
    let input = Input::new(Some(ours.into()));
    let waiting = std::thread::spawn(move || input.read(&mut [0; 8], stop.as_fd()));
    stop_write.write_all(b"!").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn a_flush_never_waits() {
    let (console, mut end) = console();
    for byte in *b"name? " {
        console.put(byte).unwrap();
    }
    // Nothing reads: the sink is filled until it takes no more.
    let full = |sink: BorrowedFd<'_>| {
        rustix::io::ioctl_fionbio(sink, true).unwrap();
        while rustix::io::write(sink, &[b'.'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(sink, false).unwrap();
    };
    full(console.sink().unwrap());
    assert!(!console.flush().unwrap());
    assert!(is_readable(console.watch().unwrap()), "the line still waits");
    let filling = arrived(&mut end);
    assert!(!filling.contains("name"));
    assert!(console.flush().unwrap());
    assert_eq!(arrived(&mut end), "name? ");

    // A vCPU that waits for the sink holds the line.
    full(console.sink().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| console.write(&[b'x'; 1 << 20]).unwrap_err());
        while console.line.try_lock().is_ok() {
            std::thread::yield_now();
        }
        assert!(!console.flush().unwrap());
        drop(end);
    });
}

#[test]
fn held_bytes_wait_for_a_flush_and_keep_their_place() {
    let (console, mut end) = console();
    console.put(b'a').unwrap();
    for byte in *b"b\nc" {
        assert!(console.hold(byte));
    }
    assert_eq!(arrived(&mut end), "");
    assert!(console.flush().unwrap());
    assert_eq!(arrived(&mut end), "ab\nc");
    assert!(console.hold(b'd'));
    console.write(b"e").unwrap();
    assert_eq!(arrived(&mut end), "de");
    // As much as a pipe that is ready takes at once, and no more.
    let held = (0..5000).take_while(|_| console.hold(b'x')).count();
    assert_eq!(held, 4096);
    assert!(console.flush().unwrap());
    assert_eq!(arrived(&mut end).len(), 4096);
}
