//! A guest with a network stack of its own on the frames of a [`nerite_user_net::Stack`], against
//! sockets of this host.

#![cfg(test)]

mod guest;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use guest::{Guest, PATIENCE};
use nerite_user_net::{Config, Error, Forward, GATEWAY, GUEST, Protocol, Stack};
use rustix::net::sockopt::set_socket_linger;
use smoltcp::socket::tcp::State;

fn config() -> Config {
    Config { mac: guest::MAC, mtu: 1500, forwards: Vec::new(), reach_host: true, name_server: None }
}

/// A stack with a forwarded port, and the port of the host that leads to the guest's.
fn forwarded(protocol: Protocol, guest_port: u16) -> (Stack, SocketAddr) {
    // A port that was free a moment ago may be taken since.
    loop {
        let host = match protocol {
            Protocol::Tcp => TcpListener::bind("127.0.0.1:0").unwrap().local_addr(),
            Protocol::Udp => UdpSocket::bind("127.0.0.1:0").unwrap().local_addr(),
        };
        let host = host.unwrap();
        let forwards = vec![Forward { protocol, host, guest_port }];
        match Stack::new(Config { forwards, ..config() }) {
            Ok(stack) => return (stack, host),
            Err(Error::Listen { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A server of the host, and its port.
fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Bytes that repeat only after a long way.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at % 251) ^ (at / 251 % 256)).to_le_bytes()[0]).collect()
}

#[test]
fn dhcp_gives_address_router_and_name_server() {
    let mut guest = Guest::without_address(Stack::new(config()).unwrap());
    let lease = guest.lease();
    assert_eq!(lease.address.address(), GUEST);
    assert_eq!(lease.address.prefix_len(), 24);
    assert_eq!(lease.router, Some(GATEWAY));
    assert_eq!(lease.dns_servers.to_vec(), [GATEWAY]);
}

#[test]
fn the_gateway_answers_pings_and_no_other_host_does() {
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    assert!(guest.ping(GATEWAY));
    assert!(!guest.ping(Ipv4Addr::new(192, 0, 2, 1)));
}

#[test]
fn streams_and_their_ends_go_through_in_both_directions() {
    let (listener, port) = listening();
    let sent = pattern(3 << 20);
    let expected = sent.clone();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut sender = stream.try_clone().unwrap();
        let bytes = pattern(2 << 20);
        let thread = thread::spawn(move || sender.write_all(&bytes).unwrap());
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        thread.join().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        received
    });
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    let socket = guest.connect((GATEWAY, port));
    // The guest ends its side while the other one still sends.
    let received = guest.exchange(socket, &sent);
    assert!(received == pattern(2 << 20), "{} bytes came from the host", received.len());
    assert!(host.join().unwrap() == expected);
    assert_eq!(guest.resets(), 0);
}

#[test]
fn a_side_that_ends_last_is_acknowledged() {
    let (listener, port) = listening();
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    let socket = guest.connect((GATEWAY, port));
    listener.accept().unwrap().0.shutdown(Shutdown::Write).unwrap();
    guest.wait("for the end", |guest| guest.state(socket) == State::CloseWait);
    guest.write(socket, b"last words");
    guest.close(socket);
    guest.wait("for the acknowledgement", |guest| guest.state(socket) == State::Closed);
    // And not by a reset, as an answer to a repetition.
    assert_eq!(guest.resets(), 0);
}

#[test]
fn a_connection_that_comes_before_the_guest_waits_for_it() {
    let (mut stack, host) = forwarded(Protocol::Tcp, 80);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(b"early").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    // The card's driver takes frames, and no network stack looks at them yet.
    let questions = (0..3).map(|_| guest::next_frame(&mut stack)).collect::<Vec<_>>();
    assert!(questions.iter().all(|frame| frame[12..14] == [8, 6]), "{questions:?}");
    let mut guest = Guest::new(stack);
    let socket = guest.listen(80);
    assert_eq!(guest.read(socket, 5), b"early");
    assert_eq!(guest.peer(socket).0, GATEWAY);
    guest.write(socket, b"later");
    assert_eq!(&guest.until_done(client), b"later");
}

#[test]
fn refused_connections_are_refused_at_both_ends() {
    let (stack, host) = forwarded(Protocol::Tcp, 81);
    let mut guest = Guest::new(stack);
    // A port of the host at which nothing listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket = guest.open((GATEWAY, port));
    guest.wait("for a reset", |guest| guest.state(socket) == State::Closed);
    // A port of the guest at which nothing listens.
    let client = thread::spawn(move || {
        TcpStream::connect(host).and_then(|mut stream| stream.read(&mut [0]))
    });
    guest.until_done(client).unwrap_err();
}

#[test]
fn the_loopback_interface_is_reached_only_where_that_is_asked_for() {
    let (listener, port) = listening();
    let config = Config { reach_host: false, ..config() };
    let mut guest = Guest::new(Stack::new(config).unwrap());
    let socket = guest.open((GATEWAY, port));
    guest.wait("for a reset", |guest| guest.state(socket) == State::Closed);
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(127, 9, 9, 9)] {
        guest.send_segment(address, port);
        guest.turn();
    }
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_connection_that_one_end_breaks_off_is_broken_off_at_the_other() {
    let (listener, port) = listening();
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    for host_breaks in [true, false] {
        let socket = guest.connect((GATEWAY, port));
        let (mut stream, _) = listener.accept().unwrap();
        if host_breaks {
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            drop(stream);
            guest.wait("for a reset", |guest| guest.state(socket) == State::Closed);
        } else {
            guest.abort(socket);
            let host = thread::spawn(move || stream.read(&mut [0]));
            let error = guest.until_done(host).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[test]
fn a_connection_that_is_broken_off_in_a_stream_is_so_before_the_guest_has_read_it() {
    let (listener, port) = listening();
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    let socket = guest.connect((GATEWAY, port));
    let (mut stream, _) = listener.accept().unwrap();
    // More than the guest and the stack hold.
    stream.set_nonblocking(true).unwrap();
    while !guest.is_stuck() {
        let _ = stream.write(&pattern(1 << 16));
        guest.turn();
    }
    set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.wait("for a reset", |guest| guest.state(socket) == State::Closed);
}

#[test]
fn what_a_guest_sends_last_reaches_a_slow_reader() {
    let (listener, port) = listening();
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    for host_ends_first in [true, false] {
        let socket = guest.connect((GATEWAY, port));
        let (mut stream, _) = listener.accept().unwrap();
        let is_written = AtomicBool::new(false);
        if host_ends_first {
            stream.shutdown(Shutdown::Write).unwrap();
            guest.wait("for the end", |guest| guest.state(socket) == State::CloseWait);
        }
        // More than the host's socket holds, so that some of it stays behind in the stack.
        let mut sent = 0;
        while guest.room(socket) > 0 {
            sent += guest.try_write(socket, &pattern(1 << 16));
            guest.turn();
            if guest.is_stuck() {
                break;
            }
        }
        guest.close(socket);
        if !host_ends_first {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                is_written.store(true, Ordering::Release);
                received.len()
            });
            guest.wait("for the reader", |_| is_written.load(Ordering::Acquire));
            assert_eq!(reader.join().unwrap(), sent);
        });
    }
}

#[test]
fn streams_survive_the_loss_of_frames_at_a_reset_of_the_card() {
    let (stack, host) = forwarded(Protocol::Tcp, 9);
    let mut guest = Guest::new(stack);
    let socket = guest.listen(9);
    let total = 8 << 20;
    let sender = thread::spawn(move || {
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(&pattern(total)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read(&mut [0]).unwrap()
    });
    let expected = pattern(total);
    let mut at = 0;
    let mut resets = 0;
    guest.wait("for the stream", |guest| {
        let bytes = guest.take(socket);
        assert!(bytes == expected[at..at + bytes.len()], "wrong bytes behind {at}");
        at += bytes.len();
        if at > resets * (1 << 20) {
            resets += 1;
            guest.stack.discard();
        }
        at == total
    });
    assert_eq!(resets, 8);
    guest.close(socket);
    assert_eq!(guest.until_done(sender), 0);
}

#[test]
fn datagrams_go_out_and_their_answers_come_back() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    let socket = guest.udp(4000);
    for text in ["one", "two"] {
        guest.send_datagram(socket, (GATEWAY, port), text.as_bytes());
        let mut bytes = [0; 16];
        let (length, flow) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], text.as_bytes());
        server.send_to(b"answer", flow).unwrap();
        assert_eq!(guest.datagram(socket), (b"answer".to_vec(), (GATEWAY, port)));
    }
}

#[test]
fn datagrams_to_a_forwarded_port_are_answered_to_each_client() {
    let (stack, host) = forwarded(Protocol::Udp, 7);
    let mut guest = Guest::new(stack);
    let socket = guest.udp(7);
    let clients = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    for client in &clients {
        client.send_to(b"question", host).unwrap();
    }
    for _ in &clients {
        let (bytes, from) = guest.datagram(socket);
        assert_eq!((&bytes[..], from.0), (&b"question"[..], GATEWAY));
        guest.send_datagram(socket, from, &from.1.to_be_bytes());
    }
    for client in &clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = [0; 2];
        client.recv(&mut bytes).unwrap();
        assert_eq!(u16::from_be_bytes(bytes), client.local_addr().unwrap().port());
    }
}

#[test]
fn a_taken_port_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = taken.local_addr().unwrap();
    let forwards = vec![Forward { protocol: Protocol::Tcp, host, guest_port: 80 }];
    let error = Stack::new(Config { forwards, ..config() }).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {host}"));
}

#[test]
fn a_guest_that_takes_no_frames_costs_a_limited_number() {
    let mut stack = Stack::new(config()).unwrap();
    // Each question for the gateway has an answer.
    let question = guest::arp_request();
    for _ in 0..100_000 {
        stack.send(&question);
        stack.flush();
    }
    let mut frames = 0;
    while stack.receive(|_| ()).is_some() {
        frames += 1;
    }
    assert!((512..=1024).contains(&frames), "{frames}");
    stack.send(&question);
    assert!(stack.receive(|_| ()).is_some());
}

#[test]
fn connections_beyond_the_limit_are_refused_until_others_end() {
    let (listener, port) = listening();
    let accepted = thread::spawn(move || {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            streams.push(stream);
            if streams.len() == 1025 {
                break;
            }
        }
        streams
    });
    let mut guest = Guest::new(Stack::new(config()).unwrap());
    let sockets: Vec<_> = (0..1024).map(|_| guest.connect((GATEWAY, port))).collect();
    let refused = guest.open((GATEWAY, port));
    guest.wait("for a reset", |guest| guest.state(refused) == State::Closed);
    guest.abort(sockets[17]);
    guest.turn();
    guest.connect((GATEWAY, port));
    assert_eq!(guest.until_done(accepted).len(), 1025);
}
