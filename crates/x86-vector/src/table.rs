//! Tables of instructions: one line each.

/// Makes a function `handler` that finds the handler of a code, from groups of instructions of one
/// shape.
///
/// `plain Shape<size of memory operand, aligned> template { Code: "instruction", }`; in place of
/// `plain`, `float` for those that depend on MXCSR, and `half` for those of them whose results have
/// half precision.
macro_rules! operations {
    ($(
        $kind:ident $shape:ident<$size:literal, $aligned:literal> $template:ident {
            $($code:ident: $text:expr),* $(,)?
        }
    )*) => {
        #[allow(unused_imports)]
        use crate::host::{Environment, Float, Operation};
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

        $(crate::table::implement! { $kind $template [$($code: $text,)*] })*

        /// Returns the handler of the instruction.
        pub(crate) fn handler<C: Operands>(code: iced_x86::Code) -> Option<Handler<C>> {
            Some(match code {
                $($(
                    iced_x86::Code::$code => {
                        <$shape as Handle>::handle::<C, crate::table::execute!($kind codes::$code), $size, $aligned>
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
    (float $template:ident [$($code:ident: $text:expr,)*]) => {
        crate::table::implement! { @float false $template [$($code: $text,)*] }
    };
    (half $template:ident [$($code:ident: $text:expr,)*]) => {
        crate::table::implement! { @float true $template [$($code: $text,)*] }
    };
    (@float $half:literal $template:ident [$($code:ident: $text:expr,)*]) => {
        $(impl Operation for codes::$code {
            $template!(run $text);
        }
        impl Float for codes::$code {
            const IS_HALF: bool = $half;

            $template!(run_with $text);
        })*
    };
}

/// The type that executes an operation.
macro_rules! execute {
    (plain $code:ty) => { Plain<$code> };
    (float $code:ty) => { Floating<$code> };
    (half $code:ty) => { Floating<$code> };
}

pub(crate) use {execute, implement, operations};
