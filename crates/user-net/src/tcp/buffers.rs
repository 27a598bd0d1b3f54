//! Buffers of connections.

use std::time::Duration;

use smoltcp::socket::tcp::{Socket, SocketBuffer};

/// Connections with large buffers.
const LARGE: usize = 128;
/// Bytes of a large buffer: some of the largest segments, so that sender and receiver need not
/// wait for each other.
const LARGE_BUFFER: usize = 256 << 10;
/// Sockets with large buffers that are kept for connections to come.
const SPARE: usize = 16;
/// Bytes of a small one.
const SMALL_BUFFER: usize = 32 << 10;
/// Time in which an answer to the guest's data may acknowledge it (RFC 9293, 3.8.6.3).
const ACK_DELAY: Duration = Duration::from_millis(10);

/// Sockets of smoltcp's that have done their work, kept for connections to come: to clear new
/// buffers takes longer than all else that a short connection does.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Socket<'static>>);

impl Buffers {
    /// A socket, if there are `others`.
    pub(super) fn socket(&mut self, others: usize) -> Socket<'static> {
        let is_large = others < LARGE;
        let kept = if is_large { self.0.pop() } else { None };
        let mut socket = kept.unwrap_or_else(|| {
            let size = if is_large { LARGE_BUFFER } else { SMALL_BUFFER };
            let buffer = || SocketBuffer::new(vec![0; size]);
            Socket::new(buffer(), buffer())
        });
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(ACK_DELAY.into()));
        socket.set_timeout(None);
        socket
    }

    /// Keeps a socket.
    pub(super) fn recycle(&mut self, socket: smoltcp::socket::Socket<'static>) {
        #[allow(
            irrefutable_let_patterns,
            reason = "tests build smoltcp with other kinds of sockets"
        )]
        if let smoltcp::socket::Socket::Tcp(mut socket) = socket
            && self.0.len() < SPARE
            && socket.recv_capacity() == LARGE_BUFFER
        {
            socket.abort();
            self.0.push(socket);
        }
    }
}
