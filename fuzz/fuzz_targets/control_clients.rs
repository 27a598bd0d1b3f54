//! A client of the control socket that sends and takes pieces of any size at any time.
#![no_main]

use std::io::{self, Write};
use std::time::{Duration, Instant};

use nerite_control::Connection;
use nerite_control::protocol::{Code, Failure};

/// Takes `room` bytes and then no more for now.
struct Slow<'a> {
    room: usize,
    got: &'a mut Vec<u8>,
}

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(self.room);
        if length == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= length;
        self.got.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

libfuzzer_sys::fuzz_target!(|steps: Vec<(&[u8], u16, u16)>| {
    let mut connection = Connection::default();
    let mut now = Instant::now();
    let (mut got, mut answered) = (Vec::new(), 0_usize);
    for (bytes, room, time) in steps {
        if connection.wants_input() {
            connection.receive(&bytes[..bytes.len().min(4096)]);
        }
        let before = connection.has_output();
        connection.answer(now, |request| match request.id {
            Some(0) => Err(Failure { code: Code::Failed, message: "no".to_owned() }),
            id => Ok(serde_json::json!({ "id": id, "text": "x".repeat(300) })),
        });
        answered += usize::from(!before && connection.has_output());
        assert_eq!(connection.has_output(), connection.deadline().is_some());
        assert!(!connection.has_output() || !connection.wants_input());
        let late = connection.deadline().is_some_and(|deadline| now >= deadline);
        let sent = connection.send(now, Slow { room: room.into(), got: &mut got });
        assert_eq!(sent.is_err(), late, "only the deadline ends it");
        if late || connection.is_done() {
            break;
        }
        now += Duration::from_millis(time.into());
    }
    let lines = got.iter().filter(|&&byte| byte == b'\n').count();
    assert!(lines == answered || lines + 1 == answered, "{lines} of {answered}");
    for line in got.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        let answer: serde_json::Value = serde_json::from_slice(line).unwrap();
        assert_eq!(answer["version"], 1);
    }
});
