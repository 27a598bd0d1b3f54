//! Any buffers and packets at all, for the fuzz target and the property test that look for some
//! that the device does not stand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test support; a failure is what it looks for"
)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nerite_virtio::VirtioDevice as _;
pub use nerite_virtio::fake::Step;
use nerite_virtio::fake::{Bench, SCRATCH, WRITE};

use crate::{Cid, HEADER, HOST_CID, Header, Limits, Listener, STREAM, Vsock, op};

const CID: u32 = 3;
/// Address of a packet that goes out, and of one that comes in.
const PACKET: u64 = Bench::<Vsock>::BUFFERS + SCRATCH;
const ROOM: u32 = 300;
/// Connections that there may be.
const MOST: usize = 8;

/// A folder of sockets, which goes in the end.
struct Folder {
    path: PathBuf,
    /// Server of port 1, which takes what is sent and then closes.
    server: UnixListener,
}

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("nerite-vsock-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a folder");
        let server = UnixListener::bind(path.join("v_1")).expect("a socket");
        server.set_nonblocking(true).expect("a socket");
        Self { path, server }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A device without a thread.
fn device(folder: &Path) -> Vsock {
    let listener = Listener::bind(&folder.join("v")).expect("a socket");
    let limits = Limits { connections: MOST, ..Limits::default() };
    Vsock::new(Cid::new(CID).expect("an identifier"), listener, limits).expect("a device")
}

/// A packet near those that make sense.
fn packet((_, at, value): Step) -> Header {
    let bit = |bit: u16| at >> bit & 1 != 0;
    Header {
        src_cid: u64::from(CID) + u64::from(bit(15) && bit(14)),
        dst_cid: HOST_CID + u64::from(bit(15) && bit(13)),
        src_port: u32::from(at >> 4 & 3),
        dst_port: if bit(12) { 1 << 30 | value as u32 & 3 } else { u32::from(at >> 6 & 1) },
        length: (value >> 8) as u32 % 200,
        kind: STREAM + u16::from(bit(11) && bit(10)),
        op: at & 7,
        flags: (value >> 16) as u32,
        buf_alloc: (value >> 24) as u32,
        fwd_cnt: (value >> 40) as u32 & 0xff,
    }
}

/// Does what a step says.
fn step(bench: &mut Bench<Vsock>, folder: &Folder, clients: &mut Vec<UnixStream>, step: Step) {
    let (kind, at, value) = step;
    match kind {
        0..64 => bench.scribble(usize::from(kind) % 3, step),
        64..72 => bench.spoil(step),
        72..78 => bench.device.pause(),
        78..88 => bench.device.resume(),
        88..150 => {
            let header = packet(step);
            bench.ram.write(PACKET, &header.to_bytes()).expect("RAM");
            let length = HEADER as u32 + header.length - u32::from(at >> 9 & 1);
            bench.queues[1].add(&[(PACKET, length, 0)]);
        }
        150..190 => {
            bench.queues[0].add(&[(PACKET + 0x400, ROOM - u32::from(at) % 250, WRITE)]);
        }
        190..200 => {
            if let Ok(mut client) = UnixStream::connect(folder.path.join("v")) {
                let line = format!("CONNECT {}\n{value}", at & 3);
                let _ = client.write_all(&line.as_bytes()[..line.len() - usize::from(at >> 4) % 8]);
                clients.push(client);
            }
        }
        200..208 => {
            if let Ok((client, _)) = folder.server.accept() {
                clients.push(client);
            }
        }
        208..214 if !clients.is_empty() => drop(clients.remove(usize::from(at) % clients.len())),
        214..220 if !clients.is_empty() => {
            let index = usize::from(at) % clients.len();
            let client = &mut clients[index];
            client.set_nonblocking(true).expect("a socket");
            let _ = client.write(&value.to_le_bytes());
            let _ = client.read(&mut [0; 100]);
        }
        _ => drop(bench.device.turn()),
    }
    assert!(bench.device.connections() <= MOST);
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, the
/// guest connects to a server.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let folder = Folder::new();
    let clients = std::cell::RefCell::new(Vec::new());
    let one_step = |bench: &mut Bench<Vsock>, one| {
        step(bench, &folder, &mut clients.borrow_mut(), one);
    };
    // A device is gone before the next one has its socket.
    let make = || {
        let _ = std::fs::remove_file(folder.path.join("v"));
        device(&folder.path)
    };
    let turn = |vsock: &Vsock| vsock.turn();
    let mut bench = Bench::exercise(make, features, steps, one_step, turn);
    assert_eq!(bench.device.connections(), 0);
    clients.borrow_mut().clear();
    // Clients that were not accepted yet are gone as well once they are.
    while {
        while bench.device.turn() {}
        bench.device.connections() > 0
    } {
        bench.restart();
    }
    while folder.server.accept().is_ok() {}
    let request = Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: 1000,
        dst_port: 1,
        kind: STREAM,
        op: op::REQUEST,
        ..Header::default()
    };
    bench.ram.write(PACKET, &request.to_bytes()).expect("RAM");
    bench.queues[0].add(&[(PACKET + 0x400, ROOM, WRITE)]);
    bench.queues[1].add(&[(PACKET, HEADER as u32, 0)]);
    while bench.device.turn() {}
    assert_eq!(bench.queues[0].take_used(), Some((0, HEADER as u32)));
    let mut bytes = [0; HEADER];
    bench.ram.read(PACKET + 0x400, &mut bytes).expect("RAM");
    assert_eq!(Header::from_bytes(&bytes).op, op::RESPONSE);
    assert!(folder.server.accept().is_ok());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..Bench::<Vsock>::STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
