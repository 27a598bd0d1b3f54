//! The counters against a model that goes tick by tick, written from the data sheet's mode
//! definitions.

use proptest::prelude::*;

use super::*;

struct Slow {
    mode: u8,
    modulus: u32,
    gate: bool,
    initial: u32,
    /// The counting element; `None` before it is loaded.
    value: Option<u32>,
    output: bool,
    /// The counter has not come to its terminal count since it was loaded.
    is_armed: bool,
    /// An odd count is loaded in mode 3.
    is_odd: bool,
    rises: u32,
}

impl Slow {
    fn new(mode: u8, modulus: u32, gate: bool) -> Self {
        Self {
            mode,
            modulus,
            gate,
            initial: 0,
            value: None,
            output: mode != 0,
            is_armed: false,
            is_odd: false,
            rises: 0,
        }
    }

    fn set_output(&mut self, output: bool) {
        self.rises += u32::from(output && !self.output);
        self.output = output;
    }

    /// Loads the count, in mode 3 an odd one less one.
    fn load(&mut self) {
        self.is_odd = self.mode == 3 && self.initial & 1 == 1;
        self.value = Some(self.initial - u32::from(self.is_odd));
        self.is_armed = true;
    }

    fn write(&mut self, count: u32) {
        self.initial = count;
        match self.mode {
            1 | 5 => {}
            2 | 3 if self.value.is_some() => {}
            _ => {
                self.load();
                self.set_output(self.mode != 0);
            }
        }
    }

    fn set_gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        if matches!(self.mode, 2 | 3) && !gate {
            self.set_output(true);
        }
        if rises && matches!(self.mode, 1 | 2 | 3 | 5) && self.initial != 0 {
            self.load();
            self.set_output(self.mode != 1);
        }
    }

    fn tick(&mut self) {
        let Some(value) = self.value else { return };
        if !self.gate && !matches!(self.mode, 1 | 5) {
            return;
        }
        match self.mode {
            0 | 1 => {
                self.step(value);
                if self.value == Some(0) && std::mem::take(&mut self.is_armed) {
                    self.set_output(true);
                }
            }
            4 | 5 => {
                self.step(value);
                let strobes = self.value == Some(0) && std::mem::take(&mut self.is_armed);
                self.set_output(!strobes);
            }
            2 if value == 2 => {
                self.value = Some(1);
                self.set_output(false);
            }
            2 if value == 1 => {
                self.load();
                self.set_output(true);
            }
            2 => self.value = Some(value - 1),
            // The high half of an odd count has one tick more, at zero.
            _ if value == 0 => {
                self.load();
                self.set_output(false);
            }
            _ => {
                let is_longer = self.is_odd && self.output;
                if value == 2 && !is_longer {
                    self.load();
                    self.set_output(!self.output);
                } else {
                    self.value = Some(value - 2);
                }
            }
        }
    }

    fn step(&mut self, value: u32) {
        self.value = Some(if value == 0 { self.modulus - 1 } else { value - 1 });
    }
}

fn to_digits(count: u32, is_bcd: bool) -> u16 {
    let digits = |number: u32| {
        [1000, 100, 10, 1].iter().fold(0, |digits, weight| (digits << 4) | (number / weight % 10))
    };
    (if is_bcd { digits(count) } else { count }) as u16
}

fn write(pit: &mut Pit, counter: u8, count: u32, is_bcd: bool, tick: u64) {
    let port = 0x40 + u16::from(counter);
    for byte in to_digits(count, is_bcd).to_le_bytes() {
        pit.write_port(port, byte, nanoseconds(tick));
    }
}

proptest! {
    /// Count and output of counter 2 in all modes, binary and BCD, with gates and new counts at any
    /// moment.
    #[test]
    fn counts_and_outputs_are_those_of_the_data_sheet(
        mode in 0_u8..6,
        is_bcd in any::<bool>(),
        first in 2_u32..60,
        steps in prop::collection::vec((0_u8..4, 2_u32..60, 0_u64..150), 1..60),
    ) {
        let modulus = if is_bcd { 10_000 } else { 0x1_0000 };
        let mut pit = Pit::new();
        let mut slow = Slow::new(mode, modulus, false);
        pit.write_port(CONTROL_PORT, 0xb0 | mode << 1 | u8::from(is_bcd), 0);
        write(&mut pit, 2, first, is_bcd, 0);
        slow.write(first);
        let mut tick = 0;
        for (action, count, ticks) in steps {
            match action {
                0 => {
                    set_gate(&mut pit, !slow.gate, tick);
                    slow.set_gate(!slow.gate);
                }
                1 => {
                    write(&mut pit, 2, count, is_bcd, tick);
                    slow.write(count);
                }
                _ => {}
            }
            (0..ticks).for_each(|_| slow.tick());
            tick += ticks;
            prop_assert_eq!(output(&mut pit, tick), slow.output, "at {}", tick);
            if let Some(value) = slow.value {
                prop_assert_eq!(super::count(&mut pit, 2, tick), to_digits(value % modulus, is_bcd), "at {}", tick);
            }
        }
    }

    /// Interrupts of counter 0: as many moments with one as the model's output rises between, and
    /// the next one when it says.
    #[test]
    fn interrupts_come_when_the_output_rises(
        mode in prop::sample::select(vec![0_u8, 2, 3, 4]),
        first in 300_u32..2000,
        steps in prop::collection::vec((any::<bool>(), 300_u32..2000, 1_u64..3000), 1..30),
    ) {
        let mut pit = Pit::new();
        let mut slow = Slow::new(mode, 0x1_0000, true);
        program(&mut pit, 0, mode, first as u16, 0);
        slow.write(first);
        let mut tick = 0;
        for (is_new, count, ticks) in steps {
            if is_new && matches!(mode, 2 | 3) {
                write(&mut pit, 0, count, false, tick);
                slow.write(count);
            }
            let next = pit.next_event();
            slow.rises = 0;
            let mut first_rise = None;
            for passed in 1..=ticks {
                slow.tick();
                if slow.rises == 1 {
                    first_rise.get_or_insert(nanoseconds(tick + passed));
                }
            }
            tick += ticks;
            prop_assert_eq!(pit.advance(nanoseconds(tick)), slow.rises > 0, "at {}", tick);
            if first_rise.is_some() {
                prop_assert_eq!(next, first_rise);
            }
        }
    }
}
