//! Integer instructions against the same instructions on the host's processor.
//!
//! `NERITE_CASES` is the number of cases of the long run (10 million if it is not set),
//! `NERITE_ONLY` a part of the names of the instructions to compare.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "bits of random numbers are cut out")]
#![allow(clippy::print_stdout, reason = "what differs is for people to read")]

#[path = "differential/forms.rs"]
mod forms;
#[path = "machine/mod.rs"]
mod machine;

use std::collections::BTreeMap;
use std::fmt::Write;

use forms::{Form, codes};
use iced_x86::{Code, Mnemonic, RflagsBits};
use machine::{Level, Machine, PT};
use nerite_arch::Regs;
use nerite_native_oracle::{Case, MEMORY_ADDRESS, MEMORY_SIZE, Random, execute};
use nerite_x86::Exit;

/// Cases in a batch.
const BATCH: usize = 2048;
/// Linear address of the code, and where it is in RAM.
const CODE: u64 = 0x4000_0000;
const CODE_PAGE: u64 = 0xb000;
/// Page of RAM with the memory of a case.
const DATA_PAGE: u64 = 0xc000;
/// Number of R13, the base of memory operands.
const BASE: usize = 13;
const STATUS: u64 = 0x8d5;

/// A processor at user level, with a page of code, and one of data like that of the oracle.
fn processor() -> Machine {
    let mut machine = Machine::new();
    // 0x2000_0000 and 0x4000_0000.
    machine.put(machine::PD + 0x100 * 8, &(PT | 7).to_le_bytes());
    machine.put(PT, &(DATA_PAGE | 7).to_le_bytes());
    machine.put(machine::PDPT + 8, &(0xd000_u64 | 7).to_le_bytes());
    machine.put(0xd000, &(0xe000_u64 | 7).to_le_bytes());
    machine.put(0xe000, &(CODE_PAGE | 7).to_le_bytes());
    machine.long_mode(Level::User);
    machine
}

/// Registers in the order of the oracle.
fn registers(regs: &Regs) -> [u64; 16] {
    [
        regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
    ]
}

/// A value that makes a difference more often than a random one.
fn value(random: &mut Random) -> u64 {
    const EDGES: [u64; 16] = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
        0x5555_5555_5555_5555,
    ];
    match random.below(4) {
        0 => EDGES[random.below(16) as usize],
        1 => random.below(70),
        2 => random.next_u64() >> random.below(64),
        _ => random.next_u64(),
    }
}

fn case(form: &Form, random: &mut Random) -> Case {
    let mut case = Case::default();
    case.set_code(&form.bytes);
    case.flags = 0x202 | random.next_u64() & STATUS;
    for register in &mut case.registers {
        *register = value(random);
    }
    for part in case.memory.as_chunks_mut::<8>().0 {
        *part = value(random).to_le_bytes();
    }
    let offset = match random.below(8) {
        0 => MEMORY_SIZE as u64 - 1 - random.below(20),
        1 => 256 + random.below(64),
        _ => 256 + random.below(16) * 16,
    };
    case.registers[BASE] = MEMORY_ADDRESS + offset;
    match form.instruction.mnemonic() {
        _ if form.instruction.is_string_instruction() => {
            case.registers[1] = random.below(40);
            case.registers[6] = MEMORY_ADDRESS + 256 + random.below(64);
            case.registers[7] = MEMORY_ADDRESS + offset;
        }
        Mnemonic::Xlatb => case.registers[3] = MEMORY_ADDRESS + 256,
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc => {
            // Bits within the memory.
            for (number, register) in
                case.registers.iter_mut().enumerate().filter(|(number, _)| *number != BASE)
            {
                *register = (random.below(4096) as i64 - 2048) as u64 ^ (number as u64) << 48;
                *register = (*register << 16) as i64 as u64 >> 16
                    | if *register & 0x8000 != 0 { 0xffff << 48 } else { 0 };
            }
        }
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if random.once_in(2) => {
            let start = offset as usize;
            if let Some(bytes) = case.memory.get(start..start + 16) {
                case.registers[0] = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                case.registers[2] = u64::from_le_bytes(bytes[8..].try_into().unwrap());
                if form.instruction.mnemonic() == Mnemonic::Cmpxchg8b {
                    case.registers[2] = case.registers[0] >> 32;
                }
            }
        }
        _ => {}
    }
    case
}

/// Status flags that the instruction defines.
fn defined(form: &Form, case: &Case) -> u64 {
    let undefined = form.instruction.rflags_undefined();
    let bits = [
        (RflagsBits::OF, 0x800),
        (RflagsBits::SF, 0x80),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::AF, 0x10),
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
    ];
    let masked =
        bits.iter().filter(|(bit, _)| undefined & bit != 0).fold(0, |mask, (_, flag)| mask | flag);
    // The count decides about the flags of shifts by CL, which stay as they are for 0.
    let is_shift = matches!(
        form.instruction.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Sal
            | Mnemonic::Shld
            | Mnemonic::Shrd
    );
    let wide =
        form.instruction.op0_register().size() == 8 || form.instruction.memory_size().size() == 8;
    let count = case.registers[1] & if wide { 63 } else { 31 };
    let by_cl = form.instruction.op1_register() == iced_x86::Register::CL
        || form.instruction.op2_register() == iced_x86::Register::CL;
    // Nothing is rotated through CF by its width and one, and processors differ about OF then.
    let is_rotation = matches!(form.instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr);
    let overflow = if is_rotation && form.instruction.immediate8() & 31 > 1 { 0x800 } else { 0 };
    if is_shift && by_cl && count == 0 { STATUS } else { STATUS & !masked & !overflow }
}

/// `true` if the result is undefined, for these operands.
fn is_undefined(form: &Form, case: &Case) -> bool {
    let mnemonic = form.instruction.mnemonic();
    let is_16 =
        form.instruction.op0_register().size() == 2 || form.instruction.memory_size().size() == 2;
    let count = if form.instruction.op2_register() == iced_x86::Register::CL {
        case.registers[1] & 31
    } else {
        u64::from(form.instruction.immediate8() & 31)
    };
    match mnemonic {
        Mnemonic::Shld | Mnemonic::Shrd => is_16 && count > 16,
        Mnemonic::Bswap => is_16,
        _ => false,
    }
}

fn difference(machine: &mut Machine, form: &Form, before: &Case, after: &Case) -> Option<String> {
    machine.put(CODE_PAGE, &before.code);
    machine.put(DATA_PAGE + MEMORY_ADDRESS % 4096, &before.memory);
    machine.long_mode(Level::User);
    let r = before.registers;
    machine.cpu.set_regs(&Regs {
        rax: r[0],
        rcx: r[1],
        rdx: r[2],
        rbx: r[3],
        rsp: r[4],
        rbp: r[5],
        rsi: r[6],
        rdi: r[7],
        r8: r[8],
        r9: r[9],
        r10: r[10],
        r11: r[11],
        r12: r[12],
        r13: r[13],
        r14: r[14],
        r15: r[15],
        rip: CODE,
        rflags: before.flags,
    });
    let exit = machine.run(1);
    let mut text = String::new();
    let regs = machine.cpu.regs();
    let mut ours = registers(&regs);
    // A fault uses the budget up, and no instruction of its handler is executed.
    assert_eq!(exit, Exit::Budget);
    let fault = machine.handler().map(u32::from);
    let native = after.exception();
    if fault != native.map(|(vector, _)| vector) {
        let _ = writeln!(text, "  exception {fault:?}, natively {native:?}, at {:#x}", regs.rip);
    }
    let mut flags = regs.rflags;
    if let Some(vector) = fault {
        let error = if matches!(vector, 13 | 14) { machine.get(regs.rsp) } else { 0 };
        if native.is_some_and(|(_, code)| u64::from(code) != error) {
            let _ = writeln!(text, "  error code {error:#x}, natively {native:x?}");
        }
        let frame = regs.rsp + if matches!(vector, 13 | 14 | 17) { 8 } else { 0 };
        flags = machine.get(frame + 16);
        if machine.get(frame) != CODE {
            let _ = writeln!(text, "  the fault is at {:#x}", machine.get(frame));
        }
    } else if regs.rip != CODE + form.bytes.len() as u64 {
        let _ = writeln!(text, "  the next instruction is at {:#x}", regs.rip);
    }
    let mut theirs = after.registers;
    (ours[4], theirs[4]) = (0, 0);
    let undefined = is_undefined(form, before);
    if ours != theirs && !undefined {
        let _ = writeln!(text, "  registers {ours:x?}\n  natively  {theirs:x?}");
    }
    // A repeated comparison that faults half-way may have set flags, or not.
    let is_halfway = native.is_some()
        && (form.instruction.has_repe_prefix() || form.instruction.has_repne_prefix());
    let mask = if undefined || is_halfway { 0 } else { defined(form, before) };
    if (flags ^ after.flags) & mask != 0 {
        let _ = writeln!(
            text,
            "  flags {:#x}, natively {:#x}, of {mask:#x}",
            flags & STATUS,
            after.flags & STATUS
        );
    }
    let mut memory = [0; MEMORY_SIZE];
    machine.ram.read(DATA_PAGE + MEMORY_ADDRESS % 4096, &mut memory).unwrap();
    if memory != after.memory && !undefined {
        let at =
            memory.iter().zip(&after.memory).position(|(ours, theirs)| ours != theirs).unwrap_or(0);
        let _ = writeln!(
            text,
            "  memory at {at:#x}: {:02x}, natively {:02x}",
            memory[at], after.memory[at]
        );
    }
    (!text.is_empty()).then(|| {
        format!(
            "{} {:02x?}, registers {:x?}, flags {:#x}\n{text}",
            form.name, form.bytes, before.registers, before.flags
        )
    })
}

/// Runs the cases, and fails with a difference of each instruction.
fn compare(cases: impl Iterator<Item = (Form, Case)>) {
    let mut machine = processor();
    let mut wrong: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut executed = 0_usize;
    let mut cases = cases.peekable();
    while cases.peek().is_some() {
        let batch: Vec<(Form, Case)> = cases.by_ref().take(BATCH).collect();
        let natively =
            execute(batch.iter().map(|(_, case)| case.clone()).collect()).expect("a child process");
        for ((form, before), after) in batch.iter().zip(&natively) {
            executed += 1;
            if let Some(text) = difference(&mut machine, form, before, after) {
                wrong.entry(form.name.clone()).or_insert((0, text)).0 += 1;
            }
        }
    }
    println!("{executed} cases");
    for (name, (count, text)) in &wrong {
        println!("{name}: {count} differ, for example\n{text}");
    }
    assert!(wrong.is_empty(), "{} instructions differ", wrong.len());
}

/// Compares about `total` cases at random, spread over all instructions.
fn compare_random(total: usize, seed: u64) {
    let only = std::env::var("NERITE_ONLY").unwrap_or_default();
    let codes: Vec<Code> =
        codes().into_iter().filter(|code| format!("{code:?}").contains(&only)).collect();
    assert!(!codes.is_empty(), "no instruction is named {only}");
    println!("{} instructions", codes.len());
    let mut random = Random::new(seed);
    let each = total.div_ceil(codes.len());
    compare(codes.iter().flat_map(|code| std::iter::repeat_n(*code, each)).map(|code| {
        let form =
            forms::encode(code, &mut random).unwrap_or_else(|| panic!("no encoding of {code:?}"));
        let case = case(&form, &mut random);
        (form, case)
    }));
}

/// All operands of two bytes, and both values of the carry, of an instruction on AL and BL.
fn all_bytes(bytes: [u8; 2]) -> impl Iterator<Item = (Form, Case)> {
    let form = Form::of(&bytes);
    (0..1_u64 << 17).map(move |operands| {
        let mut case = Case::default();
        case.set_code(&bytes);
        case.flags = 0x202 | operands >> 16;
        (case.registers[0], case.registers[3]) = (operands & 0xff, operands >> 8 & 0xff);
        case.registers[BASE] = MEMORY_ADDRESS;
        (form.clone(), case)
    })
}

#[test]
#[ignore = "takes minutes: for nightly runs"]
fn arithmetic_of_all_bytes() {
    // ADD, OR, ADC, SBB, AND, SUB, XOR and CMP; MUL, IMUL, DIV and IDIV.
    for bytes in (0..8)
        .map(|number| [number * 8, 0xd8])
        .chain((4..8).map(|number| [0xf6, 0xc3 | number << 3]))
    {
        compare(all_bytes(bytes));
    }
}

#[test]
fn integer_instructions_do_what_the_processor_does() {
    compare_random(40_000, 1);
}

#[test]
#[ignore = "takes minutes: for nightly runs"]
fn integer_instructions_do_what_the_processor_does_in_millions_of_cases() {
    let cases: usize = std::env::var("NERITE_CASES")
        .ok()
        .map_or(10_000_000, |cases| cases.parse().expect("a number"));
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    for round in 0..cases.div_ceil(1_000_000) as u64 {
        compare_random(cases.min(1_000_000), seed + round);
    }
}
