//! A socket device whose guest is a test.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

mod guest;
mod hostile;
mod limits;
mod state;
mod streams;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use guest::{CID, Guest, data, packet};
use nerite_virtio::fake::wait;
use nerite_virtio::feature;
use nerite_virtio_vsock::nerite_private_socket::BindError;
use nerite_virtio_vsock::{HOST_CID, Header, Listener, STREAM, op, shutdown};

/// Reads until a line feed.
fn read_line(client: &mut UnixStream) -> String {
    let mut line = String::new();
    while !line.ends_with('\n') {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        line.push(byte[0].into());
    }
    line
}

/// A client of port 52, and the request that the guest gets.
fn client(guest: &mut Guest) -> (UnixStream, Header) {
    let mut client = UnixStream::connect(guest.path("v.sock")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"CONNECT 52\n").unwrap();
    // Those of a connection before are as late as its last packets.
    let request = guest.expect_after_updates(op::REQUEST);
    (client, request)
}

/// A connection that the guest has asked for, to a server at port `port`.
fn connect(guest: &mut Guest, port: u32) -> UnixStream {
    let server = UnixListener::bind(guest.path(&format!("v.sock_{port}"))).unwrap();
    guest.send(&packet(op::REQUEST, 1000, port), &[]);
    let (server, _) = server.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let response = guest.expect(op::RESPONSE);
    assert_eq!((response.src_port, response.dst_port), (port, 1000));
    server
}

#[test]
fn features_and_the_identifier_are_as_specified() {
    let guest = Guest::new();
    let transport = feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX;
    // Bit 0 is stream sockets; bit 1, SEQPACKET, is not offered.
    assert_eq!(guest.driver.offered(), transport | 1);
    assert_eq!(guest.driver.read(nerite_virtio::region::DEVICE, 4), u64::from(CID));
    assert_eq!(guest.driver.read(nerite_virtio::region::DEVICE + 4, 4), 0);
    assert_eq!(guest.driver.read(nerite_virtio::region::DEVICE + 8, 4), 0);
}

#[test]
fn a_client_connects_to_a_port_of_the_guest() {
    let mut guest = Guest::new();
    let (mut client, request) = client(&mut guest);
    assert_eq!((request.src_cid, request.dst_cid), (HOST_CID, CID.into()));
    assert_eq!((request.dst_port, request.kind), (52, STREAM));
    assert!(request.buf_alloc > 0 && request.fwd_cnt == 0);
    guest.answer(&request, op::RESPONSE, 1 << 16);
    assert_eq!(read_line(&mut client), format!("OK {}\n", request.src_port));
    client.write_all(b"ping").unwrap();
    let (header, bytes) = guest.receive();
    assert_eq!((header.op, &bytes[..]), (op::RW, &b"ping"[..]));
    guest.send(&data(52, request.src_port, b"pong"), b"pong");
    let mut pong = [0; 4];
    client.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"pong");
    let totals = guest.function.device().totals();
    assert_eq!((totals.from_host, totals.from_guest, totals.resets), (1, 0, 0));
    assert_eq!((totals.to_guest_bytes, totals.to_host_bytes), (4, 4));
}

#[test]
fn a_client_that_the_guest_refuses_is_closed() {
    let mut guest = Guest::new();
    let (mut client, request) = client(&mut guest);
    guest.answer(&request, op::RST, 0);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(guest.function.device().connections(), 0);
    guest.expect_nothing();
}

#[test]
fn the_guest_connects_to_a_socket_of_the_host() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    guest.send(&data(1000, 7, b"hello"), b"hello");
    let mut hello = [0; 5];
    server.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    server.write_all(b"host").unwrap();
    assert_eq!(guest.receive().1, b"host");
    assert_eq!(guest.function.device().totals().from_guest, 1);
}

#[test]
fn the_guest_is_refused_where_nothing_listens() {
    let mut guest = Guest::new();
    guest.send(&packet(op::REQUEST, 1000, 8), &[]);
    let reset = guest.expect(op::RST);
    assert_eq!((reset.src_cid, reset.src_port), (HOST_CID, 8));
    assert_eq!((reset.dst_cid, reset.dst_port), (CID.into(), 1000));
    // A file is no socket, and one whose server is gone refuses.
    std::fs::write(guest.path("v.sock_9"), "").unwrap();
    drop(UnixListener::bind(guest.path("v.sock_10")).unwrap());
    for port in [9, 10] {
        guest.send(&packet(op::REQUEST, 1000, port), &[]);
        assert_eq!(guest.expect(op::RST).src_port, port);
    }
    assert_eq!(guest.function.device().totals().resets, 3);
}

#[test]
fn the_guest_ends_a_connection_and_gets_a_reset() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    guest.send(&data(1000, 7, b"last"), b"last");
    let ends = Header { flags: shutdown::BOTH, ..packet(op::SHUTDOWN, 1000, 7) };
    guest.send(&ends, &[]);
    guest.expect(op::RST);
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last");
    assert_eq!(guest.function.device().connections(), 0);
    assert_eq!(guest.function.device().totals().resets, 0);
    // The ports can be used again.
    guest.send(&packet(op::REQUEST, 1000, 9), &[]);
    guest.expect(op::RST);
}

#[test]
fn a_direction_that_the_guest_ends_is_ended_for_the_server() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    let ends = Header { flags: shutdown::SEND, ..packet(op::SHUTDOWN, 1000, 7) };
    guest.send(&ends, &[]);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    server.write_all(b"still").unwrap();
    assert_eq!(guest.receive().1, b"still");
    let ends = Header { flags: shutdown::RECEIVE, ..ends };
    guest.send(&ends, &[]);
    guest.expect(op::RST);
    assert_eq!(server.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn the_end_of_a_client_is_told_after_its_last_bytes() {
    let mut guest = Guest::new();
    let (mut client, request) = client(&mut guest);
    guest.answer(&request, op::RESPONSE, 1 << 16);
    read_line(&mut client);
    client.write_all(b"last").unwrap();
    drop(client);
    let mut flags = 0;
    let mut bytes = Vec::new();
    while flags != shutdown::BOTH {
        let (header, data) = guest.receive();
        bytes.extend(data);
        if header.op == op::SHUTDOWN {
            assert_eq!(flags & !header.flags, 0, "hints are permanent");
            flags = header.flags;
        }
    }
    assert_eq!(bytes, b"last");
    guest.answer(&request, op::RST, 0);
    wait(|| (guest.function.device().connections() == 0).then_some(()));
    guest.expect_nothing();
}

#[test]
fn clients_wait_for_a_driver_that_is_not_ready() {
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let ram = guest::memory();
    let path = folder.path().join("v.sock");
    let function = guest::device(&path, &ram, nerite_virtio_vsock::Limits::default());
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"CONNECT 1\n").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let mut guest = Guest::start(folder, ram, function);
    assert_eq!(guest.expect(op::REQUEST).dst_port, 1);
}

#[test]
fn the_socket_is_private_and_goes_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.sock");
    let mut first = Listener::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Listener::bind(&path), Err(BindError::InUse(_))));
    let name = first.take_name();
    drop(first);
    // A socket whose server is gone is replaced, another file is not.
    assert!(path.exists());
    let second = Listener::bind(&path).unwrap();
    drop(second);
    assert!(!path.exists());
    drop(name);
    std::fs::write(&path, "mine").unwrap();
    let error = Listener::bind(&path).unwrap_err();
    assert!(matches!(error, BindError::NotSocket(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}
