//! AVX and F16C on floating-point numbers.

use crate::table::operations;

operations! {
    plain Vex2<16, false> avx {
        VEX_Vmovsldup_xmm_xmmm128: "vmovsldup xmm0, xmm2",
        VEX_Vmovshdup_xmm_xmmm128: "vmovshdup xmm0, xmm2",
        VEX_Vrsqrtps_xmm_xmmm128: "vrsqrtps xmm0, xmm2",
        VEX_Vrcpps_xmm_xmmm128: "vrcpps xmm0, xmm2",
    }
    plain Vex2<32, false> avx256 {
        VEX_Vmovsldup_ymm_ymmm256: "vmovsldup ymm0, ymm2",
        VEX_Vmovddup_ymm_ymmm256: "vmovddup ymm0, ymm2",
        VEX_Vmovshdup_ymm_ymmm256: "vmovshdup ymm0, ymm2",
        VEX_Vrsqrtps_ymm_ymmm256: "vrsqrtps ymm0, ymm2",
        VEX_Vrcpps_ymm_ymmm256: "vrcpps ymm0, ymm2",
    }
    plain Vex2<8, false> avx {
        VEX_Vmovddup_xmm_xmmm64: "vmovddup xmm0, xmm2",
        VEX_Vcvtdq2pd_xmm_xmmm64: "vcvtdq2pd xmm0, xmm2",
    }
    plain Vex3<16, false> avx {
        VEX_Vunpcklps_xmm_xmm_xmmm128: "vunpcklps xmm0, xmm1, xmm2",
        VEX_Vunpcklpd_xmm_xmm_xmmm128: "vunpcklpd xmm0, xmm1, xmm2",
        VEX_Vunpckhps_xmm_xmm_xmmm128: "vunpckhps xmm0, xmm1, xmm2",
        VEX_Vunpckhpd_xmm_xmm_xmmm128: "vunpckhpd xmm0, xmm1, xmm2",
        VEX_Vandps_xmm_xmm_xmmm128: "vandps xmm0, xmm1, xmm2",
        VEX_Vandpd_xmm_xmm_xmmm128: "vandpd xmm0, xmm1, xmm2",
        VEX_Vandnps_xmm_xmm_xmmm128: "vandnps xmm0, xmm1, xmm2",
        VEX_Vandnpd_xmm_xmm_xmmm128: "vandnpd xmm0, xmm1, xmm2",
        VEX_Vorps_xmm_xmm_xmmm128: "vorps xmm0, xmm1, xmm2",
        VEX_Vorpd_xmm_xmm_xmmm128: "vorpd xmm0, xmm1, xmm2",
        VEX_Vxorps_xmm_xmm_xmmm128: "vxorps xmm0, xmm1, xmm2",
        VEX_Vxorpd_xmm_xmm_xmmm128: "vxorpd xmm0, xmm1, xmm2",
        VEX_Vblendvps_xmm_xmm_xmmm128_xmm: "vblendvps xmm0, xmm1, xmm2, xmm3",
        VEX_Vblendvpd_xmm_xmm_xmmm128_xmm: "vblendvpd xmm0, xmm1, xmm2, xmm3",
    }
    plain Vex3<32, false> avx256 {
        VEX_Vunpcklps_ymm_ymm_ymmm256: "vunpcklps ymm0, ymm1, ymm2",
        VEX_Vunpcklpd_ymm_ymm_ymmm256: "vunpcklpd ymm0, ymm1, ymm2",
        VEX_Vunpckhps_ymm_ymm_ymmm256: "vunpckhps ymm0, ymm1, ymm2",
        VEX_Vunpckhpd_ymm_ymm_ymmm256: "vunpckhpd ymm0, ymm1, ymm2",
        VEX_Vandps_ymm_ymm_ymmm256: "vandps ymm0, ymm1, ymm2",
        VEX_Vandpd_ymm_ymm_ymmm256: "vandpd ymm0, ymm1, ymm2",
        VEX_Vandnps_ymm_ymm_ymmm256: "vandnps ymm0, ymm1, ymm2",
        VEX_Vandnpd_ymm_ymm_ymmm256: "vandnpd ymm0, ymm1, ymm2",
        VEX_Vorps_ymm_ymm_ymmm256: "vorps ymm0, ymm1, ymm2",
        VEX_Vorpd_ymm_ymm_ymmm256: "vorpd ymm0, ymm1, ymm2",
        VEX_Vxorps_ymm_ymm_ymmm256: "vxorps ymm0, ymm1, ymm2",
        VEX_Vxorpd_ymm_ymm_ymmm256: "vxorpd ymm0, ymm1, ymm2",
        VEX_Vblendvps_ymm_ymm_ymmm256_ymm: "vblendvps ymm0, ymm1, ymm2, ymm3",
        VEX_Vblendvpd_ymm_ymm_ymmm256_ymm: "vblendvpd ymm0, ymm1, ymm2, ymm3",
    }
    float Vex2<16, false> avx {
        VEX_Vsqrtps_xmm_xmmm128: "vsqrtps xmm0, xmm2",
        VEX_Vsqrtpd_xmm_xmmm128: "vsqrtpd xmm0, xmm2",
        VEX_Vcvtpd2ps_xmm_xmmm128: "vcvtpd2ps xmm0, xmm2",
        VEX_Vcvtps2dq_xmm_xmmm128: "vcvtps2dq xmm0, xmm2",
        VEX_Vcvttps2dq_xmm_xmmm128: "vcvttps2dq xmm0, xmm2",
        VEX_Vcvttpd2dq_xmm_xmmm128: "vcvttpd2dq xmm0, xmm2",
        VEX_Vcvtpd2dq_xmm_xmmm128: "vcvtpd2dq xmm0, xmm2",
        VEX_Vcvtdq2ps_xmm_xmmm128: "vcvtdq2ps xmm0, xmm2",
    }
    float Vex2<32, false> avx256 {
        VEX_Vsqrtps_ymm_ymmm256: "vsqrtps ymm0, ymm2",
        VEX_Vsqrtpd_ymm_ymmm256: "vsqrtpd ymm0, ymm2",
        VEX_Vcvtpd2ps_xmm_ymmm256: "vcvtpd2ps xmm0, ymm2",
        VEX_Vcvtps2dq_ymm_ymmm256: "vcvtps2dq ymm0, ymm2",
        VEX_Vcvttps2dq_ymm_ymmm256: "vcvttps2dq ymm0, ymm2",
        VEX_Vcvttpd2dq_xmm_ymmm256: "vcvttpd2dq xmm0, ymm2",
        VEX_Vcvtpd2dq_xmm_ymmm256: "vcvtpd2dq xmm0, ymm2",
        VEX_Vcvtdq2ps_ymm_ymmm256: "vcvtdq2ps ymm0, ymm2",
    }
    float Vex3<4, false> avx {
        VEX_Vsqrtss_xmm_xmm_xmmm32: "vsqrtss xmm0, xmm1, xmm2",
        VEX_Vaddss_xmm_xmm_xmmm32: "vaddss xmm0, xmm1, xmm2",
        VEX_Vsubss_xmm_xmm_xmmm32: "vsubss xmm0, xmm1, xmm2",
        VEX_Vmulss_xmm_xmm_xmmm32: "vmulss xmm0, xmm1, xmm2",
        VEX_Vdivss_xmm_xmm_xmmm32: "vdivss xmm0, xmm1, xmm2",
        VEX_Vcvtss2sd_xmm_xmm_xmmm32: "vcvtss2sd xmm0, xmm1, xmm2",
        VEX_Vminss_xmm_xmm_xmmm32: "vminss xmm0, xmm1, xmm2",
        VEX_Vmaxss_xmm_xmm_xmmm32: "vmaxss xmm0, xmm1, xmm2",
    }
    float Vex3<8, false> avx {
        VEX_Vsqrtsd_xmm_xmm_xmmm64: "vsqrtsd xmm0, xmm1, xmm2",
        VEX_Vaddsd_xmm_xmm_xmmm64: "vaddsd xmm0, xmm1, xmm2",
        VEX_Vsubsd_xmm_xmm_xmmm64: "vsubsd xmm0, xmm1, xmm2",
        VEX_Vmulsd_xmm_xmm_xmmm64: "vmulsd xmm0, xmm1, xmm2",
        VEX_Vdivsd_xmm_xmm_xmmm64: "vdivsd xmm0, xmm1, xmm2",
        VEX_Vcvtsd2ss_xmm_xmm_xmmm64: "vcvtsd2ss xmm0, xmm1, xmm2",
        VEX_Vminsd_xmm_xmm_xmmm64: "vminsd xmm0, xmm1, xmm2",
        VEX_Vmaxsd_xmm_xmm_xmmm64: "vmaxsd xmm0, xmm1, xmm2",
    }
    plain Vex3<4, false> avx {
        VEX_Vrsqrtss_xmm_xmm_xmmm32: "vrsqrtss xmm0, xmm1, xmm2",
        VEX_Vrcpss_xmm_xmm_xmmm32: "vrcpss xmm0, xmm1, xmm2",
    }
    float Vex3<16, false> avx {
        VEX_Vaddps_xmm_xmm_xmmm128: "vaddps xmm0, xmm1, xmm2",
        VEX_Vsubps_xmm_xmm_xmmm128: "vsubps xmm0, xmm1, xmm2",
        VEX_Vhaddps_xmm_xmm_xmmm128: "vhaddps xmm0, xmm1, xmm2",
        VEX_Vhsubps_xmm_xmm_xmmm128: "vhsubps xmm0, xmm1, xmm2",
        VEX_Vaddsubps_xmm_xmm_xmmm128: "vaddsubps xmm0, xmm1, xmm2",
        VEX_Vmulps_xmm_xmm_xmmm128: "vmulps xmm0, xmm1, xmm2",
        VEX_Vdivps_xmm_xmm_xmmm128: "vdivps xmm0, xmm1, xmm2",
        VEX_Vaddpd_xmm_xmm_xmmm128: "vaddpd xmm0, xmm1, xmm2",
        VEX_Vsubpd_xmm_xmm_xmmm128: "vsubpd xmm0, xmm1, xmm2",
        VEX_Vhaddpd_xmm_xmm_xmmm128: "vhaddpd xmm0, xmm1, xmm2",
        VEX_Vhsubpd_xmm_xmm_xmmm128: "vhsubpd xmm0, xmm1, xmm2",
        VEX_Vaddsubpd_xmm_xmm_xmmm128: "vaddsubpd xmm0, xmm1, xmm2",
        VEX_Vmulpd_xmm_xmm_xmmm128: "vmulpd xmm0, xmm1, xmm2",
        VEX_Vdivpd_xmm_xmm_xmmm128: "vdivpd xmm0, xmm1, xmm2",
        VEX_Vminps_xmm_xmm_xmmm128: "vminps xmm0, xmm1, xmm2",
        VEX_Vmaxps_xmm_xmm_xmmm128: "vmaxps xmm0, xmm1, xmm2",
        VEX_Vminpd_xmm_xmm_xmmm128: "vminpd xmm0, xmm1, xmm2",
        VEX_Vmaxpd_xmm_xmm_xmmm128: "vmaxpd xmm0, xmm1, xmm2",
    }
    float Vex3<32, false> avx256 {
        VEX_Vaddps_ymm_ymm_ymmm256: "vaddps ymm0, ymm1, ymm2",
        VEX_Vsubps_ymm_ymm_ymmm256: "vsubps ymm0, ymm1, ymm2",
        VEX_Vhaddps_ymm_ymm_ymmm256: "vhaddps ymm0, ymm1, ymm2",
        VEX_Vhsubps_ymm_ymm_ymmm256: "vhsubps ymm0, ymm1, ymm2",
        VEX_Vaddsubps_ymm_ymm_ymmm256: "vaddsubps ymm0, ymm1, ymm2",
        VEX_Vmulps_ymm_ymm_ymmm256: "vmulps ymm0, ymm1, ymm2",
        VEX_Vdivps_ymm_ymm_ymmm256: "vdivps ymm0, ymm1, ymm2",
        VEX_Vaddpd_ymm_ymm_ymmm256: "vaddpd ymm0, ymm1, ymm2",
        VEX_Vsubpd_ymm_ymm_ymmm256: "vsubpd ymm0, ymm1, ymm2",
        VEX_Vhaddpd_ymm_ymm_ymmm256: "vhaddpd ymm0, ymm1, ymm2",
        VEX_Vhsubpd_ymm_ymm_ymmm256: "vhsubpd ymm0, ymm1, ymm2",
        VEX_Vaddsubpd_ymm_ymm_ymmm256: "vaddsubpd ymm0, ymm1, ymm2",
        VEX_Vmulpd_ymm_ymm_ymmm256: "vmulpd ymm0, ymm1, ymm2",
        VEX_Vdivpd_ymm_ymm_ymmm256: "vdivpd ymm0, ymm1, ymm2",
        VEX_Vminps_ymm_ymm_ymmm256: "vminps ymm0, ymm1, ymm2",
        VEX_Vmaxps_ymm_ymm_ymmm256: "vmaxps ymm0, ymm1, ymm2",
        VEX_Vminpd_ymm_ymm_ymmm256: "vminpd ymm0, ymm1, ymm2",
        VEX_Vmaxpd_ymm_ymm_ymmm256: "vmaxpd ymm0, ymm1, ymm2",
    }
    float Vex2<8, false> avx {
        VEX_Vcvtps2pd_xmm_xmmm64: "vcvtps2pd xmm0, xmm2",
        VEX_Vcvtph2ps_xmm_xmmm64: "vcvtph2ps xmm0, xmm2",
    }
    float Vex2<16, false> avx256 {
        VEX_Vcvtps2pd_ymm_xmmm128: "vcvtps2pd ymm0, xmm2",
        VEX_Vcvtph2ps_ymm_xmmm128: "vcvtph2ps ymm0, xmm2",
    }
    plain Vex2<16, false> avx256 {
        VEX_Vcvtdq2pd_ymm_xmmm128: "vcvtdq2pd ymm0, xmm2",
    }
}
