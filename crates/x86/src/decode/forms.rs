//! Forms of instructions: instances of functions by operand size and condition, kinds of operands.

use iced_x86::{ConditionCode, Instruction, OpKind};

/// The instance of a function for an operand size: `sized!(size, f)` is `f::<T>`, `sized!(size, f,
/// A; )` is `f::<A, T>`, `sized!(size, f; B)` is `f::<T, B>`.
macro_rules! sized {
    ($size:expr, $($f:ident)::+ $(, $before:ty)* ;  $($after:tt),*) => {
        match $size {
            1 => $($f)::+::<$($before,)* u8, $($after),*> as $crate::op::Handler,
            2 => $($f)::+::<$($before,)* u16, $($after),*>,
            4 => $($f)::+::<$($before,)* u32, $($after),*>,
            _ => $($f)::+::<$($before,)* u64, $($after),*>,
        }
    };
    ($size:expr, $($f:ident)::+ $(, $before:ty)*) => {
        match $size {
            1 => $($f)::+::<$($before,)* u8> as $crate::op::Handler,
            2 => $($f)::+::<$($before,)* u16>,
            4 => $($f)::+::<$($before,)* u32>,
            _ => $($f)::+::<$($before,)* u64>,
        }
    };
}

/// The instance of a function for a condition.
macro_rules! conditional {
    ($condition:expr, $($f:ident)::+ $(<$type:ty>)?) => {
        match $condition {
            0 => $($f)::+::<$($type,)? 0> as $crate::op::Handler,
            1 => $($f)::+::<$($type,)? 1>,
            2 => $($f)::+::<$($type,)? 2>,
            3 => $($f)::+::<$($type,)? 3>,
            4 => $($f)::+::<$($type,)? 4>,
            5 => $($f)::+::<$($type,)? 5>,
            6 => $($f)::+::<$($type,)? 6>,
            7 => $($f)::+::<$($type,)? 7>,
            8 => $($f)::+::<$($type,)? 8>,
            9 => $($f)::+::<$($type,)? 9>,
            10 => $($f)::+::<$($type,)? 10>,
            11 => $($f)::+::<$($type,)? 11>,
            12 => $($f)::+::<$($type,)? 12>,
            13 => $($f)::+::<$($type,)? 13>,
            14 => $($f)::+::<$($type,)? 14>,
            _ => $($f)::+::<$($type,)? 15>,
        }
    };
}

pub(super) use {conditional, sized};

/// Width in bytes of an operand.
pub(super) fn size(instruction: &Instruction, operand: u32) -> usize {
    match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).size(),
        OpKind::Memory => instruction.memory_size().size(),
        _ => 0,
    }
}

pub(super) fn is_memory(instruction: &Instruction, operand: u32) -> bool {
    operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Memory
}

pub(super) fn is_register(instruction: &Instruction, operand: u32) -> bool {
    operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Register
}

/// The number of the instruction's condition, as in its opcode.
pub(super) fn condition(instruction: &Instruction) -> u8 {
    (instruction.condition_code() as u8).wrapping_sub(ConditionCode::o as u8) & 15
}
