//! Instructions on flags, ports, segments, and those of operating systems.

use iced_x86::{Code, Instruction, Mnemonic};

use super::forms::{is_register, size, sized};
use crate::core::{Core, Mode};
use crate::op::{Handler, Op};
use crate::ops::{far, flag, io, system};
use crate::registers::{DS, ES, FS, GS, SS};
use crate::{control, msr, syscall};

pub(super) fn handler(core: &Core, instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    programs(instruction, op).or_else(|| tables(core, instruction)).or_else(|| systems(instruction))
}

/// Those that programs use.
fn programs(instruction: &Instruction, op: &mut Op) -> Option<Handler> {
    let by_dx = |operand| is_register(instruction, operand);
    let first = size(instruction, 0);
    Some(match instruction.mnemonic() {
        Mnemonic::Clc => flag::carry::<0>,
        Mnemonic::Stc => flag::carry::<1>,
        Mnemonic::Cmc => flag::carry::<2>,
        Mnemonic::Cld => flag::direction::<false>,
        Mnemonic::Std => flag::direction::<true>,
        Mnemonic::Cli => flag::cli,
        Mnemonic::Sti => flag::sti,
        Mnemonic::Clac => flag::access::<false>,
        Mnemonic::Stac => flag::access::<true>,
        Mnemonic::Lahf => flag::lahf,
        Mnemonic::Sahf => flag::sahf,
        Mnemonic::Pushf => flag::pushf::<2>,
        Mnemonic::Pushfd => flag::pushf::<4>,
        Mnemonic::Pushfq => flag::pushf::<8>,
        Mnemonic::Popf => flag::popf::<2>,
        Mnemonic::Popfd => flag::popf::<4>,
        Mnemonic::Popfq => flag::popf::<8>,
        Mnemonic::In if by_dx(1) => sized!(first, io::input; true),
        Mnemonic::In => sized!(first, io::input; false),
        Mnemonic::Out if by_dx(0) => sized!(size(instruction, 1), io::output; true),
        Mnemonic::Out => sized!(size(instruction, 1), io::output; false),
        Mnemonic::Lds => pointer(instruction, op, DS),
        Mnemonic::Les => pointer(instruction, op, ES),
        Mnemonic::Lss => pointer(instruction, op, SS),
        Mnemonic::Lfs => pointer(instruction, op, FS),
        Mnemonic::Lgs => pointer(instruction, op, GS),
        Mnemonic::Int => far::int,
        Mnemonic::Int3 => far::int3,
        Mnemonic::Int1 => far::int1,
        Mnemonic::Into => far::into,
        Mnemonic::Iret => far::iret::<u16>,
        Mnemonic::Iretd => far::iret::<u32>,
        Mnemonic::Iretq => far::iret::<u64>,
        Mnemonic::Nop
        | Mnemonic::Cldemote
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq
        | Mnemonic::Endbr32
        | Mnemonic::Endbr64
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        // Not shown by CPUID, and used all the same; KVM ignores them, too.
        | Mnemonic::Monitor
        | Mnemonic::Mwait
        | Mnemonic::Reservednop
        | Mnemonic::Lfence
        | Mnemonic::Sfence => system::nothing,
        Mnemonic::Mfence => system::mfence,
        Mnemonic::Pause => system::pause,
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => system::clflush,
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 | Mnemonic::INVALID => system::undefined,
        _ => return None,
    })
}

fn pointer(instruction: &Instruction, op: &mut Op, segment: u8) -> Handler {
    op.imm = u64::from(segment);
    sized!(size(instruction, 0), far::load_pointer)
}

/// Those on descriptor tables.
fn tables(core: &Core, instruction: &Instruction) -> Option<Handler> {
    let first = size(instruction, 0);
    let is_64 = core.mode == Mode::Bits64;
    Some(match instruction.code() {
        Code::Lgdt_m1632_16 => system::load_table::<u16, false>,
        Code::Lidt_m1632_16 => system::load_table::<u16, true>,
        Code::Lgdt_m1632 => system::load_table::<u32, false>,
        Code::Lidt_m1632 => system::load_table::<u32, true>,
        Code::Lgdt_m1664 => system::load_table::<u64, false>,
        Code::Lidt_m1664 => system::load_table::<u64, true>,
        _ => match instruction.mnemonic() {
            Mnemonic::Sgdt if is_64 => system::store_table::<u64, false>,
            Mnemonic::Sgdt => system::store_table::<u32, false>,
            Mnemonic::Sidt if is_64 => system::store_table::<u64, true>,
            Mnemonic::Sidt => system::store_table::<u32, true>,
            Mnemonic::Sldt => sized!(first, system::store_selector; false),
            Mnemonic::Str => sized!(first, system::store_selector; true),
            Mnemonic::Lldt => system::lldt,
            Mnemonic::Ltr => system::ltr,
            Mnemonic::Arpl => system::arpl,
            Mnemonic::Verr => system::verify::<false>,
            Mnemonic::Verw => system::verify::<true>,
            Mnemonic::Lar => sized!(first, system::look; false),
            Mnemonic::Lsl => sized!(first, system::look; true),
            Mnemonic::Smsw => sized!(first, control::smsw),
            Mnemonic::Lmsw => control::lmsw,
            _ => return None,
        },
    })
}

/// Those that only operating systems use.
fn systems(instruction: &Instruction) -> Option<Handler> {
    let first = size(instruction, 0);
    Some(match instruction.mnemonic() {
        Mnemonic::Clts => control::clts,
        Mnemonic::Hlt => system::hlt,
        Mnemonic::Invd | Mnemonic::Wbinvd => system::wbinvd,
        Mnemonic::Invlpg => system::invlpg,
        Mnemonic::Rdtsc => system::rdtsc::<false>,
        Mnemonic::Rdtscp => system::rdtsc::<true>,
        Mnemonic::Rdpmc => system::rdpmc,
        Mnemonic::Rdmsr => msr::rdmsr,
        Mnemonic::Wrmsr => msr::wrmsr,
        Mnemonic::Cpuid => system::cpuid,
        Mnemonic::Swapgs => system::swapgs,
        Mnemonic::Rdfsbase => sized!(first, system::read_base; 4),
        Mnemonic::Rdgsbase => sized!(first, system::read_base; 5),
        Mnemonic::Wrfsbase => sized!(first, system::write_base; 4),
        Mnemonic::Wrgsbase => sized!(first, system::write_base; 5),
        Mnemonic::Xgetbv => system::xgetbv,
        Mnemonic::Xsetbv => system::xsetbv,
        Mnemonic::Syscall => syscall::syscall,
        Mnemonic::Sysret => syscall::sysret::<false>,
        Mnemonic::Sysretq => syscall::sysret::<true>,
        Mnemonic::Sysenter => syscall::sysenter,
        Mnemonic::Sysexit => syscall::sysexit::<false>,
        Mnemonic::Sysexitq => syscall::sysexit::<true>,
        _ => return None,
    })
}
