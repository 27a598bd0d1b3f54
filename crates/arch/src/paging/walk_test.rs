use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CR3: u64 = 0x1000;
const USABLE: u64 = PRESENT | WRITABLE | USER;

/// Guest memory of which only these words exist, all others in the first 64 KiB being zero.
fn memory(words: &[(u64, u64)]) -> impl Fn(u64) -> Option<u64> + use<> {
    let words: BTreeMap<u64, u64> = words.iter().copied().collect();
    move |addr| words.get(&addr).copied().or((addr < 0x10000).then_some(0))
}

/// Tables that lead `vaddr` through 0x1000, 0x2000, 0x3000 and 0x4000 to the page entry `leaf` on
/// `level`.
fn path(vaddr: u64, level: u8, leaf: u64) -> Vec<(u64, u64)> {
    let slot =
        |level: u8| 0x1000 * (5 - u64::from(level)) + ((vaddr >> (12 + 9 * (level - 1))) & 511) * 8;
    let mut words: Vec<_> = (level + 1..=4)
        .map(|upper| (slot(upper), (0x1000 * (6 - u64::from(upper))) | USABLE))
        .collect();
    words.push((slot(level), leaf));
    words
}

fn walk_path(vaddr: u64, level: u8, leaf: u64) -> Result<Translation, WalkError> {
    walk(CR3, vaddr, memory(&path(vaddr, level, leaf)))
}

#[test]
fn pages_of_all_sizes() {
    let vaddr = 0xffff_9234_5678_9abc;
    let cases = [
        (1, 0x000a_bcde_f012_3000, 0x000a_bcde_f012_3abc, 1 << 12),
        (2, 0x000a_bcde_f000_0000, 0x000a_bcde_f018_9abc, 1 << 21),
        (3, 0x000a_bcde_c000_0000, 0x000a_bcde_d678_9abc, 1 << 30),
    ];
    for (level, page, phys, page_size) in cases {
        let large = if level == 1 { 0 } else { LARGE };
        let flags = Flags { writable: true, user: true, executable: true };
        assert_eq!(
            walk_path(vaddr, level, page | USABLE | large),
            Ok(Translation { phys, page_size, flags })
        );
    }
}

#[test]
fn rights_are_those_of_all_levels() {
    let vaddr = 0x1234_5000;
    let leaf = 0x8000 | USABLE;
    let flags = |words: &[(u64, u64)]| walk(CR3, vaddr, memory(words)).unwrap().flags;
    let all = path(vaddr, 1, leaf);
    assert_eq!(flags(&all), Flags { writable: true, user: true, executable: true });
    for level in 0..4 {
        let mut words = all.clone();
        words[level].1 &= !WRITABLE;
        assert!(!flags(&words).writable);
        let mut words = all.clone();
        words[level].1 &= !USER;
        assert!(!flags(&words).user);
        let mut words = all.clone();
        words[level].1 |= NO_EXECUTE;
        assert!(!flags(&words).executable);
    }
}

#[test]
fn bits_that_are_no_address_are_ignored() {
    let vaddr = 0x7fff_ffff_ffff;
    let software = 0x7ff0_0000_0000_0e00;
    // Global, dirty, accessed, PAT on level 1, protection key, software bits.
    let words: Vec<_> = path(vaddr, 1, 0x8000 | USABLE | 0x1f8)
        .into_iter()
        .map(|(addr, entry)| (addr, entry | software))
        .collect();
    // PCID and the bit that keeps the TLB in CR3.
    let found = walk(CR3 | 0x8000_0000_0000_0fff, vaddr, memory(&words)).unwrap();
    assert_eq!(found.phys, 0x8fff);
    // The PAT bit of large pages is bit 12.
    for (level, page) in [(2, 0x60_0000), (3, 0x4000_0000)] {
        let found = walk_path(0, level, page | 1 << 12 | LARGE | USABLE).unwrap();
        assert_eq!(found.phys, page);
    }
}

#[test]
fn canonical_addresses_only() {
    for vaddr in [1 << 47, 0xffff_7fff_ffff_ffff, 0x8000_0000_0000_0000] {
        assert_eq!(walk(CR3, vaddr, |_| panic!("read")), Err(WalkError::NotCanonical { vaddr }));
    }
    for vaddr in [0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
        assert_eq!(walk(CR3, vaddr, memory(&[])), Err(WalkError::NotPresent { vaddr, level: 4 }));
    }
}

#[test]
fn missing_entries_name_their_level() {
    let vaddr = 0x1_2345_6789;
    for level in 1..=4 {
        let entry = 0x8000 | WRITABLE | USER;
        assert_eq!(walk_path(vaddr, level, entry), Err(WalkError::NotPresent { vaddr, level }));
    }
}

#[test]
fn reserved_bits_are_refused() {
    let vaddr = 0x1_2345_6789;
    let cases = [
        (4, 0x8000 | LARGE),
        (3, 0x4000_2000 | LARGE),
        (3, 0x6000_0000 | LARGE),
        (2, 0x20_2000 | LARGE),
        (2, 0x30_0000 | LARGE),
    ];
    for (level, bits) in cases {
        let entry = bits | USABLE;
        assert_eq!(
            walk_path(vaddr, level, entry),
            Err(WalkError::Reserved { vaddr, level, entry })
        );
    }
}

#[test]
fn tables_outside_memory_are_named() {
    let vaddr = 0x5000;
    let far = 0x000f_ffff_ffff_f000;
    for level in 2..=4 {
        let expected = WalkError::BadTable { vaddr, level: level - 1, table: far };
        assert_eq!(walk_path(vaddr, level, far | USABLE), Err(expected));
    }
    assert_eq!(
        walk(far, vaddr, memory(&[])),
        Err(WalkError::BadTable { vaddr, level: 4, table: far })
    );
}

#[test]
fn a_table_that_refers_to_itself_ends_after_four_reads() {
    let mut reads = 0;
    let found = walk(CR3, u64::MAX, |_| {
        reads += 1;
        Some(CR3 | USABLE)
    });
    assert_eq!((found.unwrap().phys, reads), (CR3 | 0xfff, 4));
}

/// The tables of a processor in 64-bit mode with these bits of CR4.
fn root(cr4: u64) -> Root {
    let regs = SpecialRegs { cr0: CR0_PG, cr3: CR3, cr4, efer: EFER_LMA, ..SpecialRegs::default() };
    Root::of(&regs).unwrap()
}

#[test]
fn the_registers_decide_the_number_of_levels() {
    assert_eq!(root(0x20), Root::from(CR3));
    assert_eq!(root(0x20 | CR4_LA57).levels, 5);
    let regs = SpecialRegs { cr0: CR0_PG, efer: EFER_LMA, ..SpecialRegs::default() };
    assert_eq!(Root::of(&SpecialRegs { cr0: 0x60000010, ..regs }), None, "no paging");
    assert_eq!(Root::of(&SpecialRegs { efer: 0x100, ..regs }), None, "not in 64-bit mode");
}

#[test]
fn five_levels_translate_57_bits() {
    // Slot 0x1a5 of the fifth level leads to the tables of the other four.
    let low = 0x1234_5678_9abc;
    for top in [0x00a5_u64, 0x01a5] {
        let vaddr = ((top << 55).cast_signed() >> 7).cast_unsigned() | low;
        let lower = path(low, 1, 0x8000 | USABLE)
            .into_iter()
            .map(|(at, entry)| (at + 0x1000, entry + 0x1000));
        let mut words: Vec<_> = lower.collect();
        words.push((0x1000 + top * 8, 0x2000 | USABLE));
        let found = walk(root(CR4_LA57), vaddr, memory(&words)).unwrap();
        assert_eq!((found.phys, found.page_size), (0x9abc, 0x1000));
        assert_eq!(walk(root(0), vaddr, memory(&words)), Err(WalkError::NotCanonical { vaddr }));
        let rest: Vec<_> = chunks(root(CR4_LA57), vaddr, 8, memory(&words)).collect();
        assert_eq!(rest, [Ok((0x9abc, 8))]);
        let last = words.len() - 1;
        words[last].1 &= !USER;
        assert!(
            !walk(root(CR4_LA57), vaddr, memory(&words)).unwrap().flags.user,
            "rights of all levels"
        );
        words[last].1 |= LARGE;
        let entry = words[last].1;
        let reserved = WalkError::Reserved { vaddr, level: 5, entry };
        assert_eq!(walk(root(CR4_LA57), vaddr, memory(&words)), Err(reserved));
        words[last].1 = 0;
        let missing = WalkError::NotPresent { vaddr, level: 5 };
        assert_eq!(walk(root(CR4_LA57), vaddr, memory(&words)), Err(missing));
    }
}

#[test]
fn five_levels_have_canonical_addresses_of_their_own() {
    let root = root(CR4_LA57);
    for vaddr in [1 << 56, 0xfeff_ffff_ffff_ffff, 1 << 63] {
        assert_eq!(walk(root, vaddr, |_| panic!("read")), Err(WalkError::NotCanonical { vaddr }));
    }
    for vaddr in [1 << 47, (1 << 56) - 1, 0xff00_0000_0000_0000, u64::MAX] {
        assert_eq!(walk(root, vaddr, memory(&[])), Err(WalkError::NotPresent { vaddr, level: 5 }));
    }
    let mut reads = 0;
    let found = walk(root, u64::MAX, |_| {
        reads += 1;
        Some(CR3 | USABLE)
    });
    assert_eq!((found.unwrap().phys, reads), (CR3 | 0xfff, 5));
}

#[test]
fn chunks_follow_the_pages() {
    let vaddr = 0x40_1ffe;
    let mut words = path(vaddr, 1, 0x8000 | USABLE);
    words.extend(path(vaddr + 2, 1, 0x6000 | USABLE));
    let collect = |len| chunks(CR3, vaddr, len, memory(&words)).collect::<Vec<_>>();
    assert_eq!(collect(0), []);
    assert_eq!(collect(1), [Ok((0x8ffe, 1))]);
    assert_eq!(collect(2), [Ok((0x8ffe, 2))]);
    assert_eq!(collect(0x1002), [Ok((0x8ffe, 2)), Ok((0x6000, 0x1000))]);
    // It ends with the first error, however much is left.
    let missing = WalkError::NotPresent { vaddr: 0x40_3000, level: 1 };
    assert_eq!(collect(u64::MAX), [Ok((0x8ffe, 2)), Ok((0x6000, 0x1000)), Err(missing)]);
}

#[test]
fn chunks_end_at_the_edges_of_the_address_space() {
    let last: Vec<_> = chunks(CR3, u64::MAX, 3, |_| Some(CR3 | USABLE)).take(9).collect();
    // Wrapping to address 0 is what the CPU does too; 0 is mapped here.
    assert_eq!(last, [Ok((0x1fff, 1)), Ok((0x1000, 2))]);
    let hole: Vec<_> = chunks(CR3, 0x7fff_ffff_ffff, 2, |_| Some(CR3 | USABLE)).collect();
    assert_eq!(hole, [Ok((0x1fff, 1)), Err(WalkError::NotCanonical { vaddr: 1 << 47 })]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the tables: a read a level, all of them aligned and below 2^52, and an answer
    /// within the page.
    #[test]
    fn any_tables_are_survived(
        cr3: u64, vaddr: u64, entries in proptest::collection::vec(any::<u64>(), 5), present: bool, five: bool
    ) {
        let root = Root { cr3, levels: if five { 5 } else { 4 } };
        let mut next = entries.iter();
        let mut reads = 0;
        let result = walk(root, vaddr, |addr| {
            reads += 1;
            assert!(addr % 8 == 0 && addr < 1 << 52);
            next.next().map(|entry| entry | u64::from(present))
        });
        prop_assert!(reads <= root.levels);
        if let Ok(found) = result {
            prop_assert!([1 << 12, 1 << 21, 1 << 30].contains(&found.page_size));
            prop_assert!(found.phys < 1 << 52);
            prop_assert_eq!(found.phys % found.page_size, vaddr % found.page_size);
        }
    }
}
