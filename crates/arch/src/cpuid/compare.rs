//! Features that two sets of CPUID leaves have in common, or that one lacks.

use super::CpuidEntry;
use super::word::{WORDS, XSTATE};

/// Legacy region and header of an XSAVE area (Intel SDM vol. 1, 13.4).
const XSAVE_HEADER_END: u32 = 576;

/// Name of the first feature that `shown` has and `available` lacks; `None` if there is none.
///
/// Only features count, that is what makes an instruction or register work. Model numbers, caches
/// and topology are the guest's to see and work anywhere.
#[must_use]
pub fn missing_feature(shown: &[CpuidEntry], available: &[CpuidEntry]) -> Option<String> {
    WORDS.iter().find_map(|word| {
        let missing = word.of(shown) & !word.of(available) & !word.ignored;
        (missing != 0).then(|| word.name(missing.trailing_zeros()))
    })
}

/// The leaves of `base` with the features that `other` has, too: a guest that sees them runs on
/// both.
#[must_use]
pub fn common(base: &[CpuidEntry], other: &[CpuidEntry]) -> Vec<CpuidEntry> {
    let mut leaves = base.to_vec();
    for word in &WORDS {
        word.mask(&mut leaves, word.of(other) | word.ignored);
    }
    trim_state(&mut leaves, 0);
    leaves
}

/// Makes the leaf of the extended state fit the components that it names: removes the subleaves of
/// others, and those of the supervisor that are not in `supervisor`, and computes the sizes of an
/// area.
pub(super) fn trim_state(leaves: &mut [CpuidEntry], supervisor: u32) {
    let subleaf = |index| {
        leaves.iter().find(move |entry| entry.function == XSTATE && entry.index == Some(index))
    };
    let user = subleaf(0).map_or(0, |entry| entry.eax);
    let supervisor = subleaf(1).map_or(0, |entry| entry.ecx) & supervisor;
    let is_in = |set: u32, component: u32| set.checked_shr(component).unwrap_or(0) & 1 == 1;
    let mut size = XSAVE_HEADER_END;
    for entry in leaves.iter_mut().filter(|entry| entry.function == XSTATE) {
        match entry.index {
            Some(component @ 2..) if is_in(user, component) => {
                size = size.max(entry.eax.saturating_add(entry.ebx));
            }
            Some(component @ 2..) if !is_in(supervisor, component) => {
                *entry = CpuidEntry {
                    function: entry.function,
                    index: entry.index,
                    ..CpuidEntry::default()
                };
            }
            _ => {}
        }
    }
    for entry in leaves.iter_mut().filter(|entry| entry.function == XSTATE) {
        match entry.index {
            Some(0) => (entry.ebx, entry.ecx) = (size, size),
            Some(1) => {
                (entry.ebx, entry.ecx) = (size, supervisor);
                entry.edx = if supervisor == 0 { 0 } else { entry.edx };
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
        CpuidEntry { function, index, eax, ebx, ecx, edx }
    }

    #[test]
    fn the_first_missing_feature_is_named() {
        let shown = [
            leaf(1, None, [0x123, 0, 1 << 28 | 1 << 31 | 1 << 24, 1 << 25]),
            leaf(7, Some(0), [0, 1 << 5, 0, 0]),
        ];
        assert_eq!(missing_feature(&shown, &shown), None);
        let without_avx2 = [leaf(1, None, [0, 0, 1 << 28, 1 << 25])];
        assert_eq!(missing_feature(&shown, &without_avx2).as_deref(), Some("avx2"));
        assert_eq!(missing_feature(&shown, &[]).as_deref(), Some("avx"));
        let odd = [leaf(7, Some(1), [1 << 6, 0, 0, 0])];
        let name = missing_feature(&odd, &shown).unwrap();
        assert_eq!(name, "the feature of CPUID leaf 0x7, subleaf 1, EAX bit 6");
    }

    #[test]
    fn common_leaves_miss_nothing_on_either_side() {
        let one = [
            leaf(1, None, [7, 8, 1 << 26 | 1 << 28 | 1, 0]),
            leaf(0xd, Some(0), [0x207, 2696, 2696, 0]),
            leaf(0xd, Some(1), [0xf, 2000, 0x1800, 0]),
            leaf(0xd, Some(2), [256, 576, 0, 0]),
            leaf(0xd, Some(9), [8, 2688, 0, 0]),
        ];
        let other = [
            leaf(1, None, [0, 0, 1 << 26 | 1 << 28, 0]),
            leaf(0xd, Some(0), [7, 832, 832, 0]),
            leaf(0xd, Some(1), [3, 832, 0, 0]),
        ];
        let both = common(&one, &other);
        assert_eq!(missing_feature(&both, &one), None);
        assert_eq!(missing_feature(&both, &other), None);
        assert_eq!(both[0], leaf(1, None, [7, 8, 1 << 26 | 1 << 28, 0]));
        assert_eq!(both[1], leaf(0xd, Some(0), [7, 832, 832, 0]));
        assert_eq!(both[2], leaf(0xd, Some(1), [3, 832, 0, 0]));
        assert_eq!(both[4], leaf(0xd, Some(9), [0; 4]));
        // Without AVX an area ends with its header.
        let without_avx = common(&one, &[leaf(0xd, Some(0), [3, 576, 576, 0])]);
        assert_eq!((without_avx[1].ebx, without_avx[3]), (576, leaf(0xd, Some(2), [0; 4])));
    }
}
