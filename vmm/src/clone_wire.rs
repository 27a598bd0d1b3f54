//! Messages between `vmm clones`, its clients and its shells: lines of JSON, as on a control
//! socket.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use nerite_control::protocol::{Answer, Code, Failure, VERSION};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest request in bytes, with its newline.
pub(crate) const MAX_REQUEST: usize = 64 << 10;
/// Number of descriptors of an answer: standard output and error of the clone.
const DESCRIPTORS: usize = 2;

/// Clones cannot be served, or a clone not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClonesError {
    /// The host failed.
    #[error("{what}: {source}")]
    Host {
        /// The operation.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The server refused.
    #[error("the server of clones: {0}")]
    Refused(String),
    /// The server has gone, or answers something that is not understood.
    #[error("the server of clones ended the connection")]
    Gone,
}

impl ClonesError {
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }
}

/// Commands to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Command {
    /// Run a clone.
    Clone,
    /// Count the clones.
    Status,
    /// End the server and all clones.
    Stop,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) version: u32,
    /// Comes back with each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<u64>,
    pub(crate) command: Command,
    #[serde(default)]
    pub(crate) words: Words,
}

/// Arguments and variables of a clone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Words {
    /// Arguments; `None` leaves those of the snapshot.
    #[serde(default)]
    pub(crate) args: Option<Vec<String>>,
    /// Variables besides those of the snapshot.
    #[serde(default)]
    pub(crate) env: Vec<(String, String)>,
}

/// Answer to a request that has `id`.
pub(crate) fn answer(id: Option<u64>, result: Result<Value, String>) -> Vec<u8> {
    let (ok, error) = match result {
        Ok(value) => (Some(value), None),
        Err(message) => (None, Some(Failure { code: Code::Failed, message })),
    };
    line(&Answer { version: VERSION, id, ok, error })
}

/// A message as a line.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    // Structures of text and numbers are always JSON.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Sends bytes with the descriptors of a clone's output.
pub(crate) fn send(
    socket: impl AsFd,
    bytes: &[u8],
    files: &[OwnedFd; DESCRIPTORS],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = files.each_ref().map(OwnedFd::as_fd);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    // A line of this length fits a socket's buffer that has nothing else in it.
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives bytes, and the descriptors that come with them.
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut files = Vec::new();
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(new) = message {
            files.extend(new);
        }
    }
    Ok((received.bytes, files))
}
