//! Encodings of integer instructions with operands at random.

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Encoder, Instruction, Mnemonic, OpCodeOperandKind,
    OpKind, Register,
};
use nerite_native_oracle::Random;

/// An encoded instruction.
#[derive(Clone)]
pub(crate) struct Form {
    pub(crate) bytes: Vec<u8>,
    pub(crate) instruction: Instruction,
    pub(crate) name: String,
}

impl Form {
    /// The instruction of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let instruction = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
        Self { bytes: bytes.to_vec(), instruction, name: format!("{:?}", instruction.code()) }
    }
}

/// Instructions that can be executed alone: they leave stack, RIP and privilege alone, and depend
/// on nothing else.
fn is_wanted(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Add
            | M::Or
            | M::Adc
            | M::Sbb
            | M::And
            | M::Sub
            | M::Xor
            | M::Cmp
            | M::Test
            | M::Inc
            | M::Dec
            | M::Neg
            | M::Not
            | M::Shl
            | M::Sal
            | M::Shr
            | M::Sar
            | M::Rol
            | M::Ror
            | M::Rcl
            | M::Rcr
            | M::Shld
            | M::Shrd
            | M::Mul
            | M::Imul
            | M::Div
            | M::Idiv
            | M::Mulx
            | M::Bt
            | M::Bts
            | M::Btr
            | M::Btc
            | M::Bsf
            | M::Bsr
            | M::Tzcnt
            | M::Lzcnt
            | M::Popcnt
            | M::Andn
            | M::Blsi
            | M::Blsmsk
            | M::Blsr
            | M::Bextr
            | M::Bzhi
            | M::Pdep
            | M::Pext
            | M::Rorx
            | M::Shlx
            | M::Shrx
            | M::Sarx
            | M::Adcx
            | M::Adox
            | M::Crc32
            | M::Xadd
            | M::Cmpxchg
            | M::Cmpxchg8b
            | M::Cmpxchg16b
            | M::Xchg
            | M::Mov
            | M::Movnti
            | M::Movzx
            | M::Movsx
            | M::Movsxd
            | M::Lea
            | M::Bswap
            | M::Movbe
            | M::Cbw
            | M::Cwde
            | M::Cdqe
            | M::Cwd
            | M::Cdq
            | M::Cqo
            | M::Xlatb
            | M::Clc
            | M::Stc
            | M::Cmc
            | M::Lahf
            | M::Sahf
            | M::Nop
            | M::Movsb
            | M::Movsw
            | M::Movsd
            | M::Movsq
            | M::Stosb
            | M::Stosw
            | M::Stosd
            | M::Stosq
            | M::Lodsb
            | M::Lodsw
            | M::Lodsd
            | M::Lodsq
            | M::Scasb
            | M::Scasw
            | M::Scasd
            | M::Scasq
            | M::Cmpsb
            | M::Cmpsw
            | M::Cmpsd
            | M::Cmpsq
    ) || is_conditional(mnemonic)
}

/// CMOVcc and SETcc.
fn is_conditional(mnemonic: Mnemonic) -> bool {
    let name = format!("{mnemonic:?}");
    name.starts_with("Cmov") || name.starts_with("Set") && !matches!(mnemonic, Mnemonic::Setssbsy)
}

/// All codes of such instructions that the host has.
pub(crate) fn codes() -> Vec<Code> {
    let is_on_host = |code: Code| {
        code.cpuid_features().iter().all(|feature| match feature {
            CpuidFeature::BMI1 => std::is_x86_feature_detected!("bmi1"),
            CpuidFeature::BMI2 => std::is_x86_feature_detected!("bmi2"),
            CpuidFeature::ADX => std::is_x86_feature_detected!("adx"),
            CpuidFeature::MOVBE => std::is_x86_feature_detected!("movbe"),
            CpuidFeature::SSE4_2 => std::is_x86_feature_detected!("sse4.2"),
            CpuidFeature::LZCNT => std::is_x86_feature_detected!("lzcnt"),
            CpuidFeature::POPCNT => std::is_x86_feature_detected!("popcnt"),
            CpuidFeature::TBM => false,
            _ => true,
        })
    };
    let is_integer = |code: Code| {
        let info = code.op_code();
        (0..info.op_count()).all(|operand| kind_is_known(info.op_kind(operand)))
    };
    let mut random = Random::new(0);
    Code::values()
        .filter(|code| is_wanted(code.mnemonic()) && is_on_host(*code) && is_integer(*code))
        // Processors differ in how many bytes they read.
        .filter(|code| *code != Code::Movsxd_r16_rm16)
        .filter(|code| code.op_code().is_instruction() && code.op_code().mode64())
        .filter(|code| encode(*code, &mut random).is_some())
        .collect()
}

fn kind_is_known(kind: OpCodeOperandKind) -> bool {
    !format!("{kind:?}").contains("mm")
        && set_operand(&mut Instruction::default(), 0, kind, &mut Random::new(1)).is_some()
        || format!("{kind:?}").starts_with("imm")
}

/// Encodes an instruction for 64-bit mode. Memory operands are relative to R13, which is no other
/// operand.
pub(crate) fn encode(code: Code, random: &mut Random) -> Option<Form> {
    (0..16).find_map(|_| try_encode(code, random))
}

fn try_encode(code: Code, random: &mut Random) -> Option<Form> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    for operand in 0..info.op_count() {
        set_operand(&mut instruction, operand, info.op_kind(operand), random)?;
    }
    let is_memory = info.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
    if info.can_use_lock_prefix() && is_memory && random.once_in(3) {
        instruction.set_has_lock_prefix(true);
    }
    if instruction.is_string_instruction() {
        match random.below(3) {
            0 => instruction.set_has_rep_prefix(true),
            1 if info.can_use_repne_prefix() => instruction.set_has_repne_prefix(true),
            _ => {}
        }
    }
    let mut encoder = Encoder::new(64);
    encoder.encode(&instruction, 0).ok()?;
    let bytes = encoder.take_buffer();
    let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
    let decoded = decoder.decode();
    let is_same = !decoded.is_invalid()
        && decoded.len() == bytes.len()
        && decoded.mnemonic() == code.mnemonic();
    is_same.then(|| Form { bytes, instruction: decoded, name: format!("{code:?}") })
}

fn general(first: Register, random: &mut Random) -> Register {
    let number = loop {
        let number = random.below(16) as u32;
        if number != 4 && number != 13 {
            break number;
        }
    };
    if first == Register::AL {
        return match (number < 4, random.once_in(3)) {
            (true, true) => Register::AH + number,
            (true, false) => Register::AL + number,
            _ => Register::SPL + (number - 4),
        };
    }
    first + number
}

fn set_operand(
    instruction: &mut Instruction,
    operand: u32,
    kind: OpCodeOperandKind,
    random: &mut Random,
) -> Option<()> {
    use OpCodeOperandKind as K;
    let mut immediate = |instruction: &mut Instruction, kind: OpKind| {
        instruction.set_op_kind(operand, kind);
        let value = match random.below(3) {
            0 => random.below(70),
            _ => random.next_u64() >> random.below(64),
        };
        match kind {
            OpKind::Immediate8 => instruction.set_immediate8(value as u8),
            OpKind::Immediate16 => instruction.set_immediate16(value as u16),
            OpKind::Immediate32 => instruction.set_immediate32(value as u32),
            OpKind::Immediate64 => instruction.set_immediate64(value),
            OpKind::Immediate8to16 => instruction.set_immediate8to16(i16::from(value as i8)),
            OpKind::Immediate8to32 => instruction.set_immediate8to32(i32::from(value as i8)),
            OpKind::Immediate8to64 => instruction.set_immediate8to64(i64::from(value as i8)),
            _ => instruction.set_immediate32to64(i64::from(value as i32)),
        }
        Some(())
    };
    match kind {
        K::imm8 => return immediate(instruction, OpKind::Immediate8),
        K::imm8_const_1 => {
            instruction.set_op_kind(operand, OpKind::Immediate8);
            instruction.set_immediate8(1);
            return Some(());
        }
        K::imm16 => return immediate(instruction, OpKind::Immediate16),
        K::imm32 => return immediate(instruction, OpKind::Immediate32),
        K::imm64 => return immediate(instruction, OpKind::Immediate64),
        K::imm8sex16 => return immediate(instruction, OpKind::Immediate8to16),
        K::imm8sex32 => return immediate(instruction, OpKind::Immediate8to32),
        K::imm8sex64 => return immediate(instruction, OpKind::Immediate8to64),
        K::imm32sex64 => return immediate(instruction, OpKind::Immediate32to64),
        _ => {}
    }
    let string = match kind {
        K::seg_rSI => Some(OpKind::MemorySegRSI),
        K::es_rDI => Some(OpKind::MemoryESRDI),
        _ => None,
    };
    if let Some(string) = string {
        instruction.set_op_kind(operand, string);
        instruction.set_memory_base(Register::None);
        return Some(());
    }
    let memory = random.once_in(2);
    let register = match kind {
        K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem if memory => {
            return set_memory(instruction, operand, Register::R13);
        }
        K::mem => return set_memory(instruction, operand, Register::R13),
        K::seg_rBX_al => {
            instruction.set_op_kind(operand, OpKind::Memory);
            instruction.set_memory_base(Register::RBX);
            instruction.set_memory_index(Register::AL);
            return Some(());
        }
        K::r8_or_mem | K::r8_reg | K::r8_opcode => general(Register::AL, random),
        K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode | K::r16_reg_mem => {
            general(Register::AX, random)
        }
        K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv | K::r32_reg_mem => {
            general(Register::EAX, random)
        }
        K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv | K::r64_reg_mem => {
            general(Register::RAX, random)
        }
        K::al => Register::AL,
        K::cl => Register::CL,
        K::ax => Register::AX,
        K::eax => Register::EAX,
        K::rax => Register::RAX,
        _ => return None,
    };
    instruction.set_op_kind(operand, OpKind::Register);
    instruction.set_op_register(operand, register);
    Some(())
}

fn set_memory(instruction: &mut Instruction, operand: u32, base: Register) -> Option<()> {
    instruction.set_op_kind(operand, OpKind::Memory);
    instruction.set_memory_base(base);
    Some(())
}
