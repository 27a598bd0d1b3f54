//! Parts of the tests: a device with a disk, its driver, and requests.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nerite_memory::GuestRam;
use nerite_saved::testing::through_json;
pub(crate) use nerite_virtio::fake::wait;
use nerite_virtio::fake::{Buffer, Driver, FakeQueue, RAM, Rings, WRITE, function, ram};
use nerite_virtio::{Segment, VirtioPci, status};
use nerite_virtio_blk::{Blk, Disk, Range, RawFile};

pub(crate) const HEADER: u64 = RAM + 0x4000;
pub(crate) const STATUS: u64 = RAM + 0x5000;
pub(crate) const DATA: u64 = RAM + 0x10000;
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;
pub(crate) const OK: u8 = 0;
pub(crate) const IO_ERROR: u8 = 1;
pub(crate) const UNSUPPORTED: u8 = 2;

/// Behaviour of a [`Memory`], shared with the test.
#[derive(Default)]
pub(crate) struct Knobs {
    pub(crate) fails: AtomicBool,
    pub(crate) flushes: AtomicU32,
}

/// A disk of bytes that moves at most 1000 of them at once.
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    read_only: bool,
    knobs: Arc<Knobs>,
}

impl Memory {
    fn check(&self) -> io::Result<()> {
        let fails = self.knobs.fails.load(Ordering::Acquire);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for Memory {
    fn sectors(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64 / 512
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read(&mut self, ram: &GuestRam, to: &[Segment], offset: u64) -> io::Result<u64> {
        self.check()?;
        let first = to[0];
        let length = (first.length as usize).min(1000);
        ram.write(first.address, &self.bytes.lock().unwrap()[offset as usize..][..length]).unwrap();
        Ok(length as u64)
    }

    fn write(&mut self, ram: &GuestRam, from: &[Segment], offset: u64) -> io::Result<u64> {
        self.check()?;
        let first = from[0];
        let length = (first.length as usize).min(1000);
        ram.read(first.address, &mut self.bytes.lock().unwrap()[offset as usize..][..length])
            .unwrap();
        Ok(length as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.knobs.flushes.fetch_add(1, Ordering::AcqRel);
        self.check()
    }

    fn discard(&mut self, range: Range) -> io::Result<()> {
        self.zero(range, true)
    }

    fn zero(&mut self, range: Range, _: bool) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap()[range.offset as usize..][..range.length as usize].fill(0);
        Ok(())
    }
}

pub(crate) struct Bench {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) function: Arc<VirtioPci<Blk>>,
    pub(crate) driver: Driver,
    pub(crate) queue: FakeQueue,
}

impl Bench {
    pub(crate) fn new(disk: Box<dyn Disk>) -> Self {
        let ram = ram(4 << 20);
        let blk = Blk::new(disk, *b"a serial number of 2").unwrap();
        let function = function(blk, &ram);
        function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
        let queue = FakeQueue::new(ram.clone(), Rings::at(RAM, 64));
        let mut bench = Self { ram, driver: Driver::new(function.clone()), function, queue };
        bench.start(u64::MAX);
        bench
    }

    pub(crate) fn start(&mut self, features: u64) {
        self.driver.negotiate(features);
        self.ram.zero(RAM, Rings::bytes(64)).unwrap();
        self.driver.set_queue(0, &Rings::at(RAM, 64));
        self.driver.ready();
        self.queue = FakeQueue::new(self.ram.clone(), Rings::at(RAM, 64));
    }

    /// Makes a request of `buffers` and returns how many bytes are said to be written, and the
    /// answer.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u32, u8) {
        self.ram.write_obj(HEADER, &u64::from(kind)).unwrap();
        self.ram.write_obj(HEADER + 8, &sector).unwrap();
        self.ram.write(STATUS, &[0xaa]).unwrap();
        let buffers = [&[(HEADER, 16, 0)], data, &[(STATUS, 1, WRITE)]].concat();
        let head = self.queue.add(&buffers);
        self.driver.kick(0);
        let (index, written) = wait(|| self.queue.take_used());
        assert_eq!(index, u32::from(head));
        (written, self.ram.read_obj(STATUS).unwrap())
    }

    pub(crate) fn piece(&mut self, kind: u32, sector: u64, count: u32, flags: u32) -> u8 {
        self.ram.write_obj(DATA, &sector).unwrap();
        self.ram.write_obj(DATA + 8, &count).unwrap();
        self.ram.write_obj(DATA + 12, &flags).unwrap();
        self.request(kind, 0, &[(DATA, 16, 0)]).1
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.driver.status() & status::DEVICE_NEEDS_RESET != 0
    }
}

impl Bench {
    /// Another device with the same disk of [`memory`] and the same guest memory, from a saved
    /// state of this one.
    pub(crate) fn moved(self, bytes: &Arc<Mutex<Vec<u8>>>) -> Self {
        self.function.pause();
        let saved = through_json(&self.function.save().unwrap());
        let disk = Memory { bytes: bytes.clone(), read_only: false, knobs: Arc::default() };
        let function = function(Blk::new(Box::new(disk), [0; 20]).unwrap(), &self.ram);
        function.restore(&saved).unwrap();
        assert_eq!(function.save().unwrap(), saved);
        function.resume();
        function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
        Self { driver: Driver::new(function.clone()), function, ..self }
    }
}

pub(crate) fn memory(read_only: bool) -> (Bench, Arc<Mutex<Vec<u8>>>, Arc<Knobs>) {
    let bytes = Arc::new(Mutex::new((0..200 * 512).map(|n| (n % 251) as u8).collect::<Vec<u8>>()));
    let knobs = Arc::new(Knobs::default());
    let disk = Memory { bytes: bytes.clone(), read_only, knobs: knobs.clone() };
    (Bench::new(Box::new(disk)), bytes, knobs)
}

/// A file of 100 sectors and a little more.
pub(crate) fn file(read_only: bool) -> (tempfile::NamedTempFile, Bench) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..100 * 512 + 100).map(|n| (n / 512) as u8).collect();
    std::fs::write(file.path(), bytes).unwrap();
    let bench = Bench::new(Box::new(RawFile::open(file.path(), read_only).unwrap()));
    (file, bench)
}
