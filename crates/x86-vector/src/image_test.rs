use nerite_arch::Fpu;

use super::*;

/// A state in which every register differs.
fn state() -> VectorState {
    let mut state = VectorState { mxcsr: 0x9fbf, ..VectorState::default() };
    for (index, ymm) in (0..).zip(&mut state.ymm) {
        *ymm = Ymm::from_lanes([index; 16], [0x80 | index; 16]);
    }
    for (index, register) in (0..).zip(&mut state.x87.registers) {
        *register = [0x40 | index; 10];
    }
    state.x87.control = 0x27f;
    state.x87.status = 0x3800 | 0x20;
    state.x87.tags = 0xa5;
    state.x87.opcode = 0x123;
    state.x87.instruction = 0xffff_8000_1234_5678;
    state.x87.data = 0xffff_9000_1234_5678;
    state
}

#[test]
fn images_give_the_state_back() {
    let state = state();
    assert_eq!(VectorState::from_xsave(&state.to_xsave()), state);
    let mut without_avx = state.clone();
    for ymm in &mut without_avx.ymm {
        *ymm = Ymm::from_lanes(ymm.low(), [0; 16]);
    }
    assert_eq!(VectorState::from_fxsave(&state.to_fxsave()), without_avx);
    assert_eq!(VectorState::from(&Fpu::from(&state)), state);
}

#[test]
fn registers_lie_where_the_processor_saves_them() {
    let state = state();
    let image = state.to_xsave();
    // TOP is 7: ST(0) is R7.
    assert_eq!(image[32..42], [0x47; 10]);
    assert_eq!(image[48..58], [0x40; 10]);
    assert_eq!(image[160 + 15 * 16..416], [15; 16]);
    assert_eq!(image[AVX_OFFSET + 15 * 16..], [0x8f; 16]);
    assert_eq!(image[24..28], 0x9fbf_u32.to_le_bytes());
    assert_eq!(image[512], 7);
    let fpu = Fpu::from(&state);
    assert_eq!((fpu.st(0), fpu.xmm(3), fpu.ymm_high(3)), ([0x47; 10], [3; 16], [0x83; 16]));
}

#[test]
fn initial_components_are_not_in_use() {
    let mut state = VectorState::default();
    assert_eq!(state.in_use(), 0);
    state.mxcsr = 0x1fa0;
    assert_eq!(state.in_use(), XSTATE_SSE);
    // MXCSR of an image in the standard format counts even if SSE is initial.
    let mut image = VectorState::default().to_xsave();
    image[24..28].copy_from_slice(&0x3f80_u32.to_le_bytes());
    assert_eq!(VectorState::from_xsave(&image).mxcsr, 0x3f80);
    // In the compacted format it does not.
    image[520..528].copy_from_slice(&(COMPACTED | 7).to_le_bytes());
    assert_eq!(VectorState::from_xsave(&image).mxcsr, MXCSR_INIT);
}

#[test]
fn hostile_images_are_taken_without_reserved_bits() {
    let state = VectorState::from_xsave(&[0xff; 4096]);
    assert_eq!(state.mxcsr, MXCSR_MASK);
    assert_eq!(state.x87.control, 0x1f7f);
    assert_eq!(VectorState::from_xsave(&[]), VectorState::default());
    for length in [1, 100, 513, 576, 600] {
        let _ = VectorState::from_xsave(&vec![0xff; length]);
    }
}

#[test]
fn sizes_are_those_of_cpuid_leaf_0xd() {
    assert_eq!(xsave_size(XSTATE_X87 | XSTATE_SSE), 576);
    assert_eq!(xsave_size(XSTATE_ALL), XSAVE_SIZE);
    assert_eq!(AVX_OFFSET + AVX_SIZE, XSAVE_SIZE);
}
