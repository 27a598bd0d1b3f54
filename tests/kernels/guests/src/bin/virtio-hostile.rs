//! Virtio devices whose driver writes anything into queues and registers: a device needs a reset or
//! goes on, writes to nothing but the buffers that it was given, and does its work after a reset.
//!
//! Arguments: the devices: `rng`, `console`, `balloon`, `vsock`.

#![no_std]
#![no_main]

#[path = "../virtio/honest.rs"]
mod honest;
#[allow(dead_code, reason = "others use the rest")]
#[path = "../net/raw.rs"]
mod raw;

use raw::{INDIRECT, NEXT, READY, Registers, Ring, SIZE, VERSION_1, WRITE, pages, wait};
use runtime::mmio;
use runtime::paging::PAGE;
use runtime::prelude::*;
use runtime::random::Random;

runtime::kernel!(v2, main);

/// Rounds of anything on the queues, and of them those after which the device has to work.
const ROUNDS: u32 = 96;
const BETWEEN: u32 = 8;
/// Of the rounds, those with requests that are right in form.
const FILLED: u32 = 3;
/// Writes to registers.
const WRITES: u32 = 2000;
/// Most queues of a device that are looked at.
const QUEUES: u16 = 4;
/// The number of queues in the common configuration (virtio 1.2, 4.1.4.3).
const NUM_QUEUES: u64 = 18;
/// Control of MSI-X: on.
const MSIX_ENABLE: u32 = 1 << 15;
/// An address that is not RAM: in the gap for devices.
const NO_RAM: u64 = 0xc800_0000;
/// Content of memory that must not be written to.
const UNTOUCHED: u64 = 0x5a5a_5a5a_5a5a_5a5a;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rng,
    Console,
    Balloon,
    Vsock,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "rng" => Some(Self::Rng),
            "console" => Some(Self::Console),
            "balloon" => Some(Self::Balloon),
            "vsock" => Some(Self::Vsock),
            _ => None,
        }
    }

    /// Number of the kind (5).
    fn number(self) -> u32 {
        match self {
            Self::Console => 3,
            Self::Rng => 4,
            Self::Balloon => 5,
            Self::Vsock => 19,
        }
    }
}

pub(crate) struct Bench {
    pub(crate) kind: Kind,
    pub(crate) device: Registers,
    pub(crate) rings: Vec<Ring>,
    /// Two pages for buffers, between two that must stay as they are.
    pub(crate) data: u64,
    random: Random,
}

impl Bench {
    fn new(kind: Kind, device: Registers) -> Self {
        let queues = mmio::read16(device.common + NUM_QUEUES).min(QUEUES);
        check!(queues > 0, "{kind:?} has no queues");
        let data = pages(4) + PAGE;
        let rings = (0..queues).map(|_| Ring::new()).collect();
        let bench = Self { kind, device, rings, data, random: Random(0x0bad_d15c_0de0_f00d) };
        for guard in bench.guards() {
            (0..PAGE / 8).for_each(|word| mmio::write64(guard + 8 * word, UNTOUCHED));
        }
        bench
    }

    fn guards(&self) -> [u64; 2] {
        [self.data - PAGE, self.data + 2 * PAGE]
    }

    /// A driver that is ready, with empty queues.
    pub(crate) fn start(&mut self, features: u64) {
        self.device.negotiate(features | VERSION_1);
        for (index, ring) in (0..).zip(&mut self.rings) {
            ring.clear();
            self.device.set_queue(index, SIZE, ring.parts);
        }
        self.device.set_status(READY);
        check_eq!(self.device.status(), READY, "{:?}: the status of a driver", self.kind);
    }

    /// An address and a length that fits there, or nowhere.
    fn buffer(&mut self) -> (u64, u32) {
        let end = boot::memory().iter().map(|region| region.end).max().unwrap_or(0);
        let size = self.random.pick(&[0, 1, 4, 8, 12, 44, 48, 64]);
        let within = self.data + self.random.next() % (2 * PAGE - 64);
        let queue = self.random.next() as usize % self.rings.len();
        match self.random.next() % 16 {
            0 => (NO_RAM, size),
            1 => (end - 8, 64),
            2 => (u64::MAX - 7, 64),
            3 => (within, u32::MAX),
            4 => (self.device.bar, size),
            5 => (self.rings[queue].parts[1], size),
            6 => (self.rings[queue].parts[2], size),
            // Packets and numbers begin at the beginning of one.
            7..10 => (self.data, 44),
            10 => (self.data, (2 * PAGE) as u32),
            _ => (within, size),
        }
    }

    /// Fills the queues with requests that are right but for their contents, which may be anything.
    fn fill(&mut self) {
        honest::write_data(self);
        for queue in 0..self.rings.len() {
            for index in 0..SIZE {
                let length = self.random.pick(&[4, 8, 44, 48, 64, 256]);
                let flags = self.random.pick(&[0, WRITE]);
                let address = self.data + u64::from(index) * 44;
                self.rings[queue].set(index, (address, length, flags, 0));
                self.rings[queue].publish(index);
            }
            self.device.kick(queue as u16);
        }
    }

    /// Fills the queues with anything, and the buffers with what the device likes to read.
    fn scribble(&mut self) {
        honest::write_data(self);
        for queue in 0..self.rings.len() {
            for index in 0..SIZE {
                let (address, length) = self.buffer();
                let flags = self.random.pick(&[0, 0, WRITE, WRITE, NEXT, NEXT | WRITE, INDIRECT]);
                let next = self.random.pick(&[index + 1, index + 1, 0, SIZE - 1, SIZE, 0xffff]);
                self.rings[queue].set(index, (address, length, flags, next));
            }
            for _ in 0..self.random.next() % u64::from(SIZE) {
                let head = self.random.next() as u16 % SIZE;
                self.rings[queue].publish(head);
            }
            match self.random.next() % 16 {
                0 => self.rings[queue].publish(SIZE),
                1 => self.rings[queue].set_available(0x8000),
                _ => {}
            }
            self.device.kick(queue as u16);
        }
    }

    /// After a reset the device works, and nothing was written that is not the device's.
    fn judge(&mut self, name: &str) {
        for guard in self.guards() {
            let untouched = (0..PAGE / 8).all(|word| mmio::read64(guard + 8 * word) == UNTOUCHED);
            check!(untouched, "{name}: memory that the device must not write to");
        }
        self.start(0);
        check!(honest::works(self), "{:?} does not work after {name}", self.kind);
        self.device.reset();
    }

    /// Anything on the queues. Returns how often the device needed a reset.
    fn play_queues(&mut self) -> u32 {
        let mut broken = 0;
        for round in 0..ROUNDS {
            let features = self.random.next() & 0x30ff_ffff;
            self.start(features);
            if round % FILLED == 0 {
                self.fill()
            } else {
                self.scribble()
            }
            let status = wait(2_000, || Some(self.device.status()).filter(|now| *now != READY));
            broken += u32::from(status.is_some());
            check_eq!(
                status.unwrap_or(READY) & !raw::NEEDS_RESET,
                READY,
                "{:?}: the status in round {round}",
                self.kind
            );
            // A reset while the device is busy is no other one.
            self.device.reset();
            if round % BETWEEN == 0 {
                self.judge("anything on its queues");
            }
        }
        broken
    }

    /// Anything in the registers, the table of MSI-X vectors included, which is on.
    fn play_registers(&mut self) {
        self.device.set_config(self.device.msix, 2, MSIX_ENABLE);
        for turn in 0..WRITES {
            if turn % 64 == 0 {
                self.start(0);
            }
            let near = self.random.pick(&[self.device.common, self.device.vectors]);
            let at = match self.random.next() % 4 {
                0 => self.device.bar + self.random.next() % 0x7ff8,
                _ => near + self.random.next() % 64,
            };
            let random = self.random.next() & 0xff;
            let value = self.random.pick(&[0, NO_RAM, self.data, u64::MAX, 0xfee0_0000, random]);
            match self.random.next() % 8 {
                0 => mmio::write8(at, value as u8),
                1 => mmio::write16(at, value as u16),
                2..5 => mmio::write32(at & !3, value as u32),
                5 => mmio::write64(at, value),
                6 => _ = mmio::read32(at),
                _ => self.device.kick(value as u16 % QUEUES),
            }
        }
        self.device.set_config(self.device.msix, 2, 0);
        self.judge("anything in its registers");
    }
}

fn main() {
    for name in boot::args() {
        let Some(kind) = Kind::of(&name) else {
            check!(false, "there is no kind of device called {name}");
            continue;
        };
        let Some(device) = Registers::find_kind(kind.number()) else {
            check!(false, "there is no {name}");
            continue;
        };
        let mut bench = Bench::new(kind, device);
        bench.judge("nothing");
        let broken = bench.play_queues();
        check!(broken > 0, "{name} has never needed a reset");
        check!(broken < ROUNDS, "{name} has always needed a reset");
        bench.play_registers();
        println!("{name} goes on");
    }
}
