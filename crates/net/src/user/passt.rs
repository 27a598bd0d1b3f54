//! The process of passt: how it is called, when it is ready, and what it has to know.

use std::ffi::OsString;
use std::io::Read;
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

/// Time in which passt ends when its stream has.
const END_TIME: Duration = Duration::from_millis(500);
/// Ethernet address of the gateway on a host without one of its own to show: locally administered.
const GATEWAY_MAC: &str = "52:54:00:00:05:01";

/// A child that is waited for.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // A confined process may not send signals. Passt ends by itself then, its stream has ended.
        let killed = self.0.kill();
        let started = Instant::now();
        // Its ports are free once it has been waited for.
        while let Ok(None) = self.0.try_wait() {
            if started.elapsed() > END_TIME {
                log::debug!("passt does not end: {killed:?}");
                return;
            }
            sleep(Duration::from_millis(1));
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
        command.args(arguments(forwards, reach_host, mtu, has_default_route()));
        // Standard input is the one descriptor that a child gets without further ado.
        command.stdin(Stdio::from(socket)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::NoPasst)?;
        let stderr = child.stderr.take();
        settle(Self(child), stderr)
    }
}

/// Waits until passt is ready or has ended. The last step of its start is a filter for its system
/// calls; ports that are forwarded are listening then.
fn settle(mut process: Process, stderr: Option<ChildStderr>) -> Result<Process, Error> {
    let Some(mut stderr) = stderr else { return Ok(process) };
    rustix::io::ioctl_fionbio(&stderr, true).map_err(Error::host("reading what passt says"))?;
    let status = format!("/proc/{}/status", process.0.id());
    let inherited = std::fs::read_to_string("/proc/self/status").ok();
    let inherited = inherited.and_then(|status| filters(&status)).unwrap_or_default();
    let started = Instant::now();
    let mut said = Vec::new();
    loop {
        let mut some = [0; 512];
        if let Ok(read @ 1..) = stderr.read(&mut some) {
            if said.len() < SAYING {
                said.extend_from_slice(some.get(..read).unwrap_or_default());
            }
            continue;
        }
        if let Some(status) = process.0.try_wait().map_err(Error::host("asking for passt"))? {
            return Err(Error::Passt(last_words(&said, &status.to_string())));
        }
        let status = std::fs::read_to_string(&status).ok();
        let is_ready = status.and_then(|status| filters(&status)) > Some(inherited);
        let time = started.elapsed();
        if is_ready || time > START_TIME {
            let state = if is_ready { "ready" } else { "taken to be ready" };
            log::debug!("passt is {state} after {} ms", time.as_millis());
            return Ok(process);
        }
        sleep(Duration::from_millis(1));
    }
}

/// Number of system call filters of a process in its `/proc/PID/status`, which any user may read.
/// Linux before 5.9 tells only that there are some.
fn filters(status: &str) -> Option<u32> {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().parse().ok()
    };
    field("Seccomp_filters:").or_else(|| field("Seccomp:"))
}

/// Returns `true` if this host has an IPv4 default route, whose interface passt takes for a model.
fn has_default_route() -> bool {
    std::fs::read_to_string("/proc/net/route").is_ok_and(|table| is_default_among(&table))
}

/// Interface, destination, gateway, flags, ..., mask in the eighth column, in hexadecimal digits.
fn is_default_among(table: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some("00000000") && columns.nth(5) == Some("00000000")
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
///
/// Without a default route, an interface and an address are named that passt does not find.
fn arguments(
    forwards: &[Forward],
    reach_host: bool,
    mtu: u16,
    has_default_route: bool,
) -> Vec<OsString> {
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
    if !has_default_route {
        let words = ["--interface", "lo", "--mac-addr", GATEWAY_MAC];
        arguments.extend(words.map(str::to_owned));
    }
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
