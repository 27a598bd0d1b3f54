//! Holding the vCPUs of a busy machine very often, through the embedding API.

#![cfg(test)]

mod common;

use std::io::Write as _;
use std::time::{Duration, Instant};

use common::{Folder, image};
use nerite_machine::config::{Config, CpuConfig, Output};
use nerite_machine::{Handle, Held, Machine, Outcome, Running};

/// Number of times that a machine is held and released unless the environment says otherwise, and
/// the time limit of that.
const CYCLES: u32 = 10_000;
const TIME: Duration = Duration::from_secs(20);

/// Number of cycles and their time limit: `NERITE_TEST_PAUSES=100000 cargo xtask test-host pauses`
/// does all of them.
fn effort() -> (u32, Duration) {
    match std::env::var("NERITE_TEST_PAUSES") {
        Ok(count) => (count.parse().expect("NERITE_TEST_PAUSES is a number"), Duration::MAX),
        Err(_) => (CYCLES, TIME),
    }
}

fn start(folder: &Folder, cpus: u32, code: &[u8]) -> Running {
    let config = Config {
        image: folder.file("image", image::elf(code)).into(),
        cpus: CpuConfig { count: Some(cpus), ..CpuConfig::default() },
        output: Output::None,
        ..Config::default()
    };
    Machine::new(&config).unwrap().start().unwrap()
}

fn stop(running: Running) {
    running.handle().stop();
    assert!(matches!(running.wait(None), Ok(Outcome::Stopped)));
}

/// `inc rbx`, `mov dx, 0x3000`, `in al, dx` and again: an exit every few instructions.
const EXITS: [u8; 10] = [0x48, 0xff, 0xc3, 0x66, 0xba, 0x00, 0x30, 0xec, 0xeb, 0xf6];

fn counter(handle: &Handle, vcpu: usize) -> u64 {
    handle.registers(vcpu).unwrap().0.rbx
}

#[test]
#[ignore = "needs a KVM"]
fn a_busy_machine_of_four_is_held_and_released_very_often() {
    let folder = Folder::new();
    let running = start(&folder, 4, &EXITS);
    let handle = running.handle();
    let begin = Instant::now();
    let (wanted, time) = effort();
    let mut cycles = 0;
    while cycles < wanted && begin.elapsed() < time {
        let pause = handle.pause();
        assert!(pause.held().all(|held| held == Held::Paused), "{pause:?}");
        if cycles % 64 == 0 {
            let before: Vec<_> = (0..4).map(|vcpu| counter(&handle, vcpu)).collect();
            std::thread::yield_now();
            let after: Vec<_> = (0..4).map(|vcpu| counter(&handle, vcpu)).collect();
            assert_eq!(before, after, "a held guest ran");
        }
        drop(pause);
        cycles += 1;
    }
    let _ = writeln!(std::io::stderr(), "{cycles} pauses of four vCPUs in {:?}", begin.elapsed());
    assert!(cycles >= wanted.min(500), "{cycles} cycles in {:?}", begin.elapsed());
    // They all still run.
    let before: Vec<_> = (0..4).map(|vcpu| counter(&handle, vcpu)).collect();
    common::wait_until("all to go on", || (0..4).all(|vcpu| counter(&handle, vcpu) > before[vcpu]));
    stop(running);
}

#[test]
#[ignore = "needs a KVM"]
fn several_threads_hold_and_ask_at_the_same_time() {
    for code in [&EXITS[..], &image::SPIN, &image::HALT] {
        let folder = Folder::new();
        let running = start(&folder, 2, code);
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                let handle = running.handle();
                std::thread::spawn(move || {
                    let begin = Instant::now();
                    for _ in 0..effort().0 / 20 {
                        if begin.elapsed() > TIME / 4 {
                            break;
                        }
                        if worker % 2 == 0 {
                            let pause = handle.pause_one(worker / 2).unwrap();
                            assert_eq!(pause.held().next(), Some(Held::Paused));
                        } else {
                            handle.registers(worker / 2).unwrap();
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        stop(running);
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_held_machine_can_be_stopped() {
    let folder = Folder::new();
    let running = start(&folder, 2, &image::SPIN);
    let handle = running.handle();
    let pause = handle.pause();
    stop(running);
    drop(pause);
    assert!(handle.registers(0).is_err(), "it is gone");
    assert_eq!(handle.pause().held().collect::<Vec<_>>(), [Held::Stopped; 2]);
}
