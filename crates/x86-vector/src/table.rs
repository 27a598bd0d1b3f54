//! Tables of instructions: one line each.

/// Makes a function `handler` that finds the handler of a code, from groups of instructions of one
/// shape.
///
/// `plain shape<size of memory operand, aligned> template { Code: "instruction", }`, or `float(In,
/// Out, tested)` in place of `plain`.
macro_rules! operations {
    ($(
        $kind:ident $(($in:ty, $out:ty, $tested:expr))? $shape:ident<$size:literal, $aligned:literal> $template:ident {
            $($code:ident: $text:expr),* $(,)?
        }
    )*) => {
        #[allow(unused_imports)]
        use crate::host::{A, B, D, Environment, Float, Operation};
        #[allow(unused_imports)]
        use crate::lanes::*;
        #[allow(unused_imports)]
        #[rustfmt::skip]
        use crate::{mmx::*, shapes::*, shuffle::*, string::*, template::*};
        use crate::operands::Operands;
        use crate::state::Ymm;
        use crate::Handler;

        /// Types named as the codes.
        #[allow(non_camel_case_types)]
        mod codes {
            $($(pub(super) struct $code;)*)*
        }

        $(crate::table::implement! { $kind $(($in, $out, $tested))? $template [$($code: $text,)*] })*

        /// Returns the handler of the instruction.
        pub(crate) fn handler<C: Operands>(code: iced_x86::Code) -> Option<Handler<C>> {
            Some(match code {
                $($(
                    iced_x86::Code::$code => {
                        $shape::<C, crate::table::execute!($kind codes::$code), $size, $aligned>
                    }
                )*)*
                _ => return None,
            })
        }
    };
}

/// The implementations of the traits for a group.
macro_rules! implement {
    (plain $template:ident [$($code:ident: $text:expr,)*]) => {
        $(impl Operation for codes::$code {
            $template!(run $text);
        })*
    };
    (float($in:ty, $out:ty, $tested:expr) $template:ident [$($code:ident: $text:expr,)*]) => {
        $(impl Operation for codes::$code {
            $template!(run $text);
        }
        impl Float for codes::$code {
            type In = $in;
            type Out = $out;
            const TESTED: u8 = $tested;

            $template!(run_with $text);
        })*
    };
}

/// The type that executes an operation.
macro_rules! execute {
    (plain $code:ty) => { Plain<$code> };
    (float $code:ty) => { Floating<$code> };
}

pub(crate) use {execute, implement, operations};
