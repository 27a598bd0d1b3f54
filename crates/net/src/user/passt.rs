//! The process of passt: how it is called, when it is ready, and what it has to know.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nerite_virtio_net::Mac;

use super::{GATEWAY, GUEST, PREFIX};
use crate::{Error, Forward, Protocol};

/// Time in which passt may report an error; after it, passt is taken to be ready.
const START_TIME: Duration = Duration::from_millis(2_000);
/// Maximum number of bytes kept of passt's messages.
const SAYING: usize = 4096;

/// A child that is waited for.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself when the socket is closed, but that takes a moment.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            log::debug!("ending passt: {error}");
        }
    }
}

impl Process {
    /// Number of the process.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Starts passt with the other end of the socket, and waits until it is ready.
    pub(super) fn start(
        socket: OwnedFd,
        forwards: &[Forward],
        reach_host: bool,
        mtu: u16,
    ) -> Result<Self, Error> {
        let mut command = Command::new("passt");
        command.args(arguments(forwards, reach_host, mtu));
        // Standard input is the one descriptor that a child gets without further ado.
        command.stdin(Stdio::from(socket)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::NoPasst)?;
        let stderr = child.stderr.take();
        settle(Self(child), stderr, forwards)
    }
}

/// Waits until passt is ready or has ended. It gives no sign when it is ready, but what it forwards
/// is listening then.
fn settle(
    mut process: Process,
    stderr: Option<ChildStderr>,
    forwards: &[Forward],
) -> Result<Process, Error> {
    let Some(mut stderr) = stderr else { return Ok(process) };
    rustix::io::ioctl_fionbio(&stderr, true).map_err(Error::host("reading what passt says"))?;
    let started = Instant::now();
    let mut said = Vec::new();
    loop {
        let mut some = [0; 512];
        let is_closed = match stderr.read(&mut some) {
            Ok(0) => true,
            Ok(read) => {
                if said.len() < SAYING {
                    said.extend_from_slice(some.get(..read).unwrap_or_default());
                }
                continue;
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if let Some(status) = process.0.try_wait().map_err(Error::host("asking for passt"))? {
            return Err(Error::Passt(last_words(&said, &status.to_string())));
        }
        // In its sandbox passt has left the directory it was started in, and says nothing any more.
        let is_sandboxed = std::fs::read_link(format!("/proc/{}/root", process.0.id()))
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
            || is_closed;
        if is_sandboxed && listens(forwards) || started.elapsed() > START_TIME {
            return Ok(process);
        }
        sleep(Duration::from_millis(5));
    }
}

/// Returns `true` if all forwarded TCP ports are in the state LISTEN; passt has then passed every
/// step that can fail.
fn listens(forwards: &[Forward]) -> bool {
    forwards.iter().filter(|forward| forward.protocol == Protocol::Tcp).all(|forward| {
        let address = forward.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
        // Local address and port, remote address and port, state: 0A listens.
        let port = format!(":{:04X} ", forward.host_port);
        std::fs::read_to_string(table).is_ok_and(|text| {
            text.lines()
                .any(|line| line.contains(&port) && line.split_whitespace().nth(3) == Some("0A"))
        })
    })
}

/// The frame after its length: an ARP request (RFC 826) of the guest for its gateway.
pub(super) fn introduction(Mac(mac): Mac) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 42];
    frame.extend([0xff; 6]);
    frame.extend(mac);
    // ARP, Ethernet, IPv4, lengths of addresses, request.
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(GATEWAY.octets());
    frame
}

/// The end of what passt said, in one line.
fn last_words(said: &[u8], status: &str) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| {
            !line.is_empty()
                && !line.contains("to syslog")
                && !line.starts_with("Don't run as root")
        })
        .collect();
    match lines.last() {
        Some(line) => format!("{line} ({status})"),
        None => status.to_owned(),
    }
}

/// Arguments of passt: in the foreground, with fixed addresses for the guest, so that they are
/// known beforehand.
fn arguments(forwards: &[Forward], reach_host: bool, mtu: u16) -> Vec<OsString> {
    let mut arguments: Vec<String> =
        vec!["--foreground".into(), "--quiet".into(), "--fd".into(), "0".into()];
    let pairs = [
        ("--address", GUEST.to_string()),
        ("--netmask", PREFIX.to_string()),
        ("--gateway", GATEWAY.to_string()),
        ("--mtu", mtu.to_string()),
    ];
    arguments.extend(pairs.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    arguments.push("--ipv4-only".into());
    if !reach_host {
        // Otherwise connections to the gateway are connections to the host's loopback interface.
        arguments.push("--no-map-gw".into());
    }
    for forward in forwards {
        let Forward { protocol, address, host_port, guest_port } = forward;
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let option = match protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        arguments.extend([option.to_owned(), format!("{address}/{host_port}:{guest_port}")]);
    }
    arguments.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
#[path = "passt_test.rs"]
mod tests;
