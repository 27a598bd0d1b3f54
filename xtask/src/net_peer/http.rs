//! HTTP requests to the guest `hermit-app`, whose server is `tests/hermit-app/src/serve.rs`.

use std::io::{BufReader, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Peer;
use super::figure::{Figure, each};
use super::flood::pattern;

const HTTP: u16 = 80;
/// Time after which the guest's kernel has no timer set.
const IDLE: Duration = Duration::from_secs(2);

impl Peer {
    /// Connections, one after the other, with ever larger answers. The last request ends the guest.
    pub(super) fn http(&self, count: usize) -> Result<Option<Figure>> {
        // The guest halts meanwhile, and only an interrupt wakes it.
        thread::sleep(IDLE);
        let started = Instant::now();
        for number in 1..=count {
            let last = if number == count { "end" } else { "1" };
            self.get(number * 4001, last).with_context(|| format!("connection {number}"))?;
        }
        Ok(Some(each("connection with two requests", count, started)))
    }

    /// One connection with two requests: of so many bytes, and of a path with which the server
    /// closes it.
    fn get(&self, bytes: usize, last: &str) -> Result<()> {
        let mut stream = BufReader::new(self.link.connect_now(HTTP)?);
        for (path, rest) in [(bytes.to_string().as_str(), ""), (last, "Connection: close\r\n")] {
            let request = format!("GET /{path} HTTP/1.1\r\nHost: guest\r\n{rest}\r\n");
            stream.get_mut().write_all(request.as_bytes())?;
            let expected = path.parse().unwrap_or(0);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {expected}\r\n\r\n");
            let mut answer = vec![0; head.len() + expected];
            stream.read_exact(&mut answer).with_context(|| format!("the answer to /{path}"))?;
            let is_right = answer == [head.into_bytes(), pattern(expected)].concat();
            ensure!(is_right, "another answer to /{path}");
        }
        ensure!(stream.read(&mut [0])? == 0, "bytes after the last answer");
        Ok(())
    }
}
