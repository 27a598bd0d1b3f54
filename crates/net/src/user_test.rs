use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nerite_virtio::fake::{RAM, ram};

use super::*;

fn pair() -> (User, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (User::on_socket(ours.into()).unwrap(), theirs)
}

fn segment(address: u64, length: u32) -> Segment {
    Segment { address, length }
}

#[test]
fn frames_go_out_after_their_length_and_without_virtio_header() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    ram.write(RAM, b"............a whole frame").unwrap();
    user.send(&ram, &[segment(RAM, 8), segment(RAM + 8, 17)]).unwrap_err();
    user.send(&ram, &[segment(RAM, 8), segment(RAM + 8, 18)]).unwrap();
    let mut got = [0; 18];
    passt.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"\0\0\0\x0ea whole frame\0");
}

#[test]
fn what_cannot_be_a_frame_is_dropped() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let frame = |length: u32| [segment(RAM, 12), segment(RAM + 12, length)];
    for length in [0, 1, 13, 65_535, 65_600] {
        let error = user.send(&ram, &frame(length)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{length} bytes");
    }
    user.send(&ram, &[segment(RAM, 12)]).unwrap_err();
    for length in [14, 65_534] {
        user.send(&ram, &frame(length)).unwrap();
        let mut got = vec![0; 4 + length as usize];
        passt.read_exact(&mut got).unwrap();
        assert_eq!(got[..4], length.to_be_bytes());
    }
}

#[test]
fn frames_come_in_whole_whatever_the_pieces_of_the_stream() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let mut spill = [0; 64];
    user.set_features(nerite_virtio_net::feature::GUEST_CSUM).unwrap();
    let room = [segment(RAM, 12), segment(RAM + 100, 4)];
    for part in [&b"\0\0"[..], b"\0\x06", b"abc"] {
        passt.write_all(part).unwrap();
        assert_eq!(
            user.receive(&ram, &room, &mut spill).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }
    passt.write_all(b"def\0\0\0\x01x").unwrap();
    assert_eq!(user.receive(&ram, &room, &mut spill).unwrap(), 18);
    let mut bytes = [0; 4];
    ram.read(RAM + 100, &mut bytes).unwrap();
    assert_eq!(&bytes, b"abcd");
    assert_eq!(&spill[..2], b"ef");
    ram.read(RAM, &mut bytes).unwrap();
    assert_eq!(bytes, [DATA_VALID, 0, 0, 0]);
    assert_eq!(user.receive(&ram, &room, &mut spill).unwrap(), 13);
    assert_eq!(
        user.receive(&ram, &[segment(RAM, 10)], &mut spill).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    drop(passt);
    assert_eq!(user.receive(&ram, &room, &mut spill).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_length_that_cannot_be_is_an_error_each_time() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    passt.write_all(b"\xff\xff\xff\xff and more").unwrap();
    for _ in 0..3 {
        let error = user.receive(&ram, &[segment(RAM, 100)], &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

#[test]
fn a_slow_reader_gets_every_byte_in_order() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        std::thread::sleep(Duration::from_millis(50));
        passt.read_to_end(&mut all).unwrap();
        all
    });
    let mut expected = Vec::new();
    for number in 0..400_u32 {
        let length = 1 + number * 97 % 9000;
        let bytes: Vec<u8> = (0..length).map(|at| (at ^ number).to_le_bytes()[0]).collect();
        ram.write(RAM + 12, &bytes).unwrap();
        let pieces = [segment(RAM, 40), segment(RAM + 40, 12 + length)];
        let total = 40 + length;
        loop {
            match user.send(&ram, &pieces) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        }
        expected.extend(total.to_be_bytes());
        let mut frame = vec![0; total as usize];
        ram.read(RAM + 12, &mut frame).unwrap();
        expected.extend(frame);
        // What was taken is no longer the guest's to change.
        ram.zero(RAM, 20_000).unwrap();
    }
    while user.flush().is_err() {
        std::thread::yield_now();
    }
    drop(user);
    let got = reader.join().unwrap();
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
}

#[test]
fn a_guest_that_repeats_an_acknowledgement_is_heard_twice() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let frame = bare_segment(0x10, 1);
    ram.write(RAM, &frame).unwrap();
    for _ in 0..1000 {
        user.send(&ram, &[segment(RAM, 20), segment(RAM + 20, 46)]).unwrap();
    }
    drop(user);
    let mut all = Vec::new();
    passt.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 2 * (4 + 54));
    assert_eq!(all[4..58], frame[12..]);
}

#[test]
fn frames_are_taken_from_passt_while_the_guest_has_no_room() {
    let (mut user, mut passt) = pair();
    passt.set_nonblocking(true).unwrap();
    let ram = ram(1 << 20);
    let frame =
        |number: u32| [&1500_u32.to_be_bytes()[..], &number.to_be_bytes(), &[7; 1496]].concat();
    let mut sent = 0;
    while (u64::from(sent) + 1) * 1504 < INPUT as u64 {
        passt.write_all(&frame(sent)).unwrap();
        sent += 1;
        user.gather();
    }
    // What it has no room for stays in the socket.
    while passt.write(&frame(sent)).is_ok_and(|written| written == 1504) {
        sent += 1;
        user.gather();
    }
    let room = [segment(RAM, 2000)];
    for number in 0..sent {
        assert_eq!(user.receive(&ram, &room, &mut []).unwrap(), 1512);
        let mut bytes = [0; 4];
        ram.read(RAM + 12, &mut bytes).unwrap();
        assert_eq!(u32::from_be_bytes(bytes), number);
    }
    assert!(u64::from(sent) * 1504 > INPUT as u64);
}

/// A segment without data, with these flags and this number.
fn bare_segment(flags: u8, number: u8) -> Vec<u8> {
    let mut frame = vec![0; 24];
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 5, 3, 10, 0, 5, 1]);
    frame.extend([0, 7, 0, 80, 1, 1, 1, 1, 0, 0, 0, number, 0x50, flags, 0, 9, 0, 0, 0, 0]);
    frame
}

#[test]
fn passt_reads_the_beginning_of_a_connection_by_itself() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let whole = [segment(RAM, 66)];
    let mut got = [0; 1000];
    for _ in 0..100 {
        for flags in [0x18, 0x12] {
            ram.write(RAM, &bare_segment(flags, 1)).unwrap();
            user.send(&ram, &whole).unwrap();
        }
        ram.write(RAM, &bare_segment(0x18, 1)).unwrap();
        for _ in 0..3 {
            assert_eq!(user.send(&ram, &whole).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        // What is there before it may come with it, and what comes at a bad moment does not.
        rustix::io::write(&user.socket, b"more").unwrap();
        assert_eq!(passt.read(&mut got).unwrap(), 2 * (4 + 54));
        assert_eq!(got[58..62], [0, 0, 0, 54]);
        assert_eq!(user.send(&ram, &whole).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(passt.read(&mut got).unwrap(), 4);
        user.send(&ram, &whole).unwrap();
        assert_eq!(passt.read(&mut got).unwrap(), 58);
    }
}

#[test]
fn what_could_not_be_sent_is_no_repetition() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let whole = [segment(RAM, 66)];
    ram.write(RAM, &bare_segment(0x12, 1)).unwrap();
    user.send(&ram, &whole).unwrap();
    ram.write(RAM, &bare_segment(0x10, 2)).unwrap();
    for _ in 0..5 {
        assert_eq!(user.send(&ram, &whole).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let mut got = [0; 1000];
    assert_eq!(passt.read(&mut got).unwrap(), 58);
    user.send(&ram, &whole).unwrap();
    assert_eq!(passt.read(&mut got).unwrap(), 58);
}

#[test]
fn passt_is_made_to_answer_data_that_it_has_already() {
    let (mut user, mut passt) = pair();
    let ram = ram(1 << 20);
    let mut frame = bare_segment(0x18, 1);
    frame.extend(b"data");
    frame[29] = 44;
    ram.write(RAM, &frame).unwrap();
    let whole = [segment(RAM, 30), segment(RAM + 30, 40)];
    let mut got = [0; 1000];
    for _ in 0..3 {
        user.send(&ram, &whole).unwrap();
    }
    // Once more each for the second one and the third.
    let read = passt.read(&mut got).unwrap();
    assert_eq!(read, 3 * (4 + 58) + 2 * (4 + tcp::BEYOND));
    let [first, second, beyond] = [0, 62, 124].map(|at| &got[at..]);
    assert_eq!(first[..62], second[..62]);
    assert_eq!(beyond[..4], [0, 0, 0, 55]);
    let header = Header::parse(&beyond[4..], tcp::BEYOND).unwrap();
    // Passt compares sequence numbers up to its largest window, and takes others for old ones.
    let gap = header.sequence - (0x0101_0101 + 4);
    assert!((1 << 20..1 << 24).contains(&gap), "{gap:#x}");
}
