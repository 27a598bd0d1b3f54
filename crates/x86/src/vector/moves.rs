//! Moves of whole XMM registers, which need no instruction of the host.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::core::{Core, Run};
use crate::op::{Handler, Op};

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

impl Core {
    /// The low half of a vector register.
    #[inline(always)]
    fn xmm(&self, number: u8) -> [u8; 16] {
        let register = self.vector.ymm.get(usize::from(number & 15));
        register.and_then(|register| register.0.first_chunk()).copied().unwrap_or_default()
    }

    /// Sets the low half of a vector register; the upper half stays.
    #[inline(always)]
    fn set_xmm(&mut self, number: u8, value: [u8; 16]) {
        let register = self.vector.ymm.get_mut(usize::from(number & 15));
        if let Some(low) = register.and_then(|register| register.0.first_chunk_mut()) {
            *low = value;
        }
    }
}

fn between(core: &mut Core, op: &Op) -> Run {
    let value = core.xmm(op.src);
    core.set_xmm(op.dst, value);
    Ok(())
}

/// The address of the operand; #GP if it must be aligned and is not.
#[inline(always)]
fn address<const ALIGNED: bool>(core: &mut Core, op: &Op, write: bool) -> Run<u64> {
    let linear = core.linear(op, 16, write)?;
    if ALIGNED && linear & 15 != 0 { core.protection_fault(0) } else { Ok(linear) }
}

fn load<const ALIGNED: bool>(core: &mut Core, op: &Op) -> Run {
    let linear = address::<ALIGNED>(core, op, false)?;
    let mut value = [0; 16];
    core.read_vector(linear, &mut value)?;
    core.set_xmm(op.dst, value);
    Ok(())
}

fn store<const ALIGNED: bool>(core: &mut Core, op: &Op) -> Run {
    let linear = address::<ALIGNED>(core, op, true)?;
    let value = core.xmm(op.src);
    core.write_vector(linear, &value)
}
