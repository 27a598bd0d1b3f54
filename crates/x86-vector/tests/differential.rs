//! Every instruction of this crate against the same instruction on the host's processor.
//!
//! Instructions that the host does not have are skipped: `tests/coverage.rs` names their number.
//! `NERITE_CASES` is how many cases the long run has (10 million if it is not set).

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "bits of random numbers are cut out")]
#![allow(clippy::print_stdout, reason = "what differs is for people to read")]

#[path = "differential/model.rs"]
mod model;
#[path = "differential/settle.rs"]
mod settle;
#[path = "differential/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::fmt::Write;

use iced_x86::{Code, CpuidFeature, Instruction, OpKind};
use model::{Fault, Model, Op};
use nerite_native_oracle::{
    Case, MEMORY_ADDRESS, MEMORY_SIZE, Random, execute, form, vector_components,
};
use nerite_x86_vector::{Handler, VectorState, lookup};
use settle::{comparable, settle_gather};

/// Cases in a batch.
const BATCH: usize = 2048;
/// Status flags.
const STATUS_FLAGS: u64 = 0x8d5;
/// Number of R13, the base of memory operands.
const BASE: usize = 13;

/// All codes that have a handler on this host.
fn codes() -> Vec<(Code, Handler<Model>)> {
    let handler = |code| {
        let mut instruction = Instruction::default();
        instruction.set_code(code);
        lookup::<Model>(&instruction).map(|handler| (code, handler))
    };
    Code::values().filter_map(handler).collect()
}

/// Instructions whose memory operand is a saved state.
fn restores(code: Code) -> bool {
    let name = format!("{code:?}");
    ["Fxrstor", "Xrstor", "Xsave"].iter().any(|prefix| name.starts_with(prefix))
}

/// Bytes of the memory operand that may differ: selectors in an environment of x87, and
/// the mask of MXCSR, which depend on the model of the processor.
fn ignored(code: Code) -> Vec<usize> {
    let name = format!("{code:?}");
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if begins(&["Fxsave", "Xsave"]) {
        (28..32).collect()
    } else if begins(&["Fnstenv_m14", "Fnsave_m94"]) {
        (8..10).chain(12..14).collect()
    } else if begins(&["Fnstenv", "Fnsave"]) {
        (16..18).chain(24..26).collect()
    } else {
        Vec::new()
    }
}

/// A case of an instruction, and what it decodes to.
fn case(code: Code, random: &mut Random) -> Option<(Case, Instruction)> {
    let form = (0..16).find_map(|_| form::encode(code, random))?;
    let mut case = Case::default();
    case.set_code(&form.bytes);
    case.vector = values::state(random).to_xsave();
    // All components are loaded, even those that are initial.
    case.vector[512] = vector_components() as u8;
    case.flags = 0x202 | random.next_u64() & STATUS_FLAGS;
    for register in &mut case.registers {
        let mut bytes = [0; 8];
        values::fill(&mut bytes, random);
        *register = u64::from_le_bytes(bytes);
    }
    for part in case.memory.chunks_mut(32) {
        values::fill(part, random);
    }
    let offset = match random.below(8) {
        0 => MEMORY_SIZE as u64 - 1 - random.below(64),
        1 => random.below(128),
        _ => random.below(3) * 64,
    };
    place(code, &form.instruction, &mut case, offset, random);
    Some((case, form.instruction))
}

/// Prepares the memory operand at `offset`.
fn place(code: Code, instruction: &Instruction, case: &mut Case, offset: u64, random: &mut Random) {
    case.registers[BASE] = MEMORY_ADDRESS + offset;
    case.registers[7] = MEMORY_ADDRESS + offset;
    let start = offset as usize;
    let fits = |size| start + size <= MEMORY_SIZE;
    if restores(code) {
        // The components that are asked for: EDX:EAX.
        case.registers[0] = random.below(8);
        case.registers[2] = 0;
        if fits(832) {
            case.memory[start..start + 832].copy_from_slice(&values::image(random));
        }
    }
    let name = format!("{code:?}");
    if name.ends_with("ldmxcsr_m32") || name.ends_with("Ldmxcsr_m32") {
        // Misaligned exception mask, which some AMD processors have (AMD APM vol. 1, 4.2.2).
        if let Some(byte) = case.memory.get_mut(start + 2) {
            *byte &= !2;
        }
    }
    if name.ends_with("m80fp") && fits(10) {
        case.memory[start..start + 10].copy_from_slice(&values::f80(random));
    }
    if name == "Fbld_m80bcd" && fits(10) && !random.once_in(4) {
        // Digits.
        for byte in &mut case.memory[start..start + 9] {
            *byte = (random.below(10) << 4 | random.below(10)) as u8;
        }
    }
    if instruction.is_vsib() {
        // Indices within the memory, or far outside.
        let register = instruction.memory_index().number();
        let mut state = VectorState::from_xsave(&case.vector);
        let wide = instruction.is_vsib64();
        let far = if random.once_in(4) { random.below(8) } else { 8 };
        for (number, element) in state.ymm[register].0.as_chunks_mut::<4>().0.iter_mut().enumerate()
        {
            let high = wide && number % 2 == 1;
            let index = if high { 0 } else { random.below(64) as u32 };
            let index = if number as u64 == far && !high { 0x3000_0000 } else { index };
            *element = index.to_le_bytes();
        }
        case.vector = state.to_xsave();
        case.vector[512] = vector_components() as u8;
    }
}

/// Executes the case here, and compares with what the host did. Returns a description of the
/// differences.
fn difference(
    handler: Handler<Model>,
    instruction: &Instruction,
    before: &Case,
    after: &Case,
) -> Option<String> {
    let mut model = Model::of(before);
    model.vector.begin();
    let result = handler(&mut model, &Op::new(*instruction));
    model.vector.collect();
    let mut native = Model::of(after);
    let mut text = String::new();
    let (ours, theirs) =
        (result.err().map(Fault::vector), after.exception().map(|(vector, _)| vector));
    if instruction.op0_kind() == OpKind::MemorySegRDI && ours.is_none() && theirs == Some(14) {
        // Processors may look at bytes of memory that are not chosen.
        return None;
    }
    let is_sha = instruction.cpuid_features().contains(&CpuidFeature::SHA);
    if is_sha && ours == Some(13) && theirs != ours {
        // Some processors take misaligned operands of these.
        return None;
    }
    if ours != theirs {
        let _ = writeln!(text, "  exception {ours:?}, natively {theirs:?}");
    }
    let (mut state, mut native_state) =
        (comparable(model.vector.clone()), comparable(native.vector.clone()));
    if theirs == Some(14) && instruction.is_vsib() {
        settle_gather(&mut state, instruction);
        settle_gather(&mut native_state, instruction);
    }
    if theirs == Some(14) && instruction.op1_register().is_mm() {
        // Processors differ in whether a store that faults has set the top of the stack before.
        const TOP: u16 = 7 << 11;
        state.x87.status = state.x87.status & !TOP | native_state.x87.status & TOP;
    }
    for (index, (ours, theirs)) in state.ymm.iter().zip(&native_state.ymm).enumerate() {
        if ours != theirs {
            let _ = writeln!(text, "  ymm{index} {:02x?}\n natively {:02x?}", ours.0, theirs.0);
        }
    }
    // With an unmasked overflow or underflow, the processor finds out if the result would be
    // inexact with an exponent of any size. This crate does not.
    let unlimited = theirs == Some(19) && state.mxcsr & !(state.mxcsr >> 7) & 0x18 != 0;
    // A dot product has two steps; this crate reports the flags of both.
    let steps =
        theirs == Some(19) && format!("{:?}", instruction.code()).to_lowercase().contains("dpp");
    let ignored_flags = if steps {
        0x3f
    } else if unlimited {
        0x20
    } else {
        0
    };
    if (state.mxcsr ^ native_state.mxcsr) & !ignored_flags != 0 {
        let _ = writeln!(text, "  mxcsr {:#x}, natively {:#x}", state.mxcsr, native_state.mxcsr);
    }
    if state.x87 != native_state.x87 {
        let _ = writeln!(text, "  {:02x?}\n  natively {:02x?}", state.x87, native_state.x87);
    }
    model.registers[4] = 0;
    native.registers[4] = 0;
    if model.registers != native.registers {
        let _ = writeln!(
            text,
            "  registers {:x?}\n  natively  {:x?}",
            model.registers, native.registers
        );
    }
    if (model.flags ^ native.flags) & STATUS_FLAGS != 0 {
        let _ = writeln!(
            text,
            "  flags {:#x}, natively {:#x}",
            model.flags,
            native.flags & STATUS_FLAGS
        );
    }
    let start = (before.registers[BASE] - MEMORY_ADDRESS) as usize;
    for offset in
        ignored(instruction.code()).into_iter().filter(|offset| start + offset < MEMORY_SIZE)
    {
        native.memory[start + offset] = model.memory[start + offset];
    }
    for (offset, (ours, theirs)) in model.memory.iter().zip(&native.memory).enumerate() {
        if ours != theirs {
            let relative = offset as i64 - start as i64;
            let _ = writeln!(text, "  byte {relative} {ours:#04x}, natively {theirs:#04x}");
        }
    }
    if text.is_empty() {
        return None;
    }
    let state = Model::of(before).vector;
    Some(format!(
        "{:?} {:02x?}, flags {:#x}, mxcsr {:#x}, {:02x?}\n{text}",
        instruction.code(),
        &before.code[..usize::from(before.length)],
        before.flags,
        state.mxcsr,
        state.x87,
    ))
}

/// Runs `total` cases or a few more, spread over all instructions, and fails with the first
/// differences of each.
fn compare(total: usize, seed: u64) {
    if vector_components() == 0 {
        println!("skipped: the host has no XSAVE");
        return;
    }
    let codes = codes();
    let mut random = Random::new(seed);
    let mut wrong: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let (mut cases, mut executed) = (Vec::new(), 0);
    let each = total.div_ceil(codes.len());
    for (number, (code, handler)) in codes.iter().enumerate() {
        let filter = std::env::var("NERITE_ONLY").ok();
        if filter.is_some_and(|filter| !format!("{code:?}").contains(&filter)) {
            continue;
        }
        let made = (0..each)
            .map(|_| case(*code, &mut random).unwrap_or_else(|| panic!("no encoding of {code:?}")));
        cases.extend(made.map(|(case, instruction)| (case, instruction, *handler)));
        if cases.len() < BATCH && number + 1 < codes.len() {
            continue;
        }
        for batch in cases.chunks(BATCH) {
            let natively = execute(batch.iter().map(|(case, _, _)| case.clone()).collect())
                .expect("a child process");
            for ((before, instruction, handler), after) in batch.iter().zip(&natively) {
                executed += 1;
                if let Some(text) = difference(*handler, instruction, before, after) {
                    let entry =
                        wrong.entry(format!("{:?}", instruction.code())).or_insert((0, text));
                    entry.0 += 1;
                }
            }
        }
        cases.clear();
    }
    println!("{executed} cases of {} instructions", codes.len());
    for (code, (count, text)) in &wrong {
        println!("{code}: {count} of {each} differ, for example\n{text}");
    }
    assert!(wrong.is_empty(), "{} instructions differ", wrong.len());
}

#[test]
fn instructions_do_what_the_processor_does() {
    compare(40_000, 1);
}

/// Executes an instruction with states that `prepare` has changed, here and natively.
fn agree(code: Code, prepare: fn(&mut VectorState)) {
    let handler = codes().into_iter().find(|(other, _)| *other == code).map(|(_, handler)| handler);
    let Some(handler) = handler.filter(|_| vector_components() != 0) else {
        println!("skipped: the host has no {code:?}");
        return;
    };
    let mut random = Random::new(3);
    let mut cases = Vec::new();
    for _ in 0..32 {
        let (mut case, instruction) = case(code, &mut random).expect("an encoding");
        let mut state = VectorState::from_xsave(&case.vector);
        prepare(&mut state);
        case.vector = state.to_xsave();
        case.vector[512] = vector_components() as u8;
        cases.push((case, instruction));
    }
    let natively =
        execute(cases.iter().map(|(case, _)| case.clone()).collect()).expect("a child process");
    for ((before, instruction), after) in cases.iter().zip(&natively) {
        assert_eq!(difference(handler, instruction, before, after), None);
    }
}

#[test]
fn exact_tiny_results_raise_unmasked_underflow() {
    let codes = [
        Code::Fmul_sti_st0,
        Code::Fmulp_sti_st0,
        Code::Fmul_st0_sti,
        Code::Fdiv_sti_st0,
        Code::Mulpd_xmm_xmmm128,
        Code::Mulsd_xmm_xmmm64,
        Code::VEX_Vmulpd_ymm_ymm_ymmm256,
        Code::VEX_Vcvtps2ph_xmmm64_xmm_imm8,
    ];
    for code in codes {
        agree(code, |state| {
            // Ones and denormals, flags of denormals that have been seen, and underflow unmasked.
            state.x87.control = 0x37f & !0x10;
            state.x87.status = 2;
            state.x87.tags = 0xff;
            for (index, register) in state.x87.registers.iter_mut().enumerate() {
                *register = if index % 2 == 0 {
                    [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]
                } else {
                    [0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0]
                };
            }
            state.mxcsr = 0x1f80 & !(1 << 11) | 0x22;
            for (index, ymm) in state.ymm.iter_mut().enumerate() {
                let value: u64 =
                    if index % 2 == 0 { 0x3ff0_0000_0000_0000 } else { 0x0004_0000_3300_0000 };
                for element in ymm.0.as_chunks_mut::<8>().0 {
                    *element = value.to_le_bytes();
                }
            }
        });
    }
}

#[test]
fn zeros_and_overflows_after_an_inexact_result_are_seen() {
    for code in [
        Code::Mulpd_xmm_xmmm128,
        Code::Divsd_xmm_xmmm64,
        Code::Addps_xmm_xmmm128,
        Code::Sqrtsd_xmm_xmmm64,
    ] {
        agree(code, |state| {
            // The modes in which flags stay in the host's MXCSR.
            state.mxcsr = 0x1fa0;
            let values = [
                0_u64,
                1 << 63,
                0x0010_0000_0000_0000,
                0x7fe0_0000_7f00_0000,
                0x3ff0_0000_3f80_0000,
            ];
            for (index, ymm) in state.ymm.iter_mut().enumerate() {
                for element in ymm.0.as_chunks_mut::<8>().0 {
                    *element = values[index % values.len()].to_le_bytes();
                }
            }
        });
    }
}

#[test]
#[ignore = "takes minutes: for nightly runs"]
fn instructions_do_what_the_processor_does_in_millions_of_cases() {
    let cases: usize = std::env::var("NERITE_CASES")
        .ok()
        .map_or(10_000_000, |cases| cases.parse().expect("a number"));
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for round in 0..cases.div_ceil(1_000_000) as u64 {
        compare(cases.min(1_000_000), seed + round);
    }
}
