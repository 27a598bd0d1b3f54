//! x87 instructions, one line each.

use iced_x86::Code;

use super::quick::{Quick, quick, quick_lines};
use super::{Access, Image, Operation, handle, register, x87_method};
use crate::Handler;
use crate::operands::Operands;

/// Makes a function `handler` that finds the handler of a code, from groups of instructions of one
/// access and one shorter way, with the condition codes that it takes from the host.
macro_rules! operations {
    ($($access:ident<$size:literal> $way:ident, $conditions:literal { $($code:ident: $text:expr),* $(,)? })*) => {
        /// Types named as the codes.
        #[allow(non_camel_case_types)]
        mod codes {
            $($(pub(super) struct $code;)*)*
        }

        $($(impl Operation for codes::$code {
            x87_method!($text);
            const ACCESS: Access = Access::$access;
            const QUICK: Quick = Quick::$way;
            const CONDITIONS: bool = $conditions;

            #[inline(always)]
            unsafe fn quick(
                a: *mut [u8; 10],
                b: *mut [u8; 10],
                memory: *mut [u8; 16],
                register: u64,
                control: *const u16,
            ) -> u64 {
                quick!(checked $access $way $text; a b memory register control)
            }

            #[inline(always)]
            unsafe fn blind(
                a: *mut [u8; 10],
                b: *mut [u8; 10],
                memory: *mut [u8; 16],
                register: u64,
            ) {
                quick!(blind $access $way $text; a b memory register)
            }
        })*)*

        /// Returns the handler of the instruction.
        pub(super) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
            Some(match code {
                $($(Code::$code => handle::<C, codes::$code, $size>,)*)*
                _ => return None,
            })
        }
    };
}

operations! {
    Load<4> Unary, false {
        Fadd_m32fp: "fadd dword ptr [{m}]",
        Fmul_m32fp: "fmul dword ptr [{m}]",
        Fsub_m32fp: "fsub dword ptr [{m}]",
        Fsubr_m32fp: "fsubr dword ptr [{m}]",
        Fdiv_m32fp: "fdiv dword ptr [{m}]",
        Fdivr_m32fp: "fdivr dword ptr [{m}]",
        Fiadd_m32int: "fiadd dword ptr [{m}]",
        Fimul_m32int: "fimul dword ptr [{m}]",
        Fisub_m32int: "fisub dword ptr [{m}]",
        Fisubr_m32int: "fisubr dword ptr [{m}]",
        Fidiv_m32int: "fidiv dword ptr [{m}]",
        Fidivr_m32int: "fidivr dword ptr [{m}]",
    }
    Load<4> Unary, true {
        Fcom_m32fp: "fcom dword ptr [{m}]",
        Ficom_m32int: "ficom dword ptr [{m}]",
    }
    Load<4> Pop, true {
        Fcomp_m32fp: "fcomp dword ptr [{m}]",
        Ficomp_m32int: "ficomp dword ptr [{m}]",
    }
    Registers<0> Binary, false {
        Fadd_st0_sti: register!("0xd8", "0xc0"),
        Fmul_st0_sti: register!("0xd8", "0xc8"),
        Fsub_st0_sti: register!("0xd8", "0xe0"),
        Fsubr_st0_sti: register!("0xd8", "0xe8"),
        Fdiv_st0_sti: register!("0xd8", "0xf0"),
        Fdivr_st0_sti: register!("0xd8", "0xf8"),
        Fadd_sti_st0: register!("0xdc", "0xc0"),
        Fmul_sti_st0: register!("0xdc", "0xc8"),
        Fsubr_sti_st0: register!("0xdc", "0xe0"),
        Fsub_sti_st0: register!("0xdc", "0xe8"),
        Fdivr_sti_st0: register!("0xdc", "0xf0"),
        Fdiv_sti_st0: register!("0xdc", "0xf8"),
    }
    Registers<0> Binary, true {
        Fcom_st0_sti: register!("0xd8", "0xd0"),
        Fcom_st0_sti_DCD0: register!("0xdc", "0xd0"),
        Fucom_st0_sti: register!("0xdd", "0xe0"),
    }
    Registers<0> BinaryPop, true {
        Fcomp_st0_sti: register!("0xd8", "0xd8"),
        Fcomp_st0_sti_DCD8: register!("0xdc", "0xd8"),
        Fucomp_st0_sti: register!("0xdd", "0xe8"),
        Fcomp_st0_sti_DED0: register!("0xde", "0xd0"),
    }
    Load<4> Push, false {
        Fld_m32fp: "fld dword ptr [{m}]",
        Fild_m32int: "fild dword ptr [{m}]",
    }
    Store<4> Unary, false {
        Fst_m32fp: "fst dword ptr [{m}]",
        Fist_m32int: "fist dword ptr [{m}]",
    }
    Store<4> Pop, false {
        Fstp_m32fp: "fstp dword ptr [{m}]",
        Fisttp_m32int: "fisttp dword ptr [{m}]",
        Fistp_m32int: "fistp dword ptr [{m}]",
    }
    Registers<0> None, false {
        Fnop: "fnop",
        Fstpnce_sti: register!("0xd9", "0xd8"),
        Ftst: "ftst",
        Fxam: "fxam",
        F2xm1: "f2xm1",
        Fyl2x: "fyl2x",
        Fptan: "fptan",
        Fpatan: "fpatan",
        Fxtract: "fxtract",
        Fprem1: "fprem1",
        Fdecstp: "fdecstp",
        Fincstp: "fincstp",
        Fprem: "fprem",
        Fyl2xp1: "fyl2xp1",
        Fsincos: "fsincos",
        Fscale: "fscale",
        Fsin: "fsin",
        Fcos: "fcos",
        Fcmovb_st0_sti: register!("0xda", "0xc0"),
        Fcmove_st0_sti: register!("0xda", "0xc8"),
        Fcmovbe_st0_sti: register!("0xda", "0xd0"),
        Fcmovu_st0_sti: register!("0xda", "0xd8"),
        Fucompp: "fucompp",
        Fcmovnb_st0_sti: register!("0xdb", "0xc0"),
        Fcmovne_st0_sti: register!("0xdb", "0xc8"),
        Fcmovnbe_st0_sti: register!("0xdb", "0xd0"),
        Fcmovnu_st0_sti: register!("0xdb", "0xd8"),
        Ffree_sti: register!("0xdd", "0xc0"),
        Fcompp: "fcompp",
        Ffreep_sti: register!("0xdf", "0xc0"),
    }
    Registers<0> Unary, false {
        Fchs: "fchs",
        Fabs: "fabs",
        Fsqrt: "fsqrt",
        Frndint: "frndint",
    }
    Registers<0> Push, false {
        Fld1: "fld1",
        Fldl2t: "fldl2t",
        Fldl2e: "fldl2e",
        Fldpi: "fldpi",
        Fldlg2: "fldlg2",
        Fldln2: "fldln2",
        Fldz: "fldz",
    }
    Load<10> Push, false {
        Fld_m80fp: "fld tbyte ptr [{m}]",
    }
    Store<10> Pop, false {
        Fstp_m80fp: "fstp tbyte ptr [{m}]",
    }
    Compare<0> Binary, false {
        Fucomi_st0_sti: register!("0xdb", "0xe8"),
        Fcomi_st0_sti: register!("0xdb", "0xf0"),
    }
    Load<8> Unary, false {
        Fadd_m64fp: "fadd qword ptr [{m}]",
        Fmul_m64fp: "fmul qword ptr [{m}]",
        Fsub_m64fp: "fsub qword ptr [{m}]",
        Fsubr_m64fp: "fsubr qword ptr [{m}]",
        Fdiv_m64fp: "fdiv qword ptr [{m}]",
        Fdivr_m64fp: "fdivr qword ptr [{m}]",
    }
    Load<8> Unary, true {
        Fcom_m64fp: "fcom qword ptr [{m}]",
    }
    Load<8> Pop, true {
        Fcomp_m64fp: "fcomp qword ptr [{m}]",
    }
    Load<8> Push, false {
        Fld_m64fp: "fld qword ptr [{m}]",
        Fild_m64int: "fild qword ptr [{m}]",
    }
    Store<8> Pop, false {
        Fisttp_m64int: "fisttp qword ptr [{m}]",
        Fstp_m64fp: "fstp qword ptr [{m}]",
        Fistp_m64int: "fistp qword ptr [{m}]",
    }
    Store<8> Unary, false {
        Fst_m64fp: "fst qword ptr [{m}]",
    }
    Load<2> Unary, false {
        Fiadd_m16int: "fiadd word ptr [{m}]",
        Fimul_m16int: "fimul word ptr [{m}]",
        Fisub_m16int: "fisub word ptr [{m}]",
        Fisubr_m16int: "fisubr word ptr [{m}]",
        Fidiv_m16int: "fidiv word ptr [{m}]",
        Fidivr_m16int: "fidivr word ptr [{m}]",
    }
    Load<2> Unary, true {
        Ficom_m16int: "ficom word ptr [{m}]",
    }
    Load<2> Pop, true {
        Ficomp_m16int: "ficomp word ptr [{m}]",
    }
    Registers<0> BinaryPop, false {
        Faddp_sti_st0: register!("0xde", "0xc0"),
        Fmulp_sti_st0: register!("0xde", "0xc8"),
        Fsubrp_sti_st0: register!("0xde", "0xe0"),
        Fsubp_sti_st0: register!("0xde", "0xe8"),
        Fdivrp_sti_st0: register!("0xde", "0xf0"),
        Fdivp_sti_st0: register!("0xde", "0xf8"),
    }
    Load<2> Push, false {
        Fild_m16int: "fild word ptr [{m}]",
    }
    Store<2> Pop, false {
        Fisttp_m16int: "fisttp word ptr [{m}]",
        Fistp_m16int: "fistp word ptr [{m}]",
    }
    Store<2> Unary, false {
        Fist_m16int: "fist word ptr [{m}]",
    }
    Load<10> None, false {
        Fbld_m80bcd: "fbld tbyte ptr [{m}]",
    }
    Store<10> None, false {
        Fbstp_m80bcd: "fbstp tbyte ptr [{m}]",
    }
    Compare<0> BinaryPop, false {
        Fucomip_st0_sti: register!("0xdf", "0xe8"),
        Fcomip_st0_sti: register!("0xdf", "0xf0"),
    }
    Registers<0> Copy, false {
        Fld_sti: register!("0xd9", "0xc0"),
    }
    Registers<0> Store, false {
        Fst_sti: register!("0xdd", "0xd0"),
    }
    Registers<0> StorePop, false {
        Fstp_sti: register!("0xdd", "0xd8"),
        Fstp_sti_DFD0: register!("0xdf", "0xd0"),
        Fstp_sti_DFD8: register!("0xdf", "0xd8"),
    }
    Registers<0> Exchange, false {
        Fxch_st0_sti: register!("0xd9", "0xc8"),
        Fxch_st0_sti_DDC8: register!("0xdd", "0xc8"),
        Fxch_st0_sti_DFC8: register!("0xdf", "0xc8"),
    }
}
