//! CPUID leaves that show what is implemented.

use nerite_arch::CpuidEntry;

/// Family 15, model 47: a processor for which kernels know no errata that matter.
const SIGNATURE: u32 = 0x0002_0ff1;

/// Sizes of an XSAVE area without and with AVX.
const XSAVE_SSE: u32 = 576;
const XSAVE_AVX: u32 = 832;

/// CPUID leaves that show exactly the instructions and modes that [`crate::Cpu`] implements (Intel
/// SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
///
/// Leaves about the machine are the caller's: the APIC id, the local APIC and its timer, topology,
/// the rate of the time-stamp counter, hypervisor leaves. [`nerite_arch::cpuid::for_guest`] fills
/// in the first ones.
#[must_use]
pub fn supported_cpuid() -> Vec<CpuidEntry> {
    let bits = |numbers: &[u32]| {
        numbers.iter().fold(0_u32, |bits, number| bits | 1_u32.wrapping_shl(*number))
    };
    let leaf = |function, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry {
        function,
        index: None,
        eax,
        ebx,
        ecx,
        edx,
    };
    let subleaf = |function, index, [eax, ebx, ecx, edx]: [u32; 4]| CpuidEntry {
        function,
        index: Some(index),
        eax,
        ebx,
        ecx,
        edx,
    };
    let word = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let (auth, enti, camd) = (word(b"Auth"), word(b"enti"), word(b"cAMD"));
    // FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC, SEP, PGE, CMOV, PAT, CLFSH, MMX, FXSR, SSE,
    // SSE2.
    let basic_edx = bits(&[0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 16, 19, 23, 24, 25, 26]);
    let vector = nerite_x86_vector::supported();
    let optional = |features: &[(bool, u32)]| {
        let shown = features.iter().filter(|(is_supported, _)| *is_supported);
        shown.fold(0_u32, |bits, (_, number)| bits | 1_u32.wrapping_shl(*number))
    };
    // CX16, MOVBE, POPCNT, XSAVE, RDRAND.
    let basic_ecx = bits(&[13, 22, 23, 26, 30])
        | optional(&[
            (vector.sse3, 0),
            (vector.pclmulqdq, 1),
            (vector.ssse3, 9),
            (vector.fma, 12),
            (vector.sse4_1, 19),
            (vector.sse4_2, 20),
            (vector.aes, 25),
            (vector.avx, 28),
            (vector.f16c, 29),
        ]);
    // FSGSBASE, BMI1, SMEP, BMI2, ERMS, no FPU CS and DS, RDSEED, ADX, SMAP, CLFLUSHOPT.
    let extended_ebx = bits(&[0, 3, 7, 8, 9, 13, 18, 19, 20, 23])
        | optional(&[(vector.avx2, 5), (vector.sha, 29)]);
    let (parts, area) = if vector.avx { (7, XSAVE_AVX) } else { (3, XSAVE_SSE) };
    // UMIP, RDPID.
    let extended_ecx = bits(&[2, 22]);
    // SYSCALL, NX, FXSR, 1 GiB pages, RDTSCP, long mode, and those of leaf 1 below bit 24.
    let amd_edx = basic_edx & 0x0183_f3ff & !(1 << 11) | bits(&[11, 20, 26, 27, 29]);
    // LAHF in 64-bit mode, LZCNT, PREFETCHW.
    let amd_ecx = bits(&[0, 5, 8]);
    vec![
        leaf(0, [0xd, auth, camd, enti]),
        leaf(1, [SIGNATURE, 0x0000_0800, basic_ecx, basic_edx]),
        subleaf(7, 0, [0, extended_ebx, extended_ecx, 0]),
        subleaf(0xd, 0, [parts, area, area, 0]),
        // XSAVEOPT and XSAVEC.
        subleaf(0xd, 1, [3, area, 0, 0]),
        subleaf(0xd, 2, if vector.avx { [256, XSAVE_SSE, 0, 0] } else { [0; 4] }),
        leaf(0x8000_0000, [0x8000_0008, auth, camd, enti]),
        leaf(0x8000_0001, [SIGNATURE, 0, amd_ecx, amd_edx]),
        leaf(0x8000_0008, [0x3028, 0, 0, 0]),
    ]
}
