//! Instructions of the sets that this crate is for, and which of them have no handler.

#![cfg(test)]
#![allow(clippy::print_stdout, reason = "what is skipped is for people to read")]

use std::collections::BTreeSet;

use iced_x86::{Code, CpuidFeature, Instruction, Register};
use nerite_x86_vector::{Fields, Operands, VectorException, VectorState, lookup, supported};

/// Instructions that are not this crate's.
const EXPECTED: &[&str] = &[
    // The processor's: they have no effect on vector registers.
    "Lfence",
    "Lfence_E9",
    "Lfence_EA",
    "Lfence_EB",
    "Lfence_EC",
    "Lfence_ED",
    "Lfence_EE",
    "Lfence_EF",
    "Mfence",
    "Mfence_F1",
    "Mfence_F2",
    "Mfence_F3",
    "Mfence_F4",
    "Mfence_F5",
    "Mfence_F6",
    "Mfence_F7",
    "Prefetchnta_m8",
    "Prefetcht0_m8",
    "Prefetcht1_m8",
    "Prefetcht2_m8",
    "Sfence",
    "Sfence_F9",
    "Sfence_FA",
    "Sfence_FB",
    "Sfence_FC",
    "Sfence_FD",
    "Sfence_FE",
    "Sfence_FF",
    "Xgetbv",
    "Xsetbv",
    // For system software, with IA32_XSS, which has no bits here.
    "Xrstors64_mem",
    "Xrstors_mem",
    "Xsaves64_mem",
    "Xsaves_mem",
    // Decoded as FWAIT and the instruction without it.
    "Fclex",
    "Fdisi",
    "Feni",
    "Finit",
    "Fsave_m108byte",
    "Fsave_m94byte",
    "Fsetpm",
    "Fstcw_m2byte",
    "Fstdw_AX",
    "Fstenv_m14byte",
    "Fstenv_m28byte",
    "Fstsg_AX",
    "Fstsw_AX",
    "Fstsw_m2byte",
    // Of a 387 for laptops, and of a 287 XL.
    "Fnstdw_AX",
    "Fnstsg_AX",
    "Frstpm",
];

/// `true` if the crate is for the set.
fn wanted(feature: CpuidFeature) -> bool {
    let name = format!("{feature:?}");
    let sets = [
        "MMX",
        "SSE",
        "SSE2",
        "SSE3",
        "SSSE3",
        "SSE4_1",
        "SSE4_2",
        "AES",
        "PCLMULQDQ",
        "SHA",
        "AVX",
        "AVX2",
        "FMA",
        "F16C",
        "FXSR",
        "XSAVE",
        "XSAVEOPT",
        "XSAVEC",
        "XSAVES",
        "CMOV",
    ];
    name.starts_with("FPU") || sets.contains(&name.as_str())
}

/// `true` if the host has the set.
fn present(feature: CpuidFeature) -> bool {
    let features = supported();
    match feature {
        CpuidFeature::SSE3 => features.sse3,
        CpuidFeature::SSSE3 => features.ssse3,
        CpuidFeature::SSE4_1 => features.sse4_1,
        CpuidFeature::SSE4_2 => features.sse4_2,
        CpuidFeature::AES => features.aes,
        CpuidFeature::PCLMULQDQ => features.pclmulqdq,
        CpuidFeature::SHA => features.sha,
        CpuidFeature::AVX => features.avx,
        CpuidFeature::AVX2 => features.avx2,
        CpuidFeature::FMA => features.fma,
        CpuidFeature::F16C => features.f16c,
        _ => true,
    }
}

/// An instruction that is never executed.
struct NoOp(Fields);

impl AsRef<Fields> for NoOp {
    fn as_ref(&self) -> &Fields {
        &self.0
    }
}

/// A processor that is never asked.
struct Nothing(VectorState);

impl Operands for Nothing {
    type Fault = ();
    type Op = NoOp;

    fn vector(&self) -> &VectorState {
        &self.0
    }

    fn vector_mut(&mut self) -> &mut VectorState {
        &mut self.0
    }

    fn load_at(&mut self, _: &NoOp, _: u64, _: &mut [u8]) -> Result<(), ()> {
        Err(())
    }

    fn store_at(&mut self, _: &NoOp, _: u64, _: &[u8]) -> Result<(), ()> {
        Err(())
    }

    fn load_element(&mut self, _: &NoOp, _: i64, _: &mut [u8]) -> Result<(), ()> {
        Err(())
    }

    fn linear_address(&self, _: &NoOp) -> u64 {
        0
    }

    fn effective_address(&self, _: &NoOp) -> u64 {
        0
    }

    fn gpr(&self, _: Register) -> u64 {
        0
    }

    fn set_gpr(&mut self, _: Register, _: u64) {}

    fn flags(&self) -> u64 {
        0
    }

    fn set_flags(&mut self, _: u64, _: u64) {}

    fn xcr0(&self) -> u64 {
        0
    }

    fn rip(&self, _: &NoOp) -> u64 {
        0
    }

    fn real_mode(&self) -> bool {
        false
    }

    fn exception(&mut self, _: VectorException) {}
}

#[test]
fn all_instructions_but_those_listed_have_a_handler() {
    let (mut missing, mut skipped, mut implemented) = (BTreeSet::new(), 0, 0);
    for code in Code::values() {
        let features = code.cpuid_features();
        let is_instruction = code.op_code().is_instruction();
        // CMOVcc are of the set CMOV alone.
        if !is_instruction
            || !features.iter().all(|&feature| wanted(feature))
            || features == [CpuidFeature::CMOV]
        {
            continue;
        }
        let mut instruction = Instruction::default();
        instruction.set_code(code);
        let has_handler = lookup::<Nothing>(&instruction).is_some();
        if !features.iter().all(|&feature| present(feature)) {
            assert!(!has_handler, "{code:?} is of a set that the host does not have");
            skipped += 1;
        } else if has_handler {
            implemented += 1;
        } else {
            missing.insert(format!("{code:?}"));
        }
    }
    println!(
        "{implemented} instructions have a handler; skipped: {skipped} that the host does not have"
    );
    let expected: BTreeSet<String> = EXPECTED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(missing, expected);
    assert!(implemented > 700);
}

#[test]
fn other_instructions_have_no_handler() {
    for code in
        [Code::Add_rm64_r64, Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er, Code::Extrq_xmm_xmm]
    {
        let mut instruction = Instruction::default();
        instruction.set_code(code);
        assert!(lookup::<Nothing>(&instruction).is_none());
    }
}
