//! Features that two sets of CPUID leaves have in common, or that one lacks.

use super::CpuidEntry;

/// A register of a leaf that is a set of features, one bit each.
struct Word {
    function: u32,
    index: u32,
    register: Register,
    /// Bits that are not features of the processor: they follow from control registers, the
    /// machine's size, or the hypervisor's local APICs, or say that something is deprecated.
    ignored: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    const fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }

    const fn of(self, entry: &CpuidEntry) -> u32 {
        match self {
            Self::Eax => entry.eax,
            Self::Ebx => entry.ebx,
            Self::Ecx => entry.ecx,
            Self::Edx => entry.edx,
        }
    }

    const fn of_mut(self, entry: &mut CpuidEntry) -> &mut u32 {
        match self {
            Self::Eax => &mut entry.eax,
            Self::Ebx => &mut entry.ebx,
            Self::Ecx => &mut entry.ecx,
            Self::Edx => &mut entry.edx,
        }
    }
}

const fn word(function: u32, index: u32, register: Register, ignored: u32) -> Word {
    Word { function, index, register, ignored }
}

/// Leaf of the state components, and of KVM's paravirtual features.
const XSTATE: u32 = 0xd;
const PARAVIRTUAL: u32 = 0x4000_0001;
/// Legacy region and header of an XSAVE area (Intel SDM vol. 1, 13.4).
const XSAVE_HEADER_END: u32 = 576;

/// All sets of features (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; KVM's CPUID
/// documentation).
const WORDS: [Word; 14] = [
    // x2APIC, TSC deadline, OSXSAVE, hypervisor.
    word(1, 0, Register::Ecx, 1 << 21 | 1 << 24 | 1 << 27 | 1 << 31),
    // APIC, hyper-threading.
    word(1, 0, Register::Edx, 1 << 9 | 1 << 28),
    // FPU data pointer only at exceptions, no FPU CS and DS.
    word(7, 0, Register::Ebx, 1 << 6 | 1 << 13),
    // OSPKE.
    word(7, 0, Register::Ecx, 1 << 4),
    word(7, 0, Register::Edx, 0),
    word(7, 1, Register::Eax, 0),
    word(7, 1, Register::Edx, 0),
    word(XSTATE, 0, Register::Eax, 0),
    word(XSTATE, 0, Register::Edx, 0),
    word(XSTATE, 1, Register::Eax, 0),
    word(0x8000_0001, 0, Register::Ecx, 1 << 1),
    word(0x8000_0001, 0, Register::Edx, 1 << 9),
    word(0x8000_0008, 0, Register::Ebx, 0),
    word(PARAVIRTUAL, 0, Register::Eax, 0),
];

/// Names of features that guests use, by function, register and bit.
const NAMES: [(u32, Register, u32, &str); 30] = [
    (1, Register::Ecx, 0, "SSE3"),
    (1, Register::Ecx, 1, "PCLMULQDQ"),
    (1, Register::Ecx, 3, "MONITOR"),
    (1, Register::Ecx, 5, "VMX"),
    (1, Register::Ecx, 9, "SSSE3"),
    (1, Register::Ecx, 12, "FMA"),
    (1, Register::Ecx, 13, "CMPXCHG16B"),
    (1, Register::Ecx, 17, "PCID"),
    (1, Register::Ecx, 19, "SSE4.1"),
    (1, Register::Ecx, 20, "SSE4.2"),
    (1, Register::Ecx, 22, "MOVBE"),
    (1, Register::Ecx, 23, "POPCNT"),
    (1, Register::Ecx, 25, "AES"),
    (1, Register::Ecx, 26, "XSAVE"),
    (1, Register::Ecx, 28, "AVX"),
    (1, Register::Ecx, 29, "F16C"),
    (1, Register::Ecx, 30, "RDRAND"),
    (1, Register::Edx, 1, "VME"),
    (1, Register::Edx, 12, "MTRR"),
    (1, Register::Edx, 14, "MCA"),
    (1, Register::Edx, 17, "PSE-36"),
    (7, Register::Ebx, 0, "FSGSBASE"),
    (7, Register::Ebx, 3, "BMI1"),
    (7, Register::Ebx, 5, "AVX2"),
    (7, Register::Ebx, 8, "BMI2"),
    (7, Register::Ebx, 10, "INVPCID"),
    (7, Register::Ebx, 16, "AVX512F"),
    (0x8000_0001, Register::Ecx, 2, "SVM"),
    (0x8000_0001, Register::Edx, 27, "RDTSCP"),
    (PARAVIRTUAL, Register::Eax, 3, "KVM's paravirtual clock"),
];

impl Word {
    fn is_in(&self, entry: &CpuidEntry) -> bool {
        entry.function == self.function && entry.index.unwrap_or(0) == self.index
    }

    /// The features of this word in `leaves`; none without the leaf.
    fn of(&self, leaves: &[CpuidEntry]) -> u32 {
        leaves.iter().find(|entry| self.is_in(entry)).map_or(0, |entry| self.register.of(entry))
    }

    fn name(&self, bit: u32) -> String {
        let Self { function, index, register, .. } = *self;
        let known = NAMES
            .iter()
            .find(|(f, r, b, _)| index == 0 && (*f, *r, *b) == (function, register, bit))
            .map(|(.., name)| (*name).to_owned());
        known.unwrap_or_else(|| {
            format!(
                "the feature of CPUID leaf {function:#x}, subleaf {index}, {} bit {bit}",
                register.name()
            )
        })
    }
}

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
        let kept = word.of(other) | word.ignored;
        for entry in leaves.iter_mut().filter(|entry| word.is_in(entry)) {
            *word.register.of_mut(entry) &= kept;
        }
    }
    // Extended state: components that went away, and the sizes of an area without them.
    let enabled = leaves.iter().find(|entry| entry.function == XSTATE && entry.index == Some(0));
    let enabled = enabled.map_or(0, |entry| entry.eax);
    let is_enabled = |component: u32| enabled.checked_shr(component).unwrap_or(0) & 1 == 1;
    let mut size = XSAVE_HEADER_END;
    for entry in leaves.iter_mut().filter(|entry| entry.function == XSTATE) {
        match entry.index {
            Some(component @ 2..) if is_enabled(component) => {
                size = size.max(entry.eax.saturating_add(entry.ebx));
            }
            Some(2..) => {
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
            Some(1) => (entry.ebx, entry.ecx, entry.edx) = (size, 0, 0),
            _ => {}
        }
    }
    leaves
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
        assert_eq!(missing_feature(&shown, &without_avx2).as_deref(), Some("AVX2"));
        assert_eq!(missing_feature(&shown, &[]).as_deref(), Some("AVX"));
        let odd = [leaf(7, Some(1), [1 << 4, 0, 0, 0])];
        let name = missing_feature(&odd, &shown).unwrap();
        assert_eq!(name, "the feature of CPUID leaf 0x7, subleaf 1, EAX bit 4");
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
