//! The registers of CPUID that are sets of features, and the features' names.

use super::CpuidEntry;

/// A register of a leaf that is a set of features, one bit each.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) function: u32,
    pub(super) index: u32,
    pub(super) register: Register,
    /// Bits that are not features of the processor: they follow from control registers, the
    /// machine's size, or the hypervisor's local APICs, or say that something is deprecated.
    pub(super) ignored: u32,
    /// Bits and their names, which are those that Linux prints in `/proc/cpuinfo`
    /// (arch/x86/include/asm/cpufeatures.h). Bits that it does not print have none.
    pub(super) names: &'static [(u32, &'static str)],
}

/// A register that CPUID writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl Register {
    pub(super) const fn name(self) -> &'static str {
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

impl Word {
    const fn new(function: u32, index: u32, register: Register) -> Self {
        Self { function, index, register, ignored: 0, names: &[] }
    }

    const fn ignoring(self, ignored: u32) -> Self {
        Self { ignored, ..self }
    }

    const fn named(self, names: &'static [(u32, &'static str)]) -> Self {
        Self { names, ..self }
    }

    fn is_in(&self, entry: &CpuidEntry) -> bool {
        entry.function == self.function && entry.index.unwrap_or(0) == self.index
    }

    /// The features of this word in `leaves`; none without the leaf.
    pub(super) fn of(&self, leaves: &[CpuidEntry]) -> u32 {
        leaves.iter().find(|entry| self.is_in(entry)).map_or(0, |entry| self.register.of(entry))
    }

    /// Clears the features that are not in `kept`.
    pub(super) fn mask(&self, leaves: &mut [CpuidEntry], kept: u32) {
        for entry in leaves.iter_mut().filter(|entry| self.is_in(entry)) {
            *self.register.of_mut(entry) &= kept;
        }
    }

    /// Name of a feature for people.
    pub(super) fn name(&self, bit: u32) -> String {
        if let Some((_, name)) = self.names.iter().find(|(known, _)| *known == bit) {
            return (*name).to_owned();
        }
        let Self { function, index, register, .. } = self;
        if (*function, bit) == (PARAVIRTUAL, 3) {
            return "KVM's paravirtual clock".to_owned();
        }
        let register = register.name();
        format!("the feature of CPUID leaf {function:#x}, subleaf {index}, {register} bit {bit}")
    }
}

/// Leaf of the state components, and of KVM's paravirtual features.
pub(super) const XSTATE: u32 = 0xd;
pub(super) const PARAVIRTUAL: u32 = 0x4000_0001;

/// All sets of features (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; KVM's CPUID
/// documentation).
#[rustfmt::skip]
pub(super) static WORDS: [Word; 14] = [
    // x2APIC, TSC deadline, OSXSAVE, hypervisor.
    Word::new(1, 0, Register::Ecx).ignoring(1 << 21 | 1 << 24 | 1 << 27 | 1 << 31).named(&[
        (0, "pni"), (1, "pclmulqdq"), (2, "dtes64"), (3, "monitor"), (4, "ds_cpl"), (5, "vmx"),
        (6, "smx"), (7, "est"), (8, "tm2"), (9, "ssse3"), (10, "cid"), (11, "sdbg"), (12, "fma"),
        (13, "cx16"), (14, "xtpr"), (15, "pdcm"), (17, "pcid"), (18, "dca"), (19, "sse4_1"),
        (20, "sse4_2"), (21, "x2apic"), (22, "movbe"), (23, "popcnt"), (24, "tsc_deadline_timer"),
        (25, "aes"), (26, "xsave"), (28, "avx"), (29, "f16c"), (30, "rdrand"), (31, "hypervisor"),
    ]),
    // APIC, hyper-threading.
    Word::new(1, 0, Register::Edx).ignoring(1 << 9 | 1 << 28).named(&[
        (0, "fpu"), (1, "vme"), (2, "de"), (3, "pse"), (4, "tsc"), (5, "msr"), (6, "pae"),
        (7, "mce"), (8, "cx8"), (9, "apic"), (11, "sep"), (12, "mtrr"), (13, "pge"), (14, "mca"),
        (15, "cmov"), (16, "pat"), (17, "pse36"), (18, "pn"), (19, "clflush"), (21, "dts"),
        (22, "acpi"), (23, "mmx"), (24, "fxsr"), (25, "sse"), (26, "sse2"), (27, "ss"), (28, "ht"),
        (29, "tm"), (30, "ia64"), (31, "pbe"),
    ]),
    // FPU data pointer only at exceptions, no FPU CS and DS.
    Word::new(7, 0, Register::Ebx).ignoring(1 << 6 | 1 << 13).named(&[
        (0, "fsgsbase"), (1, "tsc_adjust"), (2, "sgx"), (3, "bmi1"), (4, "hle"), (5, "avx2"),
        (7, "smep"), (8, "bmi2"), (9, "erms"), (10, "invpcid"), (11, "rtm"), (12, "cqm"),
        (14, "mpx"), (15, "rdt_a"), (16, "avx512f"), (17, "avx512dq"), (18, "rdseed"), (19, "adx"),
        (20, "smap"), (21, "avx512ifma"), (23, "clflushopt"), (24, "clwb"), (25, "intel_pt"),
        (26, "avx512pf"), (27, "avx512er"), (28, "avx512cd"), (29, "sha_ni"), (30, "avx512bw"),
        (31, "avx512vl"),
    ]),
    // OSPKE.
    Word::new(7, 0, Register::Ecx).ignoring(1 << 4).named(&[
        (1, "avx512vbmi"), (2, "umip"), (3, "pku"), (5, "waitpkg"), (6, "avx512_vbmi2"),
        (8, "gfni"), (9, "vaes"), (10, "vpclmulqdq"), (11, "avx512_vnni"), (12, "avx512_bitalg"),
        (13, "tme"), (14, "avx512_vpopcntdq"), (16, "la57"), (22, "rdpid"),
        (24, "bus_lock_detect"), (25, "cldemote"), (27, "movdiri"), (28, "movdir64b"),
        (29, "enqcmd"), (30, "sgx_lc"),
    ]),
    Word::new(7, 0, Register::Edx).named(&[
        (2, "avx512_4vnniw"), (3, "avx512_4fmaps"), (4, "fsrm"), (8, "avx512_vp2intersect"),
        (10, "md_clear"), (14, "serialize"), (16, "tsxldtrk"), (18, "pconfig"), (19, "arch_lbr"),
        (20, "ibt"), (22, "amx_bf16"), (23, "avx512_fp16"), (24, "amx_tile"), (25, "amx_int8"),
        (28, "flush_l1d"), (29, "arch_capabilities"),
    ]),
    Word::new(7, 1, Register::Eax).named(&[(4, "avx_vnni"), (5, "avx512_bf16"), (26, "lam")]),
    Word::new(7, 1, Register::Edx),
    Word::new(XSTATE, 0, Register::Eax),
    Word::new(XSTATE, 0, Register::Edx),
    Word::new(XSTATE, 1, Register::Eax).named(&[
        (0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1"), (3, "xsaves"),
    ]),
    // Number of cores.
    Word::new(0x8000_0001, 0, Register::Ecx).ignoring(1 << 1).named(&[
        (0, "lahf_lm"), (1, "cmp_legacy"), (2, "svm"), (3, "extapic"), (4, "cr8_legacy"),
        (5, "abm"), (6, "sse4a"), (7, "misalignsse"), (8, "3dnowprefetch"), (9, "osvw"),
        (10, "ibs"), (11, "xop"), (12, "skinit"), (13, "wdt"), (15, "lwp"), (16, "fma4"),
        (17, "tce"), (19, "nodeid_msr"), (21, "tbm"), (22, "topoext"), (23, "perfctr_core"),
        (24, "perfctr_nb"), (26, "bpext"), (27, "ptsc"), (28, "perfctr_llc"), (29, "mwaitx"),
    ]),
    // APIC.
    Word::new(0x8000_0001, 0, Register::Edx).ignoring(1 << 9).named(&[
        (11, "syscall"), (19, "mp"), (20, "nx"), (22, "mmxext"), (25, "fxsr_opt"),
        (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm"), (30, "3dnowext"), (31, "3dnow"),
    ]),
    Word::new(0x8000_0008, 0, Register::Ebx).named(&[
        (0, "clzero"), (1, "irperf"), (2, "xsaveerptr"), (4, "rdpru"), (9, "wbnoinvd"),
    ]),
    Word::new(PARAVIRTUAL, 0, Register::Eax),
];
