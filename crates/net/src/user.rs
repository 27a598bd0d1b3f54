//! Networking without privileges: the guest's connections become connections of a process of the user, passt.
//!
//! Passt speaks Ethernet frames on a stream socket, each after its length (four bytes, big-endian), as QEMU's `-netdev stream` does. It is
//! DHCP server, ARP responder and name server's relay for the guest, confines itself, and ends when the socket is
//! closed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nerite_memory::GuestRam;
use nerite_virtio::Segment;
use nerite_virtio_net::{Backend, HEADER, MAX_FRAME, Mac, write_across};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};

use crate::{Error, Forward, Protocol, vectors};

/// The guest's address, as Hermit's kernel has it without DHCP, too.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 3);
/// Its gateway.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 5, 1);
/// The bits of its network.
pub(crate) const PREFIX: u8 = 24;
/// The largest packet that passt carries.
pub(crate) const MTU: u16 = 65_520;

/// Bytes that are read at once.
const INPUT: usize = 512 << 10;
/// Bytes of the length before each frame.
const LENGTH: usize = 4;
/// Header flag: the checksum is right (5.1.6). Frames come from a process of this host, which has made it itself.
const DATA_VALID: u8 = 2;
/// How long passt has to say that it does not work.
const START_TIME: Duration = Duration::from_millis(2_000);
/// How much of what passt says is kept.
const SAYING: usize = 4096;

/// The socket to passt, and the process.
#[derive(Debug)]
pub struct User {
    socket: OwnedFd,
    /// What came and is not yet a frame that was taken: the bytes from `start` to `end`.
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// What could not be written yet. Nothing else is sent before it.
    output: VecDeque<u8>,
    checksums: bool,
    /// A frame that tells passt the guest's Ethernet address. Until it knows that, it sends to all, which some stacks do not take.
    introduction: Option<Vec<u8>>,
    _process: Option<Process>,
}

/// A child that is waited for.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It ends by itself when the socket is closed; that may take a moment that nobody has.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            log::debug!("ending passt: {error}");
        }
    }
}

impl User {
    /// Starts passt, which must be installed.
    ///
    /// # Errors
    /// If it cannot be started or ends at once, as when a port is taken.
    pub fn start(forwards: &[Forward], reach_host: bool, mtu: u16, mac: Mac) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(Error::host("making a socket"))?;
        let mut command = Command::new("passt");
        command.args(arguments(forwards, reach_host, mtu));
        // Standard input is the one descriptor that a child gets without further ado.
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::NoPasst)?;
        let stderr = child.stderr.take();
        let process = Process(child);
        let process = settle(process, stderr, forwards)?;
        let mut user = Self::with(ours, Some(process))?;
        user.introduction = Some(introduction(mac));
        Ok(user)
    }

    /// Speaks with whoever is at the other end of `socket`.
    ///
    /// # Errors
    /// If it cannot be made non-blocking.
    pub fn on_socket(socket: OwnedFd) -> Result<Self, Error> {
        Self::with(socket, None)
    }

    fn with(socket: OwnedFd, process: Option<Process>) -> Result<Self, Error> {
        rustix::io::ioctl_fionbio(&socket, true).map_err(Error::host("making a socket non-blocking"))?;
        for (name, set) in [
            ("sending", rustix::net::sockopt::set_socket_send_buffer_size(&socket, INPUT)),
            ("receiving", rustix::net::sockopt::set_socket_recv_buffer_size(&socket, INPUT)),
        ] {
            if let Err(error) = set {
                log::debug!("the socket's buffer for {name} stays as it is: {error}");
            }
        }
        Ok(Self {
            socket,
            input: vec![0; INPUT].into_boxed_slice(),
            start: 0,
            end: 0,
            output: VecDeque::new(),
            checksums: false,
            introduction: None,
            _process: process,
        })
    }

    /// The next frame that is here whole: where it is in `input`.
    fn next_frame(&mut self) -> io::Result<Option<std::ops::Range<usize>>> {
        let have = self.end.saturating_sub(self.start);
        let Some(length) =
            self.input.get(self.start..self.end).and_then(|bytes| bytes.first_chunk::<LENGTH>())
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            // There is no way to find the next frame.
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("a frame of {length} bytes from passt"),
            ));
        }
        let whole = length.saturating_add(LENGTH);
        if have < whole {
            return Ok(None);
        }
        let first = self.start.saturating_add(LENGTH);
        self.start = self.start.saturating_add(whole);
        Ok(Some(first..first.saturating_add(length)))
    }

    /// Reads what is there. `WouldBlock` if nothing is.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end = self.end.saturating_sub(self.start);
            self.start = 0;
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        match recv(&self.socket, room, RecvFlags::empty())? {
            (0, _) => Err(ErrorKind::UnexpectedEof.into()),
            (read, _) => {
                self.end = self.end.saturating_add(read);
                Ok(())
            }
        }
    }
}

/// Waits until passt is ready or has ended. It gives no sign when it is ready, but what it forwards is listening then.
fn settle(mut process: Process, stderr: Option<ChildStderr>, forwards: &[Forward]) -> Result<Process, Error> {
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

/// Whether what is forwarded is being listened to: then passt is past everything that can fail.
fn listens(forwards: &[Forward]) -> bool {
    forwards.iter().filter(|forward| forward.protocol == Protocol::Tcp).all(|forward| {
        let address = forward.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
        // Local address and port, remote address and port, state: 0A listens.
        let port = format!(":{:04X} ", forward.host_port);
        std::fs::read_to_string(table).is_ok_and(|text| {
            text.lines().any(|line| line.contains(&port) && line.split_whitespace().nth(3) == Some("0A"))
        })
    })
}

/// The frame after its length: an ARP request (RFC 826) of the guest for its gateway.
fn introduction(Mac(mac): Mac) -> Vec<u8> {
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
            !line.is_empty() && !line.contains("to syslog") && !line.starts_with("Don't run as root")
        })
        .collect();
    match lines.last() {
        Some(line) => format!("{line} ({status})"),
        None => status.to_owned(),
    }
}

/// How passt is called: in the foreground, with fixed addresses for the guest, so that they are known beforehand.
fn arguments(forwards: &[Forward], reach_host: bool, mtu: u16) -> Vec<OsString> {
    let mut arguments: Vec<String> = vec!["--foreground".into(), "--quiet".into(), "--fd".into(), "0".into()];
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

impl Backend for User {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send(&mut self, ram: &GuestRam, pieces: &[Segment]) -> io::Result<()> {
        if !self.output.is_empty() {
            self.flush()?;
        }
        let total = pieces.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.length as usize));
        let frame = total.saturating_sub(HEADER);
        let prefix = u32::try_from(frame).map_err(|_| ErrorKind::InvalidInput)?.to_be_bytes();
        let written = vectors::write(&self.socket, &prefix, ram, pieces, HEADER as u64)?;
        if written < frame.saturating_add(LENGTH) {
            self.keep(&prefix, ram, pieces, written)?;
        }
        Ok(())
    }

    fn receive(&mut self, ram: &GuestRam, room: &[Segment], spill: &mut [u8]) -> io::Result<usize> {
        let frame = loop {
            match self.next_frame()? {
                Some(frame) => break frame,
                None => self.fill()?,
            }
        };
        let flags = if self.checksums { DATA_VALID } else { 0 };
        let mut header = [0; HEADER];
        let [first, ..] = &mut header;
        *first = flags;
        let outside = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let frame = self.input.get(frame).unwrap_or_default();
        write_across(ram, room, 0, &header).map_err(outside)?;
        write_across(ram, room, HEADER as u64, frame).map_err(outside)?;
        let room = room.iter().fold(0_usize, |sum, piece| sum.saturating_add(piece.length as usize));
        // What did not fit: the end of the frame, and of the header if there was hardly any room.
        let rest = header.iter().chain(frame).skip(room);
        for (to, from) in spill.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(frame.len().saturating_add(HEADER))
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let (front, _) = self.output.as_slices();
            let written = rustix::io::write(&self.socket, front)?;
            self.output.drain(..written.min(self.output.len()));
        }
        Ok(())
    }

    fn set_features(&mut self, features: u64) -> io::Result<()> {
        self.checksums = features & nerite_virtio_net::feature::GUEST_CSUM != 0;
        self.output.extend(self.introduction.take().into_iter().flatten());
        // What cannot go out now does before the guest's first frame.
        let _ = self.flush();
        Ok(())
    }
}

impl User {
    /// Keeps what the socket did not take of a frame: the guest may take its memory back at once.
    fn keep(&mut self, prefix: &[u8], ram: &GuestRam, pieces: &[Segment], written: usize) -> io::Result<()> {
        self.output.extend(prefix.iter().skip(written));
        let mut skip = written.saturating_sub(prefix.len()).saturating_add(HEADER);
        for piece in pieces {
            let length = piece.length as usize;
            let now = skip.min(length);
            skip = skip.saturating_sub(now);
            let mut bytes = vec![0; length.saturating_sub(now)];
            ram.read(piece.address.saturating_add(now as u64), &mut bytes)
                .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
            self.output.extend(bytes);
        }
        Ok(())
    }

    /// The number of the socket's descriptor, for whoever confines this process.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "user_test.rs"]
mod tests;
