//! Exercises of a guest's network card from the host.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::connect::{PATIENCE, insist};
use super::figure::{Figure, each, rate};
use super::flood::{DISCARD, Flood, PATTERN, pattern};
use super::{GUEST, Link, Peer, TAP, ip};

const ECHO: u16 = 7;
const SOURCE: u16 = 19;

/// One thing to do; `to-guest=16M` and the like have a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exercise {
    /// ICMP echo, with packets of up to this many bytes.
    Ping(usize),
    /// Datagrams that come back, this many.
    UdpEcho(usize),
    /// Datagrams of 1400 bytes that come back, this many, as fast as they do.
    UdpStream(usize),
    /// Bytes on one connection that come back.
    TcpEcho(usize),
    /// Bytes to the guest.
    ToGuest(usize),
    /// Bytes from the guest.
    FromGuest(usize),
    /// Connections, one after the other, with a request each.
    Connections(usize),
    /// Requests of one byte on one connection.
    Requests(usize),
    /// Connections, one after the other, with two HTTP requests each, the last of which ends the
    /// guest.
    Http(usize),
    /// Several connections at a time.
    Parallel(usize),
    /// The host's end of the link goes down and up again.
    LinkDownUp,
    /// The guest's cable is pulled and plugged in again, by `vmm ctl`.
    Cable,
    /// The guest resets its card in the middle of a transfer, so many times, and echoes after each.
    Reset(usize),
    /// The guest ends in the middle of a transfer.
    ExitDuringTraffic,
    /// Nothing is done: the guest does it all, says so, and ends.
    End,
}

impl FromStr for Exercise {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let number = |default: usize| -> Result<usize> {
            if value.is_empty() {
                return Ok(default);
            }
            let (digits, factor) = match value.strip_suffix(['k', 'M', 'G']) {
                Some(digits) if value.ends_with('k') => (digits, 1 << 10),
                Some(digits) if value.ends_with('M') => (digits, 1 << 20),
                Some(digits) => (digits, 1 << 30),
                None => (value, 1),
            };
            Ok(digits.parse::<usize>().with_context(|| format!("{value} is no number"))? * factor)
        };
        Ok(match name {
            "ping" => Self::Ping(number(1000)?),
            "udp-echo" => Self::UdpEcho(number(100)?),
            "udp-stream" => Self::UdpStream(number(1000)?),
            "tcp-echo" => Self::TcpEcho(number(1 << 20)?),
            "to-guest" => Self::ToGuest(number(1 << 20)?),
            "from-guest" => Self::FromGuest(number(1 << 20)?),
            "connections" => Self::Connections(number(1000)?),
            "requests" => Self::Requests(number(100)?),
            "http" => Self::Http(number(10)?),
            "parallel" => Self::Parallel(number(8)?),
            "link-down-up" => Self::LinkDownUp,
            "cable" => Self::Cable,
            "reset" => Self::Reset(number(3)?),
            "exit-during-traffic" => Self::ExitDuringTraffic,
            "end" => Self::End,
            _ => bail!("{text} is no exercise"),
        })
    }
}

impl fmt::Display for Exercise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ping(number) => write!(f, "ping={number}"),
            Self::UdpEcho(number) => write!(f, "udp-echo={number}"),
            Self::UdpStream(number) => write!(f, "udp-stream={number}"),
            Self::TcpEcho(number) => write!(f, "tcp-echo={number}"),
            Self::ToGuest(number) => write!(f, "to-guest={number}"),
            Self::FromGuest(number) => write!(f, "from-guest={number}"),
            Self::Connections(number) => write!(f, "connections={number}"),
            Self::Requests(number) => write!(f, "requests={number}"),
            Self::Http(number) => write!(f, "http={number}"),
            Self::Parallel(number) => write!(f, "parallel={number}"),
            Self::LinkDownUp => f.write_str("link-down-up"),
            Self::Cable => f.write_str("cable"),
            Self::Reset(number) => write!(f, "reset={number}"),
            Self::ExitDuringTraffic => f.write_str("exit-during-traffic"),
            Self::End => f.write_str("end"),
        }
    }
}

impl Exercise {
    /// `true` if the guest has ended after it.
    pub(crate) fn ends_guest(&self) -> bool {
        matches!(self, Self::Http(_) | Self::ExitDuringTraffic | Self::End)
    }

    /// Does it. Returns what came of it, if that is a number.
    pub(super) fn run(&self, peer: &mut Peer) -> Result<Option<Figure>> {
        match *self {
            Self::Ping(size) => ping(size),
            Self::UdpEcho(count) => peer.udp_echo(count),
            Self::UdpStream(count) => peer.udp_stream(count),
            Self::TcpEcho(bytes) => peer.link.tcp_echo(bytes, !peer.is_foreign),
            Self::ToGuest(bytes) => peer.send_to_guest(bytes),
            Self::FromGuest(bytes) => peer.take_from_guest(bytes),
            Self::Connections(count) => peer.connections(count),
            Self::Requests(count) => peer.requests(count),
            Self::Http(count) => peer.http(count),
            Self::Parallel(count) => peer.parallel(count),
            Self::LinkDownUp => peer.link_down_up(),
            Self::Cable => peer.cable(),
            Self::Reset(count) => peer.reset(count),
            Self::ExitDuringTraffic => peer.exit_during_traffic(),
            Self::End => peer.wait_for_end(),
        }
    }
}

fn ping(size: usize) -> Result<Option<Figure>> {
    for size in [0, 56, size] {
        let size = size.to_string();
        let ping = Command::new("ping")
            .args(["-A", "-c", "3", "-W", "5", "-s", &size, &GUEST.to_string()])
            .output();
        let ping = ping.context("cannot run ping")?;
        ensure!(ping.status.success(), "no answer: {}", String::from_utf8_lossy(&ping.stdout));
    }
    Ok(None)
}

impl Link {
    /// With `half_close` the end is sent before the guest has answered.
    fn tcp_echo(self, bytes: usize, half_close: bool) -> Result<Option<Figure>> {
        let stream = self.connect(ECHO)?;
        let mut sender = stream.try_clone()?;
        let sent = pattern(bytes);
        let started = Instant::now();
        let expected = sent.clone();
        let writer = thread::spawn(move || -> Result<()> {
            sender.write_all(&sent)?;
            if half_close {
                sender.shutdown(Shutdown::Write)?;
            }
            Ok(())
        });
        let mut back = Vec::new();
        let most = if half_close { u64::MAX } else { expected.len() as u64 };
        stream.take(most).read_to_end(&mut back).context("reading the echo")?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        ensure!(back.len() == expected.len(), "{} of {bytes} bytes came back", back.len());
        ensure!(back == expected, "other bytes came back");
        Ok(Some(rate("tcp there and back", bytes, started)))
    }
}

impl Peer {
    fn udp_echo(&self, count: usize) -> Result<Option<Figure>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(self.link.address(ECHO))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let started = Instant::now();
        let mut lost = 0;
        for number in 0..count {
            let sent = pattern(1 + number * 37 % 1400);
            socket.send(&sent)?;
            let mut back = [0; 2000];
            match socket.recv(&mut back) {
                Ok(length) => {
                    ensure!(back[..length] == sent, "datagram {number} came back as another")
                }
                Err(_) => lost += 1,
            }
            ensure!(lost * 20 <= count, "{lost} of {number} datagrams did not come back");
        }
        Ok(Some(each("datagram and answer", count, started)))
    }

    /// Datagrams, a few on their way at a time, so that a small buffer holds them.
    fn udp_stream(&self, count: usize) -> Result<Option<Figure>> {
        const WINDOW: usize = 2;
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(self.link.address(ECHO))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let (sent, mut back) = (pattern(1400), [0; 2000]);
        let (mut waiting, mut left, mut got, mut lost) = (0, count, 0, 0);
        let started = Instant::now();
        while left > 0 || waiting > 0 {
            while left > 0 && waiting < WINDOW {
                socket.send(&sent)?;
                (left, waiting) = (left - 1, waiting + 1);
            }
            match socket.recv(&mut back) {
                Ok(length) => {
                    ensure!(back[..length] == sent, "a datagram came back as another");
                    got += length;
                    waiting = waiting.saturating_sub(1);
                }
                Err(_) => lost += std::mem::take(&mut waiting),
            }
            ensure!(lost * 10 <= count, "{lost} of {count} datagrams did not come back");
        }
        if lost > 0 {
            // Each time it took until the end of the socket's patience to see that.
            super::say(&format!("host: {lost} of {count} datagrams did not come back"));
        }
        Ok(Some(rate("udp there and back", got, started)))
    }

    fn send_to_guest(&self, bytes: usize) -> Result<Option<Figure>> {
        let mut stream = self.link.connect(DISCARD)?;
        let whole = pattern(PATTERN * 1024);
        let started = Instant::now();
        let mut left = bytes;
        while left > 0 {
            let now = left.min(whole.len());
            stream.write_all(&whole[..now])?;
            left -= now;
        }
        stream.shutdown(Shutdown::Write)?;
        // The guest closes when it has taken all.
        let rest = stream.read(&mut [0; 1])?;
        ensure!(rest == 0, "the guest answered");
        Ok(Some(rate("tcp to guest", bytes, started)))
    }

    fn take_from_guest(&self, bytes: usize) -> Result<Option<Figure>> {
        let mut stream = self.link.connect(SOURCE)?;
        let mut buffer = vec![0; 1 << 18];
        let expected = pattern(buffer.len() + PATTERN);
        let (mut got, started) = (0, Instant::now());
        while got < bytes {
            let length = stream.read(&mut buffer)?;
            ensure!(length > 0, "the guest closed after {got} bytes");
            let at = got % PATTERN;
            let is_right = self.is_foreign || buffer[..length] == expected[at..at + length];
            ensure!(is_right, "wrong bytes after {got}");
            got += length;
        }
        Ok(Some(rate("tcp from guest", got, started)))
    }

    fn connections(&self, count: usize) -> Result<Option<Figure>> {
        let started = Instant::now();
        for number in 0..count {
            insist(self.link.late_refusals(), || self.ask(number))
                .with_context(|| format!("connection {number}"))?;
        }
        Ok(Some(each("connection", count, started)))
    }

    /// One connection with one request.
    fn ask(&self, number: usize) -> Result<()> {
        let mut stream = self.link.connect_now(ECHO)?;
        let request = format!("request {number}");
        stream.write_all(request.as_bytes())?;
        // Not every server answers to what is half closed.
        if !self.is_foreign {
            stream.shutdown(Shutdown::Write)?;
        }
        let most = if self.is_foreign { request.len() as u64 } else { u64::MAX };
        let mut answer = String::new();
        stream.take(most).read_to_string(&mut answer)?;
        ensure!(answer == request, "the answer is {answer:?}");
        Ok(())
    }

    fn requests(&self, count: usize) -> Result<Option<Figure>> {
        let mut stream = self.link.connect(ECHO)?;
        let started = Instant::now();
        for _ in 0..count {
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0; 1])?;
        }
        Ok(Some(each("request and answer", count, started)))
    }

    fn parallel(&self, count: usize) -> Result<Option<Figure>> {
        let started = Instant::now();
        let link = self.link;
        thread::scope(|scope| {
            let all: Vec<_> =
                (0..count).map(|_| scope.spawn(|| link.tcp_echo(100 << 10, true))).collect();
            all.into_iter().try_for_each(|one| match one.join() {
                Ok(result) => result.map(drop),
                Err(_) => bail!("a thread panicked"),
            })
        })?;
        Ok(Some(rate("tcp, parallel", count * (100 << 10), started)))
    }

    fn link_down_up(&self) -> Result<Option<Figure>> {
        ip(&["link", "set", TAP, "down"])?;
        thread::sleep(Duration::from_millis(300));
        ip(&["link", "set", TAP, "up"])?;
        self.link.tcp_echo(10 << 10, true)
    }

    fn cable(&self) -> Result<Option<Figure>> {
        for card in ["0", self.link.name()] {
            self.ctl(&["link", card, "down"], Stdio::null())?;
            self.wait_for("link down")?;
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(self.link.address(ECHO))?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            socket.send(b"hello?")?;
            ensure!(
                socket.recv(&mut [0; 100]).is_err(),
                "a frame came through a cable that is not there"
            );
            self.ctl(&["link", card, "up"], Stdio::null())?;
            self.wait_for("link up")?;
            self.link.tcp_echo(10 << 10, true)?;
        }
        Ok(None)
    }

    fn reset(&self, count: usize) -> Result<Option<Figure>> {
        for number in 1..=count {
            self.reset_once(number).with_context(|| format!("reset {number} of {count}"))?;
        }
        Ok(None)
    }

    /// The number tells a reset from the same one that is asked for again.
    fn reset_once(&self, number: usize) -> Result<()> {
        let flood = Flood::in_full_flow(self.link, || self.taken())?;
        self.tell(&format!("reset {number}"))?;
        self.wait_for("reset")?;
        self.link.tcp_echo(10 << 10, true)?;
        let ended = flood.end();
        // In user mode the host takes a flood that the guest may still refuse, and what the guest
        // has taken may have been on its way since the flood before.
        if self.link.is_user_mode() { Ok(()) } else { ended }
    }

    /// Waits until the guest's output has ended, for as long as it goes on.
    fn wait_for_end(&self) -> Result<Option<Figure>> {
        loop {
            match self.lines.recv_timeout(super::PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the guest says nothing and does not end")
                }
            }
        }
    }

    fn exit_during_traffic(&mut self) -> Result<Option<Figure>> {
        let mut flood = Flood::begin(self.link)?;
        // In user mode the host takes a flood that the guest may still refuse.
        let deadline = Instant::now() + PATIENCE;
        while !self.says("enough", Duration::from_millis(200))? {
            ensure!(Instant::now() < deadline, "the guest has not said \"enough\"");
            if flood.has_ended() {
                flood = Flood::begin(self.link)?;
            }
        }
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(started.elapsed() < Duration::from_secs(3), "vmm goes on without its guest");
            thread::sleep(Duration::from_millis(1));
        }
        drop(flood);
        Ok(Some(each("end of vmm", 1, started)))
    }
}
