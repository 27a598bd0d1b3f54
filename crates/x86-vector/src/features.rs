//! Instruction sets that the host can execute.

use std::is_x86_feature_detected as detected;

use iced_x86::{Code, CpuidFeature};

/// Instruction sets that [`lookup`](crate::lookup) has handlers for on this host, for CPUID to show
/// exactly these. x87, MMX, SSE, SSE2, FXSR and XSAVE with XSAVEOPT and XSAVEC are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Features {
    /// SSE3 (CPUID.1:ECX bit 0), with FISTTP.
    pub sse3: bool,
    /// SSSE3 (CPUID.1:ECX bit 9).
    pub ssse3: bool,
    /// SSE4.1 (CPUID.1:ECX bit 19).
    pub sse4_1: bool,
    /// SSE4.2 (CPUID.1:ECX bit 20), with CRC32.
    pub sse4_2: bool,
    /// AES-NI (CPUID.1:ECX bit 25).
    pub aes: bool,
    /// PCLMULQDQ (CPUID.1:ECX bit 1).
    pub pclmulqdq: bool,
    /// SHA (CPUID.(EAX=7,ECX=0):EBX bit 29).
    pub sha: bool,
    /// AVX (CPUID.1:ECX bit 28).
    pub avx: bool,
    /// AVX2 (CPUID.(EAX=7,ECX=0):EBX bit 5).
    pub avx2: bool,
    /// FMA (CPUID.1:ECX bit 12).
    pub fma: bool,
    /// F16C (CPUID.1:ECX bit 29).
    pub f16c: bool,
}

/// Instruction sets of the host that guests can use.
#[must_use]
pub fn supported() -> Features {
    let avx = detected!("avx");
    Features {
        sse3: detected!("sse3"),
        ssse3: detected!("ssse3"),
        sse4_1: detected!("sse4.1"),
        sse4_2: detected!("sse4.2"),
        aes: detected!("aes"),
        pclmulqdq: detected!("pclmulqdq"),
        sha: detected!("sha"),
        avx,
        avx2: avx && detected!("avx2"),
        fma: avx && detected!("fma"),
        f16c: avx && detected!("f16c"),
    }
}

/// `true` if the host can execute all sets that an instruction belongs to.
pub(crate) fn available(code: Code) -> bool {
    let features = supported();
    code.cpuid_features().iter().all(|feature| match feature {
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
    })
}
