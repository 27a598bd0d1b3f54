//! Honest use of each kind of device (virtio 1.2, 5.3 to 5.5 and 5.10), and what it likes to read.

use runtime::mmio;
use runtime::paging::PAGE;
use runtime::prelude::*;

use crate::raw::{NEXT, WRITE, pages, wait};
use crate::{Bench, Kind};

/// Context identifiers of this guest and of the host.
const GUEST_CID: u64 = 3;
const HOST_CID: u64 = 2;
/// Operations of a packet: a connection is asked for, and refused.
const REQUEST: u16 = 1;
const RESET: u16 = 3;
/// Bytes of a packet's header, and where its operation is.
const HEADER: u64 = 44;
const OPERATION: u64 = 30;
/// Random bytes that are asked for.
const RANDOM: u32 = 64;

/// Writes a packet's header: where from, where to, bytes behind it, type and operation, credit.
fn write_header(
    at: u64,
    [from, to]: [u64; 2],
    ports: [u32; 2],
    length: u32,
    [kind, operation]: [u16; 2],
    credit: [u32; 2],
) {
    mmio::write64(at, from);
    mmio::write64(at + 8, to);
    mmio::write32(at + 16, ports[0]);
    mmio::write32(at + 20, ports[1]);
    mmio::write32(at + 24, length);
    mmio::write16(at + 28, kind);
    mmio::write16(at + OPERATION, operation);
    mmio::write32(at + 32, 0);
    mmio::write32(at + 36, credit[0]);
    mmio::write32(at + 40, credit[1]);
}

/// Fills the buffers with packets, numbers of pages or text, right and wrong ones.
pub(crate) fn write_data(bench: &mut Bench) {
    let Bench { kind, data, random, .. } = bench;
    let places = *data..*data + 2 * PAGE;
    match kind {
        Kind::Rng | Kind::Console => {
            places.for_each(|at| mmio::write8(at, random.pick(b"......\n")));
        }
        Kind::Balloon => {
            let own = (*data / PAGE) as u32;
            let end = boot::memory().iter().map(|region| region.end).max().unwrap_or(0) / PAGE;
            let pages = [own, own + 1, 0x000c_8000, end as u32, u32::MAX];
            places.step_by(4).for_each(|at| mmio::write32(at, random.pick(&pages)));
        }
        Kind::Vsock => {
            for at in places.step_by(HEADER as usize).take((2 * PAGE / HEADER) as usize) {
                let from = random.pick(&[GUEST_CID, GUEST_CID, GUEST_CID, HOST_CID, u64::MAX]);
                let to = random.pick(&[HOST_CID, HOST_CID, HOST_CID, GUEST_CID, 0]);
                let ports = [random.pick(&[1, 2, 3, u32::MAX]), random.pick(&[1, 2, 0])];
                let length = random.pick(&[0, 0, 4, 64, u32::MAX]);
                let kind = random.pick(&[1, 1, 1, 2, 0, 0xffff]);
                let operation = random.pick(&[REQUEST, REQUEST, 2, RESET, 4, 5, 6, 7, 0, 0xffff]);
                let credit = [random.pick(&[0, 4096, u32::MAX]), random.pick(&[0, 1, u32::MAX])];
                write_header(at, [from, to], ports, length, [kind, operation], credit);
            }
        }
    }
}

/// Uses the device as an honest driver does, on empty queues. Returns `true` if it works.
pub(crate) fn works(bench: &mut Bench) -> bool {
    let data = bench.data;
    match bench.kind {
        Kind::Rng => {
            (0..u64::from(RANDOM)).for_each(|at| mmio::write8(data + at, 0));
            bench.rings[0].set(0, (data, RANDOM, WRITE, 0));
            bench.rings[0].publish(0);
            bench.device.kick(0);
            let given = bench.rings[0].wait_used();
            let is_random = (0..u64::from(RANDOM)).any(|at| mmio::read8(data + at) != 0);
            given.is_some_and(|(head, length)| head == 0 && length > 0) && is_random
        }
        Kind::Console => {
            let text = b"the console goes on\n";
            (data..).zip(text).for_each(|(at, byte)| mmio::write8(at, *byte));
            bench.rings[1].set(0, (data, 12, NEXT, 1));
            bench.rings[1].set(1, (data + 12, text.len() as u32 - 12, 0, 0));
            bench.rings[1].publish(0);
            bench.device.kick(1);
            bench.rings[1].wait_used().is_some()
        }
        Kind::Balloon => {
            let page = pages(1);
            mmio::write64(page, 1);
            mmio::write32(data, (page / PAGE) as u32);
            bench.rings[0].set(0, (data, 4, 0, 0));
            bench.rings[0].publish(0);
            bench.device.kick(0);
            bench.rings[0].wait_used().is_some() && mmio::read64(page) == 0
        }
        Kind::Vsock => {
            let packets = pages(2);
            bench.rings[0].set(0, (packets, (2 * PAGE) as u32, WRITE, 0));
            bench.rings[0].publish(0);
            bench.device.kick(0);
            let (addresses, ports) = ([GUEST_CID, HOST_CID], [1024, 1]);
            write_header(data, addresses, ports, 0, [1, REQUEST], [4096, 0]);
            bench.rings[1].set(0, (data, HEADER as u32, 0, 0));
            bench.rings[1].publish(0);
            bench.device.kick(1);
            // There is no server, and the host says so.
            wait(2_000_000, || bench.rings[0].take_used()).is_some()
                && mmio::read16(packets + OPERATION) == RESET
        }
    }
}
