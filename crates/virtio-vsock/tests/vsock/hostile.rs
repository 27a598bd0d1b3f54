//! Drivers that break the rules.

use std::io::Read as _;

use nerite_virtio::fake::{RAM, WRITE, wait};
use nerite_virtio_vsock::{BUFFER, HEADER, Header, op, shutdown};

use crate::guest::{CID, Guest, data, packet};
use crate::{client, connect};

const SEND: u64 = RAM + 0xc_0000;

#[test]
fn packets_of_no_connection_get_a_reset() {
    let mut guest = Guest::new();
    for op in
        [0, op::RESPONSE, op::SHUTDOWN, op::RW, op::CREDIT_UPDATE, op::CREDIT_REQUEST, 8, 0xffff]
    {
        guest.send(&packet(op, 5, 6), &[]);
        let reset = guest.expect(op::RST);
        assert_eq!((reset.src_port, reset.dst_port), (6, 5), "operation {op}");
    }
    // But a reset does not, as each side would answer the other.
    guest.send(&packet(op::RST, 5, 6), &[]);
    guest.expect_nothing();
    assert!(!guest.needs_reset());
}

#[test]
fn packets_of_an_unknown_type_get_a_reset() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    for kind in [0, 2, 0xffff] {
        guest.send(&Header { kind, ..packet(op::REQUEST, 1000, 7) }, &[]);
        assert_eq!(guest.expect(op::RST).kind, kind);
    }
    // The stream of the same ports is another connection.
    guest.send(&data(1000, 7, b"x"), b"x");
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn wrong_addresses_get_a_reset_and_touch_no_connection() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    for (src_cid, dst_cid) in [
        (CID.into(), 0),
        (CID.into(), 3),
        (3, 2),
        (u64::from(CID) | 1 << 32, 2),
        (u64::MAX, u64::MAX),
    ] {
        guest.send(&Header { src_cid, dst_cid, ..data(1000, 7, b"bad") }, b"bad");
        let reset = guest.expect(op::RST);
        assert_eq!((reset.src_cid, reset.dst_cid), (dst_cid, src_cid));
        guest.send(&Header { src_cid, dst_cid, ..packet(op::RST, 1000, 7) }, &[]);
    }
    guest.send(&data(1000, 7, b"good"), b"good");
    let mut good = [0; 4];
    server.read_exact(&mut good).unwrap();
    assert_eq!(&good, b"good");
}

#[test]
fn wrong_lengths_and_operations_end_a_connection() {
    let long = vec![0; BUFFER];
    let cases: [(Header, &[u8]); 6] = [
        (Header { length: 5, ..data(1000, 7, b"") }, b"four"),
        (Header { length: u32::MAX, ..data(1000, 7, b"") }, b"four"),
        (Header { length: BUFFER as u32 + 1, ..data(1000, 7, b"") }, &long),
        (packet(op::REQUEST, 1000, 7), b""),
        (packet(op::RESPONSE, 1000, 7), b""),
        (packet(99, 1000, 7), b""),
    ];
    for (header, bytes) in cases {
        let mut guest = Guest::new();
        let mut server = connect(&mut guest, 7);
        guest.send(&header, bytes);
        guest.expect(op::RST);
        assert_eq!(server.read(&mut [0]).unwrap(), 0, "{header:?}");
        assert_eq!(guest.function.device().connections(), 0);
    }
}

#[test]
fn data_without_room_or_after_its_end_ends_a_connection() {
    let mut guest = Guest::new();
    let _silent = connect(&mut guest, 7);
    let piece = vec![1; BUFFER];
    // The server's socket takes some; then twice the buffer is too much.
    let mut reset = None;
    for _ in 0..64 {
        guest.send(&data(1000, 7, &piece), &piece);
        while let Some((header, _)) = guest.try_receive() {
            reset = reset.or((header.op == op::RST).then_some(header));
        }
        if reset.is_some() {
            break;
        }
    }
    assert!(reset.is_some());
    let mut guest = Guest::new();
    let _server = connect(&mut guest, 7);
    guest.send(&Header { flags: shutdown::SEND, ..packet(op::SHUTDOWN, 1000, 7) }, &[]);
    guest.send(&data(1000, 7, b"x"), b"x");
    guest.expect(op::RST);
}

#[test]
fn an_early_answer_is_none() {
    let mut guest = Guest::new();
    let (mut early, request) = client(&mut guest);
    guest.send(&data(52, request.src_port, b"x"), b"x");
    guest.expect(op::RST);
    assert_eq!(early.read(&mut [0]).unwrap(), 0);
}

#[test]
fn short_packets_are_ignored() {
    let mut guest = Guest::new();
    for length in [1, HEADER as u32 - 1] {
        guest.queues[1].add(&[(SEND, length, 0)]);
        guest.driver.kick(1);
        wait(|| guest.queues[1].take_used());
    }
    guest.expect_nothing();
    assert!(!guest.needs_reset());
}

#[test]
fn a_header_in_pieces_is_understood() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    guest.ram.write(SEND, &data(1000, 7, b"pieces").to_bytes()).unwrap();
    guest.ram.write(SEND + HEADER as u64, b"pieces").unwrap();
    guest.queues[1].add(&[(SEND, 1, 0), (SEND + 1, 40, 0), (SEND + 41, 5, 0), (SEND + 46, 4, 0)]);
    guest.driver.kick(1);
    wait(|| guest.queues[1].take_used());
    let mut got = [0; 6];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"pieces");
}

#[test]
fn mistakes_of_the_driver_need_a_reset() {
    // Receive buffers without room for data, and outside of RAM.
    for (at, length) in [(SEND, HEADER as u32), (SEND, 1), (0xdead_0000, 4096)] {
        let mut guest = Guest::new();
        // Those that are right come first.
        for _ in 0..32 {
            guest.queues[1].add(&[(SEND, HEADER as u32, 0)]);
        }
        guest.queues[0].add(&[(at, length, WRITE)]);
        guest.ram.write(SEND, &packet(op::RW, 5, 6).to_bytes()).unwrap();
        guest.driver.kick(1);
        for _ in 0..32 {
            wait(|| guest.queues[0].take_used());
        }
        guest.queues[1].add(&[(SEND, HEADER as u32, 0)]);
        guest.driver.kick(1);
        wait(|| guest.needs_reset().then_some(()));
        let Guest { folder, ram, function, .. } = guest;
        let mut guest = Guest::start(folder, ram, function);
        connect(&mut guest, 7);
    }
}
