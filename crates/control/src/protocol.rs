//! Protocol of the socket: lines of JSON, a request and its answer. The schema is in
//! `docs/control.md`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the protocol. A server answers requests of its own version only.
pub const VERSION: u32 = 1;
/// The longest request in bytes, with its newline. A longer one ends the connection.
pub const MAX_REQUEST: usize = 16 << 10;
/// The most bytes of memory that one request can ask for.
pub const MAX_READ: u64 = 64 << 10;

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// Comes back with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Command to execute.
    pub command: Command,
    /// Which vCPU, for commands that can be about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<usize>,
    /// Guest-physical address of memory to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<u64>,
    /// Number of bytes of memory to read, at most [`MAX_READ`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// An interrupt line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// `true` raises the line, `false` lowers it; an edge if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<bool>,
    /// The data of an interrupt message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<u32>,
    /// A network card: its number, or the name of the tap it is connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<String>,
    /// `true` if the card's link is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Size of the balloon in bytes; it stays as it is if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Name of a hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
}

/// Commands to a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Command {
    /// State of each vCPU.
    #[default]
    Status,
    /// Hold one vCPU or all.
    Pause,
    /// Resume one vCPU or all.
    Resume,
    /// End the machine in good order.
    Stop,
    /// End the process at once.
    Kill,
    /// Statistics so far.
    Stats,
    /// Registers of one vCPU or all.
    Regs,
    /// Make an NMI pending on one vCPU, or on vCPU 0.
    Nmi,
    /// Raise or lower an interrupt line.
    Irq,
    /// Send an interrupt message.
    Msi,
    /// Say that a network card's link is up or down.
    Link,
    /// Read guest-physical memory.
    ReadMemory,
    /// Write a snapshot to the files whose descriptors come with the request: description, memory,
    /// image.
    Snapshot,
    /// Hand the guest over to another hypervisor.
    Accel,
    /// Press the power button.
    PowerButton,
    /// Ask the guest for memory, or how much it has given.
    Balloon,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// That of the request, if it had one that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Failure, if there is no result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// Failure of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind, for programs.
    pub code: Code,
    /// Message, for people.
    pub message: String,
}

/// Kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The line is no request of this version.
    BadRequest,
    /// The request is longer than [`MAX_REQUEST`].
    TooLarge,
    /// There is no such vCPU, or no such memory.
    NotThere,
    /// The machine cannot do it now.
    Failed,
}

impl Answer {
    #[cfg(feature = "server")]
    pub(crate) fn new(id: Option<u64>, result: Result<Value, Failure>) -> Self {
        let (ok, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(error)),
        };
        Self { version: VERSION, id, ok, error }
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// Reads a line as a request. An error comes with the request's id, if there is one.
///
/// # Errors
/// If it is not one, or of another version.
pub fn parse(line: &[u8]) -> Result<Request, (Option<u64>, Failure)> {
    let value: Value = serde_json::from_slice(line)
        .map_err(|error| (None, Failure::new(Code::BadRequest, error)))?;
    let id = value.get("id").and_then(Value::as_u64);
    let bad = |message: &dyn std::fmt::Display| (id, Failure::new(Code::BadRequest, message));
    match value.get("version").map(Value::as_u64) {
        Some(Some(version)) if version == u64::from(VERSION) => {}
        Some(_) => {
            return Err(bad(&format_args!("only version {VERSION} of the protocol is known")));
        }
        None => return Err(bad(&"the version is missing")),
    }
    serde_json::from_value(value).map_err(|error| bad(&error))
}

/// Bytes as two hexadecimal digits each.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes that [`to_hex`] wrote.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)?.checked_shl(4)? | digit(*low)?),
        _ => None,
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read() {
        let request =
            parse(br#"{"version":1,"id":7,"command":"read-memory","address":4096,"length":16}"#);
        let expected = Request {
            version: 1,
            id: Some(7),
            command: Command::ReadMemory,
            address: Some(4096),
            length: Some(16),
            ..Request::default()
        };
        assert_eq!(request, Ok(expected));
        let request = parse(br#"{"version":1,"command":"irq","line":4,"level":true}"#);
        let expected = Request {
            version: 1,
            command: Command::Irq,
            line: Some(4),
            level: Some(true),
            ..Request::default()
        };
        assert_eq!(request, Ok(expected));
    }

    #[test]
    fn what_is_no_request_is_named() {
        for (line, id, part) in [
            ("", None, "EOF"),
            ("nonsense", None, "expected"),
            ("[1]", None, "version is missing"),
            ("{\"version\":2,\"id\":3,\"command\":\"stop\"}", Some(3), "version 1"),
            ("{\"version\":1,\"id\":3}", Some(3), "command"),
            ("{\"version\":1,\"command\":\"explode\"}", None, "explode"),
            ("{\"version\":1,\"command\":\"stop\",\"colour\":1}", None, "colour"),
            ("{\"version\":1,\"command\":\"regs\",\"vcpu\":-1}", None, "-1"),
            ("\u{0}\u{1}", None, "expected"),
        ] {
            let (got, failure) = parse(line.as_bytes()).unwrap_err();
            assert_eq!(got, id, "{line}");
            assert_eq!(failure.code, Code::BadRequest);
            assert!(failure.message.contains(part), "{line}: {failure}");
        }
        assert!(parse(&[0xff, 0xfe]).is_err());
        assert!(parse("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn bytes_travel_as_hexadecimal_digits() {
        assert_eq!(to_hex(&[0, 0x7f, 0xff]), "007fff");
        assert_eq!(from_hex("007fFf"), Some(vec![0, 0x7f, 0xff]));
        for bad in ["0", "0g", "é"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }
}
