//! A set of interrupt vectors.

/// A set of vectors, as the APIC's registers of 256 bits hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vectors([u32; 8]);

impl Vectors {
    pub(crate) const NONE: Self = Self([0; 8]);

    pub(crate) const fn from_words(words: [u32; 8]) -> Self {
        Self(words)
    }

    pub(crate) const fn words(&self) -> [u32; 8] {
        self.0
    }

    fn bit(vector: u8) -> u32 {
        1_u32.wrapping_shl(u32::from(vector))
    }

    pub(crate) fn contains(&self, vector: u8) -> bool {
        self.0.get(usize::from(vector >> 5)).is_some_and(|word| word & Self::bit(vector) != 0)
    }

    pub(crate) fn set(&mut self, vector: u8, is_member: bool) {
        if let Some(word) = self.0.get_mut(usize::from(vector >> 5)) {
            *word = if is_member { *word | Self::bit(vector) } else { *word & !Self::bit(vector) };
        }
    }

    pub(crate) fn insert(&mut self, vector: u8) {
        self.set(vector, true);
    }

    pub(crate) fn remove(&mut self, vector: u8) {
        self.set(vector, false);
    }

    /// The one with the highest priority.
    pub(crate) fn highest(&self) -> Option<u8> {
        let (index, word) = (0_u32..).zip(self.0).filter(|(_, word)| *word != 0).last()?;
        u8::try_from(index.checked_mul(32)?.checked_add(word.ilog2())?).ok()
    }

    /// One of the eight registers.
    pub(crate) fn word(&self, index: u32) -> u32 {
        usize::try_from(index).ok().and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }
}
