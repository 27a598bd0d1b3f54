//! The side of the operator.

use std::io::{self, BufRead as _, BufReader, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::descriptors::{self, MAX_DESCRIPTORS};
use crate::protocol::{Answer, Command, Failure, MAX_READ, Request, VERSION, from_hex};

/// Error of a request to a machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no machine at this socket.
    #[error("{}: cannot connect", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the machine broke")]
    Broken(#[from] io::Error),
    /// The answer cannot be understood.
    #[error("the machine's answer is not understood: {0}")]
    Answer(String),
    /// The machine refused.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The memory that was read cannot be written to where it should go.
    #[error("cannot write the memory")]
    Output(#[source] io::Error),
}

/// A connection to a machine.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    number: u64,
}

impl Client {
    /// Connects to a machine's control socket.
    ///
    /// If no machine listens there.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        Ok(Self { stream: BufReader::new(stream), number: 0 })
    }

    /// Makes a request and waits for its answer.
    ///
    /// # Errors
    /// If the connection breaks or the machine refuses.
    pub fn ask(&mut self, request: Request) -> Result<Value, ClientError> {
        self.ask_with(request, None)
    }

    /// Has the machine written to the files of a snapshot: description, memory, image.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn snapshot(
        &mut self,
        files: [BorrowedFd<'_>; MAX_DESCRIPTORS],
    ) -> Result<Value, ClientError> {
        self.ask_with(Request { command: Command::Snapshot, ..Request::default() }, Some(files))
    }

    fn ask_with(
        &mut self,
        request: Request,
        files: Option<[BorrowedFd<'_>; MAX_DESCRIPTORS]>,
    ) -> Result<Value, ClientError> {
        self.number = self.number.wrapping_add(1);
        let request = Request { version: VERSION, id: Some(self.number), ..request };
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');
        let stream = self.stream.get_mut();
        let sent = files.map_or(Ok(0), |files| descriptors::send(&*stream, &line, &files))?;
        stream.write_all(line.get(sent..).unwrap_or_default())?;
        let mut text = String::new();
        if self.stream.read_line(&mut text)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let answer: Answer =
            serde_json::from_str(&text).map_err(|error| ClientError::Answer(error.to_string()))?;
        if answer.id != request.id {
            return Err(ClientError::Answer(format!("it is for request {:?}", answer.id)));
        }
        match (answer.ok, answer.error) {
            (Some(value), None) => Ok(value),
            (_, Some(failure)) => Err(failure.into()),
            (None, None) => {
                Err(ClientError::Answer("it has neither a result nor an error".to_owned()))
            }
        }
    }

    /// Makes a request that needs nothing but a command and perhaps a vCPU.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn command(&mut self, command: Command, vcpu: Option<usize>) -> Result<Value, ClientError> {
        self.ask(Request { command, vcpu, ..Request::default() })
    }

    /// Copies guest-physical memory to `output`, piece by piece: pause the machine before, if it
    /// should be of one moment.
    ///
    /// # Errors
    /// As [`Client::ask`], or if `output` cannot be written.
    pub fn read_memory(
        &mut self,
        address: u64,
        length: u64,
        output: &mut impl Write,
    ) -> Result<(), ClientError> {
        let mut done = 0_u64;
        while done < length {
            let piece = length.saturating_sub(done).min(MAX_READ);
            let value = self.ask(Request {
                command: Command::ReadMemory,
                address: Some(address.saturating_add(done)),
                length: Some(piece),
                ..Request::default()
            })?;
            let bytes = value.get("data").and_then(Value::as_str).and_then(from_hex);
            let bytes = bytes.filter(|bytes| bytes.len() as u64 == piece);
            let bytes =
                bytes.ok_or_else(|| ClientError::Answer("it has no such data".to_owned()))?;
            output.write_all(&bytes).map_err(ClientError::Output)?;
            done = done.saturating_add(piece);
        }
        Ok(())
    }
}
