//! Instructions with an immediate operand that changes what is computed.

use crate::table::operations;

/// A carry-less multiplication, of which bits 0 and 4 of the immediate operand choose the halves.
macro_rules! carryless {
    ($text:literal) => {
        concat!(
            "and {i}, 17\n mov rax, {i}\n shr rax, 3\n or {i}, rax\n",
            by_immediate!($text, 3, "0,16", "0,1")
        )
    };
}

operations! {
    float Legacy<16, true> sse_immediate {
        Cmpps_xmm_xmmm128_imm8: immediate8!("cmpps xmm0, xmm1"),
        Cmppd_xmm_xmmm128_imm8: immediate8!("cmppd xmm0, xmm1"),
        Roundps_xmm_xmmm128_imm8: immediate16!("roundps xmm0, xmm1"),
        Roundpd_xmm_xmmm128_imm8: immediate16!("roundpd xmm0, xmm1"),
        Dpps_xmm_xmmm128_imm8: immediate256!("dpps xmm0, xmm1"),
        Dppd_xmm_xmmm128_imm8: immediate64!("dppd xmm0, xmm1"),
    }
    float Vex3<16, false> avx {
        VEX_Vcmpps_xmm_xmm_xmmm128_imm8: immediate32!("vcmpps xmm0, xmm1, xmm2"),
        VEX_Vcmppd_xmm_xmm_xmmm128_imm8: immediate32!("vcmppd xmm0, xmm1, xmm2"),
        VEX_Vdpps_xmm_xmm_xmmm128_imm8: immediate256!("vdpps xmm0, xmm1, xmm2"),
        VEX_Vdppd_xmm_xmm_xmmm128_imm8: immediate64!("vdppd xmm0, xmm1, xmm2"),
    }
    float Vex3<32, false> avx256 {
        VEX_Vcmpps_ymm_ymm_ymmm256_imm8: immediate32!("vcmpps ymm0, ymm1, ymm2"),
        VEX_Vcmppd_ymm_ymm_ymmm256_imm8: immediate32!("vcmppd ymm0, ymm1, ymm2"),
        VEX_Vdpps_ymm_ymm_ymmm256_imm8: immediate256!("vdpps ymm0, ymm1, ymm2"),
    }
    float Legacy<4, false> sse_immediate {
        Cmpss_xmm_xmmm32_imm8: immediate8!("cmpss xmm0, xmm1"),
        Roundss_xmm_xmmm32_imm8: immediate16!("roundss xmm0, xmm1"),
    }
    float Vex3<4, false> avx {
        VEX_Vcmpss_xmm_xmm_xmmm32_imm8: immediate32!("vcmpss xmm0, xmm1, xmm2"),
        VEX_Vroundss_xmm_xmm_xmmm32_imm8: immediate16!("vroundss xmm0, xmm1, xmm2"),
    }
    float Legacy<8, false> sse_immediate {
        Cmpsd_xmm_xmmm64_imm8: immediate8!("cmpsd xmm0, xmm1"),
        Roundsd_xmm_xmmm64_imm8: immediate16!("roundsd xmm0, xmm1"),
    }
    float Vex3<8, false> avx {
        VEX_Vcmpsd_xmm_xmm_xmmm64_imm8: immediate32!("vcmpsd xmm0, xmm1, xmm2"),
        VEX_Vroundsd_xmm_xmm_xmmm64_imm8: immediate16!("vroundsd xmm0, xmm1, xmm2"),
    }
    float Vex2<16, false> avx {
        VEX_Vroundps_xmm_xmmm128_imm8: immediate16!("vroundps xmm0, xmm2"),
        VEX_Vroundpd_xmm_xmmm128_imm8: immediate16!("vroundpd xmm0, xmm2"),
    }
    float Vex2<32, false> avx256 {
        VEX_Vroundps_ymm_ymmm256_imm8: immediate16!("vroundps ymm0, ymm2"),
        VEX_Vroundpd_ymm_ymmm256_imm8: immediate16!("vroundpd ymm0, ymm2"),
    }
    half VexToMemory<8, false> avx {
        VEX_Vcvtps2ph_xmmm64_xmm_imm8: immediate8!("vcvtps2ph xmm0, xmm1"),
    }
    half VexToMemory<16, false> avx256 {
        VEX_Vcvtps2ph_xmmm128_ymm_imm8: immediate8!("vcvtps2ph xmm0, ymm1"),
    }
    plain Legacy<16, true> sse_immediate {
        Mpsadbw_xmm_xmmm128_imm8: immediate8!("mpsadbw xmm0, xmm1"),
        Pclmulqdq_xmm_xmmm128_imm8: carryless!("pclmulqdq xmm0, xmm1"),
        Aeskeygenassist_xmm_xmmm128_imm8:
            "aeskeygenassist xmm0, xmm1, 0\n shl {i}, 32\n movq xmm1, {i}\n punpcklqdq xmm1, xmm1\n pxor xmm0, xmm1",
    }
    plain Vex3<16, false> avx {
        VEX_Vmpsadbw_xmm_xmm_xmmm128_imm8: immediate8!("vmpsadbw xmm0, xmm1, xmm2"),
        VEX_Vpclmulqdq_xmm_xmm_xmmm128_imm8: carryless!("vpclmulqdq xmm0, xmm1, xmm2"),
    }
    plain Vex3<32, false> avx256 {
        VEX_Vmpsadbw_ymm_ymm_ymmm256_imm8: immediate64!("vmpsadbw ymm0, ymm1, ymm2"),
    }
    plain Legacy<16, true> sse_immediate {
        Sha1rnds4_xmm_xmmm128_imm8: immediate4!("sha1rnds4 xmm0, xmm1"),
    }
    plain Vex2<16, false> avx {
        VEX_Vaeskeygenassist_xmm_xmmm128_imm8:
            "vaeskeygenassist xmm0, xmm2, 0\n shl {i}, 32\n vmovq xmm1, {i}\n vpunpcklqdq xmm1, xmm1, xmm1\n vpxor xmm0, xmm0, xmm1",
    }
}
