use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use super::*;
use crate::LineSource;

/// Counts how often each vCPU was woken.
#[derive(Default)]
struct Count([AtomicU32; 2]);

impl Wake for Count {
    fn wake(&self, vcpu: u32) {
        self.0[vcpu as usize].fetch_add(1, Ordering::Relaxed);
    }
}

const NOW: Time = Time::from_nanoseconds(0);

fn store(chips: &SharedChips<Count>, vcpu: u32, offset: u64, value: u32) {
    let effect = chips.with_apic(vcpu, |apic| apic.write_mmio(offset, 4, value, NOW)).unwrap();
    effect.into_iter().for_each(|effect| chips.carry_out(effect));
}

fn enabled() -> SharedChips<Count> {
    let chips = SharedChips::new(&ChipsConfig::of(2), Count::default());
    (0..2).for_each(|vcpu| store(&chips, vcpu, 0xf0, 0x1ff));
    chips
}

/// Ends waiting in the other threads of a test when this one fails.
struct Fails<'a>(&'a AtomicBool);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(thread::panicking(), Ordering::Relaxed);
    }
}

/// Waits until there is something.
fn wait<T>(failed: &AtomicBool, mut get: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(got) = get() {
            return got;
        }
        assert!(!failed.load(Ordering::Relaxed), "another thread has failed");
        thread::yield_now();
    }
}

/// Two processors that send to each other: every interrupt comes, once.
#[test]
fn threads_lose_no_interrupt() {
    const ROUNDS: u32 = 2000;
    let chips = enabled();
    let (chips, failed) = (&chips, &AtomicBool::new(false));
    let receive = |vcpu: u32, vector: u8| {
        assert_eq!(wait(failed, || chips.acknowledge(vcpu)), vector);
        store(chips, vcpu, 0xb0, 0);
    };
    thread::scope(|scope| {
        // Processor 0 asks, processor 1 answers.
        scope.spawn(move || {
            let _fails = Fails(failed);
            for _ in 0..ROUNDS {
                receive(1, 0x30);
                store(chips, 1, 0x310, 0);
                store(chips, 1, 0x300, 0x4031);
            }
        });
        let _fails = Fails(failed);
        for _ in 0..ROUNDS {
            store(chips, 0, 0x310, 1 << 24);
            store(chips, 0, 0x300, 0x4030);
            receive(0, 0x31);
        }
    });
    assert_eq!(chips.wake.0.each_ref().map(|count| count.load(Ordering::Relaxed)), [ROUNDS; 2]);
    assert!(![0, 1].iter().any(|vcpu| chips.has_interrupt(*vcpu)));
}

/// A device that lowers its line when its interrupt is served, in a thread of its own: one
/// interrupt for each time it was raised.
#[test]
fn a_level_is_served_once_for_each_time_it_is_raised() {
    let chips = &enabled();
    let (source, failed) = (LineSource::new(3).unwrap(), &AtomicBool::new(false));
    // The 8259 pair stays out of this.
    assert!(chips.write_port(0x21, 0xff, 0) && chips.write_port(0xa1, 0xff, 0));
    for (index, value) in [(0x25, 0), (0x24, 0xa052)] {
        chips.write_ioapic(0, index);
        chips.write_ioapic(0x10, value);
    }
    let (raised, served) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _fails = Fails(failed);
            for round in 1..=1000 {
                raised.store(round, Ordering::Release);
                chips.set_line(10, source, true);
                wait(failed, || (served.load(Ordering::Acquire) == round).then_some(()));
            }
        });
        let _fails = Fails(failed);
        for round in 1..=1000 {
            let vector = wait(failed, || chips.acknowledge(0));
            assert_eq!((vector, raised.load(Ordering::Acquire)), (0x52, round));
            chips.set_line(10, source, false);
            store(chips, 0, 0xb0, 0);
            served.store(round, Ordering::Release);
        }
    });
    assert!(!chips.has_interrupt(0));
}

#[test]
fn shared_chips_are_restored() {
    let chips = enabled();
    assert!(chips.send_message(0xfee0_1000, 0x41) && !chips.send_message(0xfee0_2000, 0x41));
    let saved = chips.save(NOW);
    let other = SharedChips::restore(&ChipsConfig::of(2), &saved, NOW, Count::default()).unwrap();
    assert_eq!(
        (other.acknowledge(1), other.acknowledge(9), other.read_port(0x21, 0)),
        (Some(0x41), None, Some(0))
    );
    assert!(SharedChips::restore(&ChipsConfig::of(3), &saved, NOW, Count::default()).is_err());
    assert_eq!((other.next_board_event(), other.read_ioapic(0x10, 4)), (None, 0));
    assert!(format!("{other:?}").contains("ioapic"));
}
