use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use super::*;

const PORTS: Ports = Ports { host: 1, guest: 2 };

/// A connection that the guest has asked for, with room for `buf_alloc` bytes, and its client.
fn connection(buf_alloc: u32) -> (Connection, UnixStream) {
    let (ours, client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let header = Header { op: op::REQUEST, buf_alloc, ..Header::default() };
    let mut connection = Connection::connected(ours.into(), PORTS, &header);
    let outgoing = connection.next_packet(&mut []).unwrap();
    assert_eq!((outgoing.op, outgoing.length), (op::RESPONSE, 0));
    (connection, client)
}

fn packet(op: u16) -> Header {
    Header { op, buf_alloc: 100, ..Header::default() }
}

#[test]
fn a_line_in_pieces_is_read_and_nothing_behind_it() {
    let (ours, mut client) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut connection = Connection::accepted(ours.into());
    client.write_all(b"CONN").unwrap();
    assert_eq!(connection.read_line(), Line::Partial);
    client.write_all(b"ECT 7\nhello").unwrap();
    assert_eq!(connection.read_line(), Line::Port(7));
    connection.request(PORTS);
    assert_eq!(connection.next_packet(&mut []).unwrap().op, op::REQUEST);
    assert_eq!(connection.packet(&packet(op::RESPONSE), &[]), Verdict::Keep);
    let mut room = [0; 10];
    connection.ready(true, true, false);
    let outgoing = connection.next_packet(&mut room).unwrap();
    assert_eq!((outgoing.op, &room[..outgoing.length as usize]), (op::RW, &b"hello"[..]));
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"OK 1\n");
}

#[test]
fn no_more_is_sent_than_the_guest_has_room_for() {
    let (mut connection, mut client) = connection(5);
    client.write_all(b"0123456789").unwrap();
    let mut room = [0; 100];
    let mut next = |connection: &mut Connection| {
        connection.next_packet(&mut room).map(|outgoing| (outgoing.op, outgoing.length))
    };
    assert_eq!(next(&mut connection), Some((op::RW, 5)));
    assert_eq!(next(&mut connection), Some((op::CREDIT_REQUEST, 0)));
    assert!(!connection.has_packet());
    assert_eq!(next(&mut connection), None);
    // Two bytes were taken; then a guest says what cannot be, and gets nothing.
    let mut header = Header { fwd_cnt: 2, buf_alloc: 5, ..packet(op::CREDIT_UPDATE) };
    assert_eq!(connection.packet(&header, &[]), Verdict::Keep);
    assert_eq!(next(&mut connection), Some((op::RW, 2)));
    header.fwd_cnt = 9;
    connection.packet(&header, &[]);
    assert_eq!(next(&mut connection), Some((op::CREDIT_REQUEST, 0)));
    header.fwd_cnt = 7;
    connection.packet(&header, &[]);
    assert_eq!(next(&mut connection), Some((op::RW, 3)));
}

#[test]
fn a_guest_that_sends_more_than_there_is_room_for_is_reset() {
    let (mut connection, _client) = connection(0);
    connection.may_write = false;
    let data = vec![0; BUFFER];
    assert_eq!(connection.packet(&packet(op::RW), &data[1..]), Verdict::Keep);
    assert_eq!(connection.packet(&packet(op::RW), &data[..2]), Verdict::Reset);
}

#[test]
fn room_is_announced_when_it_is_asked_for_or_much() {
    let (mut connection, mut client) = connection(0);
    let mut header = Header::default();
    connection.may_read = false;
    let data = vec![7; UPDATE as usize - 1];
    connection.packet(&packet(op::RW), &data);
    assert!(!connection.has_packet());
    connection.packet(&packet(op::RW), &data[..1]);
    assert_eq!(connection.next_packet(&mut []).unwrap().op, op::CREDIT_UPDATE);
    connection.stamp(&mut header);
    assert_eq!((header.buf_alloc, header.fwd_cnt), (BUF_ALLOC, UPDATE));
    assert!(!connection.has_packet());
    connection.packet(&packet(op::CREDIT_REQUEST), &[]);
    assert_eq!(connection.next_packet(&mut []).unwrap().op, op::CREDIT_UPDATE);
    let mut got = vec![0; UPDATE as usize];
    client.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}

#[test]
fn each_direction_ends_by_itself() {
    let (mut connection, mut client) = connection(100);
    let mut room = [0; 100];
    client.write_all(b"last").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(connection.next_packet(&mut room).unwrap().length, 4);
    let outgoing = connection.next_packet(&mut room).unwrap();
    assert_eq!((outgoing.op, outgoing.flags), (op::SHUTDOWN, shutdown::SEND));
    assert!(!connection.is_half_open() && !connection.has_packet());
    assert_eq!(connection.packet(&packet(op::RW), b"answer"), Verdict::Keep);
    let header = Header { flags: shutdown::SEND, ..packet(op::SHUTDOWN) };
    assert_eq!(connection.packet(&header, &[]), Verdict::Keep);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    // Data after that is against the rules.
    assert_eq!(connection.packet(&packet(op::RW), b"more"), Verdict::Reset);
}

#[test]
fn hints_stay_once_they_are_given() {
    let (mut connection, _client) = connection(100);
    let header = |flags| Header { flags, ..packet(op::SHUTDOWN) };
    assert_eq!(connection.packet(&header(shutdown::RECEIVE), &[]), Verdict::Keep);
    assert_eq!(connection.packet(&header(0), &[]), Verdict::Keep);
    assert_eq!(connection.packet(&header(shutdown::SEND), &[]), Verdict::Reset);
}

#[test]
fn what_was_sent_before_the_end_arrives_after_it() {
    let (mut connection, mut client) = connection(100);
    connection.may_write = false;
    connection.packet(&packet(op::RW), b"late");
    let header = Header { flags: shutdown::BOTH, ..packet(op::SHUTDOWN) };
    assert_eq!(connection.packet(&header, &[]), Verdict::Keep);
    assert!(connection.linger());
    connection.ready(false, true, false);
    assert_eq!(connection.flush(), Verdict::Remove);
    drop(connection);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "late");
}

#[test]
fn a_client_that_is_gone_ends_both_directions_after_its_last_bytes() {
    let (mut connection, mut client) = connection(100);
    let mut room = [0; 100];
    client.write_all(b"last").unwrap();
    drop(client);
    connection.ready(true, true, true);
    assert_eq!(connection.next_packet(&mut room).unwrap().length, 4);
    let outgoing = connection.next_packet(&mut room).unwrap();
    assert_eq!((outgoing.op, outgoing.flags), (op::SHUTDOWN, shutdown::BOTH));
    assert!(connection.is_half_open());
    // What the guest still sends is thrown away.
    assert_eq!(connection.packet(&packet(op::RW), b"more"), Verdict::Keep);
    assert!(connection.to_host.is_empty());
}
