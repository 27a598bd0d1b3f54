//! A guest's driver, and a guest behind it that does what a test says.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nerite_virtio::VirtioPci;
use nerite_virtio::fake::{Driver, FakeQueue, GuestRam, RAM, Rings, WRITE, function, ram, wait};
use nerite_virtio_vsock::{Cid, HEADER, HOST_CID, Header, Limits, Listener, STREAM, Vsock, op};
use tempfile::TempDir;

pub(crate) const CID: u32 = 42;
/// Entries of a queue.
const SIZE: u16 = 64;
/// Buffers to receive, of `ROOM` bytes each.
const BUFFERS: u16 = 32;
const ROOM: u32 = 4096;
const RECEIVE: u64 = RAM + 0x1_0000;
/// A packet to send at a time.
const SEND: u64 = RAM + 0x8_0000;

/// Memory of a test: queues, buffers, a packet of 64 KiB.
pub(crate) fn memory() -> Arc<GuestRam> {
    ram(1 << 20)
}

/// A device, its guest and a folder with its socket.
pub(crate) struct Guest {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) function: Arc<VirtioPci<Vsock>>,
    pub(crate) driver: Driver,
    pub(crate) queues: [FakeQueue; 3],
    /// Addresses of receive buffers, in order.
    receiving: VecDeque<u64>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let ram = memory();
        let function = device(&folder.path().join("v.sock"), &ram, limits);
        Self::start(folder, ram, function)
    }

    /// A driver that is ready, with buffers to receive.
    pub(crate) fn start(
        folder: Arc<TempDir>,
        ram: Arc<GuestRam>,
        function: Arc<VirtioPci<Vsock>>,
    ) -> Self {
        let driver = Driver::new(function.clone());
        driver.negotiate(u64::MAX);
        ram.zero(RAM, 0x3000).unwrap();
        let rings = rings();
        (0..).zip(&rings).for_each(|(index, rings)| driver.set_queue(index, rings));
        driver.ready();
        let queues = rings.map(|rings| FakeQueue::new(ram.clone(), rings));
        let mut guest = Self { folder, ram, function, driver, queues, receiving: VecDeque::new() };
        (0..BUFFERS).for_each(|index| guest.offer(RECEIVE + u64::from(ROOM) * u64::from(index)));
        guest.driver.kick(0);
        guest
    }

    /// Path of the socket, or of one beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn offer(&mut self, at: u64) {
        self.queues[0].add(&[(at, ROOM, WRITE)]);
        self.receiving.push_back(at);
    }

    /// The next packet that has come, whose buffer is offered again.
    pub(crate) fn try_receive(&mut self) -> Option<(Header, Vec<u8>)> {
        let packet = self.take()?;
        self.driver.kick(0);
        Some(packet)
    }

    fn take(&mut self) -> Option<(Header, Vec<u8>)> {
        let (_, written) = self.queues[0].take_used()?;
        let at = self.receiving.pop_front().unwrap();
        let mut bytes = vec![0; written as usize];
        self.ram.read(at, &mut bytes).unwrap();
        let (header, data) = bytes.split_first_chunk::<HEADER>().unwrap();
        let header = Header::from_bytes(header);
        assert_eq!(header.length as usize, data.len());
        let packet = (header, data.to_vec());
        self.offer(at);
        Some(packet)
    }

    pub(crate) fn receive(&mut self) -> (Header, Vec<u8>) {
        wait(|| self.try_receive())
    }

    /// The next packet, which is this operation and has no data.
    pub(crate) fn expect(&mut self, op: u16) -> Header {
        let (header, data) = self.receive();
        assert_eq!((header.op, data.len()), (op, 0), "{header:?}");
        header
    }

    /// The next packet that is no credit update, which is this operation and has no data.
    pub(crate) fn expect_after_updates(&mut self, op: u16) -> Header {
        loop {
            let (header, data) = self.receive();
            if header.op != op::CREDIT_UPDATE {
                assert_eq!((header.op, data.len()), (op, 0), "{header:?}");
                return header;
            }
        }
    }

    /// Checks that nothing comes for a while.
    pub(crate) fn expect_nothing(&mut self) {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(self.try_receive(), None);
    }

    /// Sends a packet, and waits until it is taken.
    pub(crate) fn send(&mut self, header: &Header, data: &[u8]) {
        self.try_send(header, data);
        wait(|| self.queues[1].take_used());
    }

    /// Sends a packet that may have to wait.
    pub(crate) fn try_send(&mut self, header: &Header, data: &[u8]) {
        self.ram.write(SEND, &header.to_bytes()).unwrap();
        self.ram.write(SEND + HEADER as u64, data).unwrap();
        // Header and data together, as a driver may have them.
        self.queues[1].add(&[(SEND, (HEADER + data.len()) as u32, 0)]);
        self.driver.kick(1);
    }

    /// The answer to a packet, with room for `buf_alloc` bytes.
    pub(crate) fn answer(&mut self, to: &Header, op: u16, buf_alloc: u32) {
        let header = packet(op, to.dst_port, to.src_port);
        self.send(&Header { buf_alloc, ..header }, &[]);
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.driver.status() & 0x40 != 0
    }
}

/// Rings of the three queues.
pub(crate) fn rings() -> [Rings; 3] {
    [0, 1, 2].map(|queue: u64| Rings::at(RAM + queue * 0x1000, SIZE))
}

/// A device with a thread.
pub(crate) fn device(
    path: &std::path::Path,
    ram: &Arc<GuestRam>,
    limits: Limits,
) -> Arc<VirtioPci<Vsock>> {
    let listener = Listener::bind(path).unwrap();
    let function = function(Vsock::new(Cid::new(CID).unwrap(), listener, limits).unwrap(), ram);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(()))).unwrap();
    function
}

/// A packet from a port of the guest to one of the host.
pub(crate) fn packet(op: u16, guest: u32, host: u32) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: guest,
        dst_port: host,
        kind: STREAM,
        op,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

/// A packet with data.
pub(crate) fn data(guest: u32, host: u32, bytes: &[u8]) -> Header {
    Header { length: bytes.len() as u32, ..packet(op::RW, guest, host) }
}
