use std::collections::VecDeque;
use std::io::Read;
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nerite_bus::{Bus, Device};
use nerite_devices::{Console, Input, Sink};
use nerite_hostfs::{HostFs, Limits};
use nerite_memory::{Backing, GuestRam, Region};
use nerite_vcpu::scripted::Scripted;
use nerite_vcpu::{Entry, Exit, Handler, PostedWrites, drive};
use rustix::event::{EventfdFlags, eventfd};

use super::*;
use crate::budget::LogBudget;
use crate::dispatch::{Dispatcher, End};
use crate::hypercalls::{CommandLine, Hypercalls};
use crate::rate::Rate;

/// A queue that the test fills.
#[derive(Debug, Default)]
struct Queue(Mutex<VecDeque<PostedWrite>>);

impl Queue {
    fn post(&self, port: u16, value: u32) {
        self.0.lock().unwrap().push_back(PostedWrite { port, width: 4, value });
    }

    fn say(&self, text: &str) {
        text.bytes().for_each(|byte| self.post(SERIAL_V1.0, 0xffff_ff00 | u32::from(byte)));
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl PostedWrites for Queue {
    fn is_empty(&self) -> bool {
        self.left() == 0
    }

    fn take(&self, each: &mut dyn FnMut(PostedWrite) -> ControlFlow<()>) {
        loop {
            let Some(first) = self.0.lock().unwrap().front().copied() else { return };
            if each(first).is_break() {
                return;
            }
            self.0.lock().unwrap().pop_front();
        }
    }

    fn try_take(&self, each: &mut dyn FnMut(PostedWrite) -> ControlFlow<()>) {
        self.take(each);
    }
}

#[derive(Default)]
struct Latch(AtomicU64);

impl Device for Latch {
    fn read(&self, _: u64, _: Width) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn write(&self, _: u64, _: Width, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

struct Setting {
    queue: Arc<Queue>,
    platform: Arc<Platform>,
    output: UnixStream,
}

fn setting(rate: Option<u64>) -> Setting {
    let (ours, output) = UnixStream::pair().unwrap();
    output.set_nonblocking(true).unwrap();
    let region = Region { start: 0, size: 2 << 20 };
    let mut ports = Bus::new("port");
    ports.insert("latch", 0xcf8..=0xcff, Arc::new(Latch::default())).unwrap();
    let queue = Arc::new(Queue::default());
    let calls = Hypercalls {
        ram: Arc::new(GuestRam::new(&[region], &Backing::default()).unwrap()),
        console: Arc::new(Console::new(Sink::Fd(ours.into())).unwrap()),
        input: Input::new(None),
        files: HostFs::new(&[], &[], Limits::default()).unwrap(),
        command_line: CommandLine::default(),
        stop_event: Arc::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap()),
        stopping: Arc::new(AtomicBool::new(false)),
        rate: rate.and_then(NonZeroU64::new).map(Rate::new),
        budget: LogBudget::new(1),
    };
    let platform = Platform { ports, mmio: Bus::new("MMIO"), calls, posted: Some(queue.clone()) };
    Setting { queue, platform: Arc::new(platform), output }
}

impl Setting {
    fn arrived(&mut self) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = self.output.read(&mut buffer) {
            text.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8(text).unwrap()
    }
}

const BYTE: Exit = Exit::PortOut { port: SERIAL_V1.0, width: 1, value: b'!' as u32 };

#[test]
fn posted_output_comes_before_the_exit_that_follows_it() {
    let mut setting = setting(None);
    setting.queue.say("one\ntwo");
    let mut dispatcher = Dispatcher::new(setting.platform.clone(), Arc::default(), None);
    let mut vcpu = Scripted::new([]);
    assert!(matches!(dispatcher.handle(&mut vcpu, BYTE), ControlFlow::Continue(Entry::Resume)));
    assert!(setting.platform.calls.console.flush().unwrap());
    assert_eq!(setting.arrived(), "one\ntwo!");
    assert!(!setting.platform.has_posted());
}

#[test]
fn output_before_a_crash_is_complete() {
    let mut setting = setting(None);
    setting.queue.say("the last words\nof a guest");
    let mut dispatcher = Dispatcher::new(setting.platform.clone(), Arc::default(), None);
    let end = drive(&mut Scripted::new([]), &mut dispatcher).unwrap();
    assert!(matches!(end, End::Crashed(Exit::Shutdown)), "{end:?}");
    assert!(setting.platform.calls.console.flush().unwrap());
    assert_eq!(setting.arrived(), "the last words\nof a guest");
}

#[test]
fn a_posted_address_is_there_when_its_data_is_read() {
    let setting = setting(None);
    setting.queue.post(PCI_ADDRESS.0, 7);
    setting.queue.post(PCI_ADDRESS.0, 8);
    let mut dispatcher = Dispatcher::new(setting.platform, Arc::default(), None);
    let read = Exit::PortIn { port: 0xcfc, width: 4 };
    let answer = dispatcher.handle(&mut Scripted::new([]), read);
    assert!(matches!(answer, ControlFlow::Continue(Entry::Data(8))), "{answer:?}");
}

#[test]
fn collected_output_goes_out_with_a_flush() {
    let mut setting = setting(None);
    assert!(!setting.platform.collect_posted(false));
    setting.queue.say("name? ");
    assert!(setting.platform.collect_posted(false));
    assert_eq!(setting.arrived(), "");
    assert!(setting.platform.calls.console.flush().unwrap());
    assert_eq!(setting.arrived(), "name? ");
}

#[test]
fn what_does_not_fit_stays_in_its_place() {
    let mut setting = setting(None);
    setting.queue.say(&"0123456789".repeat(500));
    setting.queue.post(PCI_ADDRESS.0, 1);
    assert!(setting.platform.collect_posted(false));
    assert_eq!(setting.queue.left(), 5001 - 4096);
    let mut all = String::new();
    for _ in 0..2 {
        assert!(setting.platform.calls.console.flush().unwrap());
        all += &setting.arrived();
        setting.platform.collect_posted(false);
    }
    assert!(!setting.platform.has_posted());
    assert_eq!(all, "0123456789".repeat(500));
}

#[test]
fn a_rate_holds_for_collected_output_except_at_the_end() {
    let mut setting = setting(Some(100));
    setting.queue.say(&"x".repeat(200));
    assert!(setting.platform.collect_posted(false));
    let left = setting.queue.left();
    // What the time of the test itself is worth, which is at least the first one.
    assert!((100..=199).contains(&left), "{left}");
    assert!(setting.platform.collect_posted(true));
    assert_eq!(setting.queue.left(), 0);
    assert!(setting.platform.calls.console.flush().unwrap());
    assert_eq!(setting.arrived().len(), 200);
}

#[test]
fn a_vcpu_waits_for_the_rate_of_what_it_posted_and_a_stop_ends_that() {
    let setting = setting(Some(1));
    setting.queue.say("long");
    rustix::io::write(&setting.platform.calls.stop_event, &1_u64.to_ne_bytes()).unwrap();
    let start = Instant::now();
    assert!(matches!(setting.platform.settle_posted(), Err(Next::Stopped)));
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(setting.platform.has_posted());
}

#[test]
fn the_clock_slows_down_when_nothing_is_said() {
    assert!(Clock::new(Interface::V2).is_none());
    let mut clock = Clock::new(Interface::V1).unwrap();
    for _ in 0..Clock::PATIENCE {
        assert_eq!(clock.wait(), Clock::BUSY);
        clock.looked(false);
    }
    assert_eq!(clock.wait(), Clock::IDLE);
    clock.looked(true);
    assert_eq!(clock.wait(), Clock::BUSY);
}
