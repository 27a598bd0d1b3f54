use super::*;
use crate::merge::tests::segment;
use crate::pair::tests::{Bench, FRAMES, bench, frame};

#[test]
fn frames_of_a_connection_go_out_as_one_where_they_can() {
    let mut bench = bench(64, 0);
    bench.backend.merges = true;
    let mut at = FRAMES;
    let mut add = |bench: &mut Bench, frame: &[u8]| {
        bench.ram.write(at, frame).unwrap();
        bench.tx.add(&[(at, 12, 0), (at + 12, frame.len() as u32 - 12, 0)]);
        at += 4096;
    };
    let data = |number: u32| segment(number * 100, 16, &[number as u8; 100]);
    (0..5).for_each(|number| add(&mut bench, &data(number)));
    add(&mut bench, &frame(60, 1));
    (5..7).for_each(|number| add(&mut bench, &data(number)));
    // The first two wait, and those that come later are not before them.
    bench.backend.room = 0;
    assert_eq!(bench.send(), (false, Progress::Idle));
    bench.backend.room = 1;
    assert_eq!(bench.send(), (true, Progress::Idle));
    assert_eq!(bench.tx.take_used().map(|(head, _)| head), Some(0));
    bench.backend.room = 3;
    assert_eq!(bench.send(), (true, Progress::Idle));
    let lengths: Vec<usize> = bench.backend.sent.iter().map(Vec::len).collect();
    assert_eq!(lengths, [12 + 54 + 500, 12 + 60, 12 + 54 + 200]);
    assert_eq!(std::iter::from_fn(|| bench.tx.take_used()).count(), 7);
    let totals = bench.counters[1].totals();
    assert_eq!((totals.packets, totals.drops), (8, 0));
}

#[test]
fn the_backend_is_told_whether_what_was_sent_is_a_stream() {
    let told = |merges: bool, turns: &[&[Vec<u8>]]| {
        let mut bench = bench(64, 0);
        bench.backend.merges = merges;
        let mut at = FRAMES;
        for turn in turns {
            for frame in *turn {
                bench.ram.write(at, frame).unwrap();
                bench.tx.add(&[(at, frame.len() as u32, 0)]);
                at += 8192;
            }
            bench.send();
            // In a turn in which nothing is sent, nothing is said.
            bench.send();
        }
        bench.backend.streams
    };
    let data = |number: u32| segment(number * 1400, 16, &[0; 1400]);
    let answer = || segment(7000, 24, &[0; 100]);
    let large = || frame(5000, 1);
    assert_eq!(told(true, &[&[answer()], &[frame(1400, 1)], &[answer()]]), [false, false, false]);
    let mixed: [&[_]; 4] = [&[answer()], &[data(1), data(2)], &[data(3), answer()], &[data(4)]];
    assert_eq!(told(true, &mixed), [false, true, true, true]);
    assert_eq!(told(true, &[&[data(1)], &[answer()], &[data(2)]]), [true, false, true]);
    assert_eq!(
        told(false, &[&[data(1)], &[large()], &[large()], &[data(2)]]),
        [false, true, true, false]
    );
}

#[test]
fn a_stream_that_has_to_wait_is_still_one() {
    let mut bench = bench(64, 0);
    (bench.backend.merges, bench.backend.room) = (true, 0);
    let data = segment(0, 16, &[0; 1400]);
    bench.ram.write(FRAMES, &data).unwrap();
    bench.tx.add(&[(FRAMES, data.len() as u32, 0)]);
    bench.send();
    assert_eq!(bench.backend.streams, [false; 0]);
    bench.backend.room = 1;
    bench.send();
    assert_eq!(bench.backend.streams, [true]);
}

#[test]
fn a_driver_that_begins_anew_streams_no_more() {
    let send = |frame: Vec<u8>, streams: Vec<bool>| {
        let mut bench = bench(64, 0);
        (bench.backend.merges, bench.backend.streams) = (true, streams);
        bench.ram.write(FRAMES, &frame).unwrap();
        bench.tx.add(&[(FRAMES, frame.len() as u32, 0)]);
        bench.send();
        bench.backend.streams
    };
    let streams = send(segment(0, 16, &[0; 1400]), Vec::new());
    // The card was reset before the stream had ended; backend and thread are the same.
    assert_eq!(send(segment(0, 24, &[0; 100]), streams), [true, false]);
}

#[test]
fn a_header_is_not_believed() {
    for merges in [false, true] {
        let mut bench = bench(8, 0);
        bench.backend.merges = merges;
        // Flags that nothing knows, a length of headers that cannot be, and a checksum without its
        // flag, in a frame as large as they get.
        let mut sent = frame(1514, 3);
        sent[..10].copy_from_slice(&[0xf0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        bench.ram.write(FRAMES, &sent).unwrap();
        let head = bench.tx.add(&[(FRAMES, 12, 0), (FRAMES + 12, 1514, 0)]);
        bench.send();
        assert_eq!(bench.backend.sent, [sent]);
        assert_eq!(bench.tx.take_used(), Some((head.into(), 0)));
    }
}
