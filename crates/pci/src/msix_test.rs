use std::sync::Mutex;

use super::*;

type Calls = Vec<(u16, Option<Message>)>;

/// Remembers what it was asked to connect, and refuses messages to address 0x666000.
#[derive(Default)]
struct Recorder(Mutex<Calls>);

/// A message that is refused.
const REFUSED: Message = Message { address: 0x666000, data: 0 };

impl MessageRoutes for Recorder {
    fn connect(&self, vector: u16, _: &Event, message: Option<Message>) -> io::Result<()> {
        self.0.lock().unwrap().push((vector, message));
        match message {
            Some(Message { address: 0x666000, .. }) => Err(io::ErrorKind::InvalidInput.into()),
            _ => Ok(()),
        }
    }
}

fn msix(vectors: usize) -> (Msix, Arc<Recorder>, Arc<[Event]>) {
    let events: Arc<[Event]> = (0..vectors).map(|_| Event::new().unwrap()).collect();
    let recorder = Arc::new(Recorder::default());
    let log = Arc::new(LogBudget::new("a test", 16));
    let mut msix = Msix::new(events.clone(), recorder.clone(), log);
    msix.set_bus_master(true);
    (msix, recorder, events)
}

fn calls(recorder: &Recorder) -> Calls {
    std::mem::take(&mut recorder.0.lock().unwrap())
}

#[test]
fn a_vector_is_connected_when_it_is_unmasked_and_msix_is_on() {
    let (mut msix, recorder, _events) = msix(3);
    msix.write_table(16, 4, 0xfee0_1000);
    msix.write_table(24, 4, 0x41);
    msix.write_table(28, 4, 0);
    assert_eq!(calls(&recorder), [], "MSI-X is off");
    msix.set_control(0x8002);
    let message = Message { address: 0xfee0_1000, data: 0x41 };
    assert_eq!(calls(&recorder), [(1, Some(message))]);
    msix.set_control(0x8002);
    msix.write_table(28, 4, 0);
    assert_eq!(calls(&recorder), [], "nothing has changed");
    msix.set_control(0xc002);
    msix.set_control(0x8002);
    assert_eq!(calls(&recorder), [(1, None), (1, Some(message))]);
    msix.write_table(28, 4, 1);
    msix.write_table(24, 4, 0x42);
    msix.write_table(28, 4, 0);
    assert_eq!(calls(&recorder), [(1, None), (1, Some(Message { data: 0x42, ..message }))]);
    msix.set_control(0);
    assert_eq!(calls(&recorder), [(1, None)]);
}

#[test]
fn the_table_takes_double_and_quad_words() {
    let (mut msix, _, _events) = msix(2);
    msix.write_table(0, 8, 0x1_fee0_0003);
    msix.write_table(8, 8, 0xffff_ffff_0000_0055);
    assert_eq!(msix.read_table(0, 8), 0x1_fee0_0000, "the address is a multiple of four");
    assert_eq!(msix.read_table(8, 8), 0x1_0000_0055, "reserved bits of vector control stay zero");
    for (offset, width) in [(0, 1), (0, 2), (2, 4), (4, 8), (0, 3)] {
        msix.write_table(offset, width, 0);
        assert_eq!(msix.read_table(offset, width), u64::MAX);
    }
    assert_eq!(msix.read_table(0, 8), 0x1_fee0_0000);
    for offset in [32, 0x7f0, u64::MAX - 3] {
        msix.write_table(offset, 4, 7);
        assert_eq!(msix.read_table(offset, 4), 0, "no such vector");
    }
}

#[test]
fn a_signal_of_a_masked_vector_is_pending() {
    let (mut msix, _, events) = msix(70);
    events[2].signal();
    events[65].signal();
    assert_eq!(msix.read_pending(0, 8), 4);
    assert_eq!(msix.read_pending(0, 4), 4);
    assert_eq!(msix.read_pending(8, 8), 2);
    assert_eq!(msix.read_pending(16, 8), 0);
    assert_eq!(msix.read_pending(4, 8), u64::MAX);
    assert_eq!(msix.read_pending(0, 1), u64::MAX);
    msix.set_control(0x8000);
    msix.write_table(2 * 16 + 12, 4, 0);
    assert_eq!(msix.read_pending(0, 8), 0, "delivered by the connected route");
}

#[test]
fn a_message_that_is_refused_stays_pending() {
    let (mut msix, recorder, events) = msix(1);
    msix.set_control(0x8000);
    msix.write_table(0, 8, 0x666000);
    msix.write_table(12, 4, 0);
    events[0].signal();
    assert_eq!(msix.read_pending(0, 4), 1);
    assert_eq!(calls(&recorder).len(), 1);
}

#[test]
fn a_message_that_is_refused_takes_the_old_one_away() {
    let (mut msix, recorder, events) = msix(1);
    let message = Message { address: 0xfee0_0000, data: 0x41 };
    msix.set_control(0x8000);
    msix.write_table(8, 4, 0x41);
    msix.write_table(0, 8, message.address);
    msix.write_table(12, 4, 0);
    assert_eq!(calls(&recorder), [(0, Some(message))]);
    msix.write_table(0, 8, REFUSED.address);
    let refused = Message { data: 0x41, ..REFUSED };
    assert_eq!(calls(&recorder), [(0, Some(refused)), (0, None)]);
    events[0].signal();
    assert_eq!(msix.read_pending(0, 4), 1);
    // Nothing is left to take away.
    msix.write_table(0, 8, REFUSED.address | 1 << 32);
    assert_eq!(calls(&recorder).len(), 1);
    msix.write_table(0, 8, message.address);
    assert_eq!(calls(&recorder), [(0, Some(message))]);
    assert_eq!(msix.read_pending(0, 4), 0);
}

#[test]
fn a_function_that_is_no_bus_master_sends_no_message() {
    let (mut msix, recorder, events) = msix(2);
    let message = Message { address: 0xfee0_0000, data: 0 };
    msix.set_bus_master(false);
    msix.set_control(0x8000);
    msix.write_table(16, 8, message.address);
    msix.write_table(28, 4, 0);
    events[1].signal();
    assert_eq!((calls(&recorder), msix.read_pending(0, 4)), (vec![], 2));
    msix.set_bus_master(true);
    assert_eq!((calls(&recorder), msix.read_pending(0, 4)), (vec![(1, Some(message))], 0));
    msix.set_bus_master(true);
    msix.set_bus_master(false);
    assert_eq!((calls(&recorder), msix.read_pending(0, 4)), (vec![(1, None)], 2));
}

#[test]
fn refusals_do_not_flood_the_log() {
    let events: Arc<[Event]> = [Event::new().unwrap()].into();
    let log = Arc::new(LogBudget::new("a test", 16));
    let mut msix = Msix::new(events, Arc::new(Recorder::default()), log.clone());
    msix.set_bus_master(true);
    msix.set_control(0x8000);
    msix.write_table(12, 4, 0);
    for _ in 0..1000 {
        msix.write_table(0, 8, REFUSED.address);
    }
    assert!(log.dropped() > 900, "{}", log.dropped());
}

#[test]
fn the_capability_says_where_the_table_is() {
    let (msix, _, _events) = msix(5);
    assert_eq!(msix.capability(1, 0x4000, 0x4800), [4, 0, 1, 0x40, 0, 0, 1, 0x48, 0, 0]);
    assert_eq!(msix.vectors(), 5);
}

#[test]
fn a_restored_table_sends_what_was_pending() {
    let (mut first, _, events) = msix(3);
    first.set_control(0x8002);
    let message = Message { address: 0xfee0_1000, data: 0x41 };
    for vector in [0, 2] {
        first.write_table(16 * vector, 8, message.address);
        first.write_table(16 * vector + 8, 8, message.data.into());
    }
    events[1].signal();
    first.set_bus_master(false);
    events[2].signal();
    let saved = first.save();
    assert_eq!(saved.pending, [1, 2]);
    let (mut second, recorder, events) = msix(3);
    events[0].signal();
    second.set_control(0x8002);
    second.restore(&saved).unwrap();
    assert_eq!(calls(&recorder), [(0, Some(message)), (2, Some(message))]);
    assert_eq!([0, 1, 2].map(|vector| events[vector].is_signalled()), [false, true, true]);
    assert_eq!(second.read_pending(0, 8), 2, "the third is on its way");
}
