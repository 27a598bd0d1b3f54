//! A set of interrupt vectors.

/// A set of vectors, as the APIC's registers of 256 bits hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vectors([u32; 8]);

impl Vectors {
    pub(super) const NONE: Self = Self([0; 8]);

    fn bit(vector: u8) -> u32 {
        1_u32.checked_shl(u32::from(vector) & 31).unwrap_or(0)
    }

    pub(super) fn insert(&mut self, vector: u8) {
        if let Some(word) = self.0.get_mut(usize::from(vector >> 5)) {
            *word |= Self::bit(vector);
        }
    }

    pub(super) fn remove(&mut self, vector: u8) {
        if let Some(word) = self.0.get_mut(usize::from(vector >> 5)) {
            *word &= !Self::bit(vector);
        }
    }

    /// The one with the highest priority.
    pub(super) fn highest(&self) -> Option<u8> {
        let (index, word) = (0_u32..).zip(self.0).filter(|(_, word)| *word != 0).last()?;
        u8::try_from(index.checked_mul(32)?.checked_add(word.ilog2())?).ok()
    }

    pub(super) fn remove_highest(&mut self) {
        if let Some(vector) = self.highest() {
            self.remove(vector);
        }
    }

    /// One of the eight registers.
    pub(super) fn word(&self, index: u32) -> u32 {
        usize::try_from(index).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }
}
