//! String comparisons, and CRC32. Those with REX.W are given as bytes, because assemblers have no
//! name for them.

use crate::table::operations;

operations! {
    plain StringIndex<4, false> strings {
        Pcmpestri_xmm_xmmm128_imm8: immediate128!("pcmpestri xmm0, xmm1"),
        Pcmpistri_xmm_xmmm128_imm8: immediate128!("pcmpistri xmm0, xmm1"),
        VEX_Vpcmpestri_xmm_xmmm128_imm8: immediate128!("pcmpestri xmm0, xmm1"),
        VEX_Vpcmpistri_xmm_xmmm128_imm8: immediate128!("pcmpistri xmm0, xmm1"),
    }
    plain StringIndex<8, false> strings {
        Pcmpestri64_xmm_xmmm128_imm8: immediate128!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x61, 0xc1"),
        VEX_Vpcmpestri64_xmm_xmmm128_imm8: immediate128!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x61, 0xc1"),
    }
    plain StringMask<4, false> strings {
        Pcmpestrm_xmm_xmmm128_imm8: immediate128!("pcmpestrm xmm0, xmm1"),
        Pcmpistrm_xmm_xmmm128_imm8: immediate128!("pcmpistrm xmm0, xmm1"),
    }
    plain StringMask<8, false> strings {
        Pcmpestrm64_xmm_xmmm128_imm8: immediate128!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x60, 0xc1"),
    }
    plain VexStringMask<4, false> strings {
        VEX_Vpcmpestrm_xmm_xmmm128_imm8: immediate128!("pcmpestrm xmm0, xmm1"),
        VEX_Vpcmpistrm_xmm_xmmm128_imm8: immediate128!("pcmpistrm xmm0, xmm1"),
    }
    plain VexStringMask<8, false> strings {
        VEX_Vpcmpestrm64_xmm_xmmm128_imm8: immediate128!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x60, 0xc1"),
    }
    plain Crc<1, false> gpr {
        Crc32_r32_rm8: "crc32 eax, cl",
        Crc32_r64_rm8: "crc32 rax, cl",
    }
    plain Crc<2, false> gpr {
        Crc32_r32_rm16: "crc32 eax, cx",
    }
    plain Crc<4, false> gpr {
        Crc32_r32_rm32: "crc32 eax, ecx",
    }
    plain Crc<8, false> gpr {
        Crc32_r64_rm64: "crc32 rax, rcx",
    }
}
