//! Descriptor chains, well-formed and hostile, against a model.

#![cfg(test)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of tests are small, or are cut from random ones"
)]

use std::sync::Arc;

use nerite_memory::GuestRam;
use nerite_virtio::fake::{FakeQueue, INDIRECT, NEXT, RAM, Rings, WRITE, ram, write_descriptor};
use nerite_virtio::{Chain, ChainError, Queue, QueueError, Segment, feature};
use proptest::prelude::*;

const SIZE: u64 = 1 << 20;
const BUFFERS: u64 = RAM + 0x10000;
const LARGEST: u16 = 64; // What the device allows, unless a test's queue is larger.

fn queues(size: u16, features: u64) -> (Queue, FakeQueue, Arc<GuestRam>) {
    let ram = ram(SIZE);
    let rings = Rings::at(RAM, size);
    let config = rings.config(0, LARGEST.max(size));
    (Queue::new(ram.clone(), &config, features).unwrap(), FakeQueue::new(ram.clone(), rings), ram)
}

fn chain_error(queue: &mut Queue) -> ChainError {
    match queue.pop(&mut Chain::new()) {
        Err(QueueError::Chain { source, .. }) => source,
        other => panic!("not a malformed chain: {other:?}"),
    }
}

#[test]
fn a_chain_comes_in_order_and_goes_back() {
    let (mut queue, mut guest, _) = queues(8, 0);
    let mut chain = Chain::new();
    assert!(!queue.pop(&mut chain).unwrap());
    let head = guest.add(&[(BUFFERS, 12, 0), (BUFFERS + 100, 0, 0), (BUFFERS + 200, 30, WRITE)]);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.readable(), [Segment { address: BUFFERS, length: 12 }]);
    assert_eq!(chain.writable(), [Segment { address: BUFFERS + 200, length: 30 }]);
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (12, 30));
    queue.undo_pop(1);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.head(), head);
    assert_eq!(guest.take_used(), None);
    queue.push(chain.head(), 30).unwrap();
    assert_eq!(guest.take_used(), Some((head.into(), 30)));
    assert!(!queue.pop(&mut chain).unwrap());
}

#[test]
fn a_chain_that_ends_in_itself_ends() {
    let (mut queue, mut guest, _) = queues(8, 0);
    guest.set_descriptor(0, (BUFFERS, 1, NEXT), 1);
    guest.set_descriptor(1, (BUFFERS, 1, NEXT), 0);
    guest.publish(0);
    assert_eq!(chain_error(&mut queue), ChainError::TooLong(8));
    guest.set_descriptor(3, (BUFFERS, 1, NEXT), 3);
    guest.publish(3);
    assert_eq!(chain_error(&mut queue), ChainError::TooLong(8));
}

#[test]
fn a_chain_of_the_whole_queue_is_the_longest() {
    let (mut queue, mut guest, _) = queues(8, 0);
    guest.add(&[(BUFFERS, 1, 0); 8]);
    let mut chain = Chain::new();
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!(chain.readable().len(), 8);
}

#[test]
fn descriptors_and_buffers_outside_are_errors() {
    let (mut queue, mut guest, _) = queues(8, 0);
    guest.publish(8);
    assert_eq!(chain_error(&mut queue), ChainError::Index { index: 8, size: 8 });
    guest.set_descriptor(0, (BUFFERS, 1, NEXT), 0xffff);
    guest.publish(0);
    assert_eq!(chain_error(&mut queue), ChainError::Index { index: 0xffff, size: 8 });
    let outside = [
        (0, 1),
        (RAM - 1, 2),
        (RAM + SIZE, 1),
        (RAM + SIZE - 4, 5),
        (u64::MAX, 2),
        (u64::MAX - 3, 0xffff_ffff),
        (BUFFERS, 0xffff_ffff),
    ];
    for (address, length) in outside {
        guest.set_descriptor(0, (address, length, WRITE), 0);
        guest.publish(0);
        assert_eq!(chain_error(&mut queue), ChainError::OutsideRam { address, length });
    }
}

#[test]
fn what_is_read_comes_before_what_is_written() {
    let (mut queue, mut guest, _) = queues(8, 0);
    guest.add(&[(BUFFERS, 4, WRITE), (BUFFERS, 4, 0)]);
    assert_eq!(chain_error(&mut queue), ChainError::Order);
}

#[test]
fn indirect_tables_are_followed_once() {
    let (mut queue, mut guest, ram) = queues(8, feature::INDIRECT_DESC);
    let table = RAM + 0x8000;
    write_descriptor(&ram, table, BUFFERS, 5, NEXT, 2);
    write_descriptor(&ram, table + 32, BUFFERS + 64, 6, WRITE, 0);
    let mut chain = Chain::new();
    // Direct descriptors first; the mark of the table's own descriptor does not matter.
    guest.add(&[(BUFFERS + 9, 3, 0), (table, 48, INDIRECT | WRITE)]);
    assert!(queue.pop(&mut chain).unwrap());
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (8, 6));

    write_descriptor(&ram, table, table, 16, INDIRECT, 0);
    guest.add(&[(table, 48, INDIRECT)]);
    assert_eq!(chain_error(&mut queue), ChainError::Indirect);
    guest.add(&[(table, 48, INDIRECT), (BUFFERS, 1, 0)]);
    assert_eq!(chain_error(&mut queue), ChainError::Indirect);
    for length in [0, 1, 15, 17, 0xffff_fff1] {
        guest.add(&[(table, length, INDIRECT)]);
        assert_eq!(chain_error(&mut queue), ChainError::IndirectLength(length));
    }
    for address in [0, RAM + SIZE - 8, u64::MAX - 7] {
        guest.add(&[(address, 16, INDIRECT)]);
        assert_eq!(chain_error(&mut queue), ChainError::OutsideRam { address, length: 16 });
    }
    write_descriptor(&ram, table, BUFFERS, 1, NEXT, 3);
    guest.add(&[(table, 48, INDIRECT)]);
    assert_eq!(chain_error(&mut queue), ChainError::Index { index: 3, size: 3 });
}

/// Writes a table of `count` chained descriptors of one byte each. Returns its descriptor.
fn table_of(ram: &GuestRam, count: u16) -> (u64, u32, u16) {
    let table = RAM + 0x8000;
    for index in 0..count {
        let next = if index + 1 < count { NEXT } else { 0 };
        write_descriptor(ram, table + 16 * u64::from(index), BUFFERS, 1, next, index + 1);
    }
    (table, 16 * u32::from(count), INDIRECT)
}

#[test]
fn an_indirect_table_holds_as_many_as_the_largest_queue() {
    // Whatever the ring's size, and without the descriptors in front of the table.
    for size in [1, 8, LARGEST, 2 * LARGEST] {
        let (mut queue, mut guest, ram) = queues(size, feature::INDIRECT_DESC);
        let most = LARGEST.max(size);
        let mut chain = Chain::new();
        let direct = usize::from(size) - 1;
        guest.add(&[vec![(BUFFERS, 1, 0); direct], vec![table_of(&ram, most)]].concat());
        assert!(queue.pop(&mut chain).unwrap(), "ring of {size}");
        assert_eq!(chain.readable().len(), direct + usize::from(most));
        queue.push(chain.head(), 0).unwrap();
        guest.add(&[table_of(&ram, most + 1)]);
        assert_eq!(chain_error(&mut queue), ChainError::TooLong(most));
    }
}

#[test]
fn an_indirect_table_that_ends_in_itself_ends() {
    let (mut queue, mut guest, ram) = queues(8, feature::INDIRECT_DESC);
    let (table, length, flags) = table_of(&ram, 3);
    write_descriptor(&ram, table + 32, BUFFERS, 1, NEXT, 0);
    guest.add(&[(table, length, flags)]);
    assert_eq!(chain_error(&mut queue), ChainError::TooLong(LARGEST));
}

#[test]
fn indirect_tables_must_have_been_negotiated() {
    let (mut queue, mut guest, ram) = queues(8, 0);
    write_descriptor(&ram, RAM + 0x8000, BUFFERS, 5, 0, 0);
    guest.add(&[(RAM + 0x8000, 16, INDIRECT)]);
    assert_eq!(chain_error(&mut queue), ChainError::Indirect);
}

#[test]
fn an_index_that_jumps_is_an_error() {
    for jump in [9, 100, 0x8000, 0xffff] {
        let (mut queue, mut guest, _) = queues(8, 0);
        guest.add(&[(BUFFERS, 1, 0)]);
        guest.set_available_index(jump);
        let result = queue.pop(&mut Chain::new());
        assert!(matches!(result, Err(QueueError::Ring { .. })), "{jump}: {result:?}");
    }
    // Back by one, after it was taken.
    let (mut queue, mut guest, _) = queues(8, 0);
    guest.add(&[(BUFFERS, 1, 0)]);
    assert!(queue.pop(&mut Chain::new()).unwrap());
    guest.set_available_index(0);
    assert!(queue.pop(&mut Chain::new()).is_err());
}

#[test]
fn the_same_chain_twice_is_two_requests() {
    let (mut queue, mut guest, _) = queues(8, 0);
    let head = guest.add(&[(BUFFERS, 1, 0)]);
    guest.publish(head);
    let mut chain = Chain::new();
    for _ in 0..2 {
        assert!(queue.pop(&mut chain).unwrap());
        queue.push(chain.head(), 0).unwrap();
        assert_eq!(guest.take_used(), Some((head.into(), 0)));
    }
    assert!(!queue.pop(&mut chain).unwrap());
}

#[test]
fn rings_on_top_of_each_other_end_in_an_error_or_in_nothing() {
    let ram = ram(SIZE);
    let config = Rings { size: 8, descriptors: RAM, available: RAM, used: RAM }.config(0, 8);
    let mut queue = Queue::new(ram.clone(), &config, 0).unwrap();
    let mut chain = Chain::new();
    for seed in 0..200_u64 {
        ram.write_obj(RAM + seed % 64, &seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
        if let Ok(true) = queue.pop(&mut chain) {
            queue.push(chain.head(), 1).unwrap();
        }
    }
}

#[test]
fn interrupts_are_raised_where_they_are_wanted() {
    let (mut queue, mut guest, _) = queues(8, 0);
    let serve = |guest: &mut FakeQueue, queue: &mut Queue| {
        guest.add(&[(BUFFERS, 1, 0)]);
        let mut chain = Chain::new();
        assert!(queue.pop(&mut chain).unwrap());
        queue.push(chain.head(), 0).unwrap();
        queue.wants_interrupt().unwrap()
    };
    assert!(serve(&mut guest, &mut queue));
    guest.set_no_interrupt(true);
    assert!(!serve(&mut guest, &mut queue));
    guest.set_no_interrupt(false);
    assert!(serve(&mut guest, &mut queue));

    let (mut queue, mut guest, _) = queues(8, feature::EVENT_IDX);
    guest.set_used_event(2);
    assert!(!serve(&mut guest, &mut queue));
    assert!(!serve(&mut guest, &mut queue));
    assert!(serve(&mut guest, &mut queue), "the third one is the one");
    assert!(!serve(&mut guest, &mut queue));
}

#[test]
fn kicks_are_asked_for_and_not_missed() {
    let (mut queue, mut guest, _) = queues(8, 0);
    queue.disable_kicks().unwrap();
    assert!(!guest.wants_kick());
    assert!(!queue.enable_kicks().unwrap());
    assert!(guest.wants_kick());
    queue.disable_kicks().unwrap();
    guest.add(&[(BUFFERS, 1, 0)]);
    assert!(queue.enable_kicks().unwrap(), "one has come meanwhile");
}

#[test]
fn a_driver_that_is_to_be_silent_with_event_indices_is_whatever_it_makes_of_them() {
    for size in [1, 2, 8, 256] {
        let (mut queue, mut guest, _) = queues(size, feature::EVENT_IDX);
        // A ring that the driver keeps full, as it does with receive buffers.
        (0..size).for_each(|_| _ = guest.add(&[(BUFFERS, 1, WRITE)]));
        queue.disable_kicks().unwrap();
        let mut chain = Chain::new();
        let mut added = size;
        for _ in 0..40_000 {
            assert!(queue.pop(&mut chain).unwrap());
            queue.push(chain.head(), 1).unwrap();
            guest.take_used().unwrap();
            guest.add(&[(BUFFERS, 1, WRITE)]);
            let (before, event) = (added, guest.available_event());
            added += 1;
            // As in 2.7.10, and as drivers have it that notify of all that follows.
            assert!(
                added.wrapping_sub(event).wrapping_sub(1) >= added.wrapping_sub(before),
                "{added} {event}"
            );
            assert!(added <= event, "{added} {event}");
        }
        while queue.pop(&mut chain).unwrap() {
            queue.push(chain.head(), 1).unwrap();
        }
        assert!(!queue.enable_kicks().unwrap());
        assert_eq!(guest.available_event(), added, "the next one");
    }
}

#[test]
fn a_queue_of_any_allowed_size_wraps() {
    for size in [1, 2, 256, 32768] {
        let (mut queue, mut guest, _) = queues(size, 0);
        let mut chain = Chain::new();
        for turn in 0..3 * u32::from(size) {
            let head = guest.add(&[(BUFFERS, 1, 0)]);
            assert!(queue.pop(&mut chain).unwrap());
            queue.push(chain.head(), turn).unwrap();
            assert_eq!(guest.take_used(), Some((head.into(), turn)));
        }
    }
}

/// Result of a well-behaved walk, computed in the plainest way.
fn model(table: &[(u64, u32, u16, u16)], head: u16) -> Option<(u64, u64)> {
    let (mut read, mut written) = (0, 0);
    let mut next = head;
    for _ in 0..table.len() {
        let (address, length, flags, following) = *table.get(usize::from(next))?;
        // No bytes are in RAM anywhere.
        let is_outside = length > 0 && (address < RAM || address + u64::from(length) > RAM + SIZE);
        if is_outside || flags & INDIRECT != 0 {
            return None;
        }
        if flags & WRITE != 0 {
            written += u64::from(length);
        } else if written > 0 {
            return None;
        } else {
            read += u64::from(length);
        }
        if flags & NEXT == 0 {
            return Some((read, written));
        }
        next = following;
    }
    None
}

fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        8 => BUFFERS..BUFFERS + 0x8000,
        1 => RAM - 16..RAM + 16,
        1 => RAM + SIZE - 64..RAM + SIZE + 64,
    ];
    let length = prop_oneof![8 => 0_u32..200, 1 => Just(0xffff_ffff_u32)];
    let flags = prop_oneof![6 => 0_u16..4, 1 => 0_u16..8, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0_u16..16, 1 => any::<u16>()];
    (address, length, flags, next)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Any table of descriptors: the walk agrees with the model, and ends.
    #[test]
    fn direct_chains_agree_with_a_model(
        table in prop::collection::vec(descriptor(), 16),
        head in prop_oneof![8 => 0_u16..16, 1 => any::<u16>()],
    ) {
        let (mut queue, mut guest, _) = queues(16, 0);
        for (index, (address, length, flags, next)) in table.iter().enumerate() {
            guest.set_descriptor(index as u16, (*address, *length, *flags), *next);
        }
        guest.publish(head);
        let mut chain = Chain::new();
        match (queue.pop(&mut chain), model(&table, head)) {
            (Ok(true), Some((read, written))) => {
                prop_assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (read, written));
                let sum = |segments: &[Segment]| segments.iter().map(|one| u64::from(one.length)).sum::<u64>();
                prop_assert_eq!((sum(chain.readable()), sum(chain.writable())), (read, written));
            }
            (Err(_), None) => {}
            (result, model) => prop_assert!(false, "{result:?}, but the model says {model:?}"),
        }
    }

    /// Any bytes at all in rings and tables: no panic, no loop, and what is taken is in RAM.
    #[test]
    fn any_memory_is_survived(
        words in prop::collection::vec(any::<u64>(), 64),
        noise in prop::collection::vec((0_u64..0x400, any::<u64>()), 0..40),
        features in prop::sample::select(vec![0, feature::INDIRECT_DESC, feature::EVENT_IDX | feature::INDIRECT_DESC]),
    ) {
        let (mut queue, _, ram) = queues(16, features);
        for (at, word) in words.iter().enumerate() {
            ram.write_obj(RAM + 8 * at as u64, word).unwrap();
        }
        let mut chain = Chain::new();
        for (offset, word) in noise {
            ram.write_obj(RAM + offset, &word).unwrap();
            ram.write_obj(RAM + 256 + 2, &(offset as u16 % 20)).unwrap();
            if let Ok(true) = queue.pop(&mut chain) {
                for segment in chain.readable().iter().chain(chain.writable()) {
                    prop_assert!(ram.check(segment.address, segment.length.into()).is_ok());
                }
                let _ = queue.push(chain.head(), 0);
            }
            let _ = queue.wants_interrupt();
            let _ = queue.enable_kicks();
        }
    }
}
