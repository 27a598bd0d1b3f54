//! A client that is connected.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nerite_control::protocol::VERSION;
use serde_json::Value;

use crate::clone_wire::{self as wire, Command, MAX_REQUEST, Request, Words};

/// Progress of a client.
#[derive(Debug)]
pub(super) enum State {
    /// It has not made a request, or may make another.
    Reading,
    /// It has asked for something that is answered at once.
    Asking,
    /// It waits for a shell.
    Waiting(Words),
    /// Its clone runs, in this process.
    Running(u32),
    /// The connection is to be closed.
    Done,
}

impl State {
    /// The process of its clone.
    pub(super) fn running(&self) -> Option<u32> {
        match self {
            Self::Running(pid) => Some(*pid),
            _ => None,
        }
    }
}

/// A client that is connected.
#[derive(Debug)]
pub(super) struct Client {
    number: u64,
    /// Does not block.
    pub(super) stream: UnixStream,
    received: Vec<u8>,
    /// The number that its request had.
    id: Option<u64>,
    pub(super) state: State,
}

impl Client {
    pub(super) fn new(number: u64, stream: UnixStream) -> Self {
        Self { number, stream, received: Vec::new(), id: None, state: State::Reading }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Reads once. Returns the command if a request is complete.
    pub(super) fn receive(&mut self) -> Option<Command> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(length) if length > 0 => {
                self.received.extend_from_slice(bytes.get(..length).unwrap_or_default());
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            // It has gone, and so has its interest in a clone.
            _ => self.state = State::Done,
        }
        let State::Reading = self.state else { return None };
        let Some(end) = self.received.iter().position(|byte| *byte == b'\n') else {
            if self.received.len() > MAX_REQUEST {
                self.fail("the request is too long");
            }
            return None;
        };
        let line: Vec<u8> = self.received.drain(..=end).collect();
        match serde_json::from_slice::<Request>(&line) {
            Ok(request) if request.version == VERSION => {
                self.id = request.id;
                self.state = match request.command {
                    Command::Clone => State::Waiting(request.words),
                    Command::Status | Command::Stop => State::Asking,
                };
                Some(request.command)
            }
            Ok(request) => {
                self.fail(&format!(
                    "the request has version {} of the protocol, and this is {VERSION}",
                    request.version
                ));
                None
            }
            Err(error) => {
                self.fail(&format!("the request is not understood: {error}"));
                None
            }
        }
    }

    /// Answers; a client that does not take an answer of a line has gone.
    pub(super) fn answer(&mut self, value: &Value) {
        let line = wire::answer(self.id, Ok(value.clone()));
        if let Err(error) = self.stream.write_all(&line) {
            log::debug!("client {}: {error}", self.number);
            self.state = State::Done;
        }
    }

    /// Answers with the output of a clone. Returns `false` if the client has gone.
    pub(super) fn answer_with(&self, value: &Value, files: &[OwnedFd; 2]) -> bool {
        let sent = wire::send(&self.stream, &wire::answer(self.id, Ok(value.clone())), files);
        if let Err(error) = &sent {
            log::debug!("client {}: {error}", self.number);
        }
        sent.is_ok()
    }

    /// Refuses the request and ends the connection.
    pub(super) fn fail(&mut self, message: &str) {
        let line = wire::answer(self.id, Err(message.to_owned()));
        if let Err(error) = self.stream.write_all(&line) {
            log::debug!("client {}: {error}", self.number);
        }
        self.state = State::Done;
    }
}
