//! CPUID for a guest: what the hypervisor supports on this host, made to describe the guest's own
//! CPUs.
//!
//! A hypervisor such as KVM reports the leaves it can offer, but leaves the topology (which CPU of
//! how many this is) to the VMM. Each rule here is one function over the list of leaves. A rule
//! changes what is there and adds only what the host's highest leaf allows; a host that lacks a
//! leaf is no error.
//!
//! The guest sees one package of one-thread cores with private first and second level caches. **The
//! APIC id of a vCPU is its index**, in every leaf that has one.

mod amd;
mod compare;
mod feature;
mod model;
mod topology;
mod word;

pub use compare::{common, missing_feature};
pub use model::{CpuModel, ModelError, Offer};

/// One CPUID leaf or subleaf (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CpuidEntry {
    /// The leaf: EAX before the instruction.
    pub function: u32,
    /// The subleaf, ECX before the instruction, if the leaf has subleaves.
    pub index: Option<u32>,
    /// The resulting EAX.
    pub eax: u32,
    /// The resulting EBX.
    pub ebx: u32,
    /// The resulting ECX.
    pub ecx: u32,
    /// The resulting EDX.
    pub edx: u32,
}

/// Which CPU of which guest the leaves are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// The index of the vCPU, which becomes its APIC id.
    pub vcpu_index: u32,
    /// Number of vCPUs of the guest.
    pub vcpu_count: u32,
    /// `true` if the hypervisor's APIC timer has the TSC-deadline mode.
    pub tsc_deadline: bool,
}

impl Guest {
    /// Number of low APIC id bits that number the cores of the package.
    fn core_bits(&self) -> u32 {
        let last = self.vcpu_count.max(1).saturating_sub(1);
        u32::BITS.saturating_sub(last.leading_zeros())
    }

    /// Number of APIC ids of the package: the CPU count rounded up to a power of two.
    fn core_ids(&self) -> u32 {
        1_u32.checked_shl(self.core_bits()).unwrap_or(u32::MAX)
    }
}

/// The host's leaves made fit for one vCPU of a guest, sorted by leaf and subleaf.
#[must_use]
pub fn for_guest(host: &[CpuidEntry], guest: &Guest) -> Vec<CpuidEntry> {
    let mut leaves = Leaves(host.to_vec());
    features(&mut leaves, guest);
    topology::caches(&mut leaves, guest);
    topology::extended(&mut leaves, guest);
    no_performance_counters(&mut leaves);
    brand(&mut leaves);
    if leaves.is_amd() {
        amd::core_count(&mut leaves, guest);
        amd::caches(&mut leaves, guest);
        amd::ids(&mut leaves, guest);
    }
    leaves.0.sort_by_key(|entry| (entry.function, entry.index));
    leaves.0
}

/// The list of leaves while rules work on it.
#[derive(Debug)]
struct Leaves(Vec<CpuidEntry>);

impl Leaves {
    /// All entries of a leaf.
    fn of(&mut self, function: u32) -> impl Iterator<Item = &mut CpuidEntry> {
        self.0.iter_mut().filter(move |entry| entry.function == function)
    }

    fn get(&self, function: u32) -> Option<&CpuidEntry> {
        self.0.iter().find(|entry| entry.function == function)
    }

    /// `true` if the host has a leaf, by the highest one of its class (EAX of leaves 0 and
    /// 0x80000000).
    fn reaches(&self, function: u32) -> bool {
        self.get(function & 0x8000_0000).is_some_and(|entry| entry.eax >= function)
    }

    /// Puts `entries` in the place of all entries of `function`, if the host reaches that leaf.
    fn replace(&mut self, function: u32, entries: impl IntoIterator<Item = CpuidEntry>) {
        if self.reaches(function) {
            self.0.retain(|entry| entry.function != function);
            self.0.extend(entries);
        }
    }

    /// The vendor string in EBX, EDX, ECX of leaf 0.
    fn is_amd(&self) -> bool {
        let vendor =
            |entry: &CpuidEntry| [entry.ebx, entry.edx, entry.ecx].map(u32::to_le_bytes).concat();
        let vendor = self.get(0).map(vendor).unwrap_or_default();
        vendor == b"AuthenticAMD" || vendor == b"HygonGenuine"
    }
}

/// Leaf 1, feature information (SDM vol. 2, tables 3-10 and 3-11): the initial APIC id, the number
/// of APIC ids in the package, and the features a hypervisor must add or take away.
fn features(leaves: &mut Leaves, guest: &Guest) {
    const PDCM: u32 = 1 << 15;
    const X2APIC: u32 = 1 << 21;
    const TSC_DEADLINE: u32 = 1 << 24;
    const HYPERVISOR: u32 = 1 << 31;
    const MSR: u32 = 1 << 5;
    const APIC: u32 = 1 << 9;
    const HTT: u32 = 1 << 28;
    for leaf in leaves.of(1) {
        let id = guest.vcpu_index & 0xff;
        let ids = guest.core_ids().min(0xff);
        leaf.ebx = leaf.ebx & 0xffff | ids << 16 | id << 24;
        leaf.ecx = leaf.ecx & !(TSC_DEADLINE | PDCM) | HYPERVISOR | X2APIC;
        if guest.tsc_deadline {
            leaf.ecx |= TSC_DEADLINE;
        }
        leaf.edx = leaf.edx & !HTT | MSR | APIC;
        if guest.vcpu_count > 1 {
            leaf.edx |= HTT;
        }
    }
}

/// Leaf 0xA (SDM vol. 2, architectural performance monitoring) and its AMD counterpart 0x80000022
/// say that there are no counters; so do the AMD feature bits for them (APM vol. 3, E.4.2). A
/// counter that counts the host is of no use to a guest, and lets it watch the host.
fn no_performance_counters(leaves: &mut Leaves) {
    const PERF_CTR_CORE: u32 = 1 << 23;
    const PERF_CTR_NB: u32 = 1 << 24;
    const PERF_CTR_LLC: u32 = 1 << 28;
    for function in [0xa, 0x8000_0022] {
        for leaf in leaves.of(function) {
            *leaf = CpuidEntry { function, index: leaf.index, ..CpuidEntry::default() };
        }
    }
    if leaves.is_amd() {
        for leaf in leaves.of(0x8000_0001) {
            leaf.ecx &= !(PERF_CTR_CORE | PERF_CTR_NB | PERF_CTR_LLC);
        }
    }
}

/// The brand string, 48 bytes padded with NUL.
const BRAND: [u8; 48] = {
    let text = *b"Nerite unikernel hypervisor";
    let mut bytes = [0; 48];
    let (head, _) = bytes.split_at_mut(text.len());
    head.copy_from_slice(&text);
    bytes
};

/// Leaves 0x80000002 to 0x80000004: the processor brand string (SDM vol. 2, figure 3-9).
fn brand(leaves: &mut Leaves) {
    let (words, _) = BRAND.as_chunks::<4>();
    let (quads, _) = words.as_chunks::<4>();
    for (function, quad) in (0x8000_0002..).zip(quads) {
        let [eax, ebx, ecx, edx] = quad.map(u32::from_le_bytes);
        leaves.replace(function, [CpuidEntry { function, index: None, eax, ebx, ecx, edx }]);
    }
}

#[cfg(test)]
#[path = "cpuid/cpuid_test.rs"]
mod tests;
