use nerite_user_net::{GATEWAY, GUEST};
use nerite_virtio::fake::{RAM, ram};

use super::*;

fn user() -> User {
    User::start(&[], false, 1500, MAC).unwrap()
}

fn segment(address: u64, length: u32) -> Segment {
    Segment { address, length }
}

/// A question for the gateway's Ethernet address (RFC 826) with virtio's header, which the stack
/// answers with a frame of 42 bytes.
fn question() -> Vec<u8> {
    let Mac(mac) = MAC;
    let mut frame = [&[0; HEADER][..], &[0xff; 6], &mac].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([&mac[..], &GUEST.octets(), &[0; 6], &GATEWAY.octets()].concat());
    frame
}

#[test]
fn a_frame_in_pieces_is_answered() {
    let (mut user, ram) = (user(), ram(1 << 20));
    ram.write(RAM, &question()).unwrap();
    assert!(!user.has_frames());
    user.send(&ram, &[segment(RAM, 5), segment(RAM + 5, 20), segment(RAM + 25, 29)]).unwrap();
    user.flush().unwrap();
    assert!(user.has_frames());
    let room = [segment(RAM + 4096, 10), segment(RAM + 8192, 8)];
    let mut spill = [0xaa; 64];
    assert_eq!(user.receive(&ram, &room, &mut spill).unwrap(), 12 + 42);
    let (mut first, mut second) = ([0xaa; 11], [0xaa; 9]);
    ram.read(RAM + 4096, &mut first).unwrap();
    ram.read(RAM + 8192, &mut second).unwrap();
    assert_eq!(first, [0; 11]);
    let Mac(mac) = MAC;
    assert_eq!((&second[..2], &second[2..8]), (&[0; 2][..], &mac[..]));
    // From the other Ethernet address on.
    assert_eq!(spill[..6], nerite_user_net::GATEWAY_MAC);
    assert_eq!((spill[35], spill[36]), (3, 0xaa));
    let error = user.receive(&ram, &room, &mut spill).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_driver_that_takes_the_word_for_checksums_gets_it() {
    for features in [0, feature::GUEST_CSUM] {
        let (mut user, ram) = (user(), ram(1 << 20));
        user.set_features(features).unwrap();
        ram.write(RAM, &question()).unwrap();
        user.send(&ram, &[segment(RAM, 54)]).unwrap();
        user.receive(&ram, &[segment(RAM + 4096, 100)], &mut []).unwrap();
        let mut flags = [0xaa];
        ram.read(RAM + 4096, &mut flags).unwrap();
        assert_eq!(flags, if features == 0 { [0] } else { [DATA_VALID] });
    }
}

#[test]
fn what_is_no_frame_is_dropped() {
    let (mut user, ram) = (user(), ram(1 << 20));
    for length in [0, 11] {
        let error = user.send(&ram, &[segment(RAM, length)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{length} bytes");
    }
    for length in [12, 25, 26, 65_612] {
        user.send(&ram, &[segment(RAM, length)]).unwrap();
    }
    let error = user.send(&ram, &[segment(RAM - 8, 54)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    user.flush().unwrap();
    assert!(!user.has_frames());
}

#[test]
fn frames_of_before_a_new_driver_are_dropped() {
    let (mut user, ram) = (user(), ram(1 << 20));
    ram.write(RAM, &question()).unwrap();
    user.send(&ram, &[segment(RAM, 54)]).unwrap();
    user.discard();
    assert!(!user.has_frames());
}
