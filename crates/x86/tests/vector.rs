//! Vector instructions through the whole processor: conditions of control registers, memory
//! operands, saved states.

#![cfg(test)]
#![allow(clippy::cast_possible_truncation, reason = "bytes of patterns")]

#[path = "machine/mod.rs"]
mod machine;

use std::sync::Arc;

use machine::{CODE, DATA, Level, Machine};
use nerite_arch::Fpu;
use nerite_memory::Pages;
use nerite_x86::{Config, Cpu, Platform, supported_cpuid};

const UD: Option<u8> = Some(6);
const NM: Option<u8> = Some(7);

const MOVUPS_XMM1_RBX: &[u8] = &[0x0f, 0x10, 0x0b];
const MOVUPS_RBX_XMM1: &[u8] = &[0x0f, 0x11, 0x0b];
const VADDPS_YMM1_YMM1_RBX: &[u8] = &[0xc5, 0xf4, 0x58, 0x0b];
const FLD1: &[u8] = &[0xd9, 0xe8];
const FWAIT: &[u8] = &[0x9b];
const PADDB_MM0_RBX: &[u8] = &[0x0f, 0xfc, 0x03];
const FXSAVE_RBX: &[u8] = &[0x0f, 0xae, 0x03];
const XSAVE_RBX: &[u8] = &[0x0f, 0xae, 0x23];
const XRSTOR_RBX: &[u8] = &[0x0f, 0xae, 0x2b];
const HLT: &[u8] = &[0xf4];

fn machine(code: &[&[u8]]) -> Machine {
    let mut machine = Machine::at(Level::Kernel, &code.concat());
    machine.set(|regs| {
        regs.rbx = DATA;
        regs.rax = u64::MAX;
        regs.rdx = u64::MAX;
    });
    machine
}

/// The exception of an instruction with bits of CR0 set and bits of CR4 clear.
fn exception(code: &[u8], cr0: u64, cr4: u64) -> Option<u8> {
    let mut machine = machine(&[code, HLT]);
    machine.set_special(|special| {
        special.cr0 |= cr0;
        special.cr4 &= !cr4;
    });
    machine.run_to_halt()
}

#[test]
fn control_registers_gate_the_sets_of_instructions() {
    let (mp, em, ts) = (1 << 1, 1 << 2, 1 << 3);
    let (osfxsr, osxsave) = (1 << 9, 1 << 18);
    for (code, by_em, without_osfxsr, without_osxsave) in [
        (FLD1, NM, None, None),
        (PADDB_MM0_RBX, UD, None, None),
        (MOVUPS_XMM1_RBX, UD, UD, None),
        (FXSAVE_RBX, NM, None, None),
        (XSAVE_RBX, None, None, UD),
    ] {
        assert_eq!(exception(code, 0, 0), None, "{code:x?}");
        assert_eq!(exception(code, ts, 0), NM, "{code:x?}");
        assert_eq!(exception(code, em, 0), by_em, "{code:x?}");
        assert_eq!(exception(code, 0, osfxsr), without_osfxsr, "{code:x?}");
        assert_eq!(exception(code, 0, osxsave), without_osxsave, "{code:x?}");
    }
    assert_eq!(exception(FWAIT, mp | ts, 0), NM);
    let mut machine = machine(&[FWAIT, HLT]);
    machine.set_special(|special| special.cr0 = special.cr0 & !mp | ts);
    assert_eq!(machine.run_to_halt(), None, "without MP, FWAIT does not look at TS");
}

#[test]
fn code_that_has_run_is_gated_by_new_control_registers() {
    // movups xmm1, [rbx]; mov rax, cr0; or eax, 8; mov cr0, rax; jmp to the beginning
    let code: &[u8] = &[0x0f, 0x20, 0xc0, 0x83, 0xc8, 0x08, 0x0f, 0x22, 0xc0, 0xeb, 0xf2];
    let mut machine = machine(&[MOVUPS_XMM1_RBX, code]);
    assert_eq!(machine.run_to_halt(), NM);
    // clts; movups xmm1, [rbx]
    assert_eq!(exception(&[&[0x0f, 0x06], MOVUPS_XMM1_RBX].concat(), 1 << 3, 0), None);
}

#[test]
fn flags_of_mxcsr_are_those_of_the_guest() {
    /// Computes while the guest executes RDTSC.
    struct Inexact;

    impl Platform for Inexact {
        fn tsc(&mut self, instructions: u64) -> u64 {
            (std::hint::black_box(instructions as f64) / std::hint::black_box(3.0)) as u64
        }

        fn random(&mut self) -> u64 {
            0
        }
    }

    // rdtsc; stmxcsr [rbx]; divss xmm1, xmm2; rdtsc; stmxcsr [rbx+4]
    let code: &[u8] = &[
        0x0f, 0x31, 0x0f, 0xae, 0x1b, 0xf3, 0x0f, 0x5e, 0xca, 0x0f, 0x31, 0x0f, 0xae, 0x5b, 0x04,
        0xf4,
    ];
    let mut machine = machine(&[code]);
    machine.cpu = Cpu::new(Config {
        memory: Box::new(Pages::new(&machine.ram)),
        platform: Box::new(Inexact),
        code: Arc::clone(&machine.code),
        cpuid: supported_cpuid(),
    });
    machine.long_mode(Level::Kernel);
    machine.set(|regs| regs.rbx = DATA);
    let mut fpu = Fpu::default();
    for (number, value) in [(1, 1.0_f32), (2, 3.0)] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&value.to_le_bytes());
        fpu.set_xmm(number, bytes);
    }
    machine.cpu.set_fpu(&fpu);
    // Flags that the host has raised before.
    assert!(std::hint::black_box(1.0_f64) / std::hint::black_box(3.0) < 0.5);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.get(DATA), 0x1fa0 << 32 | 0x1f80);
    assert_eq!(machine.cpu.fpu().mxcsr(), 0x1fa0);
}

#[test]
fn an_environment_shows_the_last_instruction_and_its_operand() {
    // fadd dword [rbx+4] with prefixes; fnstenv [rbx+16]
    let code: &[u8] = &[0xd9, 0xe8, 0x3e, 0x40, 0xd8, 0x43, 0x04, 0xd9, 0x73, 0x10, 0xf4];
    let mut machine = machine(&[code]);
    assert_eq!(machine.run_to_halt(), None);
    // The opcode is beside the selector of code, which is not kept.
    assert_eq!(machine.get(DATA + 28), 0x043 << 48 | (CODE + 2));
    assert_eq!(machine.get(DATA + 36) & 0xffff_ffff, DATA + 4);
    assert_eq!(machine.cpu.fpu().opcode(), 0x043);
}

#[test]
fn avx_needs_its_bit_in_xcr0() {
    if !std::is_x86_feature_detected!("avx") {
        return;
    }
    assert_eq!(exception(VADDPS_YMM1_YMM1_RBX, 0, 0), None);
    assert_eq!(exception(VADDPS_YMM1_YMM1_RBX, 0, 1 << 18), UD);
    let mut machine = machine(&[VADDPS_YMM1_YMM1_RBX, HLT]);
    assert!(machine.cpu.set_xcr0(3) && !machine.cpu.set_xcr0(5));
    assert_eq!(machine.run_to_halt(), UD);
}

#[test]
fn operands_across_pages_are_whole() {
    let mut machine = machine(&[MOVUPS_XMM1_RBX, &[0x48, 0x83, 0xc3, 0x20], MOVUPS_RBX_XMM1, HLT]);
    let bytes: [u8; 16] = std::array::from_fn(|index| index as u8 + 1);
    machine.put(DATA + 0xff7, &bytes);
    machine.set(|regs| regs.rbx = DATA + 0xff7);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.fpu().xmm(1), bytes);
    let mut found = [0; 16];
    machine.ram.read(DATA + 0x1017, &mut found).unwrap();
    assert_eq!(found, bytes);
}

#[test]
fn a_store_that_faults_in_its_second_page_writes_nothing() {
    let mut machine = machine(&[MOVUPS_RBX_XMM1, HLT]);
    let mut fpu = Fpu::default();
    fpu.set_xmm(1, [0xaa; 16]);
    machine.cpu.set_fpu(&fpu);
    machine.set(|regs| regs.rbx = 0x1f_fff8);
    assert_eq!(machine.run_to_halt(), Some(14));
    assert_eq!(machine.get(0x1f_fff8), 0);
    assert_eq!(machine.cpu.special_regs().cr2, 0x20_0000);
}

#[test]
fn a_saved_state_is_restored() {
    let mut machine =
        machine(&[FLD1, XSAVE_RBX, &[0x0f, 0x57, 0xc9], &[0xdd, 0xd8], XRSTOR_RBX, HLT]);
    let mut fpu = Fpu::default();
    fpu.set_xmm(1, [7; 16]);
    machine.cpu.set_fpu(&fpu);
    assert_eq!(machine.run_to_halt(), None);
    let fpu = machine.cpu.fpu();
    assert_eq!(fpu.xmm(1), [7; 16]);
    assert_eq!(fpu.st(0), [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
}

#[test]
fn an_unmasked_exception_is_one_of_the_next_instruction() {
    // fldcw [rbx]; fldz; fld1; fdivrp; fwait
    let code: &[u8] = &[0xd9, 0x2b, 0xd9, 0xee, 0xd9, 0xe8, 0xde, 0xf1];
    let mut machine = machine(&[code, FWAIT, HLT]);
    machine.put(DATA, &0x37b_u16.to_le_bytes());
    assert_eq!(machine.run_to_halt(), Some(16));
    assert_eq!(machine.get(machine.cpu.regs().rsp), CODE + code.len() as u64);
}

#[test]
fn moves_of_whole_registers_check_their_alignment() {
    // movaps xmm2, xmm1; movaps [rbx], xmm2; movdqu xmm3, [rbx+1]; movaps xmm4, [rbx+1]
    let code: &[u8] =
        &[0x0f, 0x28, 0xd1, 0x0f, 0x29, 0x13, 0xf3, 0x0f, 0x6f, 0x5b, 0x01, 0x0f, 0x28, 0x63, 0x01];
    let mut machine = machine(&[code, HLT]);
    let mut fpu = Fpu::default();
    let bytes: [u8; 16] = std::array::from_fn(|index| index as u8 + 1);
    fpu.set_xmm(1, bytes);
    fpu.set_ymm_high(2, [9; 16]);
    machine.cpu.set_fpu(&fpu);
    assert_eq!(machine.run_to_halt(), Some(13));
    let fpu = machine.cpu.fpu();
    assert_eq!((fpu.xmm(2), fpu.ymm_high(2)), (bytes, [9; 16]));
    assert_eq!(fpu.xmm(3)[..15], bytes[1..]);
    assert_eq!(machine.get(DATA), 0x0807_0605_0403_0201);
}
