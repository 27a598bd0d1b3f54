//! Instructions that only move data.

use crate::table::operations;

operations! {
    plain Legacy<16, true> lane {
        Movaps_xmm_xmmm128: copy,
        Movapd_xmm_xmmm128: copy,
        Movdqa_xmm_xmmm128: copy,
        Movntdqa_xmm_m128: copy,
        Pshufd_xmm_xmmm128_imm8: pshufd,
        Pshufhw_xmm_xmmm128_imm8: pshufhw,
        Pshuflw_xmm_xmmm128_imm8: pshuflw,
        Shufps_xmm_xmmm128_imm8: shufps,
        Shufpd_xmm_xmmm128_imm8: shufpd,
        Blendps_xmm_xmmm128_imm8: blend4,
        Blendpd_xmm_xmmm128_imm8: blend8,
        Pblendw_xmm_xmmm128_imm8: blend2,
        Palignr_xmm_xmmm128_imm8: palignr,
    }
    plain Legacy<16, false> lane {
        Movups_xmm_xmmm128: copy,
        Movupd_xmm_xmmm128: copy,
        Movdqu_xmm_xmmm128: copy,
        Lddqu_xmm_m128: copy,
        Movhlps_xmm_xmm: high_high,
        Movlhps_xmm_xmm: low_low,
    }
    plain Legacy<8, false> lane {
        Movq_xmm_xmmm64: extend::<8>,
        Movlps_xmm_m64: merge::<8>,
        Movlpd_xmm_m64: merge::<8>,
        Movhps_xmm_m64: low_low,
        Movhpd_xmm_m64: low_low,
    }
    plain LegacyScalar<4, false> lane {
        Movss_xmm_xmmm32: merge::<4>,
    }
    plain LegacyScalar<8, false> lane {
        Movsd_xmm_xmmm64: merge::<8>,
    }
    plain FromGpr<4, false> lane {
        Movd_xmm_rm32: copy,
        Pinsrd_xmm_rm32_imm8: insert::<4>,
    }
    plain FromGpr<8, false> lane {
        Movq_xmm_rm64: copy,
        Pinsrq_xmm_rm64_imm8: insert::<8>,
    }
    plain FromGpr<1, false> lane {
        Pinsrb_xmm_r32m8_imm8: insert::<1>,
        Pinsrb_xmm_r64m8_imm8: insert::<1>,
    }
    plain FromGpr<2, false> lane {
        Pinsrw_xmm_r32m16_imm8: insert::<2>,
        Pinsrw_xmm_r64m16_imm8: insert::<2>,
    }
    plain ToMemory<16, true> lane {
        Movaps_xmmm128_xmm: copy,
        Movapd_xmmm128_xmm: copy,
        Movdqa_xmmm128_xmm: copy,
        Movntps_m128_xmm: copy,
        Movntpd_m128_xmm: copy,
        Movntdq_m128_xmm: copy,
    }
    plain ToMemory<16, false> lane {
        Movups_xmmm128_xmm: copy,
        Movupd_xmmm128_xmm: copy,
        Movdqu_xmmm128_xmm: copy,
    }
    plain ToMemory<8, false> lane {
        Movsd_xmmm64_xmm: merge::<8>,
        Movq_xmmm64_xmm: extend::<8>,
        Movlps_m64_xmm: copy,
        Movlpd_m64_xmm: copy,
        Movhps_m64_xmm: high_half,
        Movhpd_m64_xmm: high_half,
    }
    plain ToMemory<4, false> lane {
        Movss_xmmm32_xmm: merge::<4>,
    }
    plain ToGeneral<4, false> lane {
        Movd_rm32_xmm: extend::<4>,
        Pextrd_rm32_xmm_imm8: extract::<4>,
        Extractps_rm32_xmm_imm8: extract::<4>,
        Extractps_r64m32_xmm_imm8: extract::<4>,
        VEX_Vmovd_rm32_xmm: extend::<4>,
        VEX_Vpextrd_rm32_xmm_imm8: extract::<4>,
        VEX_Vextractps_rm32_xmm_imm8: extract::<4>,
        VEX_Vextractps_r64m32_xmm_imm8: extract::<4>,
    }
    plain ToGeneral<8, false> lane {
        Movq_rm64_xmm: extend::<8>,
        Pextrq_rm64_xmm_imm8: extract::<8>,
        VEX_Vmovq_rm64_xmm: extend::<8>,
        VEX_Vpextrq_rm64_xmm_imm8: extract::<8>,
    }
    plain ToGeneral<1, false> lane {
        Pextrb_r32m8_xmm_imm8: extract::<1>,
        Pextrb_r64m8_xmm_imm8: extract::<1>,
        VEX_Vpextrb_r32m8_xmm_imm8: extract::<1>,
        VEX_Vpextrb_r64m8_xmm_imm8: extract::<1>,
    }
    plain ToGeneral<2, false> lane {
        Pextrw_r32m16_xmm_imm8: extract::<2>,
        Pextrw_r64m16_xmm_imm8: extract::<2>,
        Pextrw_r32_xmm_imm8: extract::<2>,
        Pextrw_r64_xmm_imm8: extract::<2>,
        VEX_Vpextrw_r32m16_xmm_imm8: extract::<2>,
        VEX_Vpextrw_r64m16_xmm_imm8: extract::<2>,
        VEX_Vpextrw_r32_xmm_imm8: extract::<2>,
        VEX_Vpextrw_r64_xmm_imm8: extract::<2>,
    }
    plain LegacyInsertps<4, false> lane {
        Insertps_xmm_xmmm32_imm8: insertps,
    }
    plain Immediate<0, false> lane {
        Pslldq_xmm_imm8: pslldq,
        Psrldq_xmm_imm8: psrldq,
    }
    plain Vex2<16, true> lane_vex {
        VEX_Vmovaps_xmm_xmmm128: copy,
        VEX_Vmovapd_xmm_xmmm128: copy,
        VEX_Vmovdqa_xmm_xmmm128: copy,
        VEX_Vmovntdqa_xmm_m128: copy,
    }
    plain Vex2<16, false> lane_vex {
        VEX_Vmovups_xmm_xmmm128: copy,
        VEX_Vmovupd_xmm_xmmm128: copy,
        VEX_Vmovdqu_xmm_xmmm128: copy,
        VEX_Vlddqu_xmm_m128: copy,
        VEX_Vpshufd_xmm_xmmm128_imm8: pshufd,
        VEX_Vpshufhw_xmm_xmmm128_imm8: pshufhw,
        VEX_Vpshuflw_xmm_xmmm128_imm8: pshuflw,
        VEX_Vpermilps_xmm_xmmm128_imm8: pshufd,
        VEX_Vpermilpd_xmm_xmmm128_imm8: permilpd,
    }
    plain Vex2<32, true> whole {
        VEX_Vmovaps_ymm_ymmm256: copy256,
        VEX_Vmovapd_ymm_ymmm256: copy256,
        VEX_Vmovdqa_ymm_ymmm256: copy256,
        VEX_Vmovntdqa_ymm_m256: copy256,
    }
    plain Vex2<32, false> whole {
        VEX_Vmovups_ymm_ymmm256: copy256,
        VEX_Vmovupd_ymm_ymmm256: copy256,
        VEX_Vmovdqu_ymm_ymmm256: copy256,
        VEX_Vlddqu_ymm_m256: copy256,
        VEX_Vpermq_ymm_ymmm256_imm8: permq,
        VEX_Vpermpd_ymm_ymmm256_imm8: permq,
    }
    plain Vex2<32, false> lanes256 {
        VEX_Vpshufd_ymm_ymmm256_imm8: pshufd,
        VEX_Vpshufhw_ymm_ymmm256_imm8: pshufhw,
        VEX_Vpshuflw_ymm_ymmm256_imm8: pshuflw,
        VEX_Vpermilps_ymm_ymmm256_imm8: pshufd,
        VEX_Vpermilpd_ymm_ymmm256_imm8: permilpd,
    }
    plain Vex2<8, false> lane_vex {
        VEX_Vmovq_xmm_xmmm64: extend::<8>,
        VEX_Vmovsd_xmm_m64: copy,
    }
    plain Vex2<4, false> lane_vex {
        VEX_Vmovss_xmm_m32: copy,
    }
    plain Vex3<8, false> lane_vex {
        VEX_Vmovlps_xmm_xmm_m64: merge::<8>,
        VEX_Vmovlpd_xmm_xmm_m64: merge::<8>,
        VEX_Vmovhps_xmm_xmm_m64: low_low,
        VEX_Vmovhpd_xmm_xmm_m64: low_low,
    }
    plain Vex3<16, false> lane_vex {
        VEX_Vmovss_xmm_xmm_xmm: merge::<4>,
        VEX_Vmovss_xmm_xmm_xmm_0F11: merge::<4>,
        VEX_Vmovsd_xmm_xmm_xmm: merge::<8>,
        VEX_Vmovsd_xmm_xmm_xmm_0F11: merge::<8>,
        VEX_Vmovhlps_xmm_xmm_xmm: high_high,
        VEX_Vmovlhps_xmm_xmm_xmm: low_low,
        VEX_Vshufps_xmm_xmm_xmmm128_imm8: shufps,
        VEX_Vshufpd_xmm_xmm_xmmm128_imm8: shufpd,
        VEX_Vblendps_xmm_xmm_xmmm128_imm8: blend4,
        VEX_Vblendpd_xmm_xmm_xmmm128_imm8: blend8,
        VEX_Vpblendw_xmm_xmm_xmmm128_imm8: blend2,
        VEX_Vpblendd_xmm_xmm_xmmm128_imm8: blend4,
        VEX_Vpalignr_xmm_xmm_xmmm128_imm8: palignr,
    }
    plain Vex3<32, false> lanes256 {
        VEX_Vshufps_ymm_ymm_ymmm256_imm8: shufps,
        VEX_Vshufpd_ymm_ymm_ymmm256_imm8: shufpd,
        VEX_Vblendps_ymm_ymm_ymmm256_imm8: blend4,
        VEX_Vblendpd_ymm_ymm_ymmm256_imm8: blend8,
        VEX_Vpblendw_ymm_ymm_ymmm256_imm8: blend2,
        VEX_Vpblendd_ymm_ymm_ymmm256_imm8: blend4,
        VEX_Vpalignr_ymm_ymm_ymmm256_imm8: palignr,
    }
    plain Vex3<32, false> whole {
        VEX_Vperm2f128_ymm_ymm_ymmm256_imm8: perm2,
        VEX_Vperm2i128_ymm_ymm_ymmm256_imm8: perm2,
    }
    plain Vex3<16, false> whole {
        VEX_Vinsertf128_ymm_ymm_xmmm128_imm8: insert128,
        VEX_Vinserti128_ymm_ymm_xmmm128_imm8: insert128,
    }
    plain VexInsertps<4, false> lane_vex {
        VEX_Vinsertps_xmm_xmm_xmmm32_imm8: insertps,
    }
    plain VexFromGpr<1, false> lane_vex {
        VEX_Vpinsrb_xmm_xmm_r32m8_imm8: insert::<1>,
        VEX_Vpinsrb_xmm_xmm_r64m8_imm8: insert::<1>,
    }
    plain VexFromGpr<2, false> lane_vex {
        VEX_Vpinsrw_xmm_xmm_r32m16_imm8: insert::<2>,
        VEX_Vpinsrw_xmm_xmm_r64m16_imm8: insert::<2>,
    }
    plain VexFromGpr<4, false> lane_vex {
        VEX_Vpinsrd_xmm_xmm_rm32_imm8: insert::<4>,
    }
    plain VexFromGpr<8, false> lane_vex {
        VEX_Vpinsrq_xmm_xmm_rm64_imm8: insert::<8>,
    }
    plain FromGpr<4, false> lane_vex {
        VEX_Vmovd_xmm_rm32: copy,
    }
    plain FromGpr<8, false> lane_vex {
        VEX_Vmovq_xmm_rm64: copy,
    }
    plain VexImmediate<0, false> lane_vex {
        VEX_Vpslldq_xmm_xmm_imm8: pslldq,
        VEX_Vpsrldq_xmm_xmm_imm8: psrldq,
    }
    plain VexImmediate<0, false> lanes256 {
        VEX_Vpslldq_ymm_ymm_imm8: pslldq,
        VEX_Vpsrldq_ymm_ymm_imm8: psrldq,
    }
    plain VexToMemory<16, true> lane_vex {
        VEX_Vmovaps_xmmm128_xmm: copy,
        VEX_Vmovapd_xmmm128_xmm: copy,
        VEX_Vmovdqa_xmmm128_xmm: copy,
        VEX_Vmovntps_m128_xmm: copy,
        VEX_Vmovntpd_m128_xmm: copy,
        VEX_Vmovntdq_m128_xmm: copy,
    }
    plain VexToMemory<32, true> whole {
        VEX_Vmovaps_ymmm256_ymm: copy256,
        VEX_Vmovapd_ymmm256_ymm: copy256,
        VEX_Vmovdqa_ymmm256_ymm: copy256,
        VEX_Vmovntps_m256_ymm: copy256,
        VEX_Vmovntpd_m256_ymm: copy256,
        VEX_Vmovntdq_m256_ymm: copy256,
    }
    plain VexToMemory<16, false> lane_vex {
        VEX_Vmovups_xmmm128_xmm: copy,
        VEX_Vmovupd_xmmm128_xmm: copy,
        VEX_Vmovdqu_xmmm128_xmm: copy,
    }
    plain VexToMemory<32, false> whole {
        VEX_Vmovups_ymmm256_ymm: copy256,
        VEX_Vmovupd_ymmm256_ymm: copy256,
        VEX_Vmovdqu_ymmm256_ymm: copy256,
    }
    plain VexToMemory<16, false> whole {
        VEX_Vextractf128_xmmm128_ymm_imm8: extract128,
        VEX_Vextracti128_xmmm128_ymm_imm8: extract128,
    }
    plain VexToMemory<8, false> lane_vex {
        VEX_Vmovsd_m64_xmm: copy,
        VEX_Vmovq_xmmm64_xmm: extend::<8>,
        VEX_Vmovlps_m64_xmm: copy,
        VEX_Vmovlpd_m64_xmm: copy,
        VEX_Vmovhps_m64_xmm: high_half,
        VEX_Vmovhpd_m64_xmm: high_half,
    }
    plain VexToMemory<4, false> lane_vex {
        VEX_Vmovss_m32_xmm: copy,
    }
    plain Vex2<1, false> whole {
        VEX_Vpbroadcastb_ymm_xmmm8: broadcast::<1>,
        VEX_Vpbroadcastb_xmm_xmmm8: broadcast_low::<1>,
    }
    plain Vex2<2, false> whole {
        VEX_Vpbroadcastw_ymm_xmmm16: broadcast::<2>,
        VEX_Vpbroadcastw_xmm_xmmm16: broadcast_low::<2>,
    }
    plain Vex2<4, false> whole {
        VEX_Vpbroadcastd_ymm_xmmm32: broadcast::<4>,
        VEX_Vpbroadcastd_xmm_xmmm32: broadcast_low::<4>,
        VEX_Vbroadcastss_xmm_m32: broadcast_low::<4>,
        VEX_Vbroadcastss_xmm_xmm: broadcast_low::<4>,
        VEX_Vbroadcastss_ymm_m32: broadcast::<4>,
        VEX_Vbroadcastss_ymm_xmm: broadcast::<4>,
    }
    plain Vex2<8, false> whole {
        VEX_Vpbroadcastq_ymm_xmmm64: broadcast::<8>,
        VEX_Vpbroadcastq_xmm_xmmm64: broadcast_low::<8>,
        VEX_Vbroadcastsd_ymm_m64: broadcast::<8>,
        VEX_Vbroadcastsd_ymm_xmm: broadcast::<8>,
    }
    plain Vex2<16, false> whole {
        VEX_Vbroadcastf128_ymm_m128: broadcast::<16>,
        VEX_Vbroadcasti128_ymm_m128: broadcast::<16>,
    }
}
