//! Listens on a Unix socket, serves one client, and removes the socket.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;

use nerite_private_socket::PrivateSocket;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("private-socket.{}", std::process::id()));
    let socket = PrivateSocket::bind(&path)?;
    let client = thread::spawn({
        let path = path.clone();
        move || UnixStream::connect(path)?.write_all(b"hello")
    });
    // The socket itself does not block.
    let (listener, name) = socket.into_parts();
    listener.set_nonblocking(false)?;
    let mut text = String::new();
    listener.accept()?.0.read_to_string(&mut text)?;
    client.join().map_err(|_| "the client panicked")??;
    drop(name);
    println!("a client says {text}; the socket is there: {}", path.exists());
    Ok(())
}
