//! The registers of x87, SSE and AVX.

use std::fmt;

/// Size of the part of an XSAVE area that is known here: legacy region, header, and AVX state.
const SIZE: usize = 832;
/// Offset of XSTATE_BV (Intel SDM vol. 1, 13.4.2): which parts are not in their initial state.
const XSTATE_BV: usize = 512;
/// Offset of the upper halves of YMM0 to YMM15 in the standard format (Intel SDM vol. 1, 13.5.3;
/// CPUID leaf 0xd says the same on every processor there is).
const AVX: usize = 576;
/// Bit of XSTATE_BV and XCR0 for it.
const AVX_PART: u64 = 1 << 2;

/// The registers of x87, SSE and AVX, as the first bytes of an XSAVE area in the standard format
/// (Intel SDM vol. 1, 13.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Fpu {
    bytes: [u8; SIZE],
}

impl Default for Fpu {
    /// As after a reset, with MXCSR and the control word at their initial values (Intel SDM vol. 1,
    /// 13.6).
    fn default() -> Self {
        let mut fpu = Self { bytes: [0; SIZE] };
        fpu.set(0, 0x037f_u16.to_le_bytes());
        fpu.set(24, 0x1f80_u32.to_le_bytes());
        fpu
    }
}

impl Fpu {
    /// The size of the bytes.
    pub const SIZE: usize = SIZE;
    /// Bits of XSTATE_BV and XCR0: x87, SSE, AVX.
    pub const PARTS: u64 = 0b111;

    /// Takes the first bytes of an XSAVE area. What is missing, or marked as initial, gets its
    /// initial value.
    #[must_use]
    pub fn from_xsave(area: &[u8]) -> Self {
        let mut fpu = Self::default();
        let given =
            |start: usize, end: usize| area.get(start..end.min(area.len())).unwrap_or_default();
        let parts = given(XSTATE_BV, XSTATE_BV.saturating_add(8)).first().copied().unwrap_or(0);
        // MXCSR has a value of its own even if SSE is in its initial state.
        for (part, start, end) in
            [(1, 0, 24), (0, 24, 32), (1, 32, 160), (2, 160, 416), (4, AVX, SIZE)]
        {
            if part == 0 || parts & part != 0 {
                for (to, from) in fpu.bytes.iter_mut().skip(start).zip(given(start, end)) {
                    *to = *from;
                }
            }
        }
        fpu
    }

    /// The bytes of an XSAVE area, with x87 and SSE marked as present, and AVX unless it is in its
    /// initial state: so the area is one for processors without AVX, too.
    #[must_use]
    pub fn to_xsave(&self) -> [u8; SIZE] {
        let mut fpu = self.clone();
        let has_avx = self.bytes.iter().skip(AVX).any(|byte| *byte != 0);
        let parts = if has_avx { Self::PARTS } else { Self::PARTS & !AVX_PART };
        fpu.set(XSTATE_BV, parts.to_le_bytes());
        fpu.bytes
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = at.checked_add(N).and_then(|end| self.bytes.get(at..end));
        bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn set<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        for (to, from) in self.bytes.iter_mut().skip(at).zip(value) {
            *to = from;
        }
    }

    /// The address of element `index` of an array of 16-byte elements.
    fn element(start: usize, index: usize) -> usize {
        start.saturating_add(index.saturating_mul(16))
    }

    /// ST(`index`), 0 to 7, 80 bits.
    #[must_use]
    pub fn st(&self, index: usize) -> [u8; 10] {
        self.get(Self::element(32, index & 7))
    }

    /// Sets ST(`index`), 0 to 7.
    pub fn set_st(&mut self, index: usize, value: [u8; 10]) {
        self.set(Self::element(32, index & 7), value);
    }

    /// XMM`index`, 0 to 15.
    #[must_use]
    pub fn xmm(&self, index: usize) -> [u8; 16] {
        self.get(Self::element(160, index & 15))
    }

    /// Sets XMM`index`, 0 to 15.
    pub fn set_xmm(&mut self, index: usize, value: [u8; 16]) {
        self.set(Self::element(160, index & 15), value);
    }

    /// The upper half of YMM`index`, 0 to 15.
    #[must_use]
    pub fn ymm_high(&self, index: usize) -> [u8; 16] {
        self.get(Self::element(AVX, index & 15))
    }

    /// Sets the upper half of YMM`index`, 0 to 15.
    pub fn set_ymm_high(&mut self, index: usize, value: [u8; 16]) {
        self.set(Self::element(AVX, index & 15), value);
    }

    /// The control word.
    #[must_use]
    pub fn control(&self) -> u16 {
        u16::from_le_bytes(self.get(0))
    }

    /// The status word.
    #[must_use]
    pub fn status(&self) -> u16 {
        u16::from_le_bytes(self.get(2))
    }

    /// The abridged tag word: a bit for each register that holds something.
    #[must_use]
    pub fn tags(&self) -> u8 {
        let [tags] = self.get(4);
        tags
    }

    /// Sets control word, status word and abridged tag word.
    pub fn set_x87(&mut self, control: u16, status: u16, tags: u8) {
        self.set(0, control.to_le_bytes());
        self.set(2, status.to_le_bytes());
        self.set(4, [tags]);
    }

    /// The last opcode.
    #[must_use]
    pub fn opcode(&self) -> u16 {
        u16::from_le_bytes(self.get(6))
    }

    /// MXCSR.
    #[must_use]
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.get(24))
    }

    /// Sets MXCSR. Reserved bits are left out, because they would fault.
    pub fn set_mxcsr(&mut self, value: u32) {
        self.set(24, (value & 0xffff).to_le_bytes());
    }
}

impl fmt::Debug for Fpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fpu").field("mxcsr", &self.mxcsr()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_lie_where_the_processor_saves_them() {
        let mut fpu = Fpu::default();
        fpu.set_st(7, [7; 10]);
        fpu.set_xmm(15, [15; 16]);
        fpu.set_ymm_high(15, [31; 16]);
        fpu.set_x87(0x27f, 0x3800, 0x80);
        fpu.set_mxcsr(0xffff_9fc0);
        let area = fpu.to_xsave();
        assert_eq!(area[144..154], [7; 10]);
        assert_eq!(area[400..416], [15; 16]);
        assert_eq!(area[816..832], [31; 16]);
        assert_eq!(area[512], 7);
        assert_eq!(Fpu::default().to_xsave()[512], 3);
        let again = Fpu::from_xsave(&area);
        assert_eq!((again.control(), again.status(), again.tags()), (0x27f, 0x3800, 0x80));
        assert_eq!(again.mxcsr(), 0x9fc0);
        assert_eq!((again.st(7), again.xmm(15), again.ymm_high(15)), ([7; 10], [15; 16], [31; 16]));
    }

    #[test]
    fn parts_in_their_initial_state_are_not_read() {
        let mut area = [0xff; 4096];
        area[512..520].copy_from_slice(&2_u64.to_le_bytes());
        let fpu = Fpu::from_xsave(&area);
        assert_eq!((fpu.control(), fpu.st(0)), (0x37f, [0; 10]));
        assert_eq!(fpu.xmm(0), [0xff; 16]);
        assert_eq!(fpu.ymm_high(0), [0; 16]);
        assert_eq!(Fpu::from_xsave(&[]).control(), 0x37f);
    }
}
