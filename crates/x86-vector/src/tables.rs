//! All tables.

mod avx_float;
mod avx_integer;
mod fma;
mod immediate;
mod mmx;
mod scalar;
mod shift;
mod shuffle;
mod sse;
mod string;

use iced_x86::Code;

use crate::Handler;
use crate::operands::Operands;

/// Returns the handler of an instruction that is in a table.
pub(crate) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    sse::handler(code)
        .or_else(|| scalar::handler(code))
        .or_else(|| shuffle::handler(code))
        .or_else(|| shift::handler(code))
        .or_else(|| immediate::handler(code))
        .or_else(|| avx_float::handler(code))
        .or_else(|| avx_integer::handler(code))
        .or_else(|| fma::handler(code))
        .or_else(|| mmx::handler(code))
        .or_else(|| string::handler(code))
}
