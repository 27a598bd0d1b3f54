//! A client's connection as a state machine: bytes in, one request at a time, bytes out, each
//! answer with a deadline.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::protocol::{Answer, Code, Failure, MAX_REQUEST, Request, parse};

/// Time for a client to take a whole answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Requests from a client and answers to it, at most one answer at a time. It does no I/O by
/// itself.
#[derive(Debug, Default)]
pub struct Connection {
    /// Requests that are not answered yet, and the beginning of one.
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that the client has taken.
    taken: usize,
    deadline: Option<Instant>,
    is_closing: bool,
}

impl Connection {
    /// `true` if bytes from the client can be [received](Self::receive): everything before is
    /// answered, and taken.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.has_output() && !self.has_request() && !self.is_closing
    }

    /// `true` if there are bytes for the client.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.taken < self.output.len()
    }

    /// `true` if a request is complete, or is too long to be one.
    #[must_use]
    pub fn has_request(&self) -> bool {
        !self.is_closing && (self.end_of_line().is_some() || self.input.len() >= MAX_REQUEST)
    }

    /// `true` if there is nothing more to do but to close.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_closing && !self.has_output()
    }

    /// The time at which the client must have taken its answer, if there is one for it.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes in what came from the client.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Answers the next request, if one is complete and the client has taken the answer before it.
    pub fn answer(
        &mut self,
        now: Instant,
        answer: impl FnOnce(&Request) -> Result<Value, Failure>,
    ) {
        if self.has_output() || !self.has_request() {
            return;
        }
        let answer = match self.next_line() {
            Some(line) => match parse(&line) {
                Ok(request) => Answer::new(request.id, answer(&request)),
                Err((id, failure)) => Answer::new(id, Err(failure)),
            },
            None => {
                self.is_closing = true;
                let message = format!("a request has at most {MAX_REQUEST} bytes");
                Answer::new(None, Err(Failure::new(Code::TooLarge, message)))
            }
        };
        self.taken = 0;
        self.output = serde_json::to_vec(&answer).unwrap_or_default();
        self.output.push(b'\n');
        self.deadline = now.checked_add(ANSWER_TIME);
    }

    /// Writes as much of the answer as the client takes.
    ///
    /// # Errors
    /// If the client is gone, or has not taken the answer in time. An `output` that would block is
    /// no error.
    pub fn send(&mut self, now: Instant, mut output: impl Write) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.taken..).filter(|rest| !rest.is_empty()) {
            if self.deadline.is_some_and(|deadline| now >= deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.taken = self.taken.saturating_add(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        (self.output, self.taken, self.deadline) = (Vec::new(), 0, None);
        Ok(())
    }

    fn end_of_line(&self) -> Option<usize> {
        self.input.iter().take(MAX_REQUEST).position(|&byte| byte == b'\n')
    }

    /// Takes the next line out, without its newline; `None` if it is too long.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.end_of_line()?;
        let rest = self.input.get(end.saturating_add(1)..).unwrap_or_default().to_vec();
        let mut line = std::mem::replace(&mut self.input, rest);
        line.truncate(end);
        Some(line)
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;
