//! A disk that is restored as another device.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nerite_memory::GuestRam;
use nerite_saved::testing::{Mutation, golden, mutated};
use nerite_virtio::Segment;
use nerite_virtio_blk::{Disk, Range};

use super::*;

/// Requests in the ring at a time: three descriptors each.
const IN_FLIGHT: usize = 20;

/// Address of the header, answer and data of request `number`.
fn place(number: u32) -> u64 {
    DATA + 0x2000 * u64::from(number % IN_FLIGHT as u32)
}

/// Adds a request that writes `number` to all bytes of eight sectors.
fn write(bench: &mut Bench, number: u32) -> u16 {
    let at = place(number);
    bench.ram.write_obj(at, &u64::from(OUT)).unwrap();
    bench.ram.write_obj(at + 8, &u64::from(number % 25 * 8)).unwrap();
    bench.ram.write(at + 0x100, &[0xaa]).unwrap();
    bench.ram.write(at + 0x1000, &[number as u8; 4096]).unwrap();
    bench.queue.add(&[(at, 16, 0), (at + 0x1000, 4096, 0), (at + 0x100, 1, WRITE)])
}

#[test]
fn every_request_is_answered_once_wherever_it_was() {
    let (mut bench, bytes, _) = memory(false);
    let (mut heads, mut added, mut done) = (VecDeque::new(), 0_u32, 0_u32);
    while done < 2_000 {
        while heads.len() < IN_FLIGHT && added < 2_000 {
            heads.push_back(write(&mut bench, added));
            added += 1;
        }
        bench.driver.kick(0);
        // Some of them, none or all.
        std::thread::sleep(Duration::from_micros(u64::from(added * 37 % 200)));
        if done % 3 == 0 {
            bench = bench.moved(&bytes);
        }
        let first = wait(|| bench.queue.take_used());
        for (head, _) in
            std::iter::once(first).chain(std::iter::from_fn(|| bench.queue.take_used()))
        {
            assert_eq!(Some(head), heads.pop_front().map(u32::from), "in order, each once");
            assert_eq!(bench.ram.read_obj::<u8>(place(done) + 0x100).unwrap(), OK);
            done += 1;
        }
    }
    assert_eq!(bench.queue.take_used(), None);
    let bytes = bytes.lock().unwrap();
    for (place, sectors) in bytes.chunks(4096).enumerate() {
        let last = (0..2_000_u32).rev().find(|number| *number as usize % 25 == place).unwrap();
        assert!(sectors.iter().all(|byte| *byte == last as u8), "{place}");
    }
}

/// A disk whose discards wait for permission.
struct Waits(Receiver<()>);

impl Disk for Waits {
    fn sectors(&self) -> u64 {
        8
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, _: &GuestRam, _: &[Segment], _: u64) -> io::Result<u64> {
        Ok(0)
    }

    fn write(&mut self, _: &GuestRam, _: &[Segment], _: u64) -> io::Result<u64> {
        Ok(0)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: Range) -> io::Result<()> {
        self.0.recv().map_err(io::Error::other)
    }

    fn zero(&mut self, _: Range, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_saved_disk_is_no_longer_touched() {
    let (go_on, waits) = channel();
    let mut bench = Bench::new(Box::new(Waits(waits)));
    bench.ram.write_obj(HEADER, &u64::from(DISCARD)).unwrap();
    bench.ram.write(DATA, &[0; 16]).unwrap();
    bench.ram.write_obj(DATA + 8, &1_u32).unwrap();
    bench.queue.add(&[(HEADER, 16, 0), (DATA, 16, 0), (STATUS, 1, WRITE)]);
    bench.driver.kick(0);
    std::thread::sleep(Duration::from_millis(20));
    bench.function.pause();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| bench.function.save().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!saving.is_finished(), "the request is on its way to the disk");
        go_on.send(()).unwrap();
        let saved = saving.join().unwrap();
        assert_eq!(saved.queues[0].unwrap().next_available, 0, "it comes again");
    });
    assert_eq!(bench.queue.take_used(), None);
    bench.function.resume();
    go_on.send(()).unwrap();
    wait(|| bench.queue.take_used());
}

#[test]
fn a_disk_of_another_size_is_refused() {
    let (bench, ..) = memory(false);
    bench.function.pause();
    let mut saved = bench.function.save().unwrap();
    saved.device.sectors += 1;
    let error = bench.function.restore(&saved).unwrap_err().to_string();
    assert_eq!(error, "saved state of the disk: number of sectors is not this machine's");
    saved.device.version = 2;
    assert!(bench.function.restore(&saved).unwrap_err().to_string().contains("version 2"));
}

#[test]
fn states_of_version_1_can_be_restored() {
    let (mut bench, ..) = memory(false);
    bench.request(IN, 0, &[(DATA, 512, WRITE)]);
    bench.function.pause();
    let saved = golden("tests/disk/state_v1.json", &bench.function.save().unwrap());
    bench.function.restore(&saved).unwrap();
    assert_eq!(bench.function.save().unwrap(), saved);
    bench.function.resume();
    assert_eq!(bench.request(IN, 0, &[(DATA, 512, WRITE)]), (513, OK));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let (mut bench, ..) = memory(false);
        write(&mut bench, 0);
        bench.function.pause();
        if let Some(saved) = mutated(&bench.function.save().unwrap(), &mutations)
            && bench.function.restore(&saved).is_ok()
        {
            bench.function.resume();
            bench.function.pause();
            bench.function.save().unwrap();
        }
    }
}
