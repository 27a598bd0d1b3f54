//! A client of the host says hello to a port of a guest.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nerite_virtio::fake::{Driver, FakeQueue, GuestRam, RAM, Rings, WRITE, function, ram};
use nerite_virtio_vsock::{Cid, HEADER, Header, Limits, Listener, Vsock, op};

const RECEIVED: u64 = RAM + 0x8000;
const SENT: u64 = RAM + 0xa000;

/// The next packet that the guest gets, with its data.
fn receive(
    driver: &Driver,
    queue: &mut FakeQueue,
    memory: &GuestRam,
) -> Result<(Header, Vec<u8>), Box<dyn std::error::Error>> {
    queue.add(&[(RECEIVED, 4096, WRITE)]);
    driver.kick(0);
    let length = loop {
        if let Some((_, length)) = queue.take_used() {
            break length;
        }
        std::thread::yield_now();
    };
    let mut bytes = vec![0; usize::try_from(length)?];
    memory.read(RECEIVED, &mut bytes)?;
    let (header, data) = bytes.split_first_chunk::<HEADER>().ok_or("a packet without a header")?;
    Ok((Header::from_bytes(header), data.to_vec()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("hello-guest-{}.sock", std::process::id()));
    let cid = Cid::new(3).ok_or("3 is a guest's identifier")?;
    let memory = ram(1 << 20);
    let device = Vsock::new(cid, Listener::bind(&path)?, Limits::default())?;
    let function = function(device, &memory);
    function.device().run(function.notifier(), function.kicks(), Box::new(|| Ok(())))?;
    let driver = Driver::new(function);
    driver.negotiate(0);
    let rings = [0, 1, 2].map(|queue: u64| Rings::at(RAM + queue * 0x1000, 16));
    (0..).zip(&rings).for_each(|(index, rings)| driver.set_queue(index, rings));
    driver.ready();
    let [mut receives, mut sends, _] =
        rings.map(|rings| FakeQueue::new(Arc::clone(&memory), rings));

    let mut client = UnixStream::connect(&path)?;
    client.write_all(b"CONNECT 52\nhello, guest\n")?;
    // The guest accepts what comes to its port 52.
    let (request, _) = receive(&driver, &mut receives, &memory)?;
    let response = Header {
        src_cid: request.dst_cid,
        dst_cid: request.src_cid,
        src_port: request.dst_port,
        dst_port: request.src_port,
        op: op::RESPONSE,
        buf_alloc: 4096,
        ..request
    };
    memory.write(SENT, &response.to_bytes())?;
    sends.add(&[(SENT, u32::try_from(HEADER)?, 0)]);
    driver.kick(1);
    let mut answer = [0; 64];
    let length = client.read(&mut answer)?;
    let (_, data) = receive(&driver, &mut receives, &memory)?;
    let mut out = std::io::stdout();
    write!(out, "the client reads: ")?;
    out.write_all(answer.get(..length).unwrap_or_default())?;
    write!(out, "the guest reads: ")?;
    out.write_all(&data)?;
    Ok(())
}
