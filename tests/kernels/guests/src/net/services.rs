//! Echo, discard, a source of bytes, and the end.

use runtime::prelude::*;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Duration;

const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const SOURCE: u16 = 19;
const CONTROL: u16 = 99;
/// Echo connections at a time.
const ECHOES: usize = 12;
/// Streams that are taken at a time.
const DISCARDS: usize = 4;
/// Time after which an idle stream asks whether the other side is still there, and after which it
/// ends without an answer: what would have ended it may have been lost in a reset of the card.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(4);
/// Bytes of a stream repeat after this many.
pub(crate) const PATTERN: usize = 251;

/// Request in a datagram.
#[derive(PartialEq, Eq)]
pub(crate) enum Wish {
    None,
    Quit,
    Reset,
}

/// A stream with the position in its pattern.
struct Stream {
    socket: SocketHandle,
    port: u16,
    position: usize,
}

pub(crate) struct Services {
    streams: Vec<Stream>,
    echo: SocketHandle,
    control: SocketHandle,
    bytes: u64,
    wrong: u64,
    /// Text of the last request for a reset. The same text again is the same request, whose answer
    /// was lost or late.
    last_reset: Vec<u8>,
}

fn tcp_socket(sockets: &mut SocketSet<'static>, receive: usize, send: usize) -> SocketHandle {
    let buffers = (tcp::SocketBuffer::new(vec![0; receive]), tcp::SocketBuffer::new(vec![0; send]));
    let mut socket = tcp::Socket::new(buffers.0, buffers.1);
    // Delayed answers are good for long lines; here they only make requests slow.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    sockets.add(socket)
}

fn udp_socket(sockets: &mut SocketSet<'static>, port: u16, bytes: usize) -> SocketHandle {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 32], vec![0; bytes]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).expect("a port that is free");
    sockets.add(socket)
}

impl Services {
    pub(crate) fn new(sockets: &mut SocketSet<'static>) -> Self {
        let mut streams = Vec::new();
        let mut add = |socket, port| streams.push(Stream { socket, port, position: 0 });
        for _ in 0..ECHOES {
            add(tcp_socket(sockets, 16 << 10, 16 << 10), ECHO);
        }
        for _ in 0..DISCARDS {
            let handle = tcp_socket(sockets, 256 << 10, 4 << 10);
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            socket.set_keep_alive(Some(KEEP_ALIVE));
            socket.set_timeout(Some(TIMEOUT));
            add(handle, DISCARD);
        }
        for _ in 0..2 {
            add(tcp_socket(sockets, 4 << 10, 256 << 10), SOURCE);
        }
        Self {
            streams,
            echo: udp_socket(sockets, ECHO, 256 << 10),
            control: udp_socket(sockets, CONTROL, 4 << 10),
            bytes: 0,
            wrong: 0,
            last_reset: Vec::with_capacity(16),
        }
    }

    /// Bytes that went through.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that were not what they should have been.
    pub(crate) fn wrong(&self) -> u64 {
        self.wrong
    }

    pub(crate) fn serve(&mut self, sockets: &mut SocketSet<'static>) -> Wish {
        for stream in &mut self.streams {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(stream.socket);
            if !socket.is_open() {
                stream.position = 0;
                socket.listen(stream.port).expect("a socket that is closed can listen");
            }
            self.bytes += match stream.port {
                ECHO => echo(socket),
                DISCARD => discard(socket, &mut stream.position, &mut self.wrong),
                _ => source(socket, &mut stream.position),
            };
            if socket.may_send() && !socket.may_recv() && socket.recv_queue() == 0 {
                socket.close();
            }
        }
        let echo = sockets.get_mut::<udp::Socket<'_>>(self.echo);
        while echo.can_recv() && echo.can_send() {
            let mut data = [0; 9000];
            let Ok((length, from)) = echo.recv_slice(&mut data) else { break };
            self.bytes += length as u64;
            let _ = echo.send_slice(&data[..length], from);
        }
        let control = sockets.get_mut::<udp::Socket<'_>>(self.control);
        let mut wish = Wish::None;
        while let Ok((data, from)) = control.recv() {
            match data {
                b"quit" => wish = Wish::Quit,
                b"bytes" => {
                    let _ = control.send_slice(format!("{}", self.bytes).as_bytes(), from);
                    continue;
                }
                _ if !data.starts_with(b"reset") => continue,
                _ if data == self.last_reset => {}
                _ => {
                    self.last_reset.clear();
                    self.last_reset.extend(data.iter().take(16));
                    wish = Wish::Reset;
                }
            }
            let _ = control.send_slice(b"ok", from);
        }
        wish
    }
}

/// Sends back what came.
fn echo(socket: &mut tcp::Socket<'_>) -> u64 {
    let mut done = 0;
    while socket.can_recv() && socket.can_send() {
        let room = socket.send_capacity() - socket.send_queue();
        let mut data = [0; 4096];
        let most = room.min(data.len());
        let Ok(length) = socket.recv_slice(&mut data[..most]) else { break };
        if length == 0 {
            break;
        }
        let sent = socket.send_slice(&data[..length]);
        check_eq!(sent, Ok(length), "bytes that an echo could send");
        done += length as u64;
    }
    done
}

/// Looks whether what came is the pattern.
fn discard(socket: &mut tcp::Socket<'_>, position: &mut usize, wrong: &mut u64) -> u64 {
    let mut done = 0;
    while socket.can_recv() {
        let taken = socket.recv(|data| {
            for (at, byte) in data.iter().enumerate() {
                if usize::from(*byte) != *position {
                    if *wrong == 0 {
                        println!(
                            "the first wrong byte: {byte} for {position}, at {at} of {}",
                            data.len()
                        );
                    }
                    *wrong += 1;
                }
                *position = if *position + 1 == PATTERN { 0 } else { *position + 1 };
            }
            (data.len(), data.len())
        });
        let Ok(length) = taken else { break };
        done += length as u64;
    }
    done
}

/// Sends the pattern for as long as the other side takes it.
fn source(socket: &mut tcp::Socket<'_>, position: &mut usize) -> u64 {
    let mut done = 0;
    // The other side closes when it has enough.
    while socket.can_send() && socket.may_recv() {
        let sent = socket.send(|room| {
            for byte in room.iter_mut() {
                *byte = *position as u8;
                *position = if *position + 1 == PATTERN { 0 } else { *position + 1 };
            }
            (room.len(), room.len())
        });
        let Ok(length) = sent else { break };
        if length == 0 {
            break;
        }
        done += length as u64;
    }
    done
}
