//! The processor that a guest sees: a base, and features turned on or off.

use std::fmt;
use std::str::FromStr;

use super::CpuidEntry;
use super::compare::trim_state;
use super::feature::{self, COMPONENTS, FIXED, TOPOLOGY};
use super::word::{PARAVIRTUAL, Register, WORDS, XSTATE};

/// The processor that a guest sees, as text `BASE,+name,-name`. The base is `host` (the default),
/// or a level of the x86-64 psABI: `x86-64`, `x86-64-v2`, `x86-64-v3`, `x86-64-v4`. Names are those
/// of `/proc/cpuinfo`.
///
/// With a level the guest sees the features of the level, and no others but those for kernels that
/// 64-bit processors have always had: it runs on each host of that level. A feature that is turned
/// on brings those that it needs; one that is turned off takes those with it that need it.
///
/// Features are hidden, which is what guests go by. A processor executes most instructions
/// nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuModel {
    base: &'static str,
    on: Vec<&'static str>,
    off: Vec<&'static str>,
}

impl Default for CpuModel {
    fn default() -> Self {
        Self { base: HOST, on: Vec::new(), off: Vec::new() }
    }
}

const HOST: &str = "host";
/// Bits of leaf 0x80000001, EDX, that AMD's processors repeat from leaf 1.
const REPEATED: u32 = 0x0183_f3ff;

/// A processor that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The text begins with no base, and with no sign.
    #[error("unknown CPU base `{name}` (expected {}, or features as +name or -name)", Names(&feature::bases().collect::<Vec<_>>()))]
    UnknownBase {
        /// The text.
        name: String,
    },
    /// A feature without a sign.
    #[error("`{name}` has no sign; +{name} turns a CPU feature on, -{name} off")]
    NoSign {
        /// The text.
        name: String,
    },
    /// There is no such feature.
    #[error("unknown CPU feature `{name}`{}", Similar(similar))]
    Unknown {
        /// The text.
        name: String,
        /// Names that are close to it.
        similar: Vec<&'static str>,
    },
    /// A feature that no guest is without.
    #[error("the CPU feature {name} cannot be turned off: no 64-bit guest is without")]
    Fixed {
        /// Name of the feature.
        name: &'static str,
    },
    /// A feature that says how many CPUs there are.
    #[error("the CPU feature {name} follows from the number of vCPUs")]
    Topology {
        /// Name of the feature.
        name: &'static str,
    },
    /// A feature is turned on that another one needs which is turned off, or is the same.
    #[error("the CPU feature {on} cannot be on while {off} is off")]
    Contradiction {
        /// Name of the feature that is turned on.
        on: &'static str,
        /// Name of the feature that is turned off.
        off: &'static str,
    },
    /// Features that the hypervisor does not have on this host.
    #[error(
        "{of} needs CPU features that the hypervisor {hypervisor} lacks on this host: {}",
        Names(missing)
    )]
    Absent {
        /// The feature or base that needs them.
        of: &'static str,
        /// Name of the hypervisor.
        hypervisor: &'static str,
        /// Names of the features.
        missing: Vec<&'static str>,
    },
}

/// Names with commas.
struct Names<'a>(&'a [&'static str]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Names to take instead.
struct Similar<'a>(&'a [&'static str]);

impl fmt::Display for Similar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => Ok(()),
            names => write!(f, " (similar: {})", Names(names)),
        }
    }
}

impl FromStr for CpuModel {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let mut model = Self::default();
        for (place, word) in text.split(',').enumerate() {
            let word = word.trim();
            let (names, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(name), _) => (&mut model.on, name),
                (_, Some(name)) => (&mut model.off, name),
                (None, None) if place == 0 => {
                    let base = feature::bases().find(|base| *base == word);
                    model.base = match base {
                        Some(base) => base,
                        None if feature::find(word).is_some() => {
                            return Err(ModelError::NoSign { name: word.to_owned() });
                        }
                        None => return Err(ModelError::UnknownBase { name: word.to_owned() }),
                    };
                    continue;
                }
                (None, None) => return Err(ModelError::NoSign { name: word.to_owned() }),
            };
            let Some(known) = feature::find(name) else {
                let similar = feature::similar(name);
                return Err(ModelError::Unknown { name: name.to_owned(), similar });
            };
            if TOPOLOGY.contains(&known) {
                return Err(ModelError::Topology { name: known });
            }
            names.push(known);
        }
        if let Some(name) = model.off.iter().find(|name| FIXED.contains(name)) {
            return Err(ModelError::Fixed { name });
        }
        for on in &model.on {
            let needs = feature::with_needs(&[on]);
            if let Some(off) = model.off.iter().find(|off| needs.contains(off)) {
                return Err(ModelError::Contradiction { on, off });
            }
        }
        Ok(model)
    }
}

impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base)?;
        self.on.iter().try_for_each(|name| write!(f, ",+{name}"))?;
        self.off.iter().try_for_each(|name| write!(f, ",-{name}"))
    }
}

impl CpuModel {
    /// The leaves of a guest's CPU, as [`super::for_guest`] returns them for the hypervisor of this
    /// name, with the features of this model.
    ///
    /// # Errors
    /// Fails with [`ModelError::Absent`] if `leaves` lack a feature that the model needs.
    pub fn apply(
        &self,
        leaves: Vec<CpuidEntry>,
        hypervisor: &'static str,
    ) -> Result<Vec<CpuidEntry>, ModelError> {
        if *self == Self::default() {
            return Ok(leaves);
        }
        let shown = self.shown(&feature::of(&leaves), hypervisor)?;
        let hides_nothing = self.base == HOST && self.off.is_empty();
        Ok(if hides_nothing { leaves } else { self.mask(leaves, &shown) })
    }

    /// Names of the features that the guest sees, of those that are `available`.
    fn shown(
        &self,
        available: &[&'static str],
        hypervisor: &'static str,
    ) -> Result<Vec<&'static str>, ModelError> {
        let lacks = |names: &[&'static str]| {
            let missing = names.iter().filter(|name| !available.contains(name));
            let mut missing: Vec<_> = missing.copied().collect();
            missing.sort_unstable();
            missing
        };
        let off = feature::with_dependents(&self.off);
        let mut shown = available.to_vec();
        if self.base != HOST {
            let (mut own, usual) = feature::level(self.base);
            own.retain(|name| !off.contains(name));
            let missing = lacks(&own);
            if !missing.is_empty() {
                return Err(ModelError::Absent { of: self.base, hypervisor, missing });
            }
            shown.retain(|name| own.contains(name) || usual.contains(name));
        }
        for &of in &self.on {
            let needs = feature::with_needs(&[of]);
            let missing = lacks(&needs);
            if !missing.is_empty() {
                return Err(ModelError::Absent { of, hypervisor, missing });
            }
            shown.extend(needs);
        }
        shown.retain(|name| !off.contains(name));
        Ok(shown)
    }

    fn mask(&self, mut leaves: Vec<CpuidEntry>, shown: &[&str]) -> Vec<CpuidEntry> {
        let is_host = self.base == HOST;
        for word in &WORDS {
            let bits = |wanted: &dyn Fn(&str) -> bool| {
                let wanted = word.names.iter().filter(|(_, name)| wanted(name));
                wanted.fold(0, |bits, (bit, _)| bits | 1_u32.wrapping_shl(*bit))
            };
            let unnamed = if is_host { u32::MAX } else { word.ignored };
            let kept = bits(&|name| shown.contains(&name)) | unnamed & !bits(&|_| true);
            let kept = match (word.function, word.index, word.register) {
                (XSTATE, 0, Register::Eax) => components(shown, is_host),
                (XSTATE, 0, Register::Edx) if !is_host || !shown.contains(&"xsave") => 0,
                // Two words of the same features, the first of which is masked already.
                (0x8000_0001, _, Register::Edx) => kept & !REPEATED | basic_features(&leaves),
                (PARAVIRTUAL, ..) if is_host => u32::MAX,
                _ => kept,
            };
            word.mask(&mut leaves, kept);
        }
        trim_state(&mut leaves, if shown.contains(&"xsaves") { u32::MAX } else { 0 });
        if !shown.contains(&"xsave") {
            for entry in leaves.iter_mut().filter(|entry| entry.function == XSTATE) {
                let (function, index) = (entry.function, entry.index);
                *entry = CpuidEntry { function, index, ..CpuidEntry::default() };
            }
        }
        leaves
    }
}

/// Components of the extended state that a guest has.
fn components(shown: &[&str], is_host: bool) -> u32 {
    if !shown.contains(&"xsave") {
        return 0;
    }
    let all = COMPONENTS.iter().fold(0, |all, (_, bits)| all | bits);
    let of = COMPONENTS.iter().filter(|(name, _)| shown.contains(name));
    let of = of.fold(0, |of, (_, bits)| of | bits);
    if is_host { of | !all } else { of }
}

/// The features of leaf 1, EDX, that leaf 0x80000001 repeats.
fn basic_features(leaves: &[CpuidEntry]) -> u32 {
    let basic = leaves.iter().find(|entry| entry.function == 1);
    basic.map_or(0, |entry| entry.edx) & REPEATED
}

/// Features of the guests of a hypervisor on this host, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// Bases that the host has all features of.
    pub bases: Vec<&'static str>,
    /// Features that a guest has unless they are turned off.
    pub optional: Vec<&'static str>,
    /// Features that every guest has.
    pub fixed: Vec<&'static str>,
    /// Features that no guest can have.
    pub absent: Vec<&'static str>,
}

impl Offer {
    /// Features of guests whose leaves are these, as [`super::for_guest`] returns them.
    #[must_use]
    pub fn of(leaves: &[CpuidEntry]) -> Self {
        let mut available = feature::of(leaves);
        available.retain(|name| !TOPOLOGY.contains(name));
        let is_possible = |base: &&'static str| {
            let model = CpuModel { base, ..CpuModel::default() };
            model.shown(&available, "").is_ok()
        };
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        let (fixed, optional) = available.iter().copied().partition(|name| FIXED.contains(name));
        let is_absent = |name: &&str| !available.contains(name) && !TOPOLOGY.contains(name);
        let absent = feature::names().filter(is_absent).collect();
        Self {
            bases: feature::bases().filter(is_possible).collect(),
            optional: sorted(optional),
            fixed: sorted(fixed),
            absent: sorted(absent),
        }
    }
}

#[cfg(test)]
#[path = "model_test.rs"]
mod tests;
