//! A whole device with its thread, a driver in guest memory, and a file or a disk in memory that
//! fails on request.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "the numbers of tests are small")]

mod bench;
mod reset;
mod state;

use std::fs::OpenOptions;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bench::*;
use nerite_virtio::fake::{RAM, WRITE};
use nerite_virtio::{feature as transport, region};
use nerite_virtio_blk::{OpenError, RawFile, feature};
use proptest::prelude::*;

#[test]
fn sectors_are_read_and_written_wherever_the_pieces_lie() {
    let (file, mut bench) = file(false);
    assert_eq!(bench.driver.read(region::DEVICE, 8), 100, "whole sectors");
    let pieces = [(DATA, 100, WRITE), (DATA + 0x1000, 412, WRITE), (DATA + 0x2000, 512, WRITE)];
    assert_eq!(bench.request(IN, 98, &pieces), (1025, OK));
    let byte = |bench: &Bench, at| bench.ram.read_obj::<u8>(at).unwrap();
    assert_eq!(
        (byte(&bench, DATA), byte(&bench, DATA + 0x1000 + 411), byte(&bench, DATA + 0x2000)),
        (98, 98, 99)
    );

    bench.ram.write(DATA, &[7; 1024]).unwrap();
    assert_eq!(bench.request(OUT, 5, &[(DATA, 1000, 0), (DATA + 1000, 24, 0)]), (1, OK));
    assert_eq!(bench.request(FLUSH, 0, &[]), (1, OK));
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes.len(), 100 * 512 + 100);
    assert_eq!(
        (bytes[5 * 512 - 1], bytes[5 * 512], bytes[7 * 512 - 1], bytes[7 * 512]),
        (4, 7, 7, 7)
    );
    let totals = bench.function.device().totals();
    assert_eq!(
        (totals.reads, totals.read_bytes, totals.writes, totals.written_bytes),
        (1, 1024, 1, 1024)
    );
    assert_eq!((totals.others, totals.errors), (1, 0));
}

#[test]
fn the_configuration_is_as_specified() {
    let (bench, ..) = memory(false);
    let read = |offset, width| bench.driver.read(region::DEVICE + offset, width);
    assert_eq!(
        (read(0, 4), read(4, 4), read(0, 8)),
        (200, 0, 200),
        "the capacity, in halves and as one"
    );
    assert_eq!((read(33, 1), read(57, 1), read(58, 2)), (0, 0, 0), "bytes that are not used");
    let own = feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE;
    let ways = feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES;
    let transport = transport::VERSION_1 | transport::INDIRECT_DESC | transport::EVENT_IDX;
    assert_eq!(bench.driver.offered(), own | ways | transport);
}

#[test]
fn descriptors_and_buffers_to_read_stay_as_they_are() {
    let (mut bench, ..) = memory(false);
    for (kind, flags) in [(OUT, 0), (IN, WRITE)] {
        bench.start(u64::MAX);
        bench.ram.write(DATA, &[9; 1024]).unwrap();
        let buffers = [(DATA, 512, flags), (DATA + 512, 512, flags)];
        bench.request(kind, 3, &buffers);
        let mut table = vec![0; 16 * 64];
        bench.ram.read(RAM, &mut table).unwrap();
        let (mut header, mut data) = ([0; 16], [0; 1024]);
        bench.ram.read(HEADER, &mut header).unwrap();
        bench.ram.read(DATA, &mut data).unwrap();
        assert_eq!((header[0], header[8]), (kind as u8, 3));
        assert!(kind == IN || data == [9; 1024]);
        bench.start(u64::MAX);
        // The same request again is the same table, to the byte.
        bench.request(kind, 3, &buffers);
        let mut again = vec![0; 16 * 64];
        bench.ram.read(RAM, &mut again).unwrap();
        assert!(table == again);
        assert_eq!(table[..8], HEADER.to_le_bytes());
        assert_eq!(table[16..24], DATA.to_le_bytes());
    }
}

#[test]
fn unknown_flags_are_found_before_anything_else() {
    let (mut bench, ..) = memory(false);
    assert_eq!(bench.piece(DISCARD, 1000, u32::MAX, 1), UNSUPPORTED, "discarding does not unmap");
    assert_eq!(bench.piece(DISCARD, 1000, 1, 2), UNSUPPORTED);
    assert_eq!(bench.piece(WRITE_ZEROES, 1000, u32::MAX, 2), UNSUPPORTED);
    assert_eq!(bench.piece(WRITE_ZEROES, 1000, 1, 1), IO_ERROR);
}

#[test]
fn a_header_in_pieces_and_an_answer_behind_the_data_are_understood() {
    let (mut bench, ..) = memory(false);
    bench.ram.write_obj(HEADER, &u64::from(IN)).unwrap();
    bench.ram.write_obj(HEADER + 8, &3_u64).unwrap();
    bench.queue.add(&[(HEADER, 7, 0), (HEADER + 7, 9, 0), (DATA, 513, WRITE)]);
    bench.driver.kick(0);
    assert_eq!(wait(|| bench.queue.take_used()).1, 513);
    assert_eq!(bench.ram.read_obj::<u8>(DATA + 512).unwrap(), OK);
    assert_eq!(bench.ram.read_obj::<u8>(DATA).unwrap(), (3 * 512 % 251) as u8);
}

#[test]
fn the_serial_number_is_told() {
    let (mut bench, ..) = memory(true);
    assert_eq!(bench.request(GET_ID, 0, &[(DATA, 20, WRITE)]), (21, OK));
    assert_eq!(bench.ram.read_cstr(DATA, 20).unwrap(), b"a serial number of 2");
    assert_eq!(bench.request(GET_ID, 0, &[(DATA, 4, WRITE)]), (5, OK));
    // The answer lies behind more room than the number fills, so that it is not counted.
    assert_eq!(bench.request(GET_ID, 0, &[(DATA, 30, WRITE)]), (20, OK));
    assert_eq!(bench.request(GET_ID, 0, &[]), (1, IO_ERROR));
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let (file, mut bench) = file(true);
    let before = std::fs::read(file.path()).unwrap();
    assert_eq!(
        bench.driver.offered() & (feature::RO | feature::FLUSH | feature::DISCARD),
        feature::RO
    );
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, 0)]), (1, IO_ERROR));
    assert_eq!(bench.piece(DISCARD, 0, 8, 0), UNSUPPORTED);
    assert_eq!(bench.piece(WRITE_ZEROES, 0, 8, 0), UNSUPPORTED);
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), (513, OK));
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
}

#[test]
fn sectors_that_are_not_there_are_an_error_and_touch_nothing() {
    let (file, mut bench) = file(false);
    let before = std::fs::read(file.path()).unwrap();
    for sector in [100, 99, u64::MAX, u64::MAX / 512, u64::MAX - 1] {
        assert_eq!(bench.request(IN, sector, &[(DATA, 1024, WRITE)]), (0, IO_ERROR), "{sector}");
        assert_eq!(bench.request(OUT, sector, &[(DATA, 1024, 0)]), (1, IO_ERROR), "{sector}");
        assert_eq!(bench.piece(DISCARD, sector, 2, 0), IO_ERROR);
        assert_eq!(bench.piece(WRITE_ZEROES, sector, 2, 1), IO_ERROR);
    }
    assert_eq!(bench.piece(DISCARD, 0, u32::MAX, 0), IO_ERROR);
    assert_eq!(bench.piece(WRITE_ZEROES, 0, u32::MAX, 0), IO_ERROR);
    assert_eq!(std::fs::read(file.path()).unwrap(), before);
    assert!(!bench.needs_reset());
}

#[test]
fn requests_that_make_no_sense_are_errors() {
    let (mut bench, bytes, _) = memory(false);
    let before = bytes.lock().unwrap().clone();
    // No data, the wrong direction, no whole sectors.
    for (kind, data) in [
        (IN, &[][..]),
        (OUT, &[]),
        (IN, &[(DATA, 512, 0)]),
        (OUT, &[(DATA, 512, WRITE)]),
        (IN, &[(DATA, 511, WRITE)]),
        (OUT, &[(DATA, 513, 0)]),
        (OUT, &[(DATA, 0, 0)]),
        (DISCARD, &[(DATA, 15, 0)]),
        (DISCARD, &[(DATA, 32, 0)]),
        (WRITE_ZEROES, &[]),
    ] {
        // The answer is the first byte that is written where there is no room in front of it.
        let written = u32::from(!data.iter().any(|(_, _, flags)| *flags == WRITE));
        assert_eq!(bench.request(kind, 0, data), (written, IO_ERROR), "{kind} {data:?}");
    }
    for kind in [2, 3, 5, 10, 12, 14, u32::MAX] {
        assert_eq!(bench.request(kind, 0, &[(DATA, 512, WRITE)]), (0, UNSUPPORTED), "{kind}");
    }
    assert_eq!(bench.piece(DISCARD, 0, 1, 1), UNSUPPORTED);
    assert_eq!(bench.piece(WRITE_ZEROES, 0, 1, 2), UNSUPPORTED);
    assert_eq!(*bytes.lock().unwrap(), before);
    assert!(!bench.needs_reset());
}

#[test]
fn a_request_without_room_for_an_answer_needs_a_reset() {
    let (mut bench, ..) = memory(false);
    for buffers in [
        &[(HEADER, 16, 0)][..],
        &[(HEADER, 15, 0), (STATUS, 1, WRITE)],
        &[(STATUS, 1, WRITE)],
        &[(HEADER, 0, 0), (STATUS, 0, WRITE)],
        &[(HEADER, 16, 0), (0xdead_0000, 512, WRITE), (STATUS, 1, WRITE)],
        &[(HEADER, 16, 0), (STATUS, 1, WRITE), (DATA, 512, 0)],
    ] {
        bench.queue.add(buffers);
        bench.driver.kick(0);
        wait(|| bench.needs_reset().then_some(()));
        bench.start(u64::MAX);
        assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), (513, OK), "it works again");
    }
}

#[test]
fn the_hosts_errors_reach_the_guest_and_go_away_again() {
    let (mut bench, _, knobs) = memory(false);
    knobs.fails.store(true, Ordering::Release);
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), (0, IO_ERROR));
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, 0)]), (1, IO_ERROR));
    assert_eq!(bench.request(FLUSH, 0, &[]), (1, IO_ERROR));
    assert_eq!(bench.piece(DISCARD, 0, 8, 0), IO_ERROR);
    assert_eq!(bench.piece(WRITE_ZEROES, 0, 8, 0), IO_ERROR);
    assert_eq!(bench.function.device().totals().errors, 5);
    knobs.fails.store(false, Ordering::Release);
    assert_eq!(bench.request(OUT, 0, &[(DATA, 512, 0)]), (1, OK));
}

#[test]
fn a_file_that_is_cut_short_is_an_error_where_nothing_is_left() {
    let (file, mut bench) = file(false);
    OpenOptions::new().write(true).open(file.path()).unwrap().set_len(50 * 512 + 100).unwrap();
    assert_eq!(bench.request(IN, 49, &[(DATA, 512, WRITE)]), (513, OK));
    assert_eq!(bench.request(IN, 50, &[(DATA, 512, WRITE)]), (0, IO_ERROR));
    assert_eq!(bench.request(IN, 49, &[(DATA, 4096, WRITE)]), (0, IO_ERROR));
    // A write makes it longer again.
    assert_eq!(bench.request(OUT, 99, &[(DATA, 512, 0)]), (1, OK));
    assert_eq!(bench.request(IN, 50, &[(DATA, 512, WRITE)]), (513, OK));
}

#[test]
fn a_driver_that_cannot_flush_finds_every_write_done() {
    let (mut bench, _, knobs) = memory(false);
    bench.request(OUT, 0, &[(DATA, 512, 0)]);
    assert_eq!(knobs.flushes.load(Ordering::Acquire), 0);
    bench.start(0);
    bench.request(OUT, 0, &[(DATA, 512, 0)]);
    assert_eq!(knobs.flushes.load(Ordering::Acquire), 1);
    assert_eq!(bench.piece(DISCARD, 0, 8, 0), UNSUPPORTED, "not agreed on");
}

#[test]
fn a_flush_is_done_before_it_is_answered() {
    let (mut bench, _, knobs) = memory(false);
    bench.request(OUT, 0, &[(DATA, 512, 0)]);
    assert_eq!(bench.request(FLUSH, 0, &[]), (1, OK));
    assert_eq!(knobs.flushes.load(Ordering::Acquire), 1);
}

#[test]
fn discarded_and_zeroed_sectors_are_zero_and_the_file_stays_as_long() {
    let (file, mut bench) = file(false);
    assert_eq!(bench.piece(DISCARD, 8, 8, 0), OK);
    assert_eq!(bench.piece(WRITE_ZEROES, 32, 3, 0), OK);
    assert_eq!(bench.piece(WRITE_ZEROES, 99, 1, 1), OK);
    assert_eq!(bench.piece(WRITE_ZEROES, 40, 0, 1), OK);
    let bytes = std::fs::read(file.path()).unwrap();
    assert_eq!(bytes.len(), 100 * 512 + 100);
    for sector in 0..100_usize {
        let expected = if matches!(sector, 8..16 | 32..35 | 99) { 0 } else { sector as u8 };
        assert!(
            bytes[sector * 512..][..512].iter().all(|byte| *byte == expected),
            "sector {sector}"
        );
    }
}

#[test]
fn a_reset_at_any_moment_leaves_the_rings_alone() {
    let (mut bench, ..) = memory(false);
    for _ in 0..20 {
        bench.start(u64::MAX);
        for _ in 0..20 {
            bench.queue.add(&[(HEADER, 16, 0), (DATA, 4096, WRITE), (STATUS, 1, WRITE)]);
        }
        bench.driver.kick(0);
        bench.driver.reset();
        let mut before = vec![0; 0x2000];
        bench.ram.read(RAM, &mut before).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let mut after = vec![0; 0x2000];
        bench.ram.read(RAM, &mut after).unwrap();
        assert!(before == after, "no ring is touched after a reset");
    }
    bench.start(u64::MAX);
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), (513, OK));
}

#[test]
fn requests_wait_while_the_thread_is_halted() {
    let (mut bench, ..) = memory(false);
    bench.function.device().halt();
    bench.ram.write_obj(HEADER, &u64::from(IN)).unwrap();
    bench.ram.write_obj(HEADER + 8, &0_u64).unwrap();
    bench.queue.add(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    bench.driver.kick(0);
    std::thread::sleep(Duration::from_millis(5));
    assert!(bench.queue.take_used().is_none());
    let function = &bench.function;
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
    wait(|| bench.queue.take_used());
}

#[test]
fn what_is_no_disk_is_refused() {
    let open = |path: &std::path::Path, read_only| RawFile::open(path, read_only).unwrap_err();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    assert!(matches!(open(&path, false), OpenError::Open { .. }));
    assert!(matches!(open(folder.path(), true), OpenError::Kind(_)));
    assert!(matches!(open("/dev/zero".as_ref(), true), OpenError::Kind(_)));
    std::fs::write(&path, [0; 511]).unwrap();
    assert!(matches!(open(&path, false), OpenError::Empty { size: 511, .. }));
}

#[test]
fn a_disk_that_is_written_has_one_user() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0; 512]).unwrap();
    let writer = RawFile::open(file.path(), false).unwrap();
    for read_only in [false, true] {
        assert!(matches!(RawFile::open(file.path(), read_only), Err(OpenError::InUse(_))));
    }
    drop(writer);
    let _reader = RawFile::open(file.path(), true).unwrap();
    let _another = RawFile::open(file.path(), true).unwrap();
    assert!(matches!(RawFile::open(file.path(), false), Err(OpenError::InUse(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a driver offers, it gets one answer or the device needs a reset; and the disk stays
    /// within its bounds.
    #[test]
    fn any_chain_is_answered_or_needs_a_reset(
        kind in prop_oneof![0_u32..16, any::<u32>()],
        sector in prop_oneof![0_u64..250, any::<u64>()],
        buffers in prop::collection::vec(
            (prop_oneof![Just(DATA), Just(HEADER), Just(STATUS), any::<u64>()],
             prop_oneof![Just(0_u32), Just(1), Just(16), Just(512), 0_u32..5000, any::<u32>()],
             prop_oneof![Just(0_u16), Just(WRITE)]),
            0..6),
    ) {
        let (mut bench, bytes, _) = memory(false);
        bench.ram.write_obj(HEADER, &u64::from(kind)).unwrap();
        bench.ram.write_obj(HEADER + 8, &sector).unwrap();
        let chain = [&[(HEADER, 16, 0)][..], &buffers].concat();
        bench.queue.add(&chain);
        bench.driver.kick(0);
        wait(|| (bench.queue.take_used().is_some() || bench.needs_reset()).then_some(()));
        prop_assert_eq!(bytes.lock().unwrap().len(), 200 * 512);
    }
}
