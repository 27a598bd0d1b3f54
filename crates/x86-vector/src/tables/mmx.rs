//! MMX, and what SSE to SSSE3 add to it.

use crate::table::operations;

operations! {
    plain Mmx<4, false> mmx {
        Punpcklbw_mm_mmm32: "punpcklbw mm0, mm1",
        Punpcklwd_mm_mmm32: "punpcklwd mm0, mm1",
        Punpckldq_mm_mmm32: "punpckldq mm0, mm1",
    }
    plain Mmx<8, false> mmx {
        Packsswb_mm_mmm64: "packsswb mm0, mm1",
        Pcmpgtb_mm_mmm64: "pcmpgtb mm0, mm1",
        Pcmpgtw_mm_mmm64: "pcmpgtw mm0, mm1",
        Pcmpgtd_mm_mmm64: "pcmpgtd mm0, mm1",
        Packuswb_mm_mmm64: "packuswb mm0, mm1",
        Punpckhbw_mm_mmm64: "punpckhbw mm0, mm1",
        Punpckhwd_mm_mmm64: "punpckhwd mm0, mm1",
        Punpckhdq_mm_mmm64: "punpckhdq mm0, mm1",
        Packssdw_mm_mmm64: "packssdw mm0, mm1",
        Pcmpeqb_mm_mmm64: "pcmpeqb mm0, mm1",
        Pcmpeqw_mm_mmm64: "pcmpeqw mm0, mm1",
        Pcmpeqd_mm_mmm64: "pcmpeqd mm0, mm1",
        Psrlw_mm_mmm64: "psrlw mm0, mm1",
        Psrld_mm_mmm64: "psrld mm0, mm1",
        Psrlq_mm_mmm64: "psrlq mm0, mm1",
        Paddq_mm_mmm64: "paddq mm0, mm1",
        Pmullw_mm_mmm64: "pmullw mm0, mm1",
        Psubusb_mm_mmm64: "psubusb mm0, mm1",
        Psubusw_mm_mmm64: "psubusw mm0, mm1",
        Pminub_mm_mmm64: "pminub mm0, mm1",
        Pand_mm_mmm64: "pand mm0, mm1",
        Paddusb_mm_mmm64: "paddusb mm0, mm1",
        Paddusw_mm_mmm64: "paddusw mm0, mm1",
        Pmaxub_mm_mmm64: "pmaxub mm0, mm1",
        Pandn_mm_mmm64: "pandn mm0, mm1",
        Pavgb_mm_mmm64: "pavgb mm0, mm1",
        Psraw_mm_mmm64: "psraw mm0, mm1",
        Psrad_mm_mmm64: "psrad mm0, mm1",
        Pavgw_mm_mmm64: "pavgw mm0, mm1",
        Pmulhuw_mm_mmm64: "pmulhuw mm0, mm1",
        Pmulhw_mm_mmm64: "pmulhw mm0, mm1",
        Psubsb_mm_mmm64: "psubsb mm0, mm1",
        Psubsw_mm_mmm64: "psubsw mm0, mm1",
        Pminsw_mm_mmm64: "pminsw mm0, mm1",
        Por_mm_mmm64: "por mm0, mm1",
        Paddsb_mm_mmm64: "paddsb mm0, mm1",
        Paddsw_mm_mmm64: "paddsw mm0, mm1",
        Pmaxsw_mm_mmm64: "pmaxsw mm0, mm1",
        Pxor_mm_mmm64: "pxor mm0, mm1",
        Psllw_mm_mmm64: "psllw mm0, mm1",
        Pslld_mm_mmm64: "pslld mm0, mm1",
        Psllq_mm_mmm64: "psllq mm0, mm1",
        Pmuludq_mm_mmm64: "pmuludq mm0, mm1",
        Pmaddwd_mm_mmm64: "pmaddwd mm0, mm1",
        Psadbw_mm_mmm64: "psadbw mm0, mm1",
        Psubb_mm_mmm64: "psubb mm0, mm1",
        Psubw_mm_mmm64: "psubw mm0, mm1",
        Psubd_mm_mmm64: "psubd mm0, mm1",
        Psubq_mm_mmm64: "psubq mm0, mm1",
        Paddb_mm_mmm64: "paddb mm0, mm1",
        Paddw_mm_mmm64: "paddw mm0, mm1",
        Paddd_mm_mmm64: "paddd mm0, mm1",
        Pshufb_mm_mmm64: "pshufb mm0, mm1",
        Phaddw_mm_mmm64: "phaddw mm0, mm1",
        Phaddd_mm_mmm64: "phaddd mm0, mm1",
        Phaddsw_mm_mmm64: "phaddsw mm0, mm1",
        Pmaddubsw_mm_mmm64: "pmaddubsw mm0, mm1",
        Phsubw_mm_mmm64: "phsubw mm0, mm1",
        Phsubd_mm_mmm64: "phsubd mm0, mm1",
        Phsubsw_mm_mmm64: "phsubsw mm0, mm1",
        Psignb_mm_mmm64: "psignb mm0, mm1",
        Psignw_mm_mmm64: "psignw mm0, mm1",
        Psignd_mm_mmm64: "psignd mm0, mm1",
        Pmulhrsw_mm_mmm64: "pmulhrsw mm0, mm1",
        Pabsb_mm_mmm64: "pabsb mm0, mm1",
        Pabsw_mm_mmm64: "pabsw mm0, mm1",
        Pabsd_mm_mmm64: "pabsd mm0, mm1",
    }
    plain MmxImmediate<0, false> mmx_shift {
        Psrlw_mm_imm8: "psrlw mm0, mm1",
        Psraw_mm_imm8: "psraw mm0, mm1",
        Psllw_mm_imm8: "psllw mm0, mm1",
        Psrld_mm_imm8: "psrld mm0, mm1",
        Psrad_mm_imm8: "psrad mm0, mm1",
        Pslld_mm_imm8: "pslld mm0, mm1",
        Psrlq_mm_imm8: "psrlq mm0, mm1",
        Psllq_mm_imm8: "psllq mm0, mm1",
    }
    float Mmx<8, false> sse_to_mmx {
        Cvttps2pi_mm_xmmm64: "cvttps2pi mm0, xmm1",
        Cvtps2pi_mm_xmmm64: "cvtps2pi mm0, xmm1",
    }
    float Mmx<16, true> sse_to_mmx {
        Cvttpd2pi_mm_xmmm128: "cvttpd2pi mm0, xmm1",
        Cvtpd2pi_mm_xmmm128: "cvtpd2pi mm0, xmm1",
    }
    float MmxToXmm<8, false> mmx_to_sse {
        Cvtpi2ps_xmm_mmm64: "cvtpi2ps xmm0, mm1",
    }
    plain MmxToXmm<8, false> mmx_to_sse {
        Cvtpi2pd_xmm_mmm64: "cvtpi2pd xmm0, mm1",
    }
    plain MmxToXmm<8, false> lane {
        Movq2dq_xmm_mm: copy,
    }
    plain Mmx<4, false> lane {
        Movd_mm_rm32: copy,
    }
    plain Mmx<8, false> lane {
        Movq_mm_rm64: copy,
        Movq_mm_mmm64: copy,
        Movdq2q_mm_xmm: copy,
        Pshufw_mm_mmm64_imm8: pshuflw,
        Palignr_mm_mmm64_imm8: palignr_mmx,
    }
    plain Mmx<2, false> lane {
        Pinsrw_mm_r32m16_imm8: insert_mmx,
        Pinsrw_mm_r64m16_imm8: insert_mmx,
    }
    plain MmxToGeneral<8, false> lane {
        Pextrw_r32_mm_imm8: extract_mmx,
        Pextrw_r64_mm_imm8: extract_mmx,
    }
    plain MmxToGeneral<8, false> mmx_to_gpr {
        Pmovmskb_r32_mm: "pmovmskb eax, mm1",
        Pmovmskb_r64_mm: "pmovmskb eax, mm1",
    }
    plain MmxStore<4, false> lane {
        Movd_rm32_mm: extend::<4>,
    }
    plain MmxStore<8, false> lane {
        Movq_rm64_mm: copy,
        Movq_mmm64_mm: copy,
        Movntq_m64_mm: copy,
    }
}
