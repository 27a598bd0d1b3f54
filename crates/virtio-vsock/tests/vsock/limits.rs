//! Limits on both sides.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nerite_virtio::fake::{RAM, wait};
use nerite_virtio_vsock::{HEADER, Header, Limits, op, shutdown};

use crate::guest::{Guest, packet};
use crate::{client, connect, read_line};

/// Little patience.
fn short() -> Limits {
    Limits { patience: Duration::from_millis(50), ..Limits::default() }
}

#[test]
fn clients_without_a_line_are_closed() {
    let guest = Guest::with(short());
    for line in ["", "CONN", "CONNECT 1"] {
        let mut client = UnixStream::connect(guest.path("v.sock")).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "{line}");
    }
    wait(|| (guest.function.device().connections() == 0).then_some(()));
}

#[test]
fn clients_with_a_line_that_is_none_are_closed() {
    let mut guest = Guest::new();
    for line in ["GET / HTTP/1.1\n", "CONNECT\n", "CONNECT -1\n", "CONNECT 4294967296\n", "\n"] {
        let mut client = UnixStream::connect(guest.path("v.sock")).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        assert_eq!(client.read(&mut [0]).ok().filter(|length| *length > 0), None, "{line}");
    }
    // A line without an end.
    let mut client = UnixStream::connect(guest.path("v.sock")).unwrap();
    while client.write_all(&[b'x'; 1000]).is_ok() {}
    guest.expect_nothing();
    assert_eq!(guest.function.device().connections(), 0);
}

#[test]
fn a_guest_that_does_not_answer_is_waited_for_so_long() {
    let mut guest = Guest::with(short());
    let (mut refused, request) = client(&mut guest);
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
    let reset = guest.expect(op::RST);
    assert_eq!((reset.src_port, reset.dst_port), (request.src_port, 52));
    // An answer that is late finds nothing.
    guest.answer(&request, op::RESPONSE, 100);
    guest.expect(op::RST);
}

#[test]
fn a_guest_that_does_not_answer_an_end_is_reset() {
    let mut guest = Guest::with(short());
    let server = connect(&mut guest, 7);
    drop(server);
    let mut flags = 0;
    while flags != shutdown::BOTH {
        flags = guest.expect(op::SHUTDOWN).flags;
    }
    guest.expect(op::RST);
    assert_eq!(guest.function.device().connections(), 0);
}

#[test]
fn a_connection_lasts_without_traffic() {
    let mut guest = Guest::with(short());
    let mut server = connect(&mut guest, 7);
    std::thread::sleep(Duration::from_millis(200));
    server.write_all(b"late").unwrap();
    assert_eq!(guest.receive().1, b"late");
}

#[test]
fn more_connections_than_there_may_be_wait_or_are_refused() {
    let mut guest = Guest::with(Limits { connections: 2, ..Limits::default() });
    let server = connect(&mut guest, 7);
    let (mut first, request) = client(&mut guest);
    guest.answer(&request, op::RESPONSE, 100);
    read_line(&mut first);
    let mut waiting = UnixStream::connect(guest.path("v.sock")).unwrap();
    waiting.write_all(b"CONNECT 53\n").unwrap();
    guest.send(&packet(op::REQUEST, 1001, 7), &[]);
    assert_eq!(guest.expect(op::RST).dst_port, 1001);
    guest.expect_nothing();
    assert_eq!(guest.function.device().connections(), 2);
    guest.send(&packet(op::RST, 1000, 7), &[]);
    assert_eq!(guest.expect(op::REQUEST).dst_port, 53);
    drop(server);
}

#[test]
fn a_guest_that_takes_no_answers_is_not_listened_to() {
    let mut guest = Guest::new();
    // More than it has buffers, and than answers are kept for it.
    let at = RAM + 0xc_0000;
    let header = Header { src_cid: 42, dst_cid: 2, kind: 1, op: op::RW, ..Header::default() };
    guest.ram.write(at, &header.to_bytes()).unwrap();
    let (mut sent, mut taken) = (0_u32, 0_u32);
    let mut silent = 0;
    while silent < 200 {
        while sent - taken < 60 {
            guest.queues[1].add(&[(at, HEADER as u32, 0)]);
            sent += 1;
        }
        guest.driver.kick(1);
        silent += 1;
        std::thread::sleep(Duration::from_millis(1));
        while guest.queues[1].take_used().is_some() {
            (taken, silent) = (taken + 1, 0);
        }
    }
    // 32 buffers, and 256 answers.
    assert_eq!(taken, 32 + 256);
    // Once it takes them, its packets are answered, all of them.
    for _ in 0..sent {
        guest.expect(op::RST);
    }
    guest.expect_nothing();
    assert!(!guest.needs_reset());
}

#[test]
fn clients_that_come_and_go_leave_nothing() {
    let mut guest = Guest::new();
    for _ in 0..200 {
        drop(UnixStream::connect(guest.path("v.sock")).unwrap());
        let mut half = UnixStream::connect(guest.path("v.sock")).unwrap();
        half.write_all(b"CONN").unwrap();
    }
    wait(|| (guest.function.device().connections() == 0).then_some(()));
    let (mut client, request) = client(&mut guest);
    guest.answer(&request, op::RESPONSE, 100);
    read_line(&mut client);
}
