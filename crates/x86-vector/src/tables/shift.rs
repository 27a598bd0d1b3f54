//! Shifts by an immediate count: the host shifts by the same count in a register.

use crate::table::operations;

operations! {
    plain Immediate<0, false> sse_shift {
        Psrlw_xmm_imm8: "psrlw xmm0, xmm1",
        Psraw_xmm_imm8: "psraw xmm0, xmm1",
        Psllw_xmm_imm8: "psllw xmm0, xmm1",
        Psrld_xmm_imm8: "psrld xmm0, xmm1",
        Psrad_xmm_imm8: "psrad xmm0, xmm1",
        Pslld_xmm_imm8: "pslld xmm0, xmm1",
        Psrlq_xmm_imm8: "psrlq xmm0, xmm1",
        Psllq_xmm_imm8: "psllq xmm0, xmm1",
    }
    plain VexImmediate<0, false> avx_shift {
        VEX_Vpsrlw_xmm_xmm_imm8: "vpsrlw xmm0, xmm1, xmm2",
        VEX_Vpsraw_xmm_xmm_imm8: "vpsraw xmm0, xmm1, xmm2",
        VEX_Vpsllw_xmm_xmm_imm8: "vpsllw xmm0, xmm1, xmm2",
        VEX_Vpsrld_xmm_xmm_imm8: "vpsrld xmm0, xmm1, xmm2",
        VEX_Vpsrad_xmm_xmm_imm8: "vpsrad xmm0, xmm1, xmm2",
        VEX_Vpslld_xmm_xmm_imm8: "vpslld xmm0, xmm1, xmm2",
        VEX_Vpsrlq_xmm_xmm_imm8: "vpsrlq xmm0, xmm1, xmm2",
        VEX_Vpsllq_xmm_xmm_imm8: "vpsllq xmm0, xmm1, xmm2",
    }
    plain VexImmediate<0, false> avx256_shift {
        VEX_Vpsrlw_ymm_ymm_imm8: "vpsrlw ymm0, ymm1, xmm2",
        VEX_Vpsraw_ymm_ymm_imm8: "vpsraw ymm0, ymm1, xmm2",
        VEX_Vpsllw_ymm_ymm_imm8: "vpsllw ymm0, ymm1, xmm2",
        VEX_Vpsrld_ymm_ymm_imm8: "vpsrld ymm0, ymm1, xmm2",
        VEX_Vpsrad_ymm_ymm_imm8: "vpsrad ymm0, ymm1, xmm2",
        VEX_Vpslld_ymm_ymm_imm8: "vpslld ymm0, ymm1, xmm2",
        VEX_Vpsrlq_ymm_ymm_imm8: "vpsrlq ymm0, ymm1, xmm2",
        VEX_Vpsllq_ymm_ymm_imm8: "vpsllq ymm0, ymm1, xmm2",
    }
}
