//! Rings whose indices go past 65 535, with a driver and a device that keep to what each asked the
//! other for.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "ring indices are cut on purpose")]

use std::sync::Arc;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{FakeQueue, RAM, Rings, WRITE, ram};
use nerite_virtio::{Chain, Queue, feature};

/// More than three times the numbers that an index has.
const REQUESTS: u32 = 220_000;
/// Enough to come past the wrap once.
const ONE_WRAP: u32 = 70_000;
const BUFFERS: u64 = RAM + 0xc0000;

/// A driver and a device on one queue. Neither does anything but on a notification of the other.
struct Bench {
    queue: Queue,
    guest: FakeQueue,
    ram: Arc<GuestRam>,
    event_idx: bool,
    /// Requests made available, given back by the device, and seen by the driver.
    added: u32,
    served: u32,
    seen: u32,
    kicks: u32,
    interrupts: u32,
}

impl Bench {
    fn new(size: u16, event_idx: bool) -> Self {
        let ram = ram(1 << 20);
        let rings = Rings::at(RAM, size);
        let config = rings.config(0, size);
        let features = if event_idx { feature::EVENT_IDX } else { 0 };
        Self {
            queue: Queue::new(ram.clone(), &config, features).unwrap(),
            guest: FakeQueue::new(ram.clone(), rings),
            ram,
            event_idx,
            added: 0,
            served: 0,
            seen: 0,
            kicks: 0,
            interrupts: 0,
        }
    }

    /// The driver adds `count` requests. Returns whether it notifies the device (2.7.10.1).
    fn add(&mut self, count: u32) -> bool {
        let before = self.added as u16;
        for _ in 0..count {
            self.guest.add(&[(BUFFERS, 4, WRITE)]);
            self.added += 1;
        }
        let kicks = if self.event_idx {
            let event = self.guest.available_event();
            let new = self.added as u16;
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(before)
        } else {
            self.guest.wants_kick()
        };
        self.kicks += u32::from(kicks);
        kicks
    }

    /// The device serves all that there is. Returns whether it interrupts the driver.
    fn serve(&mut self, is_silent: bool) -> bool {
        let mut chain = Chain::new();
        let mut interrupts = false;
        let before = self.served;
        if is_silent {
            self.queue.disable_kicks().unwrap();
        }
        loop {
            while self.queue.pop(&mut chain).unwrap() {
                assert_eq!(chain.copy_in(&self.ram, 0, &self.served.to_le_bytes()), 4);
                self.queue.push(chain.head(), 4).unwrap();
                self.served += 1;
            }
            interrupts |= self.served != before && self.queue.wants_interrupt().unwrap();
            if !self.queue.enable_kicks().unwrap() {
                break;
            }
        }
        assert_eq!(self.queue.given_back(), self.served as u16);
        self.interrupts += u32::from(interrupts);
        interrupts
    }

    /// The driver takes what was given back, and asks for an interrupt at the next one after that.
    fn take(&mut self) {
        while let Some((head, written)) = self.guest.take_used() {
            assert_eq!(
                (head, written),
                (self.seen % u32::from(self.guest.rings.size), 4),
                "{}",
                self.seen
            );
            self.seen += 1;
        }
        if self.event_idx {
            self.guest.set_used_event(self.seen as u16);
        }
    }
}

/// Requests in batches of all sizes that fit, each of which needs exactly one notification either
/// way. The device asks for silence while it serves every other batch.
fn exchange(size: u16, event_idx: bool) {
    let mut bench = Bench::new(size, event_idx);
    let mut rounds = 0;
    while bench.added < REQUESTS {
        let (count, is_silent) = (1 + rounds % u32::from(size), rounds.is_multiple_of(2));
        rounds += 1;
        assert!(
            bench.add(count),
            "request {}: the device has nothing to do and is not notified",
            bench.added
        );
        assert!(
            bench.serve(is_silent),
            "request {}: the driver waits and is not interrupted",
            bench.added
        );
        bench.take();
        assert_eq!((bench.served, bench.seen), (bench.added, bench.added));
        assert!(!bench.serve(is_silent), "an interrupt for nothing");
    }
    assert_eq!((bench.kicks, bench.interrupts), (rounds, rounds));
}

#[test]
fn indices_wrap_with_flags() {
    exchange(16, false);
}

#[test]
fn indices_wrap_with_event_indices() {
    exchange(16, true);
}

/// A driver that wants an interrupt for each third request alone, and none in between.
#[test]
fn event_indices_ask_for_some_interrupts_past_the_wrap() {
    let mut bench = Bench::new(16, true);
    let mut expected = 0;
    bench.guest.set_used_event(2);
    while bench.added < ONE_WRAP {
        bench.add(1);
        let is_third = bench.added.is_multiple_of(3);
        assert_eq!(bench.serve(false), is_third, "request {}", bench.added);
        assert!(bench.guest.take_used().is_some());
        if is_third {
            expected += 1;
            bench.guest.set_used_event((bench.added as u16).wrapping_add(2));
        }
    }
    assert_eq!(bench.interrupts, expected);
}

/// A driver that wants no interrupts gets none, and the flags of the used ring stay what the driver
/// may find there.
#[test]
fn flags_silence_both_sides_past_the_wrap() {
    let mut bench = Bench::new(16, false);
    bench.guest.set_no_interrupt(true);
    while bench.added < ONE_WRAP {
        bench.add(7);
        bench.queue.disable_kicks().unwrap();
        assert!(!bench.add(7), "request {}: a notification that is not wanted", bench.added);
        assert!(!bench.serve(false), "request {}: an interrupt that is not wanted", bench.added);
        bench.take();
        assert_eq!(bench.seen, bench.added);
        let flags = bench.ram.read_obj::<u16>(bench.guest.rings.used).unwrap();
        assert!(flags <= 1, "{flags:#x}");
    }
}

#[test]
fn the_used_rings_flags_stay_zero_with_event_indices() {
    let mut bench = Bench::new(16, true);
    for _ in 0..100 {
        bench.add(3);
        bench.serve(true);
        bench.take();
        assert_eq!(bench.ram.read_obj::<u16>(bench.guest.rings.used).unwrap(), 0);
    }
}

#[test]
fn each_notation_ignores_what_the_other_says() {
    let serve = |event_idx, silent_flag, used_event| {
        let mut bench = Bench::new(16, event_idx);
        bench.guest.set_no_interrupt(silent_flag);
        bench.guest.set_used_event(used_event);
        bench.add(1);
        bench.serve(false)
    };
    // Flags alone count without event indices, and those alone with them.
    assert!(serve(false, false, 100) && !serve(false, true, 0));
    assert!(serve(true, true, 0) && !serve(true, false, 100));
}

/// A driver on another processor finds the length of each request as soon as the index says that
/// there is one.
#[test]
fn a_length_is_there_before_the_index() {
    const COUNT: u32 = 50_000;
    let mut bench = Bench::new(16, false);
    bench.guest.set_no_interrupt(true);
    let mut queue = bench.queue;
    let device = std::thread::spawn(move || {
        let (mut chain, mut served) = (Chain::new(), 0);
        while served < COUNT {
            if queue.pop(&mut chain).unwrap() {
                served += 1;
                queue.push(chain.head(), served).unwrap();
            }
        }
    });
    let (mut added, mut seen) = (0, 0);
    while seen < COUNT {
        while added < COUNT && added - seen < 16 {
            bench.guest.add(&[(BUFFERS, 4, WRITE)]);
            added += 1;
        }
        while let Some((head, length)) = bench.guest.take_used() {
            assert_eq!((head, length), (seen % 16, seen + 1));
            seen += 1;
        }
    }
    device.join().unwrap();
}
