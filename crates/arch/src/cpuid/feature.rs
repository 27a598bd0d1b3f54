//! Features by name: which need others, and which each 64-bit processor or each machine has.

use super::CpuidEntry;
use super::word::{WORDS, Word};

/// Features without which no 64-bit kernel starts, and those that say that there is a hypervisor.
pub(super) const FIXED: [&str; 18] = [
    "fpu",
    "pse",
    "tsc",
    "msr",
    "pae",
    "cx8",
    "apic",
    "pge",
    "cmov",
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "syscall",
    "nx",
    "lm",
    "x2apic",
    "hypervisor",
];

/// Features that say how many CPUs there are.
pub(super) const TOPOLOGY: [&str; 2] = ["ht", "cmp_legacy"];

/// Features for kernels that a level has if the host has them: those that each 64-bit processor
/// has, in software too, so that a guest can move there.
const FOR_KERNELS: [&str; 6] = ["de", "mce", "sep", "pat", "clflush", "tsc_deadline_timer"];

/// The levels of the x86-64 psABI (section 3.1.1), each with what it adds to the one before.
const LEVELS: [(&str, &[&str]); 4] = [
    ("x86-64", &[]),
    ("x86-64-v2", &["cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"]),
    ("x86-64-v3", &["xsave", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"]),
    ("x86-64-v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
];

/// A feature, and one that it needs (Intel SDM vol. 1, 13 to 15; AMD APM vol. 2, 11).
const NEEDS: [(&str, &str); 48] = [
    ("ssse3", "pni"),
    ("sse4a", "pni"),
    ("sse4_1", "ssse3"),
    ("sse4_2", "sse4_1"),
    ("xsaveopt", "xsave"),
    ("xsavec", "xsave"),
    ("xgetbv1", "xsave"),
    ("xsaves", "xsavec"),
    ("xsaveerptr", "xsave"),
    ("mpx", "xsave"),
    ("pku", "xsave"),
    ("lwp", "xsave"),
    ("amx_tile", "xsave"),
    ("amx_bf16", "amx_tile"),
    ("amx_int8", "amx_tile"),
    ("enqcmd", "xsaves"),
    ("arch_lbr", "xsaves"),
    ("ibt", "xsaves"),
    ("avx", "xsave"),
    ("avx", "sse4_2"),
    ("fma", "avx"),
    ("f16c", "avx"),
    ("avx2", "avx"),
    ("xop", "avx"),
    ("fma4", "avx"),
    ("vaes", "avx"),
    ("vaes", "aes"),
    ("vpclmulqdq", "avx"),
    ("vpclmulqdq", "pclmulqdq"),
    ("avx_vnni", "avx2"),
    ("avx512f", "avx2"),
    ("avx512f", "fma"),
    ("avx512f", "f16c"),
    ("avx512dq", "avx512f"),
    ("avx512ifma", "avx512f"),
    ("avx512pf", "avx512f"),
    ("avx512er", "avx512f"),
    ("avx512cd", "avx512f"),
    ("avx512bw", "avx512f"),
    ("avx512vl", "avx512f"),
    ("avx512vbmi", "avx512bw"),
    ("avx512_vbmi2", "avx512bw"),
    ("avx512_bitalg", "avx512bw"),
    ("avx512_fp16", "avx512bw"),
    ("avx512_vnni", "avx512f"),
    ("avx512_vpopcntdq", "avx512f"),
    ("avx512_bf16", "avx512bw"),
    ("invpcid", "pcid"),
];

/// Components of the extended state (bits of XCR0) that belong to a feature (Intel SDM vol. 1,
/// 13.1).
pub(super) const COMPONENTS: [(&str, u32); 6] = [
    ("xsave", 3),
    ("avx", 1 << 2),
    ("mpx", 3 << 3),
    ("avx512f", 7 << 5),
    ("pku", 1 << 9),
    ("amx_tile", 3 << 17),
];

/// Other names of features, for suggestions.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("sse3", "pni"),
    ("lzcnt", "abm"),
    ("cmpxchg16b", "cx16"),
    ("osxsave", "xsave"),
    ("sha", "sha_ni"),
    ("sha-ni", "sha_ni"),
    ("prefetchw", "3dnowprefetch"),
    ("tsc-deadline", "tsc_deadline_timer"),
    ("lahf", "lahf_lm"),
];

/// Names of the bases: the host's processor, and the levels.
pub(super) fn bases() -> impl Iterator<Item = &'static str> {
    ["host"].into_iter().chain(LEVELS.iter().map(|(name, _)| *name))
}

/// The features of a level that every host must have, and those that it may have.
pub(super) fn level(name: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let last = LEVELS.iter().position(|(known, _)| *known == name).unwrap_or(0);
    let own = LEVELS.iter().take(last.saturating_add(1)).flat_map(|(_, names)| names.iter());
    (own.copied().collect(), FIXED.into_iter().chain(TOPOLOGY).chain(FOR_KERNELS).collect())
}

/// All named features.
fn all() -> impl Iterator<Item = (&'static Word, u32, &'static str)> {
    WORDS.iter().flat_map(|word| word.names.iter().map(move |(bit, name)| (word, *bit, *name)))
}

/// All names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|(.., name)| name)
}

/// The name that is written so, if there is one.
pub(super) fn find(name: &str) -> Option<&'static str> {
    names().find(|known| *known == name)
}

/// Names of the features that `leaves` have.
pub(super) fn of(leaves: &[CpuidEntry]) -> Vec<&'static str> {
    let is_set = |word: &Word, bit: u32| word.of(leaves).checked_shr(bit).unwrap_or(0) & 1 == 1;
    all().filter(|(word, bit, _)| is_set(word, *bit)).map(|(.., name)| name).collect()
}

/// `names`, and all features that they need.
pub(super) fn with_needs(names: &[&'static str]) -> Vec<&'static str> {
    closure(names, |name| NEEDS.into_iter().filter(move |(of, _)| *of == name).map(|it| it.1))
}

/// `names`, and all features that need them.
pub(super) fn with_dependents(names: &[&'static str]) -> Vec<&'static str> {
    closure(names, |name| NEEDS.into_iter().filter(move |(_, need)| *need == name).map(|it| it.0))
}

fn closure<I: Iterator<Item = &'static str>>(
    names: &[&'static str],
    next: impl Fn(&'static str) -> I,
) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = Vec::new();
    let mut open = names.to_vec();
    while let Some(name) = open.pop() {
        if !all.contains(&name) {
            all.push(name);
            open.extend(next(name));
        }
    }
    all
}

/// Names that are written almost so, or mean this; the closest first, at most four.
pub(super) fn similar(name: &str) -> Vec<&'static str> {
    let same = OTHER_NAMES.iter().filter(|(other, _)| *other == name).map(|(_, known)| *known);
    // Of a name much longer than any feature's, no part is worth comparing.
    let typed: String =
        name.chars().take(32).map(|c| if c == '-' || c == '.' { '_' } else { c }).collect();
    let mut close: Vec<_> = names()
        .map(|known| (strsim::damerau_levenshtein(&typed, known), known))
        .filter(|(distance, known)| {
            *distance <= 1
                || (*distance == 2 && known.len() > 4)
                || known.strip_prefix(&*typed).is_some_and(|_| typed.len() > 2)
        })
        .collect();
    close.sort_unstable();
    let close = close.into_iter().map(|(_, known)| known);
    let mut found: Vec<_> = same.chain(close).collect();
    found.dedup();
    found.truncate(4);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_tables_is_a_feature() {
        let needs = NEEDS.iter().flat_map(|(of, need)| [*of, *need]);
        let levels = LEVELS.iter().flat_map(|(_, names)| names.iter().copied());
        let others = OTHER_NAMES.iter().map(|(_, name)| *name);
        let components = COMPONENTS.iter().map(|(name, _)| *name);
        let all = needs.chain(levels).chain(others).chain(components).chain(FIXED);
        for name in all.chain(FOR_KERNELS).chain(TOPOLOGY) {
            assert_eq!(find(name), Some(name));
        }
        let mut sorted: Vec<_> = names().collect();
        sorted.sort_unstable();
        assert!(sorted.windows(2).all(|pair| pair[0] != pair[1]), "a name stands for two bits");
    }

    #[test]
    fn a_level_has_what_its_features_need() {
        for base in bases().skip(1) {
            let (own, usual) = level(base);
            for need in with_needs(&own) {
                assert!(own.contains(&need) || usual.contains(&need), "{base}: {need}");
            }
        }
    }

    #[test]
    fn slips_are_close_to_a_name() {
        for (slip, name) in [
            ("sse3", "pni"),
            ("lzcnt", "abm"),
            ("sse4.1", "sse4_1"),
            ("rdrnd", "rdrand"),
            ("avx-512f", "avx512f"),
            ("tsc-deadline", "tsc_deadline_timer"),
            ("avx512", "avx512f"),
        ] {
            assert!(similar(slip).contains(&name), "{slip}: {:?}", similar(slip));
        }
        assert_eq!(similar("nosuchfeature"), [""; 0]);
        assert!(similar(&"a".repeat(1 << 20)).is_empty());
    }
}
