//! Encodings of an instruction with operands at random.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, OpCodeOperandKind, OpKind, Register,
};

use crate::random::Random;

/// An encoded instruction.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The same, decoded.
    pub instruction: Instruction,
}

/// Base register of memory operands, which no other operand is.
pub const BASE: Register = Register::R13;

/// Encodes an instruction for 64-bit mode. Registers are chosen at random, but for RSP and
/// [`BASE`]; memory operands are relative to [`BASE`], without a displacement, or with a vector
/// index register. Returns `None` if there is no such encoding.
#[must_use]
pub fn encode(code: Code, random: &mut Random) -> Option<Form> {
    let info = code.op_code();
    if !info.is_instruction() || !info.mode64() {
        return None;
    }
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for operand in 0..info.op_count() {
        set_operand(&mut instruction, operand, info.op_kind(operand), random)?;
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, 0).ok()?;
    let bytes = encoder.take_buffer();
    let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
    let decoded = decoder.decode();
    let whole = !decoded.is_invalid() && decoded.len() == bytes.len() && decoded.code() == code;
    whole.then_some(Form { bytes, instruction: decoded })
}

/// A register from `first` on, one of `count`.
fn nth(first: Register, count: u64, random: &mut Random) -> Register {
    first + random.below(count) as u32
}

/// A general register of the family that begins with `first`, which is register 0.
fn general(first: Register, random: &mut Random) -> Register {
    let number = loop {
        let number = random.below(16) as u32;
        if number != 4 && number != 13 {
            break number;
        }
    };
    if first == Register::AL {
        // AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8L ...
        return if number < 4 { Register::AL + number } else { Register::SPL + (number - 4) };
    }
    first + number
}

/// Sets an operand.
fn set_operand(
    instruction: &mut Instruction,
    operand: u32,
    kind: OpCodeOperandKind,
    random: &mut Random,
) -> Option<()> {
    use OpCodeOperandKind as K;
    let memory = random.once_in(2);
    let register = match kind {
        K::xmm_or_mem
        | K::ymm_or_mem
        | K::mm_or_mem
        | K::r8_or_mem
        | K::r16_or_mem
        | K::r32_or_mem
        | K::r64_or_mem
            if memory =>
        {
            set_memory(instruction, operand, Register::None);
            return Some(());
        }
        K::mem => {
            set_memory(instruction, operand, Register::None);
            return Some(());
        }
        K::mem_vsib32x | K::mem_vsib64x => {
            set_memory(instruction, operand, nth(Register::XMM0, 16, random));
            instruction.set_memory_index_scale(1 << random.below(4));
            return Some(());
        }
        K::mem_vsib32y | K::mem_vsib64y => {
            set_memory(instruction, operand, nth(Register::YMM0, 16, random));
            instruction.set_memory_index_scale(1 << random.below(4));
            return Some(());
        }
        K::seg_rDI => {
            instruction.set_op_kind(operand, OpKind::MemorySegRDI);
            return Some(());
        }
        K::imm8 => {
            instruction.set_op_kind(operand, OpKind::Immediate8);
            instruction.set_immediate8(random.next_u64() as u8);
            return Some(());
        }
        K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_or_mem => {
            nth(Register::XMM0, 16, random)
        }
        K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_or_mem => {
            nth(Register::YMM0, 16, random)
        }
        K::mm_reg | K::mm_rm | K::mm_or_mem => nth(Register::MM0, 8, random),
        K::r8_or_mem | K::r8_reg => general(Register::AL, random),
        K::r16_or_mem | K::r16_reg | K::r16_rm => general(Register::AX, random),
        K::r32_or_mem | K::r32_reg | K::r32_rm => general(Register::EAX, random),
        K::r64_or_mem | K::r64_reg | K::r64_rm => general(Register::RAX, random),
        K::st0 => Register::ST0,
        K::sti_opcode => nth(Register::ST0, 8, random),
        K::ax => Register::AX,
        _ => return None,
    };
    instruction.set_op_kind(operand, OpKind::Register);
    instruction.set_op_register(operand, register);
    Some(())
}

/// Makes an operand memory at [`BASE`].
fn set_memory(instruction: &mut Instruction, operand: u32, index: Register) {
    instruction.set_op_kind(operand, OpKind::Memory);
    instruction.set_memory_base(BASE);
    instruction.set_memory_index(index);
}
