//! States at random, with values that are likely to matter.

use nerite_native_oracle::Random;
use nerite_x86_vector::{VectorState, XSAVE_SIZE};

/// Numbers of 32 bits: zeros, denormals, extremes, infinities, NaNs, ones.
const F32: [u32; 20] = [
    0,
    0x8000_0000,
    1,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x7fa0_0001,
    0xffc1_2345,
    0xff81_2345,
    0x3f80_0000,
    0xbf80_0000,
    0x4f00_0000,
    0xcf00_0000,
    0x3f00_0000,
    0x3400_0000,
    0x4b80_0001,
    0x8080_0001,
];

/// Numbers of 64 bits.
const F64: [u64; 20] = [
    0,
    1 << 63,
    1,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0x7ff4_0000_0000_0001,
    0xfff8_1234_5678_9abc,
    0xfff0_0000_0000_1234,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x41e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0x3ca0_0000_0000_0000,
    0x47ef_ffff_f000_0000,
    0x380f_ffff_ffff_ffff,
];

/// Integers of 32 bits.
const INTEGERS: [u32; 8] =
    [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_8000, 0x00ff_80ff, 0x8001_0100];

/// A number of 80 bits.
pub(crate) fn f80(random: &mut Random) -> [u8; 10] {
    let sign = (random.below(2) as u16) << 15;
    let (exponent, mantissa) = match random.below(16) {
        0 => (0, 0),
        1 => (0, random.next_u64() >> 1),
        2 => (0, random.next_u64() | 1 << 63),
        3 => (0x7fff, 1 << 63),
        4 => (0x7fff, random.next_u64() | 3 << 62),
        5 => (0x7fff, random.next_u64() >> 2 | 1 << 63),
        6 => (random.next_u64() as u16 & 0x7fff, random.next_u64() >> 1),
        7 => (0x7ffe, random.next_u64() | 1 << 63),
        8 => (1, random.next_u64() | 1 << 63),
        9 => (0x3fff, 1 << 63),
        10 => (0x3ffe + random.below(70) as u16, 1 << 63 | random.next_u64() << random.below(64)),
        11 => (random.next_u64() as u16 & 0x7fff, random.next_u64() | 1 << 63),
        _ => (0x3fc0 + random.below(0x80) as u16, random.next_u64() | 1 << 63),
    };
    let mut value = [0; 10];
    value[..8].copy_from_slice(&mantissa.to_le_bytes());
    value[8..].copy_from_slice(&(sign | exponent).to_le_bytes());
    value
}

/// Fills `bytes`, of a multiple of 8, with numbers of one kind.
pub(crate) fn fill(bytes: &mut [u8], random: &mut Random) {
    let kind = random.below(7);
    for chunk in bytes.as_chunks_mut::<8>().0 {
        let narrow = |random: &mut Random, of: &[u32]| {
            u64::from(random.pick(of)) << 32 | u64::from(random.pick(of))
        };
        let value = match kind {
            0 => narrow(random, &F32),
            1 => random.pick(&F64),
            2 => narrow(random, &INTEGERS),
            // Numbers about one, narrow and wide.
            3 => {
                let one = |random: &mut Random| 0x3e80_0000_u64 + (random.next_u64() & 0x81ff_ffff);
                one(random) << 32 | one(random)
            }
            4 => 0x3fd0_0000_0000_0000 + (random.next_u64() & 0x803f_ffff_ffff_ffff),
            5 => u64::from(random.next_u64() as u8) << 32 | u64::from(random.next_u64() as u8),
            _ => random.next_u64(),
        };
        *chunk = value.to_le_bytes();
    }
}

/// A vector state.
pub(crate) fn state(random: &mut Random) -> VectorState {
    let mut state = VectorState::default();
    for ymm in &mut state.ymm {
        fill(&mut ymm.0, random);
    }
    state.mxcsr = match random.below(4) {
        0 => 0x1f80,
        1 => 0x1fa0,
        2 => 0x1f80 | random.next_u64() as u32 & 0xe07f,
        _ => random.next_u64() as u32 & 0xffff,
    };
    let x87 = &mut state.x87;
    for register in &mut x87.registers {
        *register = f80(random);
    }
    let masked = !random.once_in(4);
    x87.control = random.next_u64() as u16 & 0x0f00
        | 0x40
        | if masked { 0x3f } else { random.next_u64() as u16 & 0x3f };
    if random.once_in(2) {
        // What most programs have.
        x87.control = 0x37f;
    }
    x87.status = random.next_u64() as u16 & 0x7f00;
    if random.once_in(2) {
        // Flags of exceptions: pending ones are rare.
        let pending = if random.once_in(4) { 0x3f } else { x87.control & 0x3f };
        x87.status |= random.next_u64() as u16 & pending;
    }
    x87.tags = if random.once_in(4) { random.next_u64() as u8 } else { 0xff };
    state
}

/// An XSAVE image with a header at random, of which most are valid, in either format.
pub(crate) fn image(random: &mut Random) -> [u8; XSAVE_SIZE] {
    let mut image = state(random).to_xsave();
    let present = random.below(8);
    image[512..520].copy_from_slice(&present.to_le_bytes());
    if random.once_in(2) {
        let layout = if random.once_in(4) { random.below(8) } else { 7 };
        image[520..528].copy_from_slice(&(layout | 1 << 63).to_le_bytes());
    }
    if random.once_in(16) {
        let byte = 512 + random.below(64) as usize;
        // The host may have component 7.
        image[byte] ^= if byte.is_multiple_of(8) { 0 } else { 0x80 };
    }
    if random.once_in(16) {
        image[26] = 1;
    }
    image
}
