use std::collections::BTreeMap;

use super::*;

const MAP: IdentityMap = IdentityMap {
    pml4: 0x10000,
    tables_start: 0x11000,
    tables_end: 0x38000,
    start: 0,
    end: 4 << 20,
};

/// Guest memory that holds nothing but the tables.
fn memory(tables: &[Table]) -> impl Fn(u64) -> Option<u64> + use<> {
    let pages: BTreeMap<u64, Box<[u8; TABLE_SIZE]>> =
        tables.iter().map(|table| (table.addr, table.bytes.clone())).collect();
    assert_eq!(pages.len(), tables.len(), "two tables share an address");
    move |addr| {
        let page = pages.get(&(addr & !0xfff))?;
        let offset = usize::try_from(addr & 0xfff).unwrap();
        Some(u64::from_le_bytes(page[offset..offset + 8].try_into().unwrap()))
    }
}

#[test]
fn the_tables_of_a_small_guest() {
    let tables = MAP.tables().unwrap();
    let addresses: Vec<_> = tables.iter().map(|table| table.addr).collect();
    assert_eq!(addresses.len(), 3);
    assert_eq!(addresses[0], MAP.pml4, "the root comes first");
    let read = memory(&tables);
    assert_eq!(read(0x10000 + 511 * 8), Some(0x10003), "the root maps itself");
    assert_eq!(read(0x10000), Some(0x11003));
    assert_eq!(read(0x11000), Some(0x12003));
    assert_eq!(read(0x12000), Some(0x83));
    assert_eq!(read(0x12008), Some(0x20_0083));
    assert_eq!(read(0x12010), Some(0), "the map ends at 4 MiB");
    // A Hermit kernel finds its tables through the last entry of the root.
    assert_eq!(walk(MAP.pml4, 0xffff_ffff_ffff_f000, &read).unwrap().phys, MAP.pml4);
}

#[test]
fn every_address_in_the_range_maps_to_itself_and_no_other() {
    let gib = 1 << 30;
    let ranges = [
        (0, 2 << 20),
        (0x1_0000_0000, 0x1_0040_0000),
        // Over the borders of a directory, of several, and of a directory pointer table.
        (gib - (2 << 20), gib + (2 << 20)),
        (5 * gib + (6 << 20), 9 * gib),
        (512 * gib - (4 << 20), 512 * gib + (4 << 20)),
    ];
    for (start, end) in ranges {
        let map = IdentityMap { pml4: 0x1_0000, start, end, ..MAP };
        let tables = map.tables().unwrap();
        let inside = |table: &Table| {
            table.addr == map.pml4 || (map.tables_start..map.tables_end).contains(&table.addr)
        };
        assert!(tables.iter().all(inside));
        let read = memory(&tables);
        for vaddr in [start, start + 1, (start + end) / 2, end - 1] {
            let found = walk(map.pml4, vaddr, &read).unwrap();
            assert_eq!((found.phys, found.page_size), (vaddr, 2 << 20));
            assert_eq!(found.flags, Flags { writable: true, user: false, executable: true });
        }
        for vaddr in [start.wrapping_sub(1), end] {
            assert!(
                walk(map.pml4, vaddr & 0x7fff_ffff_ffff, &read).is_err(),
                "{vaddr:#x} is mapped"
            );
        }
    }
}

#[test]
fn an_empty_range_needs_only_the_root() {
    let map = IdentityMap { end: MAP.start, tables_end: MAP.tables_start, ..MAP };
    assert_eq!(map.tables().unwrap().len(), 1);
}

#[test]
fn room_is_used_up_to_its_end_and_not_beyond() {
    let gib = 1 << 30;
    let map =
        |tables: u64| IdentityMap { tables_end: 0x11000 + tables * 0x1000, end: 3 * gib, ..MAP };
    assert_eq!(map(4).tables().unwrap().len(), 5);
    assert_eq!(map(3).tables(), Err(Error::TableRoom { room: 0x3000, start: 0, end: 3 * gib }));
    // However much there is to map, no more tables than fit are made.
    let huge = IdentityMap { end: 1 << 47, ..MAP };
    assert!(matches!(huge.tables(), Err(Error::TableRoom { .. })));
    let reversed = IdentityMap { tables_end: 0, ..MAP };
    assert!(matches!(reversed.tables(), Err(Error::TableRoom { room: 0, .. })));
}

#[test]
fn addresses_are_checked() {
    let cases = [
        IdentityMap { pml4: 0x10008, ..MAP },
        IdentityMap { tables_start: 0x11001, ..MAP },
        IdentityMap { start: 0x1000, ..MAP },
        IdentityMap { end: 0x1000, ..MAP },
        IdentityMap { end: (1 << 47) + (2 << 20), ..MAP },
        IdentityMap { pml4: 1 << 48, ..MAP },
    ];
    for map in cases {
        assert!(matches!(map.tables(), Err(Error::Unaligned { .. })), "{map:x?}");
    }
}
