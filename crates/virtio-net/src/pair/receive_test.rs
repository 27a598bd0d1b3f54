use nerite_virtio::fake::WRITE;

use super::*;
use crate::pair::tests::{FRAMES, bench, frame};

#[test]
fn a_frame_larger_than_the_mtu_is_dropped_if_it_is_whole() {
    for (features, length, kind, tag, is_dropped) in [
        (feature::MTU, 1514, 0, false, false),
        (feature::MTU, 1515, 0, false, true),
        (feature::MTU, 1515, 0x80, false, true),
        (feature::MTU, 1518, 0, true, false),
        (feature::MTU, 1519, 0, true, true),
        (feature::MTU | feature::GUEST_CSUM | feature::GUEST_TSO4, 4000, 1, false, false),
        (0, 4000, 0, false, false),
    ] {
        let mut bench = bench(8, features);
        // The header in pieces.
        bench.rx.add(&[(FRAMES, 7, WRITE), (FRAMES + 16, 10, WRITE), (FRAMES + 64, 9000, WRITE)]);
        let mut sent = frame(length, 1);
        sent[1] = kind;
        if tag {
            sent[HEADER + 12..HEADER + 14].copy_from_slice(&[0x81, 0]);
        }
        bench.backend.incoming.push_back(sent);
        bench.receive();
        assert_eq!(
            bench.rx.take_used().is_none(),
            is_dropped,
            "{features:#x} {length} {kind} {tag}"
        );
        assert_eq!(bench.counters[0].totals().drops, u64::from(is_dropped));
    }
}

#[test]
fn a_driver_without_checksums_finds_zeroes_in_the_header() {
    for features in [0, feature::GUEST_CSUM, feature::MRG_RXBUF] {
        let mut bench = bench(8, features);
        bench.rx.add(&[(FRAMES, 1526, WRITE)]);
        let mut sent = frame(100, 5);
        // As a host says that it has checked a frame.
        sent[0] = 2;
        bench.backend.incoming.push_back(sent);
        bench.receive();
        let flags = if features & feature::GUEST_CSUM != 0 { 2 } else { 0 };
        assert_eq!(bench.read(FRAMES, 12), [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}

#[test]
fn the_header_of_a_backend_reaches_the_driver() {
    let mut bench = bench(8, feature::GUEST_CSUM | feature::GUEST_TSO4);
    bench.rx.add(&[(FRAMES, 9000, WRITE)]);
    let mut sent = frame(4000, 5);
    let header = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0];
    sent[..10].copy_from_slice(&header);
    bench.backend.incoming.push_back(sent);
    bench.receive();
    assert_eq!(bench.read(FRAMES, 10), header);
    assert_eq!(bench.read(FRAMES + 10, 2), [1, 0]);
}
