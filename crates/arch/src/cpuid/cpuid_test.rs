use proptest::prelude::*;

use super::*;

fn entry(function: u32, index: Option<u32>, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry { function, index, eax, ebx, ecx, edx }
}

const HYPERVISOR: CpuidEntry = CpuidEntry {
    function: 0x4000_0000,
    index: None,
    eax: 0x4000_0001,
    ebx: 0x4b4d_564b,
    ecx: 0x564b_4d56,
    edx: 0x4d,
};

/// An eight-core Intel host as KVM might list it.
fn intel() -> Vec<CpuidEntry> {
    vec![
        // "GenuineIntel"
        entry(0, None, [0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
        entry(1, None, [0x000a_0671, 0x0710_0800, 0x7ffa_b203, 0x1fab_fbff]),
        // L1D, L2, L3, end.
        entry(4, Some(0), [0x1c00_4121, 0x02c0_003f, 63, 0]),
        entry(4, Some(1), [0x1c00_4143, 0x01c0_003f, 1023, 0]),
        entry(4, Some(2), [0x1c03_c163, 0x03c0_003f, 16383, 4]),
        entry(4, Some(3), [0, 0, 0, 0]),
        entry(7, Some(0), [2, 0xd19f_27eb, 0x1b41_5f6e, 0xbc81_4410]),
        entry(0xa, None, [0x0830_0805, 0, 0, 0x8604]),
        entry(0xb, Some(0), [1, 2, 0x100, 7]),
        entry(0xb, Some(1), [4, 16, 0x201, 7]),
        entry(0xd, Some(0), [0xe7, 0x340, 0xa88, 0]),
        entry(0xd, Some(1), [0xf, 0, 0, 0]),
        entry(0x1f, Some(0), [1, 2, 0x100, 7]),
        HYPERVISOR,
        entry(0x4000_0001, None, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
        entry(0x8000_0001, None, [0, 0, 0x121, 0x2c10_0800]),
        entry(0x8000_0002, None, [0x6e49_2068, 1, 2, 3]),
        entry(0x8000_0003, None, [1, 2, 3, 4]),
        entry(0x8000_0004, None, [1, 2, 3, 4]),
        entry(0x8000_0008, None, [0x302e, 0, 0, 0]),
    ]
}

/// An eight-core AMD host as KVM might list it.
fn amd() -> Vec<CpuidEntry> {
    vec![
        // "AuthenticAMD"
        entry(0, None, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        entry(1, None, [0x00a2_0f12, 0x0308_0800, 0xfefa_3203, 0x178b_fbff]),
        entry(0xb, Some(0), [0, 0, 0, 0]),
        HYPERVISOR,
        entry(0x8000_0000, None, [0x8000_0026, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        entry(0x8000_0001, None, [0x00a2_0f12, 0x2000_0000, 0x10c0_11f3 | 0x40_0000, 0x2fd3_fbff]),
        entry(0x8000_0008, None, [0x3030, 0x0111_ed57, 0x400f, 0]),
        entry(0x8000_001d, Some(0), [0x4121, 0x01c0_003f, 63, 0]),
        entry(0x8000_001d, Some(2), [0x4143, 0x01c0_003f, 1023, 2]),
        entry(0x8000_001d, Some(3), [0x1_c163, 0x03c0_003f, 32767, 1]),
        entry(0x8000_001d, Some(4), [0, 0, 0, 0]),
        entry(0x8000_001e, None, [7, 0x107, 3, 0]),
        entry(0x8000_0022, None, [1, 6, 0, 0]),
        entry(0x8000_0026, Some(0), [0x4000_0001, 0x4000_0010, 0x100, 7]),
    ]
}

const fn guest(vcpu_index: u32, vcpu_count: u32) -> Guest {
    Guest { vcpu_index, vcpu_count, tsc_deadline: true }
}

fn find(leaves: &[CpuidEntry], function: u32, index: Option<u32>) -> CpuidEntry {
    let found: Vec<_> =
        leaves.iter().filter(|entry| entry.function == function && entry.index == index).collect();
    assert_eq!(found.len(), 1, "leaf {function:#x} {index:?}");
    *found[0]
}

#[test]
fn the_apic_id_is_the_index_in_every_leaf() {
    for (index, count) in [(0, 1), (1, 2), (2, 3), (15, 16)] {
        let leaves = for_guest(&intel(), &guest(index, count));
        assert_eq!(find(&leaves, 1, None).ebx >> 24, index);
        for function in [0xb, 0x1f] {
            for subleaf in 0..3 {
                assert_eq!(find(&leaves, function, Some(subleaf)).edx, index);
            }
        }
        let leaves = for_guest(&amd(), &guest(index, count));
        assert_eq!(find(&leaves, 1, None).ebx >> 24, index);
        assert_eq!(find(&leaves, 0xb, Some(0)).edx, index);
        assert_eq!(find(&leaves, 0x8000_001e, None).eax, index);
    }
}

#[test]
fn leaf_1_features() {
    let host = intel();
    let leaf = |guest| find(&for_guest(&host, &guest), 1, None);
    let before = find(&host, 1, None);
    let one = leaf(guest(0, 1));
    assert_eq!(one.ecx & 1 << 31, 1 << 31, "hypervisor");
    assert_eq!(one.ecx & 1 << 21, 1 << 21, "x2APIC");
    assert_eq!(one.ecx & 1 << 15, 0, "no PDCM");
    assert_eq!(one.ecx & 1 << 24, 1 << 24, "TSC deadline");
    assert_eq!(one.edx & (1 << 5 | 1 << 9), 1 << 5 | 1 << 9, "MSR, APIC");
    assert_eq!(one.edx & 1 << 28, 0, "one CPU has no HTT");
    assert_eq!(
        (one.eax, one.ebx & 0xffff),
        (before.eax, before.ebx & 0xffff),
        "family and cache line are kept"
    );
    assert_eq!((one.ebx >> 16) & 0xff, 1);
    assert_eq!(leaf(Guest { tsc_deadline: false, ..guest(0, 1) }).ecx & 1 << 24, 0);
    let five = leaf(guest(3, 5));
    assert_eq!(five.edx & 1 << 28, 1 << 28, "HTT");
    assert_eq!((five.ebx >> 16) & 0xff, 8, "ids are counted in powers of two");
}

#[test]
fn leaf_4_counts_cores_and_sharers() {
    let leaves = for_guest(&intel(), &guest(0, 6));
    for (subleaf, sharing) in [(0, 0), (1, 0), (2, 7)] {
        let leaf = find(&leaves, 4, Some(subleaf));
        assert_eq!(leaf.eax >> 26, 7, "cores");
        assert_eq!((leaf.eax >> 14) & 0xfff, sharing, "sharers of cache {subleaf}");
        assert_eq!(leaf.eax & 0x3fff, find(&intel(), 4, Some(subleaf)).eax & 0x3fff);
    }
    assert_eq!(find(&leaves, 4, Some(3)).eax, 0, "the end of the list stays the end");
}

#[test]
fn topology_levels() {
    for (count, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (16, 4)] {
        for function in [0xb, 0x1f] {
            let leaves = for_guest(&intel(), &guest(0, count));
            let level = |index| find(&leaves, function, Some(index));
            assert_eq!((level(0).eax, level(0).ebx, level(0).ecx), (0, 1, 0x100), "threads");
            assert_eq!((level(1).eax, level(1).ebx, level(1).ecx), (bits, count, 0x201), "cores");
            assert_eq!((level(2).eax, level(2).ebx, level(2).ecx), (0, 0, 2), "end");
        }
    }
    let without = intel()
        .into_iter()
        .filter(|entry| ![0xb, 0x1f].contains(&entry.function))
        .collect::<Vec<_>>();
    let leaves = for_guest(&without, &guest(1, 2));
    assert_eq!(find(&leaves, 0xb, Some(1)).edx, 1, "added where the highest leaf allows it");
    assert!(!leaves.iter().any(|entry| entry.function == 0x1f), "only where the host lists it");
}

#[test]
fn performance_counters_are_off() {
    assert_eq!(find(&for_guest(&intel(), &guest(0, 1)), 0xa, None), entry(0xa, None, [0; 4]));
    let leaves = for_guest(&amd(), &guest(0, 1));
    assert_eq!(find(&leaves, 0x8000_0022, None), entry(0x8000_0022, None, [0; 4]));
    assert_eq!(find(&leaves, 0x8000_0001, None).ecx & (1 << 23 | 1 << 24 | 1 << 28), 0);
    let intel_ecx = |leaves: &[CpuidEntry]| find(leaves, 0x8000_0001, None).ecx;
    assert_eq!(intel_ecx(&for_guest(&intel(), &guest(0, 1))), intel_ecx(&intel()));
}

#[test]
fn the_brand_names_the_hypervisor() {
    let leaves = for_guest(&intel(), &guest(0, 1));
    let text: Vec<u8> = (0x8000_0002..=0x8000_0004)
        .map(|function| find(&leaves, function, None))
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .flat_map(u32::to_le_bytes)
        .collect();
    assert_eq!(text.len(), 48);
    assert_eq!(text.strip_prefix(b"Nerite unikernel hypervisor").unwrap(), [0; 21]);
    let all = for_guest(&amd(), &guest(0, 1));
    assert!(
        all.iter().any(|entry| entry.function == 0x8000_0004),
        "added where the highest leaf allows it"
    );
}

#[test]
fn amd_counts_cores() {
    for (count, last, bits) in [(1, 0, 0), (2, 1, 1), (6, 5, 3), (16, 15, 4)] {
        let leaves = for_guest(&amd(), &guest(0, count));
        let sizes = find(&leaves, 0x8000_0008, None);
        assert_eq!((sizes.ecx & 0xff, (sizes.ecx >> 12) & 0xf), (last, bits));
        assert_eq!((sizes.eax, sizes.ebx), (0x3030, 0x0111_ed57), "address sizes are kept");
        assert_eq!(find(&leaves, 0x8000_0001, None).ecx & 2 != 0, count > 1, "CmpLegacy");
        let sharing = |index| (find(&leaves, 0x8000_001d, Some(index)).eax >> 14) & 0xfff;
        assert_eq!((sharing(0), sharing(2), sharing(3)), (0, 0, last));
        assert_eq!(find(&leaves, 0x8000_001d, Some(4)).eax, 0);
        let ids = find(&leaves, 0x8000_001e, None);
        assert_eq!((ids.eax, ids.ebx, ids.ecx), (0, 0, 0));
        assert_eq!(find(&leaves, 0x8000_0026, Some(0)), entry(0x8000_0026, Some(0), [0; 4]));
    }
    // Without topology extensions the leaf is reserved.
    let mut host = amd();
    for leaf in &mut host {
        if leaf.function == 0x8000_0001 {
            leaf.ecx &= !(1 << 22);
        }
    }
    assert_eq!(find(&for_guest(&host, &guest(3, 4)), 0x8000_001e, None).eax, 7);
    // Intel's leaf 0x80000008 has no core count.
    assert_eq!(find(&for_guest(&intel(), &guest(0, 4)), 0x8000_0008, None).ecx, 0);
}

#[test]
fn other_leaves_are_as_the_host_gives_them() {
    let leaves = for_guest(&intel(), &guest(1, 2));
    for (function, index) in
        [(0, None), (7, Some(0)), (0xd, Some(0)), (0xd, Some(1)), (0x4000_0000, None)]
    {
        assert_eq!(find(&leaves, function, index), find(&intel(), function, index));
    }
    assert!(leaves.is_sorted_by_key(|entry| (entry.function, entry.index)));
}

#[test]
fn missing_leaves_are_no_error() {
    assert_eq!(for_guest(&[], &guest(0, 1)), []);
    let host = [entry(0, None, [1, 0, 0, 0]), entry(1, None, [0; 4])];
    let leaves = for_guest(&host, &guest(0, 1));
    assert_eq!(
        leaves.iter().map(|entry| entry.function).collect::<Vec<_>>(),
        [0, 1],
        "no leaf above the highest"
    );
}

fn any_entry() -> impl Strategy<Value = CpuidEntry> {
    let known = proptest::sample::select(&[
        0,
        1,
        4,
        0xa,
        0xb,
        0x1f,
        0x8000_0000,
        0x8000_0001,
        0x8000_0002,
        0x8000_0008,
        0x8000_001d,
        0x8000_001e,
    ]);
    let function = prop_oneof![4 => known, 1 => any::<u32>()];
    (function, proptest::option::of(0_u32..4), any::<[u32; 4]>())
        .prop_map(|(function, index, values)| entry(function, index, values))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a host lists: no panic, and the same leaves apart from what the rules add.
    #[test]
    fn any_host_is_survived(
        host in proptest::collection::vec(any_entry(), 0..20), vcpu_index: u32, vcpu_count: u32, tsc_deadline: bool
    ) {
        let leaves = for_guest(&host, &Guest { vcpu_index, vcpu_count, tsc_deadline });
        for before in &host {
            prop_assert!(leaves.iter().any(|after| after.function == before.function));
        }
        for leaf in leaves.iter().filter(|leaf| leaf.function == 1) {
            prop_assert_eq!(leaf.ebx >> 24, vcpu_index & 0xff);
            prop_assert_eq!(leaf.ecx >> 31, 1);
        }
    }
}
