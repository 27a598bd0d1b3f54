//! Any requests at all, for the fuzz target and the property test that look for some that the
//! device does not stand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "test support; a failure is what it looks for"
)]

use std::io;

use nerite_memory::GuestRam;
pub use nerite_virtio::fake::Step;
use nerite_virtio::fake::{Bench, SCRATCH, WRITE};
use nerite_virtio::{Segment, VirtioDevice as _};

use crate::Blk;
use crate::disk::{Disk, Range, SECTOR};

/// Addresses of header, data and answer of well-made requests.
const HEADER: u64 = Bench::<Blk>::BUFFERS + SCRATCH;
const DATA: u64 = HEADER + 0x100;
const ANSWER: u64 = HEADER + 0x80;
const SECTORS: u64 = 40;

/// A disk that finds out whether it is asked for more than it has. Its sectors begin with their
/// number.
struct Checked(Vec<u8>);

impl Checked {
    fn new() -> Self {
        Self(
            (0..SECTORS * SECTOR)
                .map(|at| if at % SECTOR == 0 { (at / SECTOR) as u8 } else { 0 })
                .collect(),
        )
    }

    fn place(&mut self, offset: u64, length: u64) -> &mut [u8] {
        &mut self.0[offset as usize..][..length as usize]
    }
}

impl Disk for Checked {
    fn sectors(&self) -> u64 {
        SECTORS
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, ram: &GuestRam, to: &[Segment], offset: u64) -> io::Result<u64> {
        let first = to[0];
        ram.write(first.address, self.place(offset, first.length.into()))
            .expect("pieces are in RAM");
        Ok(first.length.into())
    }

    fn write(&mut self, ram: &GuestRam, from: &[Segment], offset: u64) -> io::Result<u64> {
        let first = from[0];
        ram.read(first.address, self.place(offset, first.length.into()))
            .expect("pieces are in RAM");
        Ok(first.length.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, range: Range) -> io::Result<()> {
        self.zero(range, true)
    }

    fn zero(&mut self, range: Range, _: bool) -> io::Result<()> {
        self.place(range.offset, range.length).fill(0);
        Ok(())
    }
}

fn turn(blk: &Blk) -> bool {
    blk.shared.turn()
}

/// Does what a step says.
fn step(bench: &mut Bench<Blk>, step: Step) {
    let (kind, at, value) = step;
    match kind {
        0..96 => bench.scribble(0, step),
        96..128 => bench.spoil(step),
        128..192 => request(bench, u32::from(kind) % 16, value % (SECTORS + 2), at),
        192..200 => bench.device.pause(),
        200..208 => bench.device.resume(),
        _ => drop(turn(&bench.device)),
    }
}

/// A request that is well made, but for its numbers.
fn request(bench: &mut Bench<Blk>, kind: u32, sector: u64, length: u16) {
    bench.ram.write_obj(HEADER, &u64::from(kind)).expect("RAM");
    bench.ram.write_obj(HEADER + 8, &sector).expect("RAM");
    let length = (u32::from(length) % 0x2000) & if length & 0x8000 == 0 { !0x1ff } else { !0 };
    let flags = if matches!(kind, 0 | 8) { WRITE } else { 0 };
    bench.queues[0].add(&[(HEADER, 16, 0), (DATA, length, flags), (ANSWER, 1, WRITE)]);
}

/// Has a driver do these steps, until it makes a mistake; then on a fresh device. At the end, a
/// sector is read.
///
/// # Panics
/// If something is not as it has to be.
pub fn exercise(features: u64, steps: &[Step]) {
    let make = || Blk::new(Box::new(Checked::new()), [7; 20]).expect("a device");
    let mut bench = Bench::exercise(make, features, steps, step, turn);
    bench.ram.write_obj(ANSWER, &0xaa_u8).expect("RAM");
    request(&mut bench, 0, SECTORS - 1, 512);
    assert!(turn(&bench.device));
    assert!(bench.queues[0].take_used().is_some_and(|(_, written)| written == 513));
    assert_eq!(bench.ram.read_obj::<u8>(ANSWER).expect("RAM"), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_driver_that_does_anything_does_no_harm(
            features: u64,
            steps in prop::collection::vec(any::<Step>(), 0..Bench::<Blk>::STEPS),
        ) {
            exercise(features, &steps);
        }
    }
}
