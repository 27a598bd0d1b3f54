//! Streams of standard input and output, for the tests of sockets between guest and host:
//!
//!     sockets connect PLACE       sockets listen PLACE
//!
//! PLACE is a port of AF_VSOCK in the guest, as `vsock:1234`, a Unix socket of the host, as
//! `unix:PATH`, or a port of the guest behind the Unix socket of its `vmm`, as `unix:PATH:52`. What
//! is read from standard input goes to the other end, and what comes from there to standard output,
//! until both have ended.
//!
//! It needs nothing but the standard library and its C library: one file is all there is to build.

use std::error::Error;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

const AF_VSOCK: c_int = 40;
const SOCK_STREAM: c_int = 1;
const SHUT_WR: c_int = 1;
const ANY: u32 = u32::MAX;
const HOST: u32 = 2;

/// `struct sockaddr_vm` (vsock(7)).
#[repr(C)]
struct Address {
    family: u16,
    reserved: u16,
    port: u32,
    cid: u32,
    zero: [u8; 4],
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(socket: c_int, address: *const c_void, length: u32) -> c_int;
    fn connect(socket: c_int, address: *const c_void, length: u32) -> c_int;
    fn listen(socket: c_int, backlog: c_int) -> c_int;
    fn accept(socket: c_int, address: *mut c_void, length: *mut u32) -> c_int;
    fn shutdown(socket: c_int, how: c_int) -> c_int;
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A stream of AF_VSOCK.
fn vsock(listens: bool, port: u32) -> io::Result<OwnedFd> {
    let cid = if listens { ANY } else { HOST };
    let address = Address { family: AF_VSOCK as u16, reserved: 0, port, cid, zero: [0; 4] };
    let (address, length) = (std::ptr::from_ref(&address).cast(), size_of::<Address>() as u32);
    // SAFETY: it takes numbers; the descriptor is a new one, which belongs to nothing else.
    let socket = unsafe { OwnedFd::from_raw_fd(checked(socket(AF_VSOCK, SOCK_STREAM, 0))?) };
    let number = socket.as_raw_fd();
    if !listens {
        // SAFETY: the address is as long as it says, and outlives the call.
        checked(unsafe { connect(number, address, length) })?;
        return Ok(socket);
    }
    // SAFETY: the address is as long as it says, and outlives the calls; accept takes no place for
    // another one. The descriptor is a new one.
    unsafe {
        checked(bind(number, address, length))?;
        checked(listen(number, 1))?;
        eprintln!("guest: listening");
        let accepted = accept(number, std::ptr::null_mut(), std::ptr::null_mut());
        Ok(OwnedFd::from_raw_fd(checked(accepted)?))
    }
}

/// A stream of a Unix socket.
fn unix(listens: bool, path: &str, port: Option<&str>) -> io::Result<OwnedFd> {
    if listens {
        return Ok(UnixListener::bind(path)?.accept()?.0.into());
    }
    let mut stream = UnixStream::connect(path)?;
    if let Some(port) = port {
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        let (mut line, mut byte) = (String::new(), [0]);
        while !line.ends_with('\n') {
            stream.read_exact(&mut byte)?;
            line.push(byte[0].into());
        }
        if !line.starts_with("OK ") {
            return Err(io::Error::other(line));
        }
    }
    Ok(stream.into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [way, place] = words.as_slice() else {
        return Err("connect or listen, and a place".into());
    };
    let listens = way == "listen";
    let socket = match place.split(':').collect::<Vec<_>>().as_slice() {
        ["vsock", port] => vsock(listens, port.parse()?)?,
        ["unix", path] => unix(listens, path, None)?,
        ["unix", path, port] => unix(listens, path, Some(port))?,
        _ => return Err(format!("{place} is no place").into()),
    };
    let (mut from, mut to) = (File::from(socket.try_clone()?), File::from(socket));
    let sender = thread::spawn(move || -> io::Result<()> {
        io::copy(&mut io::stdin(), &mut to)?;
        // SAFETY: it takes numbers; the descriptor is open.
        checked(unsafe { shutdown(to.as_raw_fd(), SHUT_WR) }).map(drop)
    });
    io::copy(&mut from, &mut io::stdout())?;
    sender.join().map_err(|_| "the sender panicked")??;
    Ok(())
}
