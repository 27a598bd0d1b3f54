//! Moves of whole XMM registers, which need no instruction of the host.

use iced_x86::{Instruction, Mnemonic, OpKind};
use nerite_x86_vector::VectorState;

use crate::access::page_offset;
use crate::core::{Core, Run};
use crate::op::{Handler, Op};
use crate::tlb::PAGE;

/// Chooses the function for a move of 16 bytes.
pub(super) fn handler(instruction: &Instruction) -> Option<Handler> {
    let is_aligned = match instruction.mnemonic() {
        Mnemonic::Movaps | Mnemonic::Movapd | Mnemonic::Movdqa => true,
        Mnemonic::Movups | Mnemonic::Movupd | Mnemonic::Movdqu => false,
        _ => return None,
    };
    Some(match (instruction.op0_kind(), instruction.op1_kind(), is_aligned) {
        (OpKind::Register, OpKind::Register, _) => between,
        (OpKind::Register, _, true) => load::<true>,
        (OpKind::Register, _, false) => load::<false>,
        (_, _, true) => store::<true>,
        (_, _, false) => store::<false>,
    })
}

/// The low half of a vector register.
#[inline(always)]
fn low(vector: &VectorState, number: u8) -> Option<&[u8; 16]> {
    vector.ymm.get(usize::from(number & 15))?.0.first_chunk()
}

/// The low half of a vector register; the upper half stays.
#[inline(always)]
fn low_mut(vector: &mut VectorState, number: u8) -> Option<&mut [u8; 16]> {
    vector.ymm.get_mut(usize::from(number & 15))?.0.first_chunk_mut()
}

fn between(core: &mut Core, op: &Op) -> Run {
    let value = low(&core.vector, op.src).copied().unwrap_or_default();
    if let Some(to) = low_mut(&mut core.vector, op.dst) {
        *to = value;
    }
    Ok(())
}

fn load<const ALIGNED: bool>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, 16, false)?;
    let entry = core.tlb.entry(linear);
    if entry.read == linear & PAGE
        && (!ALIGNED || linear & 15 == 0)
        && let Some(target) = &entry.target
        && let Some(to) = low_mut(&mut core.vector, op.dst)
        && target.page.read_16(page_offset(linear), to).is_some()
    {
        return Ok(());
    }
    load_slow::<ALIGNED>(core, op, linear)
}

#[cold]
#[inline(never)]
fn load_slow<const ALIGNED: bool>(core: &mut Core, op: &Op, linear: u64) -> Run {
    check_alignment::<ALIGNED>(core, linear)?;
    let mut value = [0; 16];
    core.read_bytes(linear, &mut value)?;
    if let Some(to) = low_mut(&mut core.vector, op.dst) {
        *to = value;
    }
    Ok(())
}

fn store<const ALIGNED: bool>(core: &mut Core, op: &Op) -> Run {
    let linear = core.linear(op, 16, true)?;
    let entry = core.tlb.entry(linear);
    if entry.write == linear & PAGE
        && (!ALIGNED || linear & 15 == 0)
        && let Some(target) = &entry.target
        && let Some(from) = low(&core.vector, op.src)
        && target.page.write_16(page_offset(linear), from).is_some()
    {
        if target.chunk.lines(entry.address) != 0 {
            core.stored(linear, 16);
        }
        return Ok(());
    }
    store_slow::<ALIGNED>(core, op, linear)
}

#[cold]
#[inline(never)]
fn store_slow<const ALIGNED: bool>(core: &mut Core, op: &Op, linear: u64) -> Run {
    check_alignment::<ALIGNED>(core, linear)?;
    let value = low(&core.vector, op.src).copied().unwrap_or_default();
    core.write_bytes(linear, &value)
}

/// #GP if the operand must be aligned and is not.
fn check_alignment<const ALIGNED: bool>(core: &mut Core, linear: u64) -> Run {
    if ALIGNED && linear & 15 != 0 { core.protection_fault(0) } else { Ok(()) }
}
