//! Instructions that read or write general registers or flags.

use crate::table::operations;

operations! {
    float FromGpr<4, false> sse_from_gpr {
        Cvtsi2ss_xmm_rm32: "cvtsi2ss xmm0, eax",
    }
    float FromGpr<8, false> sse_from_gpr {
        Cvtsi2ss_xmm_rm64: "cvtsi2ss xmm0, rax",
        Cvtsi2sd_xmm_rm64: "cvtsi2sd xmm0, rax",
    }
    float VexFromGpr<4, false> avx_from_gpr {
        VEX_Vcvtsi2ss_xmm_xmm_rm32: "vcvtsi2ss xmm0, xmm1, eax",
    }
    float VexFromGpr<8, false> avx_from_gpr {
        VEX_Vcvtsi2ss_xmm_xmm_rm64: "vcvtsi2ss xmm0, xmm1, rax",
        VEX_Vcvtsi2sd_xmm_xmm_rm64: "vcvtsi2sd xmm0, xmm1, rax",
    }
    plain FromGpr<4, false> sse_from_gpr {
        Cvtsi2sd_xmm_rm32: "cvtsi2sd xmm0, eax",
    }
    plain VexFromGpr<4, false> avx_from_gpr {
        VEX_Vcvtsi2sd_xmm_xmm_rm32: "vcvtsi2sd xmm0, xmm1, eax",
    }
    float ToGpr<4, false> sse_to_gpr {
        Cvttss2si_r32_xmmm32: "cvttss2si eax, xmm1",
        Cvtss2si_r32_xmmm32: "cvtss2si eax, xmm1",
        Cvttss2si_r64_xmmm32: "cvttss2si rax, xmm1",
        Cvtss2si_r64_xmmm32: "cvtss2si rax, xmm1",
    }
    float ToGpr<4, false> avx256_to_gpr {
        VEX_Vcvttss2si_r32_xmmm32: "vcvttss2si eax, xmm2",
        VEX_Vcvtss2si_r32_xmmm32: "vcvtss2si eax, xmm2",
        VEX_Vcvttss2si_r64_xmmm32: "vcvttss2si rax, xmm2",
        VEX_Vcvtss2si_r64_xmmm32: "vcvtss2si rax, xmm2",
    }
    float ToGpr<8, false> sse_to_gpr {
        Cvttsd2si_r32_xmmm64: "cvttsd2si eax, xmm1",
        Cvtsd2si_r32_xmmm64: "cvtsd2si eax, xmm1",
        Cvttsd2si_r64_xmmm64: "cvttsd2si rax, xmm1",
        Cvtsd2si_r64_xmmm64: "cvtsd2si rax, xmm1",
    }
    float ToGpr<8, false> avx256_to_gpr {
        VEX_Vcvttsd2si_r32_xmmm64: "vcvttsd2si eax, xmm2",
        VEX_Vcvtsd2si_r32_xmmm64: "vcvtsd2si eax, xmm2",
        VEX_Vcvttsd2si_r64_xmmm64: "vcvttsd2si rax, xmm2",
        VEX_Vcvtsd2si_r64_xmmm64: "vcvtsd2si rax, xmm2",
    }
    float ToFlags<4, false> sse_to_flags {
        Ucomiss_xmm_xmmm32: "ucomiss xmm0, xmm1",
        Comiss_xmm_xmmm32: "comiss xmm0, xmm1",
    }
    float ToFlags<4, false> avx256_to_flags {
        VEX_Vucomiss_xmm_xmmm32: "vucomiss xmm1, xmm2",
        VEX_Vcomiss_xmm_xmmm32: "vcomiss xmm1, xmm2",
    }
    float ToFlags<8, false> sse_to_flags {
        Ucomisd_xmm_xmmm64: "ucomisd xmm0, xmm1",
        Comisd_xmm_xmmm64: "comisd xmm0, xmm1",
    }
    float ToFlags<8, false> avx256_to_flags {
        VEX_Vucomisd_xmm_xmmm64: "vucomisd xmm1, xmm2",
        VEX_Vcomisd_xmm_xmmm64: "vcomisd xmm1, xmm2",
    }
    plain ToGpr<16, false> sse_to_gpr {
        Movmskps_r32_xmm: "movmskps eax, xmm1",
        Movmskps_r64_xmm: "movmskps eax, xmm1",
        Movmskpd_r32_xmm: "movmskpd eax, xmm1",
        Movmskpd_r64_xmm: "movmskpd eax, xmm1",
        Pmovmskb_r32_xmm: "pmovmskb eax, xmm1",
        Pmovmskb_r64_xmm: "pmovmskb eax, xmm1",
    }
    plain ToGpr<16, false> avx256_to_gpr {
        VEX_Vmovmskps_r32_xmm: "vmovmskps eax, xmm2",
        VEX_Vmovmskps_r64_xmm: "vmovmskps eax, xmm2",
        VEX_Vmovmskps_r32_ymm: "vmovmskps eax, ymm2",
        VEX_Vmovmskps_r64_ymm: "vmovmskps eax, ymm2",
        VEX_Vmovmskpd_r32_xmm: "vmovmskpd eax, xmm2",
        VEX_Vmovmskpd_r64_xmm: "vmovmskpd eax, xmm2",
        VEX_Vmovmskpd_r32_ymm: "vmovmskpd eax, ymm2",
        VEX_Vmovmskpd_r64_ymm: "vmovmskpd eax, ymm2",
        VEX_Vpmovmskb_r32_xmm: "vpmovmskb eax, xmm2",
        VEX_Vpmovmskb_r64_xmm: "vpmovmskb eax, xmm2",
        VEX_Vpmovmskb_r32_ymm: "vpmovmskb eax, ymm2",
        VEX_Vpmovmskb_r64_ymm: "vpmovmskb eax, ymm2",
    }
    plain ToFlags<16, false> avx256_to_flags {
        VEX_Vtestps_xmm_xmmm128: "vtestps xmm1, xmm2",
        VEX_Vtestpd_xmm_xmmm128: "vtestpd xmm1, xmm2",
        VEX_Vptest_xmm_xmmm128: "vptest xmm1, xmm2",
    }
    plain ToFlags<32, false> avx256_to_flags {
        VEX_Vtestps_ymm_ymmm256: "vtestps ymm1, ymm2",
        VEX_Vtestpd_ymm_ymmm256: "vtestpd ymm1, ymm2",
        VEX_Vptest_ymm_ymmm256: "vptest ymm1, ymm2",
    }
    plain ToFlags<16, true> sse_to_flags {
        Ptest_xmm_xmmm128: "ptest xmm0, xmm1",
    }
}
