//! A TCP port of the lab's host that leads to a program in the lab: QEMU's network in user mode
//! brings connections to the lab, and a relay there passes them on to the program, which listens on
//! the lab's loopback interface as it would on the host's.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The lab's address in QEMU's network.
pub(crate) const LAB: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Script that gives it to the lab, whose card is the only one that is no loopback interface.
pub(crate) const CONFIGURE: &str =
    "for card in $(ls /sys/class/net | grep -v '^lo$'); do ifconfig $card 10.0.2.15 up; done\n";
/// Time in which the program must listen after a connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// Address on the host, and the port in the lab, at which GDB is waited for; `None` if no option
/// asks for it. `options` are those of `vmm run`, which it has accepted.
///
/// # Errors
/// Fails if it is no TCP port, or the port is in use on this host.
pub(crate) fn debugger(options: &[String]) -> Result<Option<SocketAddr>> {
    let Some(text) = address(options) else { return Ok(None) };
    if text.starts_with("unix:") {
        bail!("GDB reaches into the lab by TCP alone; name a port in place of {text}");
    }
    let text = text.strip_prefix("tcp:").unwrap_or(text).replacen("localhost:", "127.0.0.1:", 1);
    let port = text.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = match port {
        Ok(address) => address,
        Err(_) => text.parse().with_context(|| format!("{text} is no port of TCP"))?,
    };
    ensure!(address.port() != 0, "GDB needs a port to reach into the lab; {text} is none");
    TcpListener::bind(address).with_context(|| format!("GDB cannot be waited for at {address}"))?;
    Ok(Some(address))
}

/// The text of the address in `options`: the last one counts.
fn address(options: &[String]) -> Option<&str> {
    const DEFAULT: &str = "6677";
    let mut found = None;
    let mut words = options.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let (name, value) =
            word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("--gdb" | "--gdb-attach", value) => found = Some(value.unwrap_or(DEFAULT)),
            ("--gdb-port", Some(value)) => found = Some(value),
            ("--gdb-port" | "-s", None) => {
                let is_port = |word: &&str| word.parse::<u16>().is_ok();
                found = Some(words.next_if(is_port).unwrap_or(DEFAULT));
            }
            ("--on-crash", value) => {
                let action = value.or_else(|| words.next()).unwrap_or_default();
                match action.split_once(':') {
                    Some(("gdb", address)) => found = Some(address),
                    None if action == "gdb" => found = Some(DEFAULT),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found
}

/// Port of the relay in the lab. The program may listen on all addresses: it is another one.
pub(crate) const fn relay_port(port: u16) -> u16 {
    if port == u16::MAX { 1 } else { port + 1 }
}

/// Starts the relay, in the lab, for a program that listens on `port`.
pub(crate) fn relay(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind((LAB, relay_port(port)))?;
    thread::spawn(move || serve(&listener, port));
    Ok(())
}

fn serve(listener: &TcpListener, port: u16) {
    for outside in listener.incoming().flatten() {
        thread::spawn(move || {
            // A program that does not listen: the connection ends.
            let Ok(inside) = connect(port) else { return };
            let _ = pass_on(&outside, &inside);
        });
    }
}

/// Connects to the program, once it listens.
fn connect(port: u16) -> io::Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused
                    && start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Copies in both directions until both have ended.
fn pass_on(one: &TcpStream, other: &TcpStream) -> io::Result<()> {
    for stream in [one, other] {
        stream.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        for (mut from, mut to) in [(one, other), (other, one)] {
            scope.spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn the_debuggers_address_is_found() {
        let of = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            address(&words).map(str::to_owned)
        };
        for (options, expected) in [
            ("", None),
            ("-c 2 -m 1G", None),
            ("--gdb", Some("6677")),
            ("-c 2 --gdb-attach=1234", Some("1234")),
            ("-s 1234", Some("1234")),
            ("-s -c 2", Some("6677")),
            ("--gdb-port=tcp:127.0.0.1:7 --no-aslr", Some("tcp:127.0.0.1:7")),
            ("--on-crash gdb", Some("6677")),
            ("--on-crash=gdb:unix:x", Some("unix:x")),
            ("--on-crash dump:gdb", None),
        ] {
            assert_eq!(of(options).as_deref(), expected, "{options}");
        }
    }

    #[test]
    fn addresses_that_cannot_be_reached_are_refused() {
        let of = |word: &str| debugger(&[word.to_owned()]).map_err(|error| format!("{error:#}"));
        assert!(of("--gdb=unix:/x").unwrap_err().contains("unix:/x"));
        assert!(of("--gdb=0").unwrap_err().contains("is none"));
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let refused = of(&format!("--gdb={}", address.port())).unwrap_err();
        assert!(refused.contains(&address.to_string()), "{refused}");
        drop(taken);
        assert_eq!(of(&format!("--gdb=tcp:{address}")), Ok(Some(address)));
        assert_eq!(of("--stats"), Ok(None));
    }

    #[test]
    fn the_relay_passes_on_both_directions_and_their_ends() {
        let program = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = program.local_addr().unwrap().port();
        let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(relay.local_addr().unwrap()).unwrap();
        thread::spawn(move || serve(&relay, port));
        let (mut inside, _) = program.accept().unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        inside.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        inside.write_all(b"answer").unwrap();
        drop(inside);
        text.clear();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
}
