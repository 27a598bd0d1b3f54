//! FNSTENV, FLDENV, FNSAVE and FRSTOR in their four formats (Intel SDM vol. 1, 8.1.10).

#![allow(
    clippy::cast_possible_truncation,
    reason = "fields have 16 bits, and bits of others are cut out"
)]

use iced_x86::Code;

use super::abridged_tags;
use super::control::initialize;
use crate::Handler;
use crate::image::control_word;
use crate::mmx::check_pending;
use crate::operands::Operands;
use crate::shapes::Outcome;
use crate::state::X87;

/// Fields of an environment. In 16-bit formats, each takes 2 bytes, else 4.
const FIELDS: usize = 7;

/// The tag word of two bits a register: 0 valid, 1 zero, 2 special, 3 empty.
fn tag_word(x87: &X87) -> u16 {
    let tag = |(index, register): (usize, &[u8; 10])| {
        let (mantissa, exponent) = register.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let mantissa = u64::from_le_bytes(*mantissa);
        let exponent =
            exponent.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes) & 0x7fff);
        if x87.tags >> index & 1 == 0 {
            3
        } else if exponent == 0 && mantissa == 0 {
            1
        } else if exponent == 0 || exponent == 0x7fff || mantissa >> 63 == 0 {
            2
        } else {
            0
        }
    };
    x87.registers.iter().enumerate().rev().fold(0, |word, register| word << 2 | tag(register))
}

/// The low 16 bits.
fn low(value: u64) -> u32 {
    u32::from(value as u16)
}

/// Bits 16 to 31.
fn upper(value: u64) -> u32 {
    low(value >> 16)
}

/// The environment: fields of 32 bits, of which the low halves are used in 16-bit formats.
fn environment(x87: &X87, real_mode: bool, wide: bool) -> [u32; FIELDS] {
    let words = [x87.control, x87.status, tag_word(x87)].map(|word| 0xffff_0000 | u32::from(word));
    let [control, status, tags] = words;
    let (ip, dp, opcode) = (x87.instruction, x87.data, u32::from(x87.opcode));
    let pointers = match (real_mode, wide) {
        (true, false) => {
            [low(ip), (upper(ip) & 15) << 12 | opcode, low(dp), (upper(dp) & 15) << 12]
        }
        (true, true) => [
            0xffff_0000 | low(ip),
            upper(ip) << 12 | opcode,
            0xffff_0000 | low(dp),
            upper(dp) << 12,
        ],
        (false, false) => [low(ip), 0, low(dp), 0],
        (false, true) => {
            [upper(ip) << 16 | low(ip), opcode << 16, upper(dp) << 16 | low(dp), 0xffff_0000]
        }
    };
    let [p0, p1, p2, p3] = pointers;
    [control, status, tags, p0, p1, p2, p3]
}

/// Size of the environment in a format.
const fn size(wide: bool) -> usize {
    if wide { 28 } else { 14 }
}

/// Writes the environment to `bytes`.
fn write(x87: &X87, real_mode: bool, wide: bool, bytes: &mut [u8]) {
    let fields = environment(x87, real_mode, wide).into_iter();
    if wide {
        for (to, field) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *to = field.to_le_bytes();
        }
    } else {
        for (to, field) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(fields) {
            *to = (field as u16).to_le_bytes();
        }
    }
}

/// Loads the environment of `bytes`.
fn read(x87: &mut X87, real_mode: bool, wide: bool, bytes: &[u8]) {
    let mut fields = [0_u64; FIELDS];
    if wide {
        for (field, from) in fields.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *field = u64::from(u32::from_le_bytes(*from));
        }
    } else {
        for (field, from) in fields.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *field = u64::from(u16::from_le_bytes(*from));
        }
    }
    let [control, status, tags, p0, p1, p2, p3] = fields;
    x87.collect();
    x87.control = control_word(control as u16);
    x87.status = status as u16;
    x87.tags = abridged_tags(tags as u16);
    (x87.instruction, x87.data, x87.opcode) = match (real_mode, wide) {
        (true, false) => (p0 | p1 >> 12 << 16, p2 | p3 >> 12 << 16, p1 as u16 & 0x7ff),
        (true, true) => (
            p0 & 0xffff | (p1 >> 12 & 0xffff) << 16,
            p2 & 0xffff | (p3 >> 12 & 0xffff) << 16,
            p1 as u16 & 0x7ff,
        ),
        (false, false) => (p0, p2, 0),
        (false, true) => (p0, p2, (p1 >> 16) as u16 & 0x7ff),
    };
    x87.update_summary();
}

/// FNSTENV: all exceptions are masked afterwards.
fn store_environment<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    let mut bytes = [0; size(true)];
    context.vector_mut().x87.collect();
    write(&context.vector().x87, context.real_mode(), WIDE, &mut bytes);
    context.store(op, bytes.get(..size(WIDE)).unwrap_or_default())?;
    let x87 = &mut context.vector_mut().x87;
    x87.control |= 0x3f;
    x87.update_summary();
    Ok(())
}

/// FLDENV.
fn load_environment<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_pending(context)?;
    let mut bytes = [0; size(true)];
    context.load(op, bytes.get_mut(..size(WIDE)).unwrap_or_default())?;
    let real_mode = context.real_mode();
    read(&mut context.vector_mut().x87, real_mode, WIDE, &bytes);
    Ok(())
}

/// FNSAVE: the state is as after FNINIT afterwards.
fn save<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    let mut bytes = [0; size(true) + 80];
    context.vector_mut().x87.collect();
    write(&context.vector().x87, context.real_mode(), WIDE, &mut bytes);
    let registers = bytes.get_mut(size(WIDE)..).unwrap_or_default();
    for (index, to) in registers.as_chunks_mut::<10>().0.iter_mut().enumerate().take(8) {
        *to = context.vector().x87.st(index);
    }
    context.store(op, bytes.get(..size(WIDE).wrapping_add(80)).unwrap_or_default())?;
    initialize(&mut context.vector_mut().x87);
    Ok(())
}

/// FRSTOR.
fn restore<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_pending(context)?;
    let mut bytes = [0; size(true) + 80];
    context.load(op, bytes.get_mut(..size(WIDE).wrapping_add(80)).unwrap_or_default())?;
    let real_mode = context.real_mode();
    read(&mut context.vector_mut().x87, real_mode, WIDE, &bytes);
    let registers = bytes.get(size(WIDE)..).unwrap_or_default();
    for (index, register) in registers.as_chunks::<10>().0.iter().enumerate().take(8) {
        context.vector_mut().x87.set_st(index, *register);
    }
    Ok(())
}

/// Returns the handler of the instruction.
pub(super) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    Some(match code {
        Code::Fnstenv_m14byte => store_environment::<C, false>,
        Code::Fnstenv_m28byte => store_environment::<C, true>,
        Code::Fldenv_m14byte => load_environment::<C, false>,
        Code::Fldenv_m28byte => load_environment::<C, true>,
        Code::Fnsave_m94byte => save::<C, false>,
        Code::Fnsave_m108byte => save::<C, true>,
        Code::Frstor_m94byte => restore::<C, false>,
        Code::Frstor_m108byte => restore::<C, true>,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x87() -> X87 {
        let mut x87 = X87 {
            control: 0x27f,
            status: 0x1234 & 0x7f7f,
            tags: 0b101,
            opcode: 0x5a5,
            instruction: 0xf_1234,
            data: 0xe_5678,
            ..X87::default()
        };
        x87.registers[2] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f];
        x87
    }

    #[test]
    fn environments_in_all_formats_give_the_state_back() {
        for (real_mode, wide) in [(true, false), (true, true), (false, true)] {
            let (before, mut bytes) = (x87(), [0; 28]);
            write(&before, real_mode, wide, &mut bytes);
            let mut after = X87 { registers: before.registers, ..X87::default() };
            read(&mut after, real_mode, wide, &bytes);
            // Only one format has no room for the opcode, and it is 16 bits wide.
            assert_eq!(after, before, "real mode {real_mode}, wide {wide}");
        }
        let (before, mut bytes) = (x87(), [0; 28]);
        write(&before, false, false, &mut bytes);
        let mut after = X87 { registers: before.registers, ..X87::default() };
        read(&mut after, false, false, &bytes);
        assert_eq!(after, X87 { opcode: 0, instruction: 0x1234, data: 0x5678, ..before });
    }

    #[test]
    fn tags_tell_zero_special_and_empty() {
        let mut x87 = x87();
        // R0 is zero, R2 is one, and all others are empty.
        assert_eq!(tag_word(&x87), 0b11_11_11_11_11_00_11_01);
        x87.registers[2] = [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x7f];
        assert_eq!(tag_word(&x87), 0b11_11_11_11_11_10_11_01);
    }
}
