//! The other end of a guest's network card: starts `vmm` with a card, and talks to the guest `net`
//! from the host.
//!
//! It runs where guests run, so in the lab as a job like any other: `suite.toml` says what a test
//! is to do.

mod connect;
mod exercises;
mod figure;
mod flood;
mod http;
mod link;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use crate::lab;

pub(crate) use exercises::Exercise;
use link::{GUEST, TCP_PORTS};
pub(crate) use link::{Link, TAP};

/// The port that ends the guest.
const CONTROL: u16 = 99;
/// Time for the guest to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// An ordinary user, for user mode.
const USER: u32 = 1000;

/// `xtask net-peer`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Link of the card
    #[arg(long)]
    link: Link,
    /// Further options of the card
    #[arg(long, default_value = "")]
    options: String,
    /// Program that opens a tap and passes it on, for a link by descriptor
    #[arg(long, required_if_eq("link", "fd"))]
    opener: Option<String>,
    /// Exercises, in order
    #[arg(long = "exercise")]
    exercises: Vec<Exercise>,
    /// The guest is not ours: it serves echo, discard and characters (RFC 862 to 864), says nothing
    /// of itself, and goes on until it is killed
    #[arg(long)]
    foreign: bool,
    /// The whole `vmm run` command but for its card, of which `NET` is the place
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The place of the card's description in the command.
pub(crate) const PLACE: &str = "NET";

/// The guest and how to reach it.
struct Peer {
    link: Link,
    child: Child,
    lines: Receiver<String>,
    is_foreign: bool,
    /// Our own program, and the guest's control socket if it has one.
    vmm: String,
    control: Option<String>,
}

/// Starts the guest, does the exercises and ends it. The status is `vmm`'s.
pub(crate) fn main(args: &Args) -> Result<i32> {
    if args.link == Link::User {
        prepare_user_mode()?;
    }
    if args.foreign {
        be_silent()?;
    }
    let spec = args.link.spec(&args.options);
    let words: Vec<_> =
        args.command.iter().map(|word| if word == PLACE { &spec } else { word }).collect();
    let (program, rest) = words.split_first().context("no command")?;
    let mut command = match &args.opener {
        Some(opener) => {
            let mut command = Command::new(opener);
            command.args(["tap", TAP, "--", program]);
            command
        }
        None => Command::new(program),
    };
    command.args(rest).stdout(Stdio::piped());
    if args.link == Link::User && rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            say(&line);
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let control =
        words.iter().skip_while(|word| **word != "--api-socket").nth(1).map(|word| (*word).clone());
    let vmm = program.to_string();
    let mut peer = Peer { link: args.link, child, lines, is_foreign: args.foreign, vmm, control };
    let done = peer.run(&args.exercises);
    if done.is_err() {
        peer.look_around();
        // The report is of the failure; what the guest said is above. Ended in this way, `vmm
        // --stats` still says what it counted.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&peer.child),
            Signal::TERM,
        );
    }
    let status = peer.end();
    done?;
    status
}

/// One line, on standard output, at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The reader has gone, and so has the reason to report it.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Peer {
    fn run(&mut self, exercises: &[Exercise]) -> Result<()> {
        if self.is_foreign {
            self.wait_for_silence();
        }
        if !self.link.is_user_mode() {
            set_up_tap(&mut self.child)?;
        }
        let early = (self.link == Link::Offline).then(|| self.connect_early()).transpose()?;
        if self.is_foreign {
            self.wait_for_service()?;
        } else {
            self.wait_for("ready")?;
        }
        if let Some(mut early) = early {
            // A guest without a listener yet refuses it.
            let answer = early.write_all(b"?").and_then(|()| early.read(&mut [0]));
            let is_open = match answer {
                Ok(read) => read > 0,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
                Err(error) => return Err(error).context("a connection before the guest listened"),
            };
            say(if is_open { "host: early: held" } else { "host: early: refused" });
        }
        for exercise in exercises {
            let started = Instant::now();
            let figure = exercise.run(self).with_context(|| format!("exercise {exercise}"))?;
            say(&format!("host: {exercise}: ok, {:.1} s", started.elapsed().as_secs_f64()));
            figure.into_iter().for_each(|figure| say(&figure.to_string()));
        }
        if self.is_foreign {
            say("host: done");
            // So that it can still say what it counted.
            rustix::process::kill_process(
                rustix::process::Pid::from_child(&self.child),
                Signal::TERM,
            )?;
        } else if !exercises.iter().any(Exercise::ends_guest) {
            self.tell("quit")?;
        }
        Ok(())
    }

    /// Connects as soon as the host's port listens, before the guest has started.
    fn connect_early(&mut self) -> Result<TcpStream> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(stream) = TcpStream::connect(self.link.address(TCP_PORTS[0])) {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            ensure!(Instant::now() < deadline, "the host's port does not listen");
            ensure!(self.child.try_wait()?.is_none(), "the guest has ended");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the guest has printed a line that begins with `text`.
    fn wait_for(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.with_context(|| format!("the guest has not said {text:?}"))?;
            if line.starts_with(text) {
                return Ok(());
            }
        }
    }

    /// Waits until the guest has printed a line that begins with `text`, or nothing for a while.
    /// Returns `true` if it has printed that line.
    fn says(&self, text: &str, pause: Duration) -> Result<bool> {
        loop {
            match self.lines.recv_timeout(pause) {
                Ok(line) if line.starts_with(text) => return Ok(true),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(error) => {
                    return Err(error).with_context(|| format!("the guest has not said {text:?}"));
                }
            }
        }
    }

    /// Waits until the guest has said that it is ready, or something and then nothing more for a
    /// long while: Hermit 0.13.2 takes frames only when its network stack is ready, and with 64 KiB
    /// of room in each buffer that takes long.
    fn wait_for_silence(&self) {
        let quiet = Duration::from_secs(15);
        let mut patience = PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(patience) {
            if line.starts_with("ready") {
                break;
            }
            patience = quiet;
        }
    }

    /// Waits until the guest takes connections.
    fn wait_for_service(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let address = self.link.address(TCP_PORTS[0]);
        // In user mode a connection says nothing yet.
        let answers = || -> std::io::Result<()> {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0])
        };
        while answers().is_err() {
            ensure!(Instant::now() < deadline, "the guest serves nothing at {address}");
            ensure!(self.child.try_wait()?.is_none(), "the guest has ended");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Has `vmm ctl` do something with the machine, and print what there is to print to `output`.
    fn ctl(&self, words: &[&str], output: Stdio) -> Result<()> {
        let socket = self.control.as_ref().context("the guest has no --api-socket")?;
        let status =
            Command::new(&self.vmm).args(["ctl", socket]).args(words).stdout(output).status();
        ensure!(
            status.context("cannot run vmm ctl")?.success(),
            "vmm ctl {} failed",
            words.join(" ")
        );
        Ok(())
    }

    /// Sends a datagram to the guest's control port until it answers.
    fn tell(&self, what: &str) -> Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(self.link.address(CONTROL))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        for _ in 0..20 {
            socket.send(what.as_bytes())?;
            let mut answer = [0; 20];
            match socket.recv(&mut answer) {
                Ok(length) => {
                    let answer = answer.get(..length).unwrap_or_default();
                    return Ok(String::from_utf8_lossy(answer).into_owned());
                }
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    return Ok(String::new());
                }
                Err(_) => {}
            }
        }
        bail!("the guest does not answer {what:?}")
    }

    /// Bytes that have gone through the guest.
    fn taken(&self) -> Result<u64> {
        let bytes = self.tell("bytes")?;
        bytes.parse().with_context(|| format!("{bytes:?} is no number of bytes"))
    }

    /// After a failure: tells what tells a guest that has stopped from a connection that has, and
    /// from a frame that was lost.
    fn look_around(&self) {
        // Where the guest is, and whether it takes interrupts.
        if let Err(error) = self.ctl(&["regs"], Stdio::inherit()) {
            say(&format!("host: the guest's registers: {error:#}"));
        }
        let port = self.link.address(TCP_PORTS[0]);
        let again = TcpStream::connect_timeout(&port, Duration::from_secs(2));
        say(&format!("host: another connection: {:?}", again.map(drop)));
        let ping = Command::new("ping").args(["-c", "1", "-W", "2", &GUEST.to_string()]).output();
        say(&format!("host: an answer to a ping: {:?}", ping.map(|ping| ping.status.success())));
        for what in ["rx_packets", "rx_dropped", "tx_packets", "tx_dropped"] {
            let count = std::fs::read_to_string(format!("/sys/class/net/{TAP}/statistics/{what}"));
            say(&format!("host: {what} of the tap: {}", count.unwrap_or_default().trim()));
        }
        // TIME-WAIT, of which there are many, tells nothing.
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        sockets.lines().filter(|line| line.split_whitespace().nth(3) != Some("06")).for_each(say);
        std::fs::read_to_string("/proc/net/arp").unwrap_or_default().lines().for_each(say);
    }

    /// The status of `vmm`, which has to end by itself.
    fn end(mut self) -> Result<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // The rest of what the guest said.
                while self.lines.recv().is_ok() {}
                if self.link.is_user_mode() {
                    for port in TCP_PORTS {
                        let address = self.link.address(port);
                        TcpListener::bind(address)
                            .with_context(|| format!("{address} is taken after vmm's end"))?;
                    }
                    say("host: the ports are free");
                }
                return Ok(status.code().unwrap_or(125));
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                bail!("vmm has not ended");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Gives the tap, once `vmm` has made it, the address of the guest's gateway.
fn set_up_tap(vmm: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !Path::new("/sys/class/net").join(TAP).exists() {
        let status = vmm.try_wait()?;
        ensure!(status.is_none(), "it ended before it had made a tap: {status:?}");
        ensure!(Instant::now() < deadline, "vmm has made no tap");
        thread::sleep(Duration::from_millis(5));
    }
    ip(&["addr", "add", "10.0.5.1/24", "dev", TAP])?;
    ip(&["link", "set", TAP, "up"])
}

fn ip(words: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(words).status().context("cannot run ip")?;
    ensure!(status.success(), "ip {} failed", words.join(" "));
    Ok(())
}

/// In the lab, the host's end of a tap says nothing of its own accord.
fn be_silent() -> Result<()> {
    let setting = Path::new("/proc/sys/net/ipv6/conf/default/disable_ipv6");
    if Path::new(lab::MYSELF).exists() && setting.exists() {
        std::fs::write(setting, "1").context("cannot turn IPv6 off")?;
    }
    Ok(())
}

/// In the lab, an ordinary user may open `/dev/kvm`.
fn prepare_user_mode() -> Result<()> {
    if !Path::new(lab::MYSELF).exists() {
        return Ok(());
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions("/dev/kvm", open).context("cannot open /dev/kvm to all")
}
