//! FXSAVE, FXRSTOR and the XSAVE family.

use iced_x86::{Code, Register};

use crate::Handler;
use crate::control::registers;
use crate::host::saves_pointers;
use crate::image::{
    AVX_OFFSET, COMPACTED, FXSAVE_SIZE, PointerWidth, XSAVE_SIZE, XSTATE_ALL, XSTATE_AVX,
    XSTATE_SSE, XSTATE_X87, get, xsave_size,
};
use crate::operands::{Operands, VectorException, is_aligned};
use crate::shapes::Outcome;
use crate::state::{MXCSR_INIT, MXCSR_MASK, VectorState, X87};

/// Width of the pointers in an image: `WIDE` is REX.W.
fn width<const WIDE: bool>() -> PointerWidth {
    if WIDE { PointerWidth::Bits64 } else { PointerWidth::Bits32 }
}

/// Clears opcode and pointers in an image where the host does: processors of AMD show them only
/// while an exception is pending (AMD APM vol. 5, FXSAVE).
fn hide_pointers(state: &VectorState, image: &mut [u8]) {
    if !state.x87.pending() && !saves_pointers() {
        image.get_mut(6..24).unwrap_or_default().fill(0);
    }
}

/// Raises #GP unless the memory operand is aligned to `size`.
fn check_aligned<C: Operands>(context: &mut C, op: &C::Op, size: usize) -> Outcome<C> {
    if is_aligned(context.linear_address(op), size) {
        return Ok(());
    }
    Err(context.exception(VectorException::GeneralProtection))
}

/// FXSAVE and FXSAVE64.
fn fxsave<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_aligned(context, op, 16)?;
    let mut image = [0; FXSAVE_SIZE];
    let count = registers(op.as_ref());
    let state = context.vector_mut();
    state.collect();
    state.write_x87(&mut image, width::<WIDE>());
    hide_pointers(state, &mut image);
    state.write_mxcsr(&mut image);
    state.write_xmm(&mut image, count);
    context.store(op, image.get(..xmm_end(count)).unwrap_or_default())
}

/// End of `count` XMM registers in an image.
fn xmm_end(count: usize) -> usize {
    count.wrapping_mul(16).wrapping_add(160)
}

/// FXRSTOR and FXRSTOR64.
fn fxrstor<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_aligned(context, op, 16)?;
    let mut image = [0; FXSAVE_SIZE];
    context.load(op, &mut image)?;
    let mxcsr = mxcsr(&image, context)?;
    let state = context.vector_mut();
    state.set_mxcsr(mxcsr);
    state.read_x87(&image, width::<WIDE>());
    state.read_xmm(&image, registers(op.as_ref()));
    Ok(())
}

/// MXCSR of an image; #GP if a reserved bit is set.
fn mxcsr<C: Operands>(image: &[u8], context: &mut C) -> Result<u32, C::Fault> {
    let value = u32::from_le_bytes(get(image, 24));
    if value & !MXCSR_MASK == 0 {
        return Ok(value);
    }
    Err(context.exception(VectorException::GeneralProtection))
}

/// The components that an instruction is for: EDX:EAX and XCR0.
fn requested<C: Operands>(context: &C) -> u64 {
    let mask = context.gpr(Register::EDX) << 32 | context.gpr(Register::EAX) & 0xffff_ffff;
    mask & context.xcr0() & XSTATE_ALL
}

/// Forms of XSAVE.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// XSAVE: all requested components.
    Standard,
    /// XSAVEOPT: those that are not initial.
    Optimized,
    /// XSAVEC: those that are not initial, in the compacted format.
    Compacted,
}

/// Stores components. `form` as in [`Form`]. If a part of the area faults, others may have been
/// written.
fn xsave_form<C: Operands>(
    context: &mut C,
    op: &C::Op,
    form: Form,
    width: PointerWidth,
) -> Outcome<C> {
    check_aligned(context, op, 64)?;
    let requested = requested(context);
    let count = registers(op.as_ref());
    let state = context.vector_mut();
    state.collect();
    let in_use = state.in_use() & requested;
    let stored = if form == Form::Standard { requested } else { in_use };
    let mut header = [0; 16];
    let fields = if form == Form::Compacted {
        [in_use, requested | COMPACTED]
    } else {
        context.load_at(op, 512, &mut header)?;
        let old = u64::from_le_bytes(get(&header, 0));
        [old & !requested | in_use, u64::from_le_bytes(get(&header, 8))]
    };
    let mut image = [0; XSAVE_SIZE];
    let state = context.vector();
    state.write_x87(&mut image, width);
    hide_pointers(state, &mut image);
    state.write_mxcsr(&mut image);
    state.write_xmm(&mut image, count);
    state.write_avx(&mut image, count);
    let with_mxcsr = if form == Form::Compacted {
        stored & XSTATE_SSE != 0
    } else {
        requested & (XSTATE_SSE | XSTATE_AVX) != 0
    };
    let avx_end = count.wrapping_mul(16).wrapping_add(AVX_OFFSET);
    let header_end: usize = if form == Form::Compacted { 528 } else { 520 };
    let [present, layout] = fields.map(u64::to_le_bytes);
    for (to, from) in image.iter_mut().skip(512).zip([present, layout].as_flattened()) {
        *to = *from;
    }
    // The last part first: if the second of two pages faults, nothing is written.
    for (part, start, end) in [
        (stored & XSTATE_AVX != 0, AVX_OFFSET, avx_end),
        (true, 512, header_end),
        (stored & XSTATE_SSE != 0, 160, xmm_end(count)),
        (stored & XSTATE_X87 != 0, 32, 160),
        (with_mxcsr, 24, 32),
        (stored & XSTATE_X87 != 0, 0, 24),
    ] {
        if part {
            let bytes = image.get(start..end).unwrap_or_default();
            context.store_at(op, start as u64, bytes)?;
        }
    }
    Ok(())
}

/// XSAVE and XSAVE64.
fn xsave<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    xsave_form(context, op, Form::Standard, width::<WIDE>())
}

/// XSAVEOPT and XSAVEOPT64.
fn xsaveopt<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    xsave_form(context, op, Form::Optimized, width::<WIDE>())
}

/// XSAVEC and XSAVEC64.
fn xsavec<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    xsave_form(context, op, Form::Compacted, width::<WIDE>())
}

/// XRSTOR and XRSTOR64.
fn xrstor<C: Operands, const WIDE: bool>(context: &mut C, op: &C::Op) -> Outcome<C> {
    check_aligned(context, op, 64)?;
    let (requested, xcr0, count) = (requested(context), context.xcr0(), registers(op.as_ref()));
    let mut image = [0; XSAVE_SIZE];
    let (known, avx) = image.split_at_mut(AVX_OFFSET);
    context.load(op, known)?;
    let header: [u8; 64] = get(known, 512);
    let (present, layout) =
        (u64::from_le_bytes(get(&header, 0)), u64::from_le_bytes(get(&header, 8)));
    let compacted = layout & COMPACTED != 0;
    let (components, reserved) =
        if compacted { (layout & !COMPACTED, 16..64) } else { (xcr0, 8..24) };
    let reserved_zero = header.get(reserved).unwrap_or_default().iter().all(|&byte| byte == 0);
    if components & !xcr0 != 0 || present & !components != 0 || !reserved_zero {
        return Err(context.exception(VectorException::GeneralProtection));
    }
    let loaded = requested & present;
    if loaded & XSTATE_AVX != 0 && xsave_size(components) == XSAVE_SIZE {
        let bytes = avx.get_mut(..count.wrapping_mul(16)).unwrap_or_default();
        context.load_at(op, AVX_OFFSET as u64, bytes)?;
    }
    if compacted {
        if loaded & XSTATE_SSE != 0 {
            let mxcsr = mxcsr(&image, context)?;
            context.vector_mut().set_mxcsr(mxcsr);
        } else if requested & XSTATE_SSE != 0 {
            context.vector_mut().set_mxcsr(MXCSR_INIT);
        }
    } else if requested & (XSTATE_SSE | XSTATE_AVX) != 0 {
        let mxcsr = mxcsr(&image, context)?;
        context.vector_mut().set_mxcsr(mxcsr);
    }
    let state = context.vector_mut();
    let initial = [0; XSAVE_SIZE];
    let chosen = |component| if loaded & component != 0 { &image } else { &initial };
    if loaded & XSTATE_X87 != 0 {
        state.read_x87(&image, width::<WIDE>());
    } else if requested & XSTATE_X87 != 0 {
        state.x87 = X87::default();
    }
    if requested & XSTATE_SSE != 0 {
        state.read_xmm(chosen(XSTATE_SSE), count);
    }
    if requested & XSTATE_AVX != 0 {
        state.read_avx(chosen(XSTATE_AVX), count);
    }
    Ok(())
}

/// Returns the handler of the instruction.
pub(crate) fn handler<C: Operands>(code: Code) -> Option<Handler<C>> {
    Some(match code {
        Code::Fxsave_m512byte => fxsave::<C, false>,
        Code::Fxsave64_m512byte => fxsave::<C, true>,
        Code::Fxrstor_m512byte => fxrstor::<C, false>,
        Code::Fxrstor64_m512byte => fxrstor::<C, true>,
        Code::Xsave_mem => xsave::<C, false>,
        Code::Xsave64_mem => xsave::<C, true>,
        Code::Xsaveopt_mem => xsaveopt::<C, false>,
        Code::Xsaveopt64_mem => xsaveopt::<C, true>,
        Code::Xsavec_mem => xsavec::<C, false>,
        Code::Xsavec64_mem => xsavec::<C, true>,
        Code::Xrstor_mem => xrstor::<C, false>,
        Code::Xrstor64_mem => xrstor::<C, true>,
        _ => return None,
    })
}
