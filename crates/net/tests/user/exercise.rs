//! The stream to passt with any bytes and frames, as a test and as a fuzz target.

#![allow(clippy::cast_possible_truncation, reason = "frames are small")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use nerite_net::User;
use nerite_virtio::Segment;
use nerite_virtio::fake::{RAM, ram};
use nerite_virtio_net::{Backend as _, HEADER, MAX_FRAME};

/// An event: its kind, bytes and a number.
pub type Step = (u8, Vec<u8>, u32);

/// Does the steps. What the guest sends goes out in whole frames that passt takes.
pub fn run(steps: &[Step]) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut user = User::on_socket(ours.into()).unwrap();
    let ram = ram(1 << 20);
    let mut outgoing = Outgoing::default();
    let mut is_broken = false;
    for (kind, bytes, number) in steps {
        let number = *number as usize;
        match kind % 8 {
            // Bytes come from the other side, or a frame behind its length.
            0 => drop(theirs.write(bytes)),
            1 => {
                let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
                drop(theirs.write(&[&length[..], bytes].concat()));
            }
            // The guest sends them in pieces, or many zeros.
            2 => {
                ram.write(RAM, bytes).unwrap();
                let _ = user.send(&ram, &pieces(bytes.len(), number));
            }
            3 => {
                let length = number % (MAX_FRAME + 1);
                ram.write(RAM, &vec![0; length]).unwrap();
                let _ = user.send(&ram, &pieces(length, length));
            }
            // The guest has room, and there is some behind it.
            4 => {
                let mut spill = vec![0; bytes.len()];
                match user.receive(&ram, &pieces(number % 4096, 100), &mut spill) {
                    Ok(length) => {
                        assert!((HEADER..=MAX_FRAME + HEADER).contains(&length));
                        assert!(!is_broken, "a frame behind one that has no end");
                    }
                    Err(error) => is_broken |= error.kind() == ErrorKind::InvalidData,
                }
            }
            5 => user.gather(),
            6 => drop(user.flush()),
            _ => outgoing.read(&mut theirs, number),
        }
    }
    // All of a frame that was begun goes out.
    while user.flush().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        outgoing.read(&mut theirs, 1 << 16);
    }
    outgoing.read(&mut theirs, usize::MAX);
    assert_eq!(outgoing.rest, [0; 0], "a part of a frame");
}

/// So many bytes in pieces of `size`.
fn pieces(total: usize, size: usize) -> Vec<Segment> {
    let size = size.max(1);
    let piece = |at| Segment { address: RAM + at as u64, length: size.min(total - at) as u32 };
    (0..total).step_by(size).map(piece).collect()
}

/// Frames that the guest sent, as the other side sees them.
#[derive(Default)]
struct Outgoing {
    /// Bytes that are not yet a whole frame.
    rest: Vec<u8>,
}

impl Outgoing {
    fn read(&mut self, from: &mut UnixStream, most: usize) {
        let mut bytes = [0; 4096];
        let mut left = most;
        while left > 0 {
            let room = left.min(bytes.len());
            let Ok(read @ 1..) = from.read(&mut bytes[..room]) else { break };
            self.rest.extend(&bytes[..read]);
            left -= read;
        }
        while let Some((length, rest)) = self.rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            // Passt ends at any other length.
            assert!((14..=14 + 65_520).contains(&length), "a frame of {length} bytes");
            if rest.len() < length {
                break;
            }
            self.rest.drain(..4 + length);
        }
    }
}
