//! Vector and x87 registers as plain data.

use std::arch::x86_64::{__m128i, _mm_cvtsi64_si128};
use std::mem::transmute;

use nerite_arch::Fpu;

use crate::deferred::Deferred;

/// A YMM register; its first 16 bytes are the XMM register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(32))]
pub struct Ymm(pub [u8; 32]);

impl Ymm {
    /// A register whose low 64 bits are `value` and all others zero.
    #[inline]
    pub(crate) fn low64(value: u64) -> Self {
        let mut register = Self::default();
        if let Some(low) = register.0.first_chunk_mut() {
            *low = value.to_le_bytes();
        }
        register
    }

    /// As [`Self::low64`], for an instruction that reads the XMM register as a whole: it is written
    /// as a whole, too, since a read of what was just written in parts takes as long as several
    /// instructions.
    #[inline(always)]
    pub(crate) fn scalar(value: u64) -> Self {
        // SAFETY: SSE2 is part of the architecture.
        let low = unsafe { _mm_cvtsi64_si128(value.cast_signed()) };
        // SAFETY: both are 16 bytes, of which any are valid.
        let low = unsafe { transmute::<__m128i, [u8; 16]>(low) };
        let mut register = Self::default();
        register.set_low(low);
        register
    }

    /// The low 64 bits.
    #[inline]
    pub(crate) fn as_u64(&self) -> u64 {
        self.0.first_chunk().map_or(0, |low| u64::from_le_bytes(*low))
    }

    /// The XMM register.
    #[inline]
    pub(crate) fn low(&self) -> [u8; 16] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// The upper half.
    #[inline]
    pub(crate) fn high(&self) -> [u8; 16] {
        self.0.last_chunk().copied().unwrap_or_default()
    }

    /// A register of two halves.
    #[inline]
    pub(crate) fn from_lanes(low: [u8; 16], high: [u8; 16]) -> Self {
        let mut register = Self::default();
        register.set_low(low);
        if let Some(half) = register.0.last_chunk_mut() {
            *half = high;
        }
        register
    }

    /// Sets the XMM register; the upper half stays.
    #[inline]
    pub(crate) fn set_low(&mut self, value: [u8; 16]) {
        if let Some(low) = self.0.first_chunk_mut() {
            *low = value;
        }
    }
}

/// Vector and x87 registers of a virtual processor. The default is the initial state of all
/// components (Intel SDM vol. 1, 13.6), which for x87 is that after FNINIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VectorState {
    /// YMM0 to YMM15.
    pub ymm: [Ymm; 16],
    /// MXCSR; reserved bits are zero.
    pub mxcsr: u32,
    /// The x87 registers.
    pub x87: X87,
}

/// Bits of MXCSR that are not reserved (Intel SDM vol. 1, 10.2.3).
pub const MXCSR_MASK: u32 = 0xffff;

/// MXCSR after a reset: all exceptions masked, round to nearest.
pub const MXCSR_INIT: u32 = 0x1f80;

impl Default for VectorState {
    fn default() -> Self {
        Self { ymm: [Ymm::default(); 16], mxcsr: MXCSR_INIT, x87: X87::default() }
    }
}

/// The x87 registers (Intel SDM vol. 1, 8.1). CS and DS of the last instruction are not kept:
/// CPUID.(EAX=7,ECX=0):EBX bit 13 is to be shown as 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X87 {
    /// R0 to R7, in physical order: ST(i) is R((TOP + i) modulo 8). MMi is the low 64 bits of Ri.
    pub registers: [[u8; 10]; 8],
    /// Control word.
    pub control: u16,
    /// Status word with TOP in bits 11 to 13; bits 7 (ES) and 15 (B) are 1 while an unmasked
    /// exception is pending.
    pub status: u16,
    /// Abridged tag word: bit i is 1 if Ri is not empty.
    pub tags: u8,
    /// Opcode of the last non-control instruction, 11 bits.
    pub opcode: u16,
    /// Offset of the last non-control instruction in its code segment.
    pub instruction: u64,
    /// Offset of its memory operand in its segment.
    pub data: u64,
    /// Part of the status that is found out when it is asked for.
    pub(crate) deferred: Deferred,
}

impl Default for X87 {
    fn default() -> Self {
        Self {
            registers: [[0; 10]; 8],
            control: 0x37f,
            status: 0,
            tags: 0,
            opcode: 0,
            instruction: 0,
            data: 0,
            deferred: Deferred::Nothing,
        }
    }
}

impl X87 {
    /// Completes the status word.
    #[inline(always)]
    pub(crate) fn collect(&mut self) {
        if !matches!(self.deferred, Deferred::Nothing) {
            self.status = self.deferred.complete(self.status);
        }
    }

    /// TOP: number of the physical register that is ST(0).
    #[must_use]
    pub fn top(&self) -> usize {
        usize::from(self.status >> 11 & 7)
    }

    /// ST(`index`), of which the low three bits count.
    #[must_use]
    pub fn st(&self, index: usize) -> [u8; 10] {
        self.registers.get(self.physical(index)).copied().unwrap_or_default()
    }

    /// Sets the contents of ST(`index`), of which the low three bits count; its tag stays.
    pub fn set_st(&mut self, index: usize, value: [u8; 10]) {
        let physical = self.physical(index);
        if let Some(register) = self.registers.get_mut(physical) {
            *register = value;
        }
    }

    /// MM`index`, of which the low three bits count.
    pub(crate) fn mm(&self, index: usize) -> u64 {
        let register = self.registers.get(index & 7).and_then(|register| register.first_chunk());
        register.map_or(0, |low| u64::from_le_bytes(*low))
    }

    /// Sets MM`index`, of which the low three bits count.
    pub(crate) fn set_mm(&mut self, index: usize, value: u64) {
        if let Some(register) = self.registers.get_mut(index & 7) {
            *register = [0xff; 10];
            if let Some(low) = register.first_chunk_mut() {
                *low = value.to_le_bytes();
            }
        }
    }

    /// Number of the physical register that is ST(`index`).
    fn physical(&self, index: usize) -> usize {
        self.top().wrapping_add(index) & 7
    }

    /// Makes ST(`by`) the top.
    pub(crate) fn rotate(&mut self, by: u16) {
        let top = (self.status >> 11).wrapping_add(by) & 7;
        self.status = self.status & !0x3800 | top << 11;
    }

    /// Marks ST(`index`) as in use or empty.
    pub(crate) fn set_tag(&mut self, index: usize, in_use: bool) {
        let bit = 1 << self.physical(index);
        self.tags = if in_use { self.tags | bit } else { self.tags & !bit };
    }

    /// Sets ES and B of the status word to what flags and masks demand.
    pub(crate) fn update_summary(&mut self) {
        let pending = self.status & !self.control & 0x3f != 0;
        self.status = self.status & 0x7f7f | if pending { 0x8080 } else { 0 };
    }

    /// `true` if an unmasked exception waits for the next instruction that reports it.
    pub(crate) fn pending(&self) -> bool {
        self.status & 0x80 != 0
    }
}

impl From<&Fpu> for VectorState {
    fn from(fpu: &Fpu) -> Self {
        Self::from_xsave(&fpu.to_xsave())
    }
}

impl From<&VectorState> for Fpu {
    fn from(state: &VectorState) -> Self {
        Fpu::from_xsave(&state.to_xsave())
    }
}
