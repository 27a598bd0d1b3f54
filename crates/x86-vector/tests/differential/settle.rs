//! States without what processors may leave in different ways.

use iced_x86::Instruction;
use nerite_x86_vector::VectorState;

/// Makes the states comparable: without pointers of x87.
pub(crate) fn comparable(mut state: VectorState) -> VectorState {
    state.x87.instruction = 0;
    state.x87.data = 0;
    state.x87.opcode = 0;
    state
}

/// Makes the states of a gather that faulted half-way comparable: some processors have then
/// replaced each element of the mask by its sign and cleared the upper halves of registers, as they
/// do first or at the end, and others have not.
pub(crate) fn settle_gather(state: &mut VectorState, instruction: &Instruction) {
    let (target, mask) = (instruction.op0_register(), instruction.op2_register());
    for register in [target, mask].into_iter().filter(|register| register.is_xmm()) {
        state.ymm[register.number()].0[16..].fill(0);
    }
    for element in state.ymm[mask.number()].0.chunks_mut(instruction.memory_size().size()) {
        let sign = if element.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        element.fill(sign);
    }
}
