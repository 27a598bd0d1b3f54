use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::time::Instant;

use nerite_hypervisor::scripted::Scripted;
use nerite_vcpu::{CoalescedWrites, Entry, Exit, Handler, drive};

use super::*;
use crate::testing::{Guest, Setup};
use nerite_platform::End;

/// A queue that the test fills.
#[derive(Debug, Default)]
struct Queue(Mutex<VecDeque<CoalescedWrite>>);

impl Queue {
    fn post(&self, port: u16, value: u32) {
        self.0.lock().unwrap().push_back(CoalescedWrite { port, width: 4, value });
    }

    fn say(&self, text: &str) {
        text.bytes().for_each(|byte| self.post(SERIAL_V1.0, 0xffff_ff00 | u32::from(byte)));
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl CoalescedWrites for Queue {
    fn is_empty(&self) -> bool {
        self.left() == 0
    }

    fn take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        loop {
            let Some(first) = self.0.lock().unwrap().front().copied() else { return };
            if each(first).is_break() {
                return;
            }
            self.0.lock().unwrap().pop_front();
        }
    }

    fn taken(&self) -> u64 {
        0
    }

    fn try_take(&self, each: &mut dyn FnMut(CoalescedWrite) -> ControlFlow<()>) {
        self.take(each);
    }
}

struct Setting {
    queue: Arc<Queue>,
    guest: Guest,
}

fn setting(bytes_per_second: Option<u64>) -> Setting {
    let queue = Arc::new(Queue::default());
    let coalesced = Some(queue.clone() as Arc<dyn CoalescedWrites>);
    Setting { queue, guest: Guest::with(Setup { bytes_per_second, coalesced, ..Setup::default() }) }
}

impl Setting {
    fn arrived(&mut self) -> String {
        String::from_utf8(self.guest.arrived()).unwrap()
    }

    fn shown(&mut self) -> String {
        String::from_utf8(self.guest.shown()).unwrap()
    }
}

const BYTE: Exit = Exit::PortOut { port: SERIAL_V1.0, width: 1, value: b'!' as u32 };

#[test]
fn posted_output_comes_before_the_exit_that_follows_it() {
    let mut setting = setting(None);
    setting.queue.say("one\ntwo");
    let mut dispatcher = setting.guest.dispatcher();
    let mut vcpu = Scripted::new([]);
    assert!(matches!(dispatcher.handle(&mut vcpu, &BYTE), ControlFlow::Continue(Entry::Resume)));
    assert_eq!(setting.shown(), "one\ntwo!");
    assert!(!setting.guest.shared.has_coalesced());
}

#[test]
fn output_before_a_crash_is_complete() {
    let mut setting = setting(None);
    setting.queue.say("the last words\nof a guest");
    let mut dispatcher = setting.guest.dispatcher();
    let end = drive(&mut Scripted::new([]), &mut dispatcher).unwrap();
    assert!(matches!(end, Ok(End::Crashed(Exit::Shutdown))), "{end:?}");
    assert_eq!(setting.shown(), "the last words\nof a guest");
}

#[test]
fn a_posted_address_is_there_when_it_is_asked_for() {
    let setting = setting(None);
    setting.queue.post(PCI_ADDRESS.0, 7);
    setting.queue.post(PCI_ADDRESS.0, 8);
    let mut dispatcher = setting.guest.dispatcher();
    let read = Exit::PortIn { port: PCI_ADDRESS.0, width: 4 };
    let answer = dispatcher.handle(&mut Scripted::new([]), &read);
    assert!(matches!(answer, ControlFlow::Continue(Entry::Data(8))), "{answer:?}");
}

#[test]
fn collected_output_goes_out_with_a_flush() {
    let mut setting = setting(None);
    assert!(!setting.guest.shared.collect_coalesced(false));
    setting.queue.say("name? ");
    assert!(setting.guest.shared.collect_coalesced(false));
    assert_eq!(setting.arrived(), "");
    assert_eq!(setting.shown(), "name? ");
}

#[test]
fn what_does_not_fit_stays_in_its_place() {
    let mut setting = setting(None);
    setting.queue.say(&"0123456789".repeat(500));
    setting.queue.post(PCI_ADDRESS.0, 1);
    assert!(setting.guest.shared.collect_coalesced(false));
    assert_eq!(setting.queue.left(), 5001 - 4096);
    let mut all = String::new();
    for _ in 0..2 {
        all += &setting.shown();
        setting.guest.shared.collect_coalesced(false);
    }
    assert!(!setting.guest.shared.has_coalesced());
    assert_eq!(all, "0123456789".repeat(500));
}

#[test]
fn a_rate_holds_for_collected_output_except_at_the_end() {
    let mut setting = setting(Some(100));
    setting.queue.say(&"x".repeat(200));
    assert!(setting.guest.shared.collect_coalesced(false));
    let left = setting.queue.left();
    // What the time of the test itself is worth, which is at least the first one.
    assert!((100..=199).contains(&left), "{left}");
    assert!(setting.guest.shared.collect_coalesced(true));
    assert_eq!(setting.queue.left(), 0);
    assert_eq!(setting.shown().len(), 200);
}

#[test]
fn a_vcpu_waits_for_the_rate_of_what_it_posted_and_a_stop_ends_that() {
    let setting = setting(Some(1));
    setting.queue.say("long");
    setting.guest.stop();
    let start = Instant::now();
    assert!(matches!(setting.guest.shared.settle_coalesced(), Err(Next::Stopped)));
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(setting.guest.shared.has_coalesced());
}

#[test]
fn only_interface_v1_has_output_without_exits() {
    assert!(clock(Interface::V1).is_some());
    assert!(clock(Interface::V2).is_none());
}
