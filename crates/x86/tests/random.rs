//! Random bytes as state and code: nothing panics, hangs or does more than it is allowed.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "bits of random numbers are cut out")]
#![allow(clippy::print_stdout, reason = "a failure is repeated with the same seed")]

#[path = "random/exercise.rs"]
mod exercise;
#[path = "machine/mod.rs"]
mod machine;

/// A source of numbers that is the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 3
    }
}

/// The first bytes of instructions that do much: prefixes, system instructions, far transfers.
const SEEDS: &[&[u8]] = &[
    &[0xf3, 0xa4],
    &[0xf3, 0x48, 0xab],
    &[0x0f, 0x05],
    &[0x0f, 0x07],
    &[0xcf],
    &[0x48, 0xcf],
    &[0x0f, 0x22],
    &[0x0f, 0x01],
    &[0x0f, 0x00],
    &[0x8e],
    &[0x0f, 0x30],
    &[0x0f, 0x32],
    &[0xff],
    &[0xf0],
    &[0xcd],
    &[0x9d],
    &[0x0f, 0x23],
    &[0xc8],
    &[0x66],
    &[0x0f, 0xae],
    &[0xc5],
    &[0xc4, 0xe2],
    &[0xd9],
    &[0xdd],
    &[0x6c],
    &[0xea],
    &[0x9a],
    &[0xfb],
];

fn input(random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
    // No extra entries of tables in most inputs.
    for index in [2, 3] {
        if !random.next().is_multiple_of(3) {
            bytes[index] = 0;
        }
    }
    for _ in 0..60 {
        if random.next().is_multiple_of(2) {
            bytes.extend(SEEDS[(random.next() % SEEDS.len() as u64) as usize]);
        }
        for _ in 0..random.next() % 6 {
            bytes.push(random.next() as u8);
        }
    }
    bytes
}

#[test]
fn random_code_in_random_states_ends() {
    let mut random = Random(7);
    let completed: u64 = (0..1500).map(|_| exercise::run(&input(&mut random))).sum();
    assert!(completed > 3_000, "{completed} instructions");
}

#[test]
#[ignore = "takes minutes: for nightly runs"]
fn random_code_in_random_states_ends_in_many_cases() {
    let cases: u64 =
        std::env::var("NERITE_CASES").map_or(100_000, |cases| cases.parse().expect("a number"));
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = Random(seed);
    let completed: u64 = (0..cases).map(|_| exercise::run(&input(&mut random))).sum();
    assert!(completed > cases, "{completed} instructions");
}

#[test]
fn the_same_bytes_do_the_same() {
    let mut random = Random(8);
    for _ in 0..50 {
        let input = input(&mut random);
        assert_eq!(exercise::run(&input), exercise::run(&input));
    }
}
