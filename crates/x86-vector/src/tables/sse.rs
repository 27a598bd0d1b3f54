//! SSE to SSE4.2, AES and SHA on XMM registers.

use crate::table::operations;

operations! {
    plain legacy<16, true> sse {
        Movsldup_xmm_xmmm128: "movsldup xmm0, xmm1",
        Movshdup_xmm_xmmm128: "movshdup xmm0, xmm1",
        Unpcklps_xmm_xmmm128: "unpcklps xmm0, xmm1",
        Unpcklpd_xmm_xmmm128: "unpcklpd xmm0, xmm1",
        Unpckhps_xmm_xmmm128: "unpckhps xmm0, xmm1",
        Unpckhpd_xmm_xmmm128: "unpckhpd xmm0, xmm1",
        Rsqrtps_xmm_xmmm128: "rsqrtps xmm0, xmm1",
        Rcpps_xmm_xmmm128: "rcpps xmm0, xmm1",
        Andps_xmm_xmmm128: "andps xmm0, xmm1",
        Andpd_xmm_xmmm128: "andpd xmm0, xmm1",
        Andnps_xmm_xmmm128: "andnps xmm0, xmm1",
        Andnpd_xmm_xmmm128: "andnpd xmm0, xmm1",
        Orps_xmm_xmmm128: "orps xmm0, xmm1",
        Orpd_xmm_xmmm128: "orpd xmm0, xmm1",
        Xorps_xmm_xmmm128: "xorps xmm0, xmm1",
        Xorpd_xmm_xmmm128: "xorpd xmm0, xmm1",
        Punpcklbw_xmm_xmmm128: "punpcklbw xmm0, xmm1",
        Punpcklwd_xmm_xmmm128: "punpcklwd xmm0, xmm1",
        Punpckldq_xmm_xmmm128: "punpckldq xmm0, xmm1",
        Packsswb_xmm_xmmm128: "packsswb xmm0, xmm1",
        Pcmpgtb_xmm_xmmm128: "pcmpgtb xmm0, xmm1",
        Pcmpgtw_xmm_xmmm128: "pcmpgtw xmm0, xmm1",
        Pcmpgtd_xmm_xmmm128: "pcmpgtd xmm0, xmm1",
        Packuswb_xmm_xmmm128: "packuswb xmm0, xmm1",
        Punpckhbw_xmm_xmmm128: "punpckhbw xmm0, xmm1",
        Punpckhwd_xmm_xmmm128: "punpckhwd xmm0, xmm1",
        Punpckhdq_xmm_xmmm128: "punpckhdq xmm0, xmm1",
        Packssdw_xmm_xmmm128: "packssdw xmm0, xmm1",
        Punpcklqdq_xmm_xmmm128: "punpcklqdq xmm0, xmm1",
        Punpckhqdq_xmm_xmmm128: "punpckhqdq xmm0, xmm1",
        Pcmpeqb_xmm_xmmm128: "pcmpeqb xmm0, xmm1",
        Pcmpeqw_xmm_xmmm128: "pcmpeqw xmm0, xmm1",
        Pcmpeqd_xmm_xmmm128: "pcmpeqd xmm0, xmm1",
        Psrlw_xmm_xmmm128: "psrlw xmm0, xmm1",
        Psrld_xmm_xmmm128: "psrld xmm0, xmm1",
        Psrlq_xmm_xmmm128: "psrlq xmm0, xmm1",
        Paddq_xmm_xmmm128: "paddq xmm0, xmm1",
        Pmullw_xmm_xmmm128: "pmullw xmm0, xmm1",
        Psubusb_xmm_xmmm128: "psubusb xmm0, xmm1",
        Psubusw_xmm_xmmm128: "psubusw xmm0, xmm1",
        Pminub_xmm_xmmm128: "pminub xmm0, xmm1",
        Pand_xmm_xmmm128: "pand xmm0, xmm1",
        Paddusb_xmm_xmmm128: "paddusb xmm0, xmm1",
        Paddusw_xmm_xmmm128: "paddusw xmm0, xmm1",
        Pmaxub_xmm_xmmm128: "pmaxub xmm0, xmm1",
        Pandn_xmm_xmmm128: "pandn xmm0, xmm1",
        Pavgb_xmm_xmmm128: "pavgb xmm0, xmm1",
        Psraw_xmm_xmmm128: "psraw xmm0, xmm1",
        Psrad_xmm_xmmm128: "psrad xmm0, xmm1",
        Pavgw_xmm_xmmm128: "pavgw xmm0, xmm1",
        Pmulhuw_xmm_xmmm128: "pmulhuw xmm0, xmm1",
        Pmulhw_xmm_xmmm128: "pmulhw xmm0, xmm1",
        Psubsb_xmm_xmmm128: "psubsb xmm0, xmm1",
        Psubsw_xmm_xmmm128: "psubsw xmm0, xmm1",
        Pminsw_xmm_xmmm128: "pminsw xmm0, xmm1",
        Por_xmm_xmmm128: "por xmm0, xmm1",
        Paddsb_xmm_xmmm128: "paddsb xmm0, xmm1",
        Paddsw_xmm_xmmm128: "paddsw xmm0, xmm1",
        Pmaxsw_xmm_xmmm128: "pmaxsw xmm0, xmm1",
        Pxor_xmm_xmmm128: "pxor xmm0, xmm1",
        Psllw_xmm_xmmm128: "psllw xmm0, xmm1",
        Pslld_xmm_xmmm128: "pslld xmm0, xmm1",
        Psllq_xmm_xmmm128: "psllq xmm0, xmm1",
        Pmuludq_xmm_xmmm128: "pmuludq xmm0, xmm1",
        Pmaddwd_xmm_xmmm128: "pmaddwd xmm0, xmm1",
        Psadbw_xmm_xmmm128: "psadbw xmm0, xmm1",
        Psubb_xmm_xmmm128: "psubb xmm0, xmm1",
        Psubw_xmm_xmmm128: "psubw xmm0, xmm1",
        Psubd_xmm_xmmm128: "psubd xmm0, xmm1",
        Psubq_xmm_xmmm128: "psubq xmm0, xmm1",
        Paddb_xmm_xmmm128: "paddb xmm0, xmm1",
        Paddw_xmm_xmmm128: "paddw xmm0, xmm1",
        Paddd_xmm_xmmm128: "paddd xmm0, xmm1",
        Pshufb_xmm_xmmm128: "pshufb xmm0, xmm1",
        Phaddw_xmm_xmmm128: "phaddw xmm0, xmm1",
        Phaddd_xmm_xmmm128: "phaddd xmm0, xmm1",
        Phaddsw_xmm_xmmm128: "phaddsw xmm0, xmm1",
        Pmaddubsw_xmm_xmmm128: "pmaddubsw xmm0, xmm1",
        Phsubw_xmm_xmmm128: "phsubw xmm0, xmm1",
        Phsubd_xmm_xmmm128: "phsubd xmm0, xmm1",
        Phsubsw_xmm_xmmm128: "phsubsw xmm0, xmm1",
        Psignb_xmm_xmmm128: "psignb xmm0, xmm1",
        Psignw_xmm_xmmm128: "psignw xmm0, xmm1",
        Psignd_xmm_xmmm128: "psignd xmm0, xmm1",
        Pmulhrsw_xmm_xmmm128: "pmulhrsw xmm0, xmm1",
        Pabsb_xmm_xmmm128: "pabsb xmm0, xmm1",
        Pabsw_xmm_xmmm128: "pabsw xmm0, xmm1",
        Pabsd_xmm_xmmm128: "pabsd xmm0, xmm1",
        Pmuldq_xmm_xmmm128: "pmuldq xmm0, xmm1",
        Pcmpeqq_xmm_xmmm128: "pcmpeqq xmm0, xmm1",
        Packusdw_xmm_xmmm128: "packusdw xmm0, xmm1",
        Pminsb_xmm_xmmm128: "pminsb xmm0, xmm1",
        Pminsd_xmm_xmmm128: "pminsd xmm0, xmm1",
        Pminuw_xmm_xmmm128: "pminuw xmm0, xmm1",
        Pminud_xmm_xmmm128: "pminud xmm0, xmm1",
        Pmaxsb_xmm_xmmm128: "pmaxsb xmm0, xmm1",
        Pmaxsd_xmm_xmmm128: "pmaxsd xmm0, xmm1",
        Pmaxuw_xmm_xmmm128: "pmaxuw xmm0, xmm1",
        Pmaxud_xmm_xmmm128: "pmaxud xmm0, xmm1",
        Pmulld_xmm_xmmm128: "pmulld xmm0, xmm1",
        Phminposuw_xmm_xmmm128: "phminposuw xmm0, xmm1",
        Pcmpgtq_xmm_xmmm128: "pcmpgtq xmm0, xmm1",
        Aesimc_xmm_xmmm128: "aesimc xmm0, xmm1",
        Aesenc_xmm_xmmm128: "aesenc xmm0, xmm1",
        Aesenclast_xmm_xmmm128: "aesenclast xmm0, xmm1",
        Aesdec_xmm_xmmm128: "aesdec xmm0, xmm1",
        Aesdeclast_xmm_xmmm128: "aesdeclast xmm0, xmm1",
    }
    plain legacy<8, false> sse {
        Movddup_xmm_xmmm64: "movddup xmm0, xmm1",
        Cvtdq2pd_xmm_xmmm64: "cvtdq2pd xmm0, xmm1",
        Pmovsxbw_xmm_xmmm64: "pmovsxbw xmm0, xmm1",
        Pmovsxwd_xmm_xmmm64: "pmovsxwd xmm0, xmm1",
        Pmovsxdq_xmm_xmmm64: "pmovsxdq xmm0, xmm1",
        Pmovzxbw_xmm_xmmm64: "pmovzxbw xmm0, xmm1",
        Pmovzxwd_xmm_xmmm64: "pmovzxwd xmm0, xmm1",
        Pmovzxdq_xmm_xmmm64: "pmovzxdq xmm0, xmm1",
    }
    float(Arithmetic<Singles<1>>, Product<Singles<1>>, B) legacy<16, true> sse {
        Sqrtps_xmm_xmmm128: "sqrtps xmm0, xmm1",
    }
    float(Arithmetic<Doubles<1>>, Product<Doubles<1>>, B) legacy<16, true> sse {
        Sqrtpd_xmm_xmmm128: "sqrtpd xmm0, xmm1",
    }
    float(Arithmetic<Single>, Product<Single>, B) legacy<4, false> sse {
        Sqrtss_xmm_xmmm32: "sqrtss xmm0, xmm1",
    }
    float(Arithmetic<Double>, Product<Double>, B) legacy<8, false> sse {
        Sqrtsd_xmm_xmmm64: "sqrtsd xmm0, xmm1",
    }
    plain legacy<4, false> sse {
        Rsqrtss_xmm_xmmm32: "rsqrtss xmm0, xmm1",
        Rcpss_xmm_xmmm32: "rcpss xmm0, xmm1",
        Pmovsxbd_xmm_xmmm32: "pmovsxbd xmm0, xmm1",
        Pmovsxwq_xmm_xmmm32: "pmovsxwq xmm0, xmm1",
        Pmovzxbd_xmm_xmmm32: "pmovzxbd xmm0, xmm1",
        Pmovzxwq_xmm_xmmm32: "pmovzxwq xmm0, xmm1",
    }
    float(Arithmetic<Singles<1>>, Sum<Singles<1>>, A | B) legacy<16, true> sse {
        Addps_xmm_xmmm128: "addps xmm0, xmm1",
        Subps_xmm_xmmm128: "subps xmm0, xmm1",
        Haddps_xmm_xmmm128: "haddps xmm0, xmm1",
        Hsubps_xmm_xmmm128: "hsubps xmm0, xmm1",
        Addsubps_xmm_xmmm128: "addsubps xmm0, xmm1",
    }
    float(Arithmetic<Singles<1>>, Product<Singles<1>>, A | B) legacy<16, true> sse {
        Mulps_xmm_xmmm128: "mulps xmm0, xmm1",
        Divps_xmm_xmmm128: "divps xmm0, xmm1",
    }
    float(Arithmetic<Doubles<1>>, Sum<Doubles<1>>, A | B) legacy<16, true> sse {
        Addpd_xmm_xmmm128: "addpd xmm0, xmm1",
        Subpd_xmm_xmmm128: "subpd xmm0, xmm1",
        Haddpd_xmm_xmmm128: "haddpd xmm0, xmm1",
        Hsubpd_xmm_xmmm128: "hsubpd xmm0, xmm1",
        Addsubpd_xmm_xmmm128: "addsubpd xmm0, xmm1",
    }
    float(Arithmetic<Doubles<1>>, Product<Doubles<1>>, A | B) legacy<16, true> sse {
        Mulpd_xmm_xmmm128: "mulpd xmm0, xmm1",
        Divpd_xmm_xmmm128: "divpd xmm0, xmm1",
    }
    float(Arithmetic<Single>, Sum<Single>, A | B) legacy<4, false> sse {
        Addss_xmm_xmmm32: "addss xmm0, xmm1",
        Subss_xmm_xmmm32: "subss xmm0, xmm1",
    }
    float(Arithmetic<Single>, Product<Single>, A | B) legacy<4, false> sse {
        Mulss_xmm_xmmm32: "mulss xmm0, xmm1",
        Divss_xmm_xmmm32: "divss xmm0, xmm1",
    }
    float(Arithmetic<Double>, Sum<Double>, A | B) legacy<8, false> sse {
        Addsd_xmm_xmmm64: "addsd xmm0, xmm1",
        Subsd_xmm_xmmm64: "subsd xmm0, xmm1",
    }
    float(Arithmetic<Double>, Product<Double>, A | B) legacy<8, false> sse {
        Mulsd_xmm_xmmm64: "mulsd xmm0, xmm1",
        Divsd_xmm_xmmm64: "divsd xmm0, xmm1",
    }
    float(Careful, Careful, B) legacy<8, false> sse {
        Cvtps2pd_xmm_xmmm64: "cvtps2pd xmm0, xmm1",
    }
    float(Careful, Careful, B) legacy<16, true> sse {
        Cvtpd2ps_xmm_xmmm128: "cvtpd2ps xmm0, xmm1",
        Cvtps2dq_xmm_xmmm128: "cvtps2dq xmm0, xmm1",
        Cvttps2dq_xmm_xmmm128: "cvttps2dq xmm0, xmm1",
        Cvttpd2dq_xmm_xmmm128: "cvttpd2dq xmm0, xmm1",
        Cvtpd2dq_xmm_xmmm128: "cvtpd2dq xmm0, xmm1",
    }
    float(Finite<Single>, Any, B) legacy<4, false> sse {
        Cvtss2sd_xmm_xmmm32: "cvtss2sd xmm0, xmm1",
    }
    float(Arithmetic<Double>, Strict<Single>, B) legacy<8, false> sse {
        Cvtsd2ss_xmm_xmmm64: "cvtsd2ss xmm0, xmm1",
    }
    float(Any, Any, B) legacy<16, true> sse {
        Cvtdq2ps_xmm_xmmm128: "cvtdq2ps xmm0, xmm1",
    }
    float(Finite<Singles<1>>, Any, A | B) legacy<16, true> sse {
        Minps_xmm_xmmm128: "minps xmm0, xmm1",
        Maxps_xmm_xmmm128: "maxps xmm0, xmm1",
    }
    float(Finite<Doubles<1>>, Any, A | B) legacy<16, true> sse {
        Minpd_xmm_xmmm128: "minpd xmm0, xmm1",
        Maxpd_xmm_xmmm128: "maxpd xmm0, xmm1",
    }
    float(Finite<Single>, Any, A | B) legacy<4, false> sse {
        Minss_xmm_xmmm32: "minss xmm0, xmm1",
        Maxss_xmm_xmmm32: "maxss xmm0, xmm1",
    }
    float(Finite<Double>, Any, A | B) legacy<8, false> sse {
        Minsd_xmm_xmmm64: "minsd xmm0, xmm1",
        Maxsd_xmm_xmmm64: "maxsd xmm0, xmm1",
    }
    plain legacy<16, true> sse_masked {
        Pblendvb_xmm_xmmm128: "pblendvb xmm1, xmm2",
        Blendvps_xmm_xmmm128: "blendvps xmm1, xmm2",
        Blendvpd_xmm_xmmm128: "blendvpd xmm1, xmm2",
    }
    plain legacy<2, false> sse {
        Pmovsxbq_xmm_xmmm16: "pmovsxbq xmm0, xmm1",
        Pmovzxbq_xmm_xmmm16: "pmovzxbq xmm0, xmm1",
    }
    plain legacy<16, false> sse {
        Sha1nexte_xmm_xmmm128: "sha1nexte xmm0, xmm1",
        Sha1msg1_xmm_xmmm128: "sha1msg1 xmm0, xmm1",
        Sha1msg2_xmm_xmmm128: "sha1msg2 xmm0, xmm1",
        Sha256msg1_xmm_xmmm128: "sha256msg1 xmm0, xmm1",
        Sha256msg2_xmm_xmmm128: "sha256msg2 xmm0, xmm1",
    }
    plain legacy<16, false> sse_masked {
        Sha256rnds2_xmm_xmmm128: "sha256rnds2 xmm1, xmm2",
    }
}
