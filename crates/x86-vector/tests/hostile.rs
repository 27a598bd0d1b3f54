//! Any bytes as instructions, on any state: nothing panics, accesses stay small, the host's modes
//! are as before, and what is found out late is what it would have been.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "bits of random numbers are cut out")]

use std::arch::asm;

use iced_x86::{Decoder, DecoderOptions, Instruction, Register};
use nerite_native_oracle::Random;
use nerite_x86_vector::{
    Fields, MXCSR_MASK, Operands, VectorException, VectorState, XSTATE_ALL, lookup,
};

/// Instructions that are executed.
const COUNT: u32 = 100_000;
/// Status flags.
const STATUS_FLAGS: u64 = 0x8d5;

/// A decoded instruction.
struct Op {
    instruction: Instruction,
    fields: Fields,
}

impl Op {
    fn new(instruction: Instruction) -> Self {
        Self { instruction, fields: Fields::new(&instruction) }
    }
}

impl AsRef<Fields> for Op {
    fn as_ref(&self) -> &Fields {
        &self.fields
    }
}

/// A processor that answers at random.
#[derive(Clone)]
struct Processor {
    vector: VectorState,
    random: Random,
    accesses: u32,
    /// Bytes that were written to memory and general registers.
    written: Vec<u8>,
}

impl Processor {
    fn new(vector: VectorState, random: &Random) -> Self {
        Self { vector, random: random.clone(), accesses: 0, written: Vec::new() }
    }

    fn access(&mut self, op: &Op, end: u64) -> Result<(), ()> {
        assert!(end <= 832, "{:?} reaches {end} bytes", op.instruction);
        self.accesses += 1;
        if self.random.once_in(16) { Err(()) } else { Ok(()) }
    }
}

impl Operands for Processor {
    type Fault = ();
    type Op = Op;

    fn vector(&self) -> &VectorState {
        &self.vector
    }

    fn vector_mut(&mut self) -> &mut VectorState {
        &mut self.vector
    }

    fn load_at(&mut self, op: &Op, offset: u64, bytes: &mut [u8]) -> Result<(), ()> {
        self.access(op, offset + bytes.len() as u64)?;
        self.random.fill(bytes);
        Ok(())
    }

    fn store_at(&mut self, op: &Op, offset: u64, bytes: &[u8]) -> Result<(), ()> {
        self.written.extend(bytes);
        self.access(op, offset + bytes.len() as u64)
    }

    fn load_element(&mut self, op: &Op, _: i64, bytes: &mut [u8]) -> Result<(), ()> {
        assert!(op.instruction.is_vsib());
        self.load_at(op, 0, bytes)
    }

    fn linear_address(&self, op: &Op) -> u64 {
        op.instruction.next_ip() << 3
    }

    fn effective_address(&self, op: &Op) -> u64 {
        op.instruction.next_ip()
    }

    fn gpr(&self, register: Register) -> u64 {
        assert!(register.is_gpr());
        let bits = register.size() * 8;
        self.random.clone().next_u64() >> (64 - bits)
    }

    fn set_gpr(&mut self, register: Register, value: u64) {
        assert!(register.is_gpr());
        self.written.extend(value.to_le_bytes());
    }

    fn flags(&self) -> u64 {
        self.random.clone().next_u64()
    }

    fn set_flags(&mut self, mask: u64, _: u64) {
        assert_eq!(mask & !STATUS_FLAGS, 0);
    }

    fn xcr0(&self) -> u64 {
        XSTATE_ALL
    }

    fn rip(&self, _: &Op) -> u64 {
        u64::MAX
    }

    fn real_mode(&self) -> bool {
        self.random.clone().once_in(2)
    }

    fn exception(&mut self, _: VectorException) {}
}

/// Any bits in all registers; MXCSR without reserved bits.
fn state(random: &mut Random) -> VectorState {
    let mut state = VectorState::default();
    for ymm in &mut state.ymm {
        random.fill(&mut ymm.0);
    }
    for register in &mut state.x87.registers {
        random.fill(register);
    }
    state.mxcsr = random.next_u64() as u32 & MXCSR_MASK;
    state.x87.control = random.next_u64() as u16;
    state.x87.status = random.next_u64() as u16;
    state.x87.tags = random.next_u64() as u8;
    if random.once_in(2) {
        // No exception is pending.
        state.x87.control |= 0x3f;
        state.x87.status &= 0x7f7f;
    }
    state
}

/// Bytes that are likely to be a vector instruction.
fn bytes(random: &mut Random) -> [u8; 15] {
    let mut bytes = [0; 15];
    random.fill(&mut bytes);
    let beginnings: [&[u8]; 12] = [
        &[0x0f],
        &[0x66, 0x0f],
        &[0xf3, 0x0f],
        &[0xf2, 0x0f],
        &[0x66, 0x0f, 0x38],
        &[0x66, 0x0f, 0x3a],
        &[0x0f, 0x38],
        &[0xc5],
        &[0xc4],
        &[0x0f, 0xae],
        &[0xdd],
        &[],
    ];
    let beginning = random.pick(&beginnings);
    bytes[..beginning.len()].copy_from_slice(beginning);
    if beginning.is_empty() {
        bytes[0] = 0xd8 | bytes[0] & 7;
    }
    bytes
}

/// Modes of the host: MXCSR without flags, the x87 control word, and the x87 tag word.
fn host_modes() -> (u32, u16, u16) {
    let (mut mxcsr, mut environment) = (0_u32, [0_u16; 14]);
    // SAFETY: both write to memory of their size, and FLDENV restores what FNSTENV has changed.
    unsafe {
        asm!("stmxcsr [{m}]", "fnstenv [{e}]", "fldenv [{e}]", m = in(reg) &raw mut mxcsr, e = in(reg) &raw mut environment)
    };
    (mxcsr & !0x3f, environment[0], environment[4])
}

#[test]
fn any_bytes_on_any_state_are_executed_or_refused() {
    let modes = host_modes();
    assert_eq!(modes, (0x1f80, 0x37f, 0xffff));
    let mut random = Random::new(7);
    let (mut executed, mut failed) = (0, 0);
    while executed < COUNT {
        let code = bytes(&mut random);
        let bitness = random.pick(&[16, 32, 64, 64]);
        let instruction =
            Decoder::with_ip(bitness, &code, random.below(8), DecoderOptions::NONE).decode();
        let Some(handler) = lookup::<Processor>(&instruction).filter(|_| !instruction.is_invalid())
        else {
            continue;
        };
        let mut processor = Processor::new(state(&mut random), &random);
        processor.vector.begin();
        failed += u32::from(handler(&mut processor, &Op::new(instruction)).is_err());
        processor.vector.collect();
        executed += 1;
        assert!(processor.accesses <= 32, "{instruction:?}");
        assert_eq!(processor.vector.mxcsr & !MXCSR_MASK, 0, "{instruction:?}");
        assert_eq!(host_modes(), modes, "{instruction:?}");
    }
    assert!(failed > 1000);
}

/// x87 registers with numbers of similar size, and all exceptions masked.
fn usual(random: &mut Random) -> VectorState {
    let mut state = state(random);
    for register in &mut state.x87.registers {
        register[7] |= 0x80;
        register[8..].copy_from_slice(&(0x3ff0 + random.below(32) as u16).to_le_bytes());
    }
    state.x87.control = 0x37f;
    state.x87.status &= 0x7f7f;
    state.x87.tags |= random.next_u64() as u8;
    state
}

#[test]
fn the_status_of_x87_after_many_instructions_is_that_of_each() {
    let mut random = Random::new(11);
    let mut executed = 0;
    for _ in 0..5000 {
        let processor = Processor::new(usual(&mut random), &random);
        let (mut each, mut all) = (processor.clone(), processor);
        let instructions = (0..random.below(24)).filter_map(|_| {
            let mut code = bytes(&mut random);
            code[0] = 0xd8 | code[0] & 7;
            let instruction = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).decode();
            Some((lookup::<Processor>(&instruction)?, Op::new(instruction)))
        });
        let instructions: Vec<_> = instructions.collect();
        all.vector.begin();
        for (handler, op) in &instructions {
            executed += usize::from(handler(&mut all, op).is_ok());
        }
        all.vector.collect();
        for (handler, op) in &instructions {
            each.vector.begin();
            let _ = handler(&mut each, op);
            each.vector.collect();
        }
        assert_eq!(all.vector, each.vector);
        assert_eq!(all.written, each.written);
    }
    assert!(executed > 10_000, "{executed}");
}
