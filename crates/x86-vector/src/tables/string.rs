//! String comparisons, and CRC32.

use crate::table::operations;

operations! {
    plain string_index<4, false> strings {
        Pcmpestri_xmm_xmmm128_imm8: immediate128!("pcmpestri xmm0, xmm1"),
        Pcmpistri_xmm_xmmm128_imm8: immediate128!("pcmpistri xmm0, xmm1"),
        VEX_Vpcmpestri_xmm_xmmm128_imm8: immediate128!("pcmpestri xmm0, xmm1"),
        VEX_Vpcmpistri_xmm_xmmm128_imm8: immediate128!("pcmpistri xmm0, xmm1"),
    }
    plain string_index<8, false> strings {
        Pcmpestri64_xmm_xmmm128_imm8: immediate128!("pcmpestriq xmm0, xmm1"),
        VEX_Vpcmpestri64_xmm_xmmm128_imm8: immediate128!("pcmpestriq xmm0, xmm1"),
    }
    plain string_mask<4, false> strings {
        Pcmpestrm_xmm_xmmm128_imm8: immediate128!("pcmpestrm xmm0, xmm1"),
        Pcmpistrm_xmm_xmmm128_imm8: immediate128!("pcmpistrm xmm0, xmm1"),
    }
    plain string_mask<8, false> strings {
        Pcmpestrm64_xmm_xmmm128_imm8: immediate128!("pcmpestrmq xmm0, xmm1"),
    }
    plain vex_string_mask<4, false> strings {
        VEX_Vpcmpestrm_xmm_xmmm128_imm8: immediate128!("pcmpestrm xmm0, xmm1"),
        VEX_Vpcmpistrm_xmm_xmmm128_imm8: immediate128!("pcmpistrm xmm0, xmm1"),
    }
    plain vex_string_mask<8, false> strings {
        VEX_Vpcmpestrm64_xmm_xmmm128_imm8: immediate128!("pcmpestrmq xmm0, xmm1"),
    }
    plain crc<1, false> gpr {
        Crc32_r32_rm8: "crc32 eax, cl",
        Crc32_r64_rm8: "crc32 rax, cl",
    }
    plain crc<2, false> gpr {
        Crc32_r32_rm16: "crc32 eax, cx",
    }
    plain crc<4, false> gpr {
        Crc32_r32_rm32: "crc32 eax, ecx",
    }
    plain crc<8, false> gpr {
        Crc32_r64_rm64: "crc32 rax, rcx",
    }
}
