//! Streams of many bytes, with little room.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use nerite_virtio::fake::wait;
use nerite_virtio_vsock::{BUFFER, Header, op, shutdown};

use crate::guest::{Guest, data, packet};
use crate::{client, connect, read_line};

const BYTES: usize = 3 << 20;

/// Bytes of a stream from byte `from` on.
fn bytes(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at * at % 251 + at / 997) as u8).collect()
}

fn sum(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[test]
fn a_stream_to_the_guest_keeps_to_its_room() {
    const ROOM: u32 = 5000;
    let mut guest = Guest::new();
    let (mut client, request) = client(&mut guest);
    guest.answer(&request, op::RESPONSE, ROOM);
    read_line(&mut client);
    let writer = std::thread::spawn(move || {
        client.write_all(&bytes(0, BYTES)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client
    });
    let (mut got, mut passed_on, mut asked) = (Vec::new(), 0_u32, 0);
    loop {
        let (header, data) = guest.receive();
        match header.op {
            op::RW => got.extend(data),
            op::CREDIT_REQUEST => asked += 1,
            op::SHUTDOWN => break assert_eq!(header.flags, shutdown::SEND),
            op => panic!("operation {op}"),
        }
        assert!(got.len() as u32 - passed_on <= ROOM, "more than there is room for");
        // A guest that reads late, all at once.
        if got.len() as u32 - passed_on == ROOM {
            passed_on = got.len() as u32;
            let update = packet(op::CREDIT_UPDATE, 52, request.src_port);
            guest.send(&Header { buf_alloc: ROOM, fwd_cnt: passed_on, ..update }, &[]);
        }
    }
    assert_eq!((got.len(), sum(&got)), (BYTES, sum(&bytes(0, BYTES))));
    assert!(asked > 0);
    drop(writer.join().unwrap());
}

#[test]
fn a_stream_from_the_guest_arrives_whole() {
    let mut guest = Guest::new();
    let mut server = connect(&mut guest, 7);
    let reader = std::thread::spawn(move || {
        let (mut got, mut piece) = (Vec::new(), [0; 3000]);
        loop {
            match server.read(&mut piece).unwrap() {
                0 => break got,
                length => got.extend(&piece[..length]),
            }
        }
    });
    let (mut sent, mut passed_on) = (0_usize, 0_u32);
    while sent < BYTES {
        let room = BUFFER - (sent - passed_on as usize);
        let length = room.min(sent % 60_000 + 1).min(BYTES - sent);
        if length > 0 {
            let piece = bytes(sent, length);
            guest.send(&data(1000, 7, &piece), &piece);
            sent += length;
        }
        // The host tells by itself, or is asked.
        if length == 0 && room == 0 {
            guest.send(&packet(op::CREDIT_REQUEST, 1000, 7), &[]);
        }
        while let Some((header, _)) = guest.try_receive() {
            assert_eq!((header.op, header.buf_alloc), (op::CREDIT_UPDATE, BUFFER as u32));
            passed_on = header.fwd_cnt;
        }
    }
    guest.send(&Header { flags: shutdown::SEND, ..packet(op::SHUTDOWN, 1000, 7) }, &[]);
    let got = reader.join().unwrap();
    assert_eq!((got.len(), sum(&got)), (BYTES, sum(&bytes(0, BYTES))));
}

#[test]
fn a_server_that_does_not_read_holds_no_other() {
    let mut guest = Guest::new();
    let silent = connect(&mut guest, 7);
    let piece = bytes(0, BUFFER);
    // Until the server's socket and the device's buffer are full.
    let (mut sent, mut passed_on) = (0_u32, 0_u32);
    loop {
        let room = BUFFER as u32 - sent.wrapping_sub(passed_on);
        guest.send(&data(1000, 7, &piece[..room as usize]), &piece[..room as usize]);
        sent += room;
        guest.send(&packet(op::CREDIT_REQUEST, 1000, 7), &[]);
        passed_on = guest.expect(op::CREDIT_UPDATE).fwd_cnt;
        while let Some((header, _)) = guest.try_receive() {
            passed_on = header.fwd_cnt;
        }
        if sent - passed_on == BUFFER as u32 {
            break;
        }
    }
    let (mut other, request) = client(&mut guest);
    guest.answer(&request, op::RESPONSE, 1 << 16);
    read_line(&mut other);
    guest.send(&data(52, request.src_port, b"alive"), b"alive");
    let mut alive = [0; 5];
    other.read_exact(&mut alive).unwrap();
    // The end of the guest's connection waits for the server, and loses nothing.
    guest.send(&Header { flags: shutdown::BOTH, ..packet(op::SHUTDOWN, 1000, 7) }, &[]);
    guest.expect_nothing();
    guest.send(&packet(op::RST, 1000, 7), &[]);
    let mut got = Vec::new();
    (&silent).read_to_end(&mut got).unwrap();
    assert_eq!(got.len() as u32, sent);
    wait(|| (guest.function.device().connections() == 1).then_some(()));
}

#[test]
fn a_reset_of_the_device_in_traffic_closes_all_and_it_works_again() {
    for turn in 0..20 {
        let mut guest = Guest::new();
        let (mut client, request) = client(&mut guest);
        guest.answer(&request, op::RESPONSE, 1 << 20);
        read_line(&mut client);
        let mut writer = client.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            // It fails once the device is reset.
            while writer.write_all(&[turn; 5000]).is_ok() {}
        });
        (0..turn).for_each(|_| drop(guest.receive()));
        guest.driver.reset();
        writer.join().unwrap();
        assert_eq!(guest.function.device().connections(), 0);
        let Guest { folder, ram, function, .. } = guest;
        let mut guest = Guest::start(folder, ram, function);
        let (_client, request) = crate::client(&mut guest);
        assert_eq!(request.dst_port, 52);
    }
}
