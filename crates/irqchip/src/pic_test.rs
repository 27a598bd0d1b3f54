use proptest::prelude::*;

use super::*;

/// As Linux sets the pair up: vectors from 0x30, the second chip behind pin 2, 8086 mode.
fn initialized() -> PicPair {
    let mut pair = PicPair::new();
    for (port, values) in [(0x20, [0x11, 0x30, 4, 1]), (0xa0, [0x11, 0x38, 2, 1])] {
        pair.write_port(port, values[0]);
        values[1..].iter().for_each(|value| assert!(pair.write_port(port + 1, *value)));
    }
    pair
}

fn pulse(pair: &mut PicPair, pin: u8) {
    pair.set_pin(pin, true);
    pair.set_pin(pin, false);
}

/// Requests and in-service bits of both chips.
fn registers(pair: &mut PicPair) -> [u8; 4] {
    [(0x20, 0x0a), (0x20, 0x0b), (0xa0, 0x0a), (0xa0, 0x0b)].map(|(port, command)| {
        pair.write_port(port, command);
        pair.read_port(port).unwrap()
    })
}

/// 8259A, "fully nested mode": pin 0 has the highest priority, and what is in service holds back
/// its own and lower ones.
#[test]
fn interrupts_nest_by_priority_until_their_end() {
    let mut pair = initialized();
    [4, 1, 6].into_iter().for_each(|pin| pulse(&mut pair, pin));
    assert_eq!((pair.has_interrupt(), pair.acknowledge()), (true, 0x31));
    assert!(!pair.has_interrupt());
    pulse(&mut pair, 0);
    assert_eq!(pair.acknowledge(), 0x30);
    assert_eq!(registers(&mut pair), [0b101_0000, 0b11, 0, 0]);
    // A non-specific end is for the highest in service; a specific one names its pin.
    pair.write_port(0x20, 0x20);
    assert_eq!(registers(&mut pair)[1], 0b10);
    assert!(!pair.has_interrupt());
    pair.write_port(0x20, 0x61);
    assert_eq!((pair.acknowledge(), pair.has_interrupt()), (0x34, false));
}

/// 8259A, "interrupt masks" (OCW1): masked requests wait.
#[test]
fn masked_requests_wait() {
    let mut pair = initialized();
    pair.write_port(0x21, 0xff);
    pulse(&mut pair, 3);
    assert_eq!((pair.has_interrupt(), pair.read_port(0x21)), (false, Some(0xff)));
    pair.write_port(0x21, 0xf7);
    assert_eq!((pair.has_interrupt(), pair.acknowledge()), (true, 0x33));
}

/// 8259A, "cascade mode": the second chip gives the vector, and both are to be ended.
#[test]
fn the_second_chip_interrupts_through_the_first() {
    let mut pair = initialized();
    pulse(&mut pair, 12);
    assert_eq!((pair.has_interrupt(), pair.acknowledge()), (true, 0x3c));
    assert_eq!(registers(&mut pair), [0, 4, 0, 0x10]);
    // In fully nested mode nothing of the second chip comes until the first one's end, not even
    // what is more urgent.
    pulse(&mut pair, 8);
    assert!(!pair.has_interrupt());
    pair.write_port(0xa0, 0x20);
    pair.write_port(0x20, 0x20);
    assert_eq!(pair.acknowledge(), 0x38);
    // A pin that does not exist, and the cascade itself, do nothing.
    let before = pair.clone();
    [2, 16, 255].into_iter().for_each(|pin| pair.set_pin(pin, true));
    assert_eq!(pair, before);
}

/// 8259A, "special fully nested mode": more urgent requests of the second chip come while it is in
/// service.
#[test]
fn special_fully_nested_mode_nests_within_the_second_chip() {
    let mut pair = PicPair::new();
    pair.write_port(0x20, 0x11);
    [0x30, 4, 0x11].into_iter().for_each(|value| assert!(pair.write_port(0x21, value)));
    pair.write_port(0xa0, 0x11);
    [0x38, 2, 1].into_iter().for_each(|value| assert!(pair.write_port(0xa1, value)));
    pulse(&mut pair, 12);
    assert_eq!(pair.acknowledge(), 0x3c);
    pulse(&mut pair, 9);
    assert_eq!((pair.has_interrupt(), pair.acknowledge()), (true, 0x39));
    pulse(&mut pair, 14);
    assert!(!pair.has_interrupt());
}

/// 8259A, "automatic end of interrupt mode" and "automatic rotation".
#[test]
fn automatic_ends_leave_nothing_in_service_and_rotate() {
    let mut pair = PicPair::new();
    pair.write_port(0x20, 0x11);
    [0x30, 4, 3].into_iter().for_each(|value| assert!(pair.write_port(0x21, value)));
    pair.write_port(0x20, 0x80);
    [3, 4].into_iter().for_each(|pin| pulse(&mut pair, pin));
    assert_eq!((pair.acknowledge(), registers(&mut pair)[1]), (0x33, 0));
    // Pin 3 is the lowest now: pin 4 goes before a new request of it.
    pulse(&mut pair, 3);
    assert_eq!([pair.acknowledge(), pair.acknowledge()], [0x34, 0x33]);
    // Rotation off again: the order stays where it is.
    pair.write_port(0x20, 0x00);
    [3, 4].into_iter().for_each(|pin| pulse(&mut pair, pin));
    assert_eq!([pair.acknowledge(), pair.acknowledge()], [0x34, 0x33]);
}

/// 8259A, "specific rotation": set priority, and the ends that rotate.
#[test]
fn priorities_rotate_as_commanded() {
    let mut pair = initialized();
    pair.write_port(0x20, 0xc4);
    [4, 5].into_iter().for_each(|pin| pulse(&mut pair, pin));
    assert_eq!(pair.acknowledge(), 0x35);
    // A non-specific end that rotates makes pin 5 the lowest.
    pair.write_port(0x20, 0xa0);
    [5, 6].into_iter().for_each(|pin| pulse(&mut pair, pin));
    assert_eq!(pair.acknowledge(), 0x36);
    pair.write_port(0x20, 0xe6);
    assert_eq!(pair.acknowledge(), 0x34, "pin 6 is the lowest now, and 7 the highest");
}

/// 8259A, "special mask mode": what is masked and in service holds nothing back, and a non-specific
/// end spares it.
#[test]
fn special_mask_mode_opens_lower_priorities() {
    let mut pair = initialized();
    pulse(&mut pair, 1);
    assert_eq!(pair.acknowledge(), 0x31);
    pulse(&mut pair, 5);
    pair.write_port(0x21, 0x02);
    assert!(!pair.has_interrupt());
    pair.write_port(0x20, 0x68);
    assert_eq!((pair.has_interrupt(), pair.acknowledge()), (true, 0x35));
    pair.write_port(0x20, 0x20);
    assert_eq!(registers(&mut pair)[1], 0b10);
    pair.write_port(0x20, 0x48);
    pulse(&mut pair, 5);
    assert!(!pair.has_interrupt());
}

/// 8259A, "poll command": the read acknowledges.
#[test]
fn a_poll_acknowledges() {
    let mut pair = initialized();
    pair.write_port(0x20, 0x0c);
    assert_eq!(pair.read_port(0x20), Some(7));
    pulse(&mut pair, 5);
    pair.write_port(0x20, 0x0c);
    assert_eq!(pair.read_port(0x21), Some(0x85), "either port");
    assert_eq!((pair.has_interrupt(), registers(&mut pair)[..2].to_vec()), (false, vec![0, 0x20]));
    pulse(&mut pair, 11);
    pair.write_port(0xa0, 0x0c);
    assert_eq!((pair.read_port(0xa0), pair.has_interrupt()), (Some(0x83), false));
    assert_eq!(registers(&mut pair), [0, 0x20, 0, 8]);
}

/// 8259A, "interrupt sequence": without a request that waits the vector is that of pin 7, and
/// nothing is in service.
#[test]
fn spurious_interrupts_have_the_vector_of_pin_7() {
    let mut pair = initialized();
    assert_eq!((pair.acknowledge(), registers(&mut pair)), (0x37, [0; 4]));
    // A level of the second chip that is gone: the first one remembers the edge on its cascade.
    pair.write_port(0x4d1, 0x08);
    pair.set_pin(11, true);
    pair.set_pin(11, false);
    assert!(pair.has_interrupt());
    assert_eq!((pair.acknowledge(), registers(&mut pair)), (0x3f, [0, 4, 0, 0]));
}

/// The edge/level control registers: which pins can be level-triggered, and that a level asks until
/// it is gone.
#[test]
fn levels_ask_until_they_are_gone() {
    let mut pair = initialized();
    pair.write_port(0x4d0, 0xff);
    pair.write_port(0x4d1, 0xff);
    assert_eq!((pair.read_port(0x4d0), pair.read_port(0x4d1)), (Some(0xf8), Some(0xde)));
    pair.set_pin(5, true);
    for _ in 0..2 {
        assert_eq!((pair.has_interrupt(), pair.acknowledge()), (true, 0x35));
        pair.write_port(0x20, 0x20);
    }
    pair.set_pin(5, false);
    assert!(!pair.has_interrupt());
    // An edge is latched until it is acknowledged, and a level that stays is no second one.
    pair.set_pin(1, true);
    pair.set_pin(1, true);
    assert_eq!(pair.acknowledge(), 0x31);
    pair.write_port(0x20, 0x20);
    assert!(!pair.has_interrupt());
    // A pin that is asserted while it becomes level-triggered asks at once.
    pair.write_port(0x4d0, 0);
    pair.set_pin(6, true);
    assert_eq!(pair.acknowledge(), 0x36);
    pair.write_port(0x20, 0x20);
    assert!(!pair.has_interrupt());
    pair.write_port(0x4d0, 0x40);
    assert!(pair.has_interrupt());
}

/// 8259A, "initialization command words": what ICW1 resets, and which words follow it.
#[test]
fn initialization_takes_the_words_that_it_announces() {
    let mut pair = initialized();
    pair.write_port(0x20, 0xc0);
    pair.write_port(0x20, 0x68);
    pair.write_port(0x21, 0xfe);
    pulse(&mut pair, 6);
    // Alone and without ICW4: only the vector follows.
    pair.write_port(0x20, 0x12);
    assert_eq!((pair.has_interrupt(), pair.read_port(0x21)), (false, Some(0)));
    pair.write_port(0x21, 0x57);
    pair.write_port(0x21, 0x40);
    assert_eq!(pair.read_port(0x21), Some(0x40));
    [7, 0].into_iter().for_each(|pin| pulse(&mut pair, pin));
    assert_eq!((pair.acknowledge(), pair.acknowledge()), (0x50, 0x57));
    assert_eq!((pair.read_port(0x22), pair.write_port(0x22, 0)), (None, false));
}

#[test]
fn a_saved_pair_goes_on_and_a_bad_one_is_refused() {
    let mut pair = initialized();
    [3, 12].into_iter().for_each(|pin| pair.set_pin(pin, true));
    pair.acknowledge();
    let saved = pair.save();
    assert_eq!(PicPair::restore(&saved).unwrap(), pair);
    let bad = |change: fn(&mut SavedPicPair)| {
        let mut saved = saved;
        change(&mut saved);
        PicPair::restore(&saved).unwrap_err().to_string()
    };
    assert_eq!(bad(|saved| saved.version = 0), "saved state of the 8259: version 0, expected 1");
    assert_eq!(
        bad(|saved| saved.chips[0].level = 1),
        "saved state of the 8259: level is impossible"
    );
    assert!(bad(|saved| saved.chips[1].base = 1).contains("base"));
    assert!(bad(|saved| saved.chips[1].lowest = 8).contains("lowest"));
}

/// The first chip, written down as slowly as it can be: a list of pins in the order of their
/// priority.
struct Slow {
    order: Vec<u8>,
    requested: Vec<u8>,
    serving: Vec<u8>,
    masked: u8,
}

impl Slow {
    fn wanted(&self) -> Option<u8> {
        for pin in &self.order {
            if self.serving.contains(pin) {
                return None;
            }
            if self.requested.contains(pin) && self.masked >> pin & 1 == 0 {
                return Some(*pin);
            }
        }
        None
    }

    fn make_lowest(&mut self, pin: u8) {
        while self.order.last() != Some(&pin) {
            self.order.rotate_left(1);
        }
    }

    fn highest_serving(&self) -> Option<u8> {
        self.order.iter().copied().find(|pin| self.serving.contains(pin))
    }
}

proptest! {
    /// Priority, masks, ends and rotation against the slow model.
    #[test]
    fn priorities_are_those_of_the_model(steps in prop::collection::vec((0_u8..8, 0_u8..8, any::<u8>()), 0..200)) {
        let mut pair = initialized();
        let mut slow = Slow { order: (0..8).collect(), requested: vec![], serving: vec![], masked: 0 };
        for (step, pin, value) in steps {
            // The cascade has a chip behind it.
            let pin = if pin == 2 { 3 } else { pin };
            match step {
                0 | 1 => {
                    pulse(&mut pair, pin);
                    slow.requested.push(pin);
                }
                2 => {
                    pair.write_port(0x21, value);
                    slow.masked = value;
                }
                3 => {
                    pair.write_port(0x20, 0x20);
                    let ended = slow.highest_serving();
                    slow.serving.retain(|serving| Some(*serving) != ended);
                }
                4 => {
                    pair.write_port(0x20, 0x60 | pin);
                    slow.serving.retain(|serving| *serving != pin);
                }
                5 => {
                    pair.write_port(0x20, 0xa0);
                    if let Some(ended) = slow.highest_serving() {
                        slow.serving.retain(|serving| *serving != ended);
                        slow.make_lowest(ended);
                    }
                }
                6 => {
                    pair.write_port(0x20, 0xc0 | pin);
                    slow.make_lowest(pin);
                }
                _ => {
                    let wanted = slow.wanted();
                    let vector = pair.acknowledge();
                    prop_assert_eq!(vector, 0x30 + wanted.unwrap_or(7));
                    if let Some(wanted) = wanted {
                        slow.requested.retain(|pin| *pin != wanted);
                        slow.serving.push(wanted);
                    }
                }
            }
            prop_assert_eq!(pair.has_interrupt(), slow.wanted().is_some());
        }
    }

    /// Any accesses: nothing panics, and every state can be saved and restored.
    #[test]
    fn any_accesses_leave_a_state_that_restores(steps in prop::collection::vec((0_usize..8, any::<u8>()), 0..200)) {
        let mut pair = PicPair::new();
        for (place, value) in steps {
            match PIC_PORTS.get(place) {
                Some(port) if value & 1 == 0 => drop(pair.read_port(*port)),
                Some(port) => assert!(pair.write_port(*port, value)),
                None if place == 6 => pair.set_pin(value >> 1, value & 1 != 0),
                None => drop(pair.acknowledge()),
            }
            prop_assert_eq!(PicPair::restore(&pair.save()).unwrap(), pair.clone());
        }
    }
}
