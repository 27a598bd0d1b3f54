//! A function that is saved, and restored as another one.

use nerite_saved::testing::{Mutation, golden, mutated, through_json};
use nerite_virtio::{RestoreError, SaveError, VirtioPciState};

use super::*;

/// Another machine with the same guest memory.
fn successor(machine: &Machine) -> Machine {
    let recorder = Arc::new(Recorder::default());
    let wiring = Wiring {
        ram: machine.ram.clone(),
        doorbells: recorder.clone(),
        messages: recorder.clone(),
        address: BAR,
        line: 11,
    };
    let function = Arc::new(VirtioPci::new(Arc::new(Echo::default()), wiring).unwrap());
    Machine { ram: machine.ram.clone(), driver: Driver::new(function.clone()), function, recorder }
}

fn save(machine: &Machine) -> VirtioPciState<()> {
    machine.function.pause();
    through_json(&machine.function.save().unwrap())
}

/// The machine after its way through a saved state.
fn moved(machine: &Machine) -> Machine {
    let saved = save(machine);
    let successor = successor(machine);
    successor.function.restore(&saved).unwrap();
    assert_eq!(successor.function.save().unwrap(), saved);
    successor.function.resume();
    successor
}

fn refused(machine: &Machine, saved: &VirtioPciState<()>) -> String {
    let error = successor(machine).function.restore(saved).unwrap_err();
    nerite_virtio::Causes(&error).to_string()
}

#[test]
fn a_running_function_cannot_be_saved() {
    let machine = machine();
    machine.start();
    assert!(matches!(machine.function.save(), Err(SaveError::NotPaused { .. })));
}

#[test]
fn a_paused_function_does_nothing_until_it_is_resumed() {
    let machine = machine();
    let mut queue = machine.start();
    machine.function.pause();
    queue.add(&[(BUFFERS, 5, 0), (BUFFERS + 64, 8, WRITE)]);
    machine.driver.kick(0);
    // Its driver cannot resume it.
    machine.driver.set_bus_master(false);
    machine.driver.set_bus_master(true);
    assert!(!machine.function.device().serve());
    machine.function.resume();
    assert!(machine.function.device().serve());
    machine.driver.set_bus_master(false);
    machine.function.pause();
    machine.function.resume();
    assert!(machine.function.device().is_paused.load(Ordering::Acquire), "no bus master");
}

#[test]
fn requests_go_on_where_they_were() {
    let mut machine = machine();
    let mut queue = machine.start();
    for turn in 0..40_u8 {
        // In turn: nothing is waiting, one request is, one is answered, one is not seen yet.
        match turn % 4 {
            0 => machine.echo(&mut queue),
            1 => {
                queue.add(&[(BUFFERS, 5, 0), (BUFFERS + 64, 8, WRITE)]);
                machine.driver.kick(0);
            }
            2 => {
                assert!(machine.function.kicks()[0].is_signalled(), "a notification is not lost");
                machine.function.device().serve();
            }
            _ => {
                assert!(queue.take_used().is_some());
                assert_eq!(queue.take_used(), None);
            }
        }
        machine = moved(&machine);
    }
}

#[test]
fn a_state_can_be_taken_by_a_function_that_was_used() {
    let machine = machine();
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let saved = save(&machine);
    let mut memory = vec![0; 1 << 20];
    machine.ram.read(RAM, &mut memory).unwrap();
    for _ in 0..2 {
        machine.function.resume();
        let mut later = machine.start();
        machine.echo(&mut later);
        machine.ram.write(RAM, &memory).unwrap();
        machine.function.restore(&saved).unwrap();
        assert_eq!(machine.function.save().unwrap(), saved);
        assert_eq!(machine.recorder.doorbells.lock().unwrap().len(), 1);
    }
    machine.function.resume();
    machine.echo(&mut queue);
}

#[test]
fn a_pin_that_was_raised_is_raised_again() {
    let machine = machine();
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let machine = moved(&machine);
    let notifier = machine.function.notifier();
    assert!(notifier.pin().take());
    assert_eq!(machine.driver.isr(), 1);
    notifier.resample();
    assert!(!notifier.pin().is_signalled());
    assert!(!moved(&machine).function.notifier().pin().is_signalled());
}

#[test]
fn a_message_that_is_pending_is_sent_later() {
    let machine = machine();
    machine.driver.set_bus_master(true);
    machine.driver.set_msix(true);
    let mut queue = machine.start();
    machine.echo(&mut queue);
    // The vector is masked, so its pending bit is set.
    assert_eq!(machine.driver.read(region::MSIX_PENDING, 8), 2);
    let machine = moved(&machine);
    assert_eq!(machine.driver.read(region::MSIX_PENDING, 8), 2);
    machine.driver.set_message(1, 0xfee0_0000, 0x40);
    let message = Some(Message { address: 0xfee0_0000, data: 0x40 });
    assert_eq!(*machine.recorder.messages.lock().unwrap(), [(1, message)]);
    assert!(machine.function.notifier().queue_event(0).unwrap().is_signalled());
    // While the machine is paused, nothing is connected, so that a signal stays.
    let saved = save(&machine);
    assert_eq!(saved.msix.pending, [1]);
    assert_eq!(machine.recorder.messages.lock().unwrap().last(), Some(&(1, None)));
    let machine = successor(&machine);
    machine.function.restore(&saved).unwrap();
    assert_eq!(*machine.recorder.messages.lock().unwrap(), []);
    machine.function.resume();
    assert_eq!(*machine.recorder.messages.lock().unwrap(), [(1, message)]);
}

#[test]
fn a_reset_in_progress_is_through_when_the_state_is_saved() {
    let machine = machine();
    machine.start();
    machine.function.device().is_busy.store(true, Ordering::Release);
    machine.driver.set_status(0);
    assert_ne!(machine.driver.status(), 0);
    machine.function.pause();
    assert!(machine.function.save().is_err(), "the device is at work");
    machine.function.device().is_busy.store(false, Ordering::Release);
    assert_eq!(machine.function.save().unwrap().common.status, 0);
}

#[test]
fn a_device_that_needs_a_reset_still_does() {
    let machine = machine();
    machine.driver.negotiate(0);
    machine.driver.set_queue(0, &Rings { size: 5, ..Rings::at(RAM, 16) });
    machine.driver.ready();
    let machine = moved(&machine);
    assert_ne!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
    assert!(!machine.function.device().serve());
    let mut queue = machine.start();
    machine.echo(&mut queue);
}

#[test]
fn impossible_states_are_refused_by_name() {
    let machine = machine();
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let saved = save(&machine);
    let with = |change: &dyn Fn(&mut VirtioPciState<()>)| {
        let mut saved = saved.clone();
        change(&mut saved);
        refused(&machine, &saved)
    };
    type Change = fn(&mut VirtioPciState<()>);
    let changes: [(&str, Change); 19] = [
        ("version 2", |saved| saved.version = 2),
        ("kind", |saved| saved.kind = 2),
        ("ISR status", |saved| saved.interrupts.isr = 4),
        ("length", |saved| saved.config.registers.truncate(255)),
        ("read-only bits", |saved| saved.config.registers[0] ^= 1),
        ("number of vectors", |saved| saved.msix.entries.truncate(2)),
        ("address", |saved| saved.msix.entries[0].address = 2),
        ("pending vector", |saved| saved.msix.pending = vec![3]),
        ("pending vector", |saved| saved.msix.pending = vec![1, 1]),
        ("number of queues", |saved| saved.common.queues.truncate(1)),
        ("number of queues", |saved| saved.queues = vec![None; 3]),
        ("configuration vector", |saved| saved.common.config_vector = 3),
        ("queue vector", |saved| saved.common.queues[1].vector = 3),
        ("device status", |saved| saved.common.status = 0x10),
        ("device status", |saved| saved.common.status = status::DRIVER_OK | 3),
        ("features is not this machine's", |saved| saved.common.driver_features |= 1 << 40),
        ("features is impossible", |saved| saved.common.driver_features = 0),
        ("features is not this machine's", |saved| saved.common.driver_features |= 2),
        ("is not in RAM", |saved| saved.common.queues[0].used = RAM - 4),
    ];
    for (expected, change) in changes {
        let text = with(&change);
        assert!(text.contains(expected), "{text}");
    }
    assert!(with(&|saved| saved.common.queues[0].size = 12).contains("power of two"));
    assert!(with(&|saved| saved.common.queues[0].size = 32).contains("power of two"));
    assert!(matches!(
        successor(&machine).function.restore(&VirtioPciState { version: 0, ..saved.clone() }),
        Err(RestoreError::Version { found: 0, .. })
    ));
}

#[test]
fn indices_that_do_not_fit_the_rings_need_a_reset() {
    let machine = machine();
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let mut saved = save(&machine);
    saved.queues[0].as_mut().unwrap().next_available = 0x8000;
    let machine = successor(&machine);
    machine.function.restore(&saved).unwrap();
    machine.function.resume();
    assert!(!machine.function.device().serve());
    assert_ne!(machine.driver.status() & status::DEVICE_NEEDS_RESET, 0);
}

#[test]
fn states_of_version_1_can_be_restored() {
    let machine = machine();
    machine.driver.set_bus_master(true);
    machine.driver.set_msix(true);
    let mut queue = machine.start();
    machine.echo(&mut queue);
    let saved = golden("tests/transport/state_v1.json", &save(&machine));
    let machine = successor(&machine);
    machine.function.restore(&saved).unwrap();
    assert_eq!(machine.function.save().unwrap(), saved);
    machine.function.resume();
    machine.echo(&mut queue);
    // The driver goes on with the function that it has found.
    let function = machine.function.as_ref();
    assert_eq!(function.read_config(0x10, 4), 0xc000_0008, "a base address of 32 bits");
    function.write_config(0x14, 4, 1);
    assert_eq!(function.read_config(0x14, 4), 0);
    let common = capabilities::capability(function, 1);
    assert_eq!(function.read_config(common + 12, 4), 56, "length of the common configuration");
    machine.echo(&mut queue);
}

#[test]
fn functions_of_one_layout_take_states_of_the_other() {
    let machine = machine();
    let current = save(&machine);
    let old = golden("tests/transport/state_v1.json", &current);
    for state in [&old, &current, &old] {
        machine.function.restore(state).unwrap();
        assert_eq!(machine.function.save().unwrap(), *state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a driver does, the function can be saved, restored, and is the same then.
    #[test]
    fn every_state_that_can_be_reached_can_be_restored(
        handshake: bool,
        accesses in prop::collection::vec(
            (0_u8..4, prop_oneof![0_u64..64, 0_u64..0x8000], prop::sample::select(vec![1_u8, 2, 4, 8]),
             prop_oneof![0_u64..16, Just(RAM), Just(RAM + 0x1000), any::<u64>()]), 0..40),
    ) {
        let machine = machine();
        if handshake {
            machine.driver.negotiate(0);
            machine.driver.set_queue(0, &Rings::at(RAM, 16));
        }
        for (what, offset, width, value) in accesses {
            match what {
                0 => drop(machine.function.read_memory(BAR + offset, width)),
                1 => drop(machine.function.write_memory(BAR + offset, width, value)),
                2 => machine.function.write_config(offset as u8, width.min(4), value as u32),
                _ => {
                    machine.function.write_memory(BAR + common_cfg::DEVICE_STATUS, 1, 15);
                }
            }
        }
        moved(&machine);
    }

    /// Nothing in a saved state makes the function panic, or unable to be reset.
    #[test]
    fn hostile_states_are_survived(mutations in prop::collection::vec(any::<Mutation>(), 1..6)) {
        let machine = machine();
        let mut queue = machine.start();
        machine.echo(&mut queue);
        if let Some(saved) = mutated(&save(&machine), &mutations) {
            let machine = successor(&machine);
            if machine.function.restore(&saved).is_ok() {
                machine.function.save().unwrap();
                machine.function.resume();
                place(&*machine.function, BAR);
                machine.function.write_config(4, 2, 6);
                let mut queue = machine.start();
                machine.echo(&mut queue);
            }
        }
    }
}
