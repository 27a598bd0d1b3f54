//! A card whose queues something else works on.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nerite_virtio::fake::{RAM, Rings, wait};
use nerite_virtio::{Activation, Event, QueueConfig, QueueState, status};
use nerite_virtio_net::{Engine, Side, feature};

use crate::{SIZE, bench_with};

/// Remembers what it was told, and says when asked that the driver has broken a rule.
#[derive(Clone, Default)]
struct Teller {
    broken: Arc<Mutex<Option<OwnedFd>>>,
    is_running: Arc<AtomicBool>,
    is_down: Arc<AtomicBool>,
    is_paused: Arc<AtomicBool>,
    /// Positions in the available rings: those that it started with, or others.
    positions: Arc<Mutex<Vec<u16>>>,
}

impl Engine for Teller {
    fn start(&mut self, activation: &Activation, _: &[Event], broken: &Event) -> io::Result<()> {
        let position = |queue: &QueueConfig| queue.progress.next_available;
        *self.positions.lock().unwrap() =
            activation.queues.iter().flatten().map(position).collect();
        *self.broken.lock().unwrap() = Some(broken.as_fd().try_clone_to_owned()?);
        self.is_running.store(true, Ordering::Release);
        Ok(())
    }

    fn stop(&mut self) {
        self.is_running.store(false, Ordering::Release);
    }

    fn next_available(&mut self, queue: u16) -> io::Result<u16> {
        Ok(self.positions.lock().unwrap()[usize::from(queue)])
    }

    fn set_paused(&mut self, paused: bool) -> io::Result<()> {
        self.is_paused.store(paused, Ordering::Release);
        Ok(())
    }

    fn set_link(&mut self, up: bool) -> io::Result<()> {
        self.is_down.store(!up, Ordering::Release);
        Ok(())
    }
}

#[test]
fn an_engine_is_told_of_the_link_and_of_bus_mastering() {
    let teller = Teller::default();
    let bench = bench_with(1, Side::Engine(Box::new(teller.clone())), Vec::new());
    assert!(teller.is_paused.load(Ordering::Acquire), "no bus master yet");
    let is_down = || teller.is_down.load(Ordering::Acquire);
    bench.start(0, 2);
    assert!(!is_down());
    for down in [true, false] {
        bench.function.device().set_link(!down);
        wait(|| (is_down() == down).then_some(()));
    }
    for off in [true, false] {
        bench.driver.set_bus_master(!off);
        assert_eq!(teller.is_paused.load(Ordering::Acquire), off);
    }
}

#[test]
fn an_engine_whose_driver_breaks_a_rule_is_stopped_until_a_reset() {
    let teller = Teller::default();
    let bench = bench_with(1, Side::Engine(Box::new(teller.clone())), Vec::new());
    let is_broken = || bench.driver.status() & status::DEVICE_NEEDS_RESET != 0;
    let tell = || {
        let broken = teller.broken.lock().unwrap().as_ref().unwrap().try_clone().unwrap();
        File::from(broken).write_all(&1_u64.to_ne_bytes()).unwrap();
    };
    bench.start(0, 2);
    tell();
    wait(|| is_broken().then_some(()));
    assert!(!teller.is_running.load(Ordering::Acquire));
    // What is said of a driver that has gone is not the next one's fault.
    bench.driver.reset();
    tell();
    bench.start(0, 2);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!is_broken());
    // The control queue is the card's own, and its mistakes stop all queues.
    let mut queues = bench.start(feature::CTRL_VQ, 3);
    queues[2].add(&[(0xdead_0000, 60, 0)]);
    bench.driver.kick(2);
    wait(|| is_broken().then_some(()));
    assert!(!teller.is_running.load(Ordering::Acquire));
}

#[test]
fn an_engine_goes_on_where_another_one_was() {
    let bench_of =
        |teller: &Teller| bench_with(1, Side::Engine(Box::new(teller.clone())), Vec::new());
    let teller = Teller::default();
    let bench = bench_of(&teller);
    bench.start(0, 2);
    *teller.positions.lock().unwrap() = vec![7, 9];
    // The device's index of the first used ring.
    bench.ram.write_obj(Rings::at(RAM, SIZE).used + 2, &5_u16).unwrap();
    bench.function.pause();
    let saved = bench.function.save().unwrap();
    let state = |next_available, next_used| Some(QueueState { next_available, next_used });
    assert_eq!(saved.queues, [state(7, 5), state(9, 0), None]);
    let other = Teller::default();
    let successor = bench_of(&other);
    successor.function.restore(&saved).unwrap();
    assert!(other.is_paused.load(Ordering::Acquire) && other.is_running.load(Ordering::Acquire));
    assert_eq!(*other.positions.lock().unwrap(), [7, 9]);
}
