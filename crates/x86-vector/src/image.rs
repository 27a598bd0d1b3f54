//! FXSAVE and XSAVE images (Intel SDM vol. 1, 10.5.1 and 13.4).

use crate::state::{MXCSR_INIT, MXCSR_MASK, VectorState, X87, Ymm};

/// Bit of XCR0 and XSTATE_BV: x87.
pub const XSTATE_X87: u64 = 1;
/// Bit of XCR0 and XSTATE_BV: SSE (XMM registers and MXCSR).
pub const XSTATE_SSE: u64 = 2;
/// Bit of XCR0 and XSTATE_BV: AVX (upper halves of YMM registers).
pub const XSTATE_AVX: u64 = 4;
/// All components that [`VectorState`] has.
pub const XSTATE_ALL: u64 = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX;

/// Size of an FXSAVE image.
pub const FXSAVE_SIZE: usize = 512;
/// Size of an XSAVE image of x87, SSE and AVX, in either format.
pub const XSAVE_SIZE: usize = 832;
/// Offset of the AVX component, in either format (CPUID.(EAX=0xd,ECX=2):EBX).
pub const AVX_OFFSET: usize = 576;
/// Size of the AVX component (CPUID.(EAX=0xd,ECX=2):EAX).
pub const AVX_SIZE: usize = 256;
/// Bit of XCOMP_BV: compacted format.
pub(crate) const COMPACTED: u64 = 1 << 63;

/// Size in bytes of an XSAVE image of the components in `xcr0`, in either format
/// (CPUID.(EAX=0xd,ECX=0):EBX and ECX, and for XSAVEC CPUID.(EAX=0xd,ECX=1):EBX).
#[must_use]
pub fn xsave_size(xcr0: u64) -> usize {
    if xcr0 & XSTATE_AVX == 0 { AVX_OFFSET } else { XSAVE_SIZE }
}

/// Width of the x87 pointers in an image: by REX.W of the instruction that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PointerWidth {
    /// 32 bits, followed by a selector, which is zero.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// Copies `value` to `bytes` from `at` on.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

/// `N` bytes from `at` on; zeros if there are fewer.
pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

/// Offset of element `index` of an array of 16-byte elements that begins at `start`.
fn element(start: usize, index: usize) -> usize {
    start.wrapping_add(index.wrapping_mul(16))
}

impl VectorState {
    /// Components that are not in their initial state (XINUSE).
    #[must_use]
    pub fn in_use(&self) -> u64 {
        let x87 = self.x87 != X87::default();
        let sse = self.mxcsr != MXCSR_INIT || self.ymm.iter().any(|ymm| ymm.low() != [0; 16]);
        let avx = self.ymm.iter().any(|ymm| ymm.high() != [0; 16]);
        u64::from(x87) | u64::from(sse) << 1 | u64::from(avx) << 2
    }

    /// Writes the x87 component: bytes 0 to 23 and 32 to 159.
    pub(crate) fn write_x87(&self, image: &mut [u8], width: PointerWidth) {
        put(image, 0, &self.x87.control.to_le_bytes());
        put(image, 2, &self.x87.status.to_le_bytes());
        put(image, 4, &[self.x87.tags, 0]);
        put(image, 6, &self.x87.opcode.to_le_bytes());
        let mask = if width == PointerWidth::Bits32 { 0xffff_ffff } else { u64::MAX };
        put(image, 8, &(self.x87.instruction & mask).to_le_bytes());
        put(image, 16, &(self.x87.data & mask).to_le_bytes());
        for index in 0..8 {
            put(image, element(32, index), &self.x87.st(index));
            put(image, element(42, index), &[0; 6]);
        }
    }

    /// Writes MXCSR and its mask: bytes 24 to 31.
    pub(crate) fn write_mxcsr(&self, image: &mut [u8]) {
        put(image, 24, &self.mxcsr.to_le_bytes());
        put(image, 28, &MXCSR_MASK.to_le_bytes());
    }

    /// Writes the first `count` XMM registers: bytes 160 to 415.
    pub(crate) fn write_xmm(&self, image: &mut [u8], count: usize) {
        for (index, ymm) in self.ymm.iter().enumerate().take(count) {
            put(image, element(160, index), &ymm.low());
        }
    }

    /// Writes the upper halves of the first `count` YMM registers: the AVX component.
    pub(crate) fn write_avx(&self, image: &mut [u8], count: usize) {
        for (index, ymm) in self.ymm.iter().enumerate().take(count) {
            put(image, element(AVX_OFFSET, index), &ymm.high());
        }
    }

    /// Reads the x87 component.
    pub(crate) fn read_x87(&mut self, image: &[u8], width: PointerWidth) {
        let mask = if width == PointerWidth::Bits32 { 0xffff_ffff } else { u64::MAX };
        let [tags] = get(image, 4);
        self.x87 = X87 {
            control: control_word(u16::from_le_bytes(get(image, 0))),
            status: u16::from_le_bytes(get(image, 2)),
            tags,
            opcode: u16::from_le_bytes(get(image, 6)) & 0x7ff,
            instruction: u64::from_le_bytes(get(image, 8)) & mask,
            data: u64::from_le_bytes(get(image, 16)) & mask,
            ..X87::default()
        };
        for index in 0..8 {
            self.x87.set_st(index, get(image, element(32, index)));
        }
        self.x87.update_summary();
    }

    /// Reads the first `count` XMM registers.
    pub(crate) fn read_xmm(&mut self, image: &[u8], count: usize) {
        for (index, ymm) in self.ymm.iter_mut().enumerate().take(count) {
            ymm.set_low(get(image, element(160, index)));
        }
    }

    /// Reads the upper halves of the first `count` YMM registers.
    pub(crate) fn read_avx(&mut self, image: &[u8], count: usize) {
        for (index, ymm) in self.ymm.iter_mut().enumerate().take(count) {
            *ymm = Ymm::from_lanes(ymm.low(), get(image, element(AVX_OFFSET, index)));
        }
    }

    /// The image that FXSAVE64 writes in 64-bit mode; reserved bytes are zero.
    #[must_use]
    pub fn to_fxsave(&self) -> [u8; FXSAVE_SIZE] {
        let mut image = [0; FXSAVE_SIZE];
        self.write_x87(&mut image, PointerWidth::Bits64);
        self.write_mxcsr(&mut image);
        self.write_xmm(&mut image, 16);
        image
    }

    /// The state after FXRSTOR64 of an image, with the upper halves of the YMM registers zero.
    /// Reserved bits of MXCSR are left out.
    #[must_use]
    pub fn from_fxsave(image: &[u8; FXSAVE_SIZE]) -> Self {
        let mut state =
            Self { mxcsr: u32::from_le_bytes(get(image, 24)) & MXCSR_MASK, ..Self::default() };
        state.read_x87(image, PointerWidth::Bits64);
        state.read_xmm(image, 16);
        state
    }

    /// The image that XSAVE64 writes in 64-bit mode with all components requested, in the standard
    /// format.
    #[must_use]
    pub fn to_xsave(&self) -> [u8; XSAVE_SIZE] {
        let mut image = [0; XSAVE_SIZE];
        put(&mut image, 0, &self.to_fxsave());
        put(&mut image, 512, &self.in_use().to_le_bytes());
        self.write_avx(&mut image, 16);
        image
    }

    /// The state after XRSTOR64 of an image with all components requested. The image is in the
    /// standard or in the compacted format; what is missing is initial, and reserved bits of MXCSR
    /// are left out.
    #[must_use]
    pub fn from_xsave(image: &[u8]) -> Self {
        let mut state = Self::default();
        let present = u64::from_le_bytes(get(image, 512));
        let layout = u64::from_le_bytes(get(image, 520));
        if present & XSTATE_X87 != 0 {
            state.read_x87(image, PointerWidth::Bits64);
        }
        if present & XSTATE_SSE != 0 {
            state.read_xmm(image, 16);
        }
        if present & XSTATE_AVX != 0 {
            state.read_avx(image, 16);
        }
        if present & XSTATE_SSE != 0 || layout & COMPACTED == 0 && image.len() >= AVX_OFFSET {
            state.mxcsr = u32::from_le_bytes(get(image, 24)) & MXCSR_MASK;
        }
        state
    }
}

/// A control word with its reserved bits as the processor keeps them: bit 6 is 1, and bits 7 and 13
/// to 15 are 0.
pub(crate) fn control_word(value: u16) -> u16 {
    value & 0x1f7f | 0x40
}

#[cfg(test)]
#[path = "image_test.rs"]
mod tests;
