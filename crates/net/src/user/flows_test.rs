use super::*;

impl Flows {
    /// As a frame goes out.
    fn is_idle_repetition(&mut self, frame: &[u8], now: Instant) -> bool {
        let Some(header) = Header::parse(frame, frame.len()) else { return false };
        let is_idle = self.is_idle(&header, now);
        // One that cannot be sent yet is asked about again.
        assert_eq!(self.is_idle(&header, now), is_idle);
        if !is_idle {
            self.note(&header, now);
        }
        is_idle
    }
}

/// A frame of a connection, told apart by its port.
fn frame(port: u8, number: u8, window: u8, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([8, 0]);
    let length = u8::try_from(40 + data.len()).unwrap();
    frame.extend([0x45, 0, 0, length, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 5, 3, 10, 0, 5, 1]);
    frame.extend([0, port, 0, 80, 1, 1, 1, 1, 0, 0, 0, number, 0x50, flags, window, 0, 0, 0, 0, 0]);
    frame.extend(data);
    frame
}

fn ack(port: u8, number: u8, window: u8) -> Vec<u8> {
    frame(port, number, window, 0x10, b"")
}

#[test]
fn a_repetition_goes_through_at_once_and_then_once_in_a_while() {
    let mut flows = Flows::default();
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    for _ in 0..2 {
        assert!(!flows.is_idle_repetition(&ack(1, 1, 9), at(0)));
    }
    for _ in 0..1000 {
        assert!(flows.is_idle_repetition(&ack(1, 1, 9), at(999)));
    }
    assert!(!flows.is_idle_repetition(&ack(1, 1, 9), at(1000)), "the first one may have been lost");
    assert!(flows.is_idle_repetition(&ack(1, 1, 9), at(1999)));
    // Bytes that fill up the shortest frame are no data.
    let padded = [ack(1, 1, 9), vec![0; 6]].concat();
    assert!(flows.is_idle_repetition(&padded, at(1999)));
}

#[test]
fn what_says_something_new_goes_through() {
    let mut flows = Flows::default();
    let now = Instant::now();
    let all = [ack(1, 1, 9), ack(1, 2, 9), ack(1, 2, 8), ack(1, 2, 0), ack(1, 2, 9), ack(2, 2, 9)];
    for frame in &all {
        assert!(!flows.is_idle_repetition(frame, now));
    }
    for flags in [0x11, 0x12, 0x14, 0x30] {
        assert!(!flows.is_idle_repetition(&frame(2, 2, 9, flags, b""), now), "flags {flags:#x}");
    }
    for _ in 0..2 {
        assert!(!flows.is_idle_repetition(&frame(2, 2, 9, 0x10, b"data"), now));
        assert!(!flows.is_idle_repetition(b"", now));
        assert!(!flows.is_idle_repetition(&ack(2, 2, 9)[..50], now), "a frame that is cut short");
    }
    let mut other = ack(2, 2, 9);
    for (at, value) in [(12, 0x86), (14, 0x65), (21, 1), (23, 17)] {
        let kept = std::mem::replace(&mut other[at], value);
        assert!(!flows.is_idle_repetition(&other, now), "another byte {at}");
        other[at] = kept;
    }
    assert!(!flows.is_idle_repetition(&other, now));
    assert!(flows.is_idle_repetition(&other, now));
}

#[test]
fn a_guest_with_many_connections_takes_no_more_memory() {
    let mut flows = Flows::default();
    let now = Instant::now();
    for number in 0..5000_u16 {
        let mut frame = ack(0, 1, 9);
        frame[34..36].copy_from_slice(&number.to_be_bytes());
        for _ in 0..2 {
            assert!(!flows.is_idle_repetition(&frame, now));
        }
        assert!(flows.is_idle_repetition(&frame, now));
    }
    assert!(flows.known.len() <= CONNECTIONS);
}

#[test]
fn a_window_that_data_closed_is_opened_again() {
    let mut flows = Flows::default();
    let now = Instant::now();
    for _ in 0..2 {
        assert!(!flows.is_idle_repetition(&ack(1, 1, 9), now));
    }
    assert!(!flows.is_idle_repetition(&frame(1, 1, 0, 0x18, b"data"), now));
    assert!(!flows.is_idle_repetition(&ack(1, 1, 9), now));
}

#[test]
fn data_that_is_sent_again_is_found() {
    let mut flows = Flows::default();
    let mut note = |port, sequence: u32, flags, data: &[u8]| {
        let mut frame = frame(port, 1, 9, flags, data);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        flows.note(&Header::parse(&frame, frame.len()).unwrap(), Instant::now())
    };
    let first = u32::MAX - 3;
    assert!(!note(1, first, 0x18, b"1234"));
    assert!(note(1, first, 0x18, b"1234"), "all of it");
    assert!(note(1, first + 2, 0x18, b"34"), "its end");
    assert!(!note(1, first + 2, 0x18, b"345"), "its end and more, and past the last number");
    assert!(note(1, first, 0x18, b"1234"), "what is older");
    assert!(!note(1, 1, 0x10, b""), "no data");
    assert!(!note(2, first, 0x18, b"1234"), "another connection");
    assert!(note(2, first, 0x18, b"1234"));
    assert!(!note(2, first, 0x19, b"1234"), "with the end");
    assert!(!note(2, first, 0x18, b"1234"), "after the end");
    // The same ports again.
    assert!(!note(1, first - 9, 0x02, b""));
    assert!(!note(1, first - 8, 0x18, b"1234"));
}
