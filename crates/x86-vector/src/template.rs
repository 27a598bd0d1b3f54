//! Macros that make an [`Operation`](crate::host::Operation) of an instruction's text.
//!
//! The text names fixed registers. Without VEX, `a` is in XMM0, where the result is left, and `b`
//! in XMM1; with VEX, the result is left in register 0, and `a`, `b` and `c` are in 1, 2 and 3.
//! Results and sources in general registers are in RAX.

/// `asm!` of the given lines. Clobbers what any template uses, and leaves the x87 registers empty.
///
/// `dab`, `dabi` and `dabci` say which of the operands there are.
macro_rules! lines {
    (dab [$($line:expr),+ $(,)?] $d:ident $a:ident $b:ident $c:ident $i:ident $($operands:tt)*) => {{
        let _ = ($c, $i);
        lines!([$($line,)+ "# {d} {a} {b}"] d = in(reg) $d, a = in(reg) $a, b = in(reg) $b, $($operands)*)
    }};
    (dabi [$($line:expr),+ $(,)?] $d:ident $a:ident $b:ident $c:ident $i:ident $($operands:tt)*) => {{
        let _ = $c;
        lines!(
            [$($line,)+ "# {d} {a} {b} {i}"]
            d = in(reg) $d, a = in(reg) $a, b = in(reg) $b, i = inout(reg) u64::from($i) => _, $($operands)*
        )
    }};
    (dabci [$($line:expr),+ $(,)?] $d:ident $a:ident $b:ident $c:ident $i:ident $($operands:tt)*) => {
        lines!(
            [$($line,)+ "# {d} {a} {b} {c} {i}"]
            d = in(reg) $d, a = in(reg) $a, b = in(reg) $b, c = in(reg) $c,
            i = inout(reg) u64::from($i) => _, $($operands)*
        )
    };
    ([$($line:expr),+ $(,)?] $($operands:tt)*) => {
        core::arch::asm!(
            $($line,)+
            $($operands)*
            out("rax") _, out("rcx") _, out("rdx") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _,
            out("xmm13") _, out("xmm14") _, out("xmm15") _,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _,
            out("st(6)") _, out("st(7)") _,
            out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _, out("mm4") _, out("mm5") _, out("mm6") _,
            out("mm7") _,
            options(nostack),
        )
    };
}

/// The method `run` or `run_with`, from the operands and the lines before and after the
/// instruction's.
macro_rules! method {
    (run $text:expr; $operands:ident; [$($before:expr),*], [$($after:expr),*]) => {
        #[inline(always)]
        unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm, c: *const Ymm, imm: u8) {
            // SAFETY: the caller passes valid, aligned registers, and the host has the instruction;
            // all registers that are written are named, and nothing but `d` is written to memory.
            unsafe { lines!($operands [$($before,)* $text, $($after,)*] d a b c imm) }
        }
    };
    (run_with $text:expr; $operands:ident; [$($before:expr),*], [$($after:expr),*]) => {
        #[inline(always)]
        unsafe fn run_with(
            d: *mut Ymm, a: *const Ymm, b: *const Ymm, c: *const Ymm, imm: u8, environment: *mut Environment,
        ) {
            // SAFETY: as in `run`; MXCSR has all exceptions masked, and the host's value again
            // afterwards.
            unsafe {
                lines!(
                    $operands
                    ["ldmxcsr [{e}]", $($before,)* $text, "stmxcsr [{e} + 8]", "ldmxcsr [{e} + 4]", $($after,)*]
                    d a b c imm e = in(reg) environment,
                )
            }
        }
    };
}

/// XMM0 and XMM1 to XMM0.
macro_rules! sse {
    ($method:ident $text:expr) => {
        method!($method $text; dab;
            ["movaps xmm0, [{a}]", "movaps xmm1, [{b}]"], ["movaps [{d}], xmm0"]);
    };
}

/// As `sse`, with an immediate operand.
macro_rules! sse_immediate {
    ($method:ident $text:expr) => {
        method!($method $text; dabi;
            ["movaps xmm0, [{a}]", "movaps xmm1, [{b}]"], ["movaps [{d}], xmm0"]);
    };
}

/// XMM1, XMM2 and the mask in XMM0 to XMM1.
macro_rules! sse_masked {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movaps xmm1, [{a}]", "movaps xmm2, [{b}]", "movaps xmm0, [{c}]"], ["movaps [{d}], xmm1"]);
    };
}

/// XMM0 and RAX to XMM0.
macro_rules! sse_from_gpr {
    ($method:ident $text:expr) => {
        method!($method $text; dab;
            ["movaps xmm0, [{a}]", "mov rax, [{b}]"], ["movaps [{d}], xmm0"]);
    };
}

/// XMM0 and XMM1 to RAX.
macro_rules! sse_to_gpr {
    ($method:ident $text:expr) => {
        method!($method $text; dab;
            ["movaps xmm0, [{a}]", "movaps xmm1, [{b}]"], ["mov [{d}], rax"]);
    };
}

/// XMM0 and XMM1 to flags.
macro_rules! sse_to_flags {
    ($method:ident $text:expr) => {
        method!($method $text; dab;
            ["movaps xmm0, [{a}]", "movaps xmm1, [{b}]"], ["lahf", "movzx eax, ah", "mov [{d}], rax"]);
    };
}

/// XMM0 to XMM3 to YMM0, of which the upper half is zero.
macro_rules! avx {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps xmm0, [{d}]", "vmovaps xmm1, [{a}]", "vmovaps xmm2, [{b}]", "vmovaps xmm3, [{c}]"],
            ["vmovaps [{d}], ymm0"]);
    };
}

/// XMM1 and RAX to YMM0, of which the upper half is zero.
macro_rules! avx_from_gpr {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps xmm1, [{a}]", "mov rax, [{b}]"], ["vmovaps [{d}], ymm0"]);
    };
}

/// YMM0 to YMM3 to YMM0.
macro_rules! avx256 {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps ymm0, [{d}]", "vmovaps ymm1, [{a}]", "vmovaps ymm2, [{b}]", "vmovaps ymm3, [{c}]"],
            ["vmovaps [{d}], ymm0", "vzeroupper"]);
    };
}

/// YMM1 and YMM2 to RAX.
macro_rules! avx256_to_gpr {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps ymm1, [{a}]", "vmovaps ymm2, [{b}]"], ["mov [{d}], rax", "vzeroupper"]);
    };
}

/// YMM1 and YMM2 to flags.
macro_rules! avx256_to_flags {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps ymm1, [{a}]", "vmovaps ymm2, [{b}]"],
            ["lahf", "movzx eax, ah", "mov [{d}], rax", "vzeroupper"]);
    };
}

/// XMM0 to XMM0, with the immediate operand in XMM1.
macro_rules! sse_shift {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movaps xmm0, [{a}]", "movq xmm1, {i}"], ["movaps [{d}], xmm0"]);
    };
}

/// XMM1 to YMM0, of which the upper half is zero, with the immediate operand in XMM2.
macro_rules! avx_shift {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps xmm1, [{a}]", "vmovq xmm2, {i}"], ["vmovaps [{d}], ymm0"]);
    };
}

/// YMM1 to YMM0, with the immediate operand in XMM2.
macro_rules! avx256_shift {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["vmovaps ymm1, [{a}]", "vmovq xmm2, {i}"], ["vmovaps [{d}], ymm0", "vzeroupper"]);
    };
}

/// MM0 and MM1 to MM0.
macro_rules! mmx {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movq mm0, [{a}]", "movq mm1, [{b}]"], ["movq [{d}], mm0", "emms"]);
    };
}

/// MM0 to MM0, with the immediate operand in MM1.
macro_rules! mmx_shift {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movq mm0, [{a}]", "movq mm1, {i}"], ["movq [{d}], mm0", "emms"]);
    };
}

/// XMM0 and MM1 to XMM0.
macro_rules! mmx_to_sse {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movaps xmm0, [{a}]", "movq mm1, [{b}]"], ["movaps [{d}], xmm0", "emms"]);
    };
}

/// XMM1 to MM0.
macro_rules! sse_to_mmx {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movaps xmm1, [{b}]"], ["movq [{d}], mm0", "emms"]);
    };
}

/// MM1 to RAX.
macro_rules! mmx_to_gpr {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movq mm1, [{b}]"], ["mov [{d}], rax", "emms"]);
    };
}

/// RAX and RCX to RAX.
macro_rules! gpr {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["mov rax, [{a}]", "mov rcx, [{b}]"], ["mov [{d}], rax"]);
    };
}

/// XMM0 and XMM1, of lengths in RAX and RDX, to an index in RCX or a mask in XMM0, and flags.
macro_rules! strings {
    ($method:ident $text:expr) => {
        method!($method $text; dabci;
            ["movaps xmm0, [{a}]", "movaps xmm1, [{b}]", "mov rax, [{c}]", "mov rdx, [{c} + 8]"],
            ["lahf", "seto al", "movzx eax, ax", "movaps [{d}], xmm0", "mov [{d} + 16], rcx", "mov [{d} + 24], rax"]);
    };
}

/// The lines that execute an instruction with one of as many immediate operands as are in `mask`:
/// the sums of one of `high` and one of `low`, in this order.
macro_rules! by_immediate {
    ($text:literal, $mask:literal, $high:literal, $low:literal) => {
        concat!(
            "and {i}, ",
            $mask,
            "\n shl {i}, 4\n lea rcx, [rip + 2f]\n add rcx, {i}\n jmp rcx\n .balign 16\n 2:\n .irp h,",
            $high,
            "\n .irp n,",
            $low,
            "\n ",
            $text,
            ", \\h + \\n\n jmp 3f\n .balign 16\n .endr\n .endr\n 3:"
        )
    };
}

/// An instruction with 4 immediate operands.
macro_rules! immediate4 {
    ($text:literal) => {
        by_immediate!($text, 3, "0", "0,1,2,3")
    };
}

/// An instruction with 8 immediate operands.
macro_rules! immediate8 {
    ($text:literal) => {
        by_immediate!($text, 7, "0", "0,1,2,3,4,5,6,7")
    };
}

/// An instruction with 16 immediate operands.
macro_rules! immediate16 {
    ($text:literal) => {
        by_immediate!($text, 15, "0", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15")
    };
}

/// An instruction with 32 immediate operands.
macro_rules! immediate32 {
    ($text:literal) => {
        by_immediate!($text, 31, "0,16", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15")
    };
}

/// An instruction with 64 immediate operands.
macro_rules! immediate64 {
    ($text:literal) => {
        by_immediate!($text, 63, "0,16,32,48", "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15")
    };
}

/// An instruction with 128 immediate operands.
macro_rules! immediate128 {
    ($text:literal) => {
        by_immediate!(
            $text,
            127,
            "0,16,32,48,64,80,96,112",
            "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
        )
    };
}

/// An instruction with 256 immediate operands.
macro_rules! immediate256 {
    ($text:literal) => {
        by_immediate!(
            $text,
            255,
            "0,16,32,48,64,80,96,112,128,144,160,176,192,208,224,240",
            "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
        )
    };
}

pub(crate) use {
    avx, avx_from_gpr, avx_shift, avx256, avx256_shift, avx256_to_flags, avx256_to_gpr,
    by_immediate, gpr, immediate4, immediate8, immediate16, immediate32, immediate64, immediate128,
    immediate256, lines, method, mmx, mmx_shift, mmx_to_gpr, mmx_to_sse, sse, sse_from_gpr,
    sse_immediate, sse_masked, sse_shift, sse_to_flags, sse_to_gpr, sse_to_mmx, strings,
};
