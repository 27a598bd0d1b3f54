use serde_json::json;

use super::*;

/// A client that takes `room` bytes and then no more for now.
struct Slow {
    room: usize,
    got: Vec<u8>,
}

impl Write for Slow {
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

const STATUS: &[u8] = b"{\"version\":1,\"command\":\"status\"}\n";

fn good(_: &Request) -> Result<Value, Failure> {
    Ok(json!({ "text": "x".repeat(1000) }))
}

#[test]
fn requests_are_answered_one_at_a_time() {
    let now = Instant::now();
    let mut connection = Connection::default();
    connection.receive(&STATUS.repeat(3));
    connection.receive(b"{\"ver");
    let mut client = Slow { room: usize::MAX, got: Vec::new() };
    for answered in 1..=3 {
        assert!(connection.has_request() && !connection.wants_input());
        let mut count = 0;
        connection.answer(now, |request| {
            count += 1;
            good(request)
        });
        // Not before the first answer is taken.
        connection.answer(now, |_| panic!("an answer is there already"));
        assert!(
            connection.has_output() && !connection.wants_input() && connection.deadline().is_some()
        );
        connection.send(now, &mut client).unwrap();
        assert_eq!(
            (count, client.got.iter().filter(|&&byte| byte == b'\n').count()),
            (1, answered)
        );
        assert_eq!(connection.deadline(), None);
    }
    connection.answer(now, |_| panic!("there is half a request"));
    assert!(connection.wants_input() && !connection.has_output());
}

/// A client that takes a byte now and then has no more time than another.
#[test]
fn the_deadline_is_for_the_whole_answer() {
    let start = Instant::now();
    let mut connection = Connection::default();
    connection.receive(STATUS);
    connection.answer(start, good);
    let mut client = Slow { room: 0, got: Vec::new() };
    let mut now = start;
    let error = loop {
        client.room = 1;
        if let Err(error) = connection.send(now, &mut client) {
            break error;
        }
        now += Duration::from_millis(100);
        assert!(now < start + ANSWER_TIME * 2);
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(now, start + ANSWER_TIME);
}

#[test]
fn a_request_that_is_too_long_ends_the_connection() {
    let now = Instant::now();
    let mut connection = Connection::default();
    connection.receive(&vec![b'['; MAX_REQUEST - 1]);
    assert!(!connection.has_request());
    connection.receive(b"[\n");
    connection.answer(now, |_| panic!("no request"));
    assert!(connection.has_output() && !connection.is_done());
    let mut client = Slow { room: usize::MAX, got: Vec::new() };
    connection.send(now, &mut client).unwrap();
    assert!(String::from_utf8(client.got).unwrap().contains("too-large") && connection.is_done());
    assert!(!connection.wants_input() && !connection.has_request());
}
