use proptest::prelude::*;
use vm_memory::GuestMemory;

use super::*;

const BASE: u64 = 0x1_0000_0000;

fn ram(regions: &[(u64, u64)]) -> GuestRam {
    let regions: Vec<_> = regions.iter().map(|&(start, size)| Region { start, size }).collect();
    GuestRam::new(&regions, &Backing::default()).unwrap()
}

/// Two pages that adjoin and one apart.
fn three() -> GuestRam {
    ram(&[(BASE + 0x1000, 0x1000), (BASE, 0x1000), (BASE + 0x4000, 0x1000)])
}

#[test]
fn memory_starts_zeroed_and_keeps_what_is_written() {
    let ram = three();
    assert_eq!(
        ram.regions().iter().map(|region| region.start).collect::<Vec<_>>(),
        [BASE, BASE + 0x1000, BASE + 0x4000]
    );
    assert_eq!(ram.size(), 0x3000);
    let mut page = [1; 0x1000];
    ram.read(BASE + 0x4000, &mut page).unwrap();
    assert_eq!(page, [0; 0x1000]);
    // Over the border of two adjoining regions.
    let data: Vec<u8> = (0..=255).collect();
    ram.write(BASE + 0x1000 - 100, &data).unwrap();
    let mut back = [0; 256];
    ram.read(BASE + 0x1000 - 100, &mut back).unwrap();
    assert_eq!(back[..], data);
}

#[test]
fn an_access_that_runs_out_of_ram_touches_nothing() {
    let ram = three();
    for addr in [
        BASE + 0x2000 - 2,
        BASE + 0x5000 - 2,
        BASE + 0x4000 - 2,
        BASE - 2,
        0,
        u64::MAX - 2,
        u64::MAX,
    ] {
        assert_eq!(ram.write(addr, &[0xff; 4]), Err(AccessError { addr, len: 4 }));
        let mut data = [7; 4];
        assert_eq!(ram.read(addr, &mut data), Err(AccessError { addr, len: 4 }));
        assert_eq!(data, [7; 4]);
        assert!(ram.zero(addr, 4).is_err());
        assert!(ram.slices(addr, 4).is_err());
    }
    for region in ram.regions() {
        let mut page = vec![1; 0x1000];
        ram.read(region.start, &mut page).unwrap();
        assert!(page.iter().all(|&byte| byte == 0), "{region} was written to");
    }
    assert!(ram.check(BASE, u64::MAX).is_err());
    assert!(ram.check(BASE, 0x2000).is_ok());
    assert!(ram.check(BASE, 0x2001).is_err());
}

#[test]
fn nothing_is_everywhere() {
    let ram = three();
    for addr in [0, BASE, BASE + 0x2000, u64::MAX] {
        ram.check(addr, 0).unwrap();
        ram.write(addr, &[]).unwrap();
        ram.read(addr, &mut []).unwrap();
        ram.zero(addr, 0).unwrap();
        assert_eq!(ram.slices(addr, 0).unwrap().count(), 0);
    }
}

#[test]
fn objects_need_no_alignment() {
    let ram = three();
    ram.write_obj(BASE + 0xffd, &0x1122_3344_5566_7788_u64).unwrap();
    assert_eq!(ram.read_obj::<u64>(BASE + 0xffd), Ok(0x1122_3344_5566_7788));
    assert_eq!(ram.read_obj::<u32>(BASE + 0xffd), Ok(0x5566_7788));
    assert_eq!(
        ram.read_obj::<u64>(BASE + 0x1ffd),
        Err(AccessError { addr: BASE + 0x1ffd, len: 8 })
    );
}

#[test]
fn strings_end_with_their_nul() {
    let ram = three();
    let long = vec![b'x'; 700];
    ram.write(BASE + 0xf00, &long).unwrap();
    assert_eq!(ram.read_cstr(BASE + 0xf00, 4096).unwrap(), long, "over chunks and regions");
    assert_eq!(ram.read_cstr(BASE + 0xf00, 700).unwrap(), long, "exactly as long as allowed");
    assert_eq!(
        ram.read_cstr(BASE + 0xf00, 699),
        Err(CStrError::TooLong { addr: BASE + 0xf00, max: 699 })
    );
    assert_eq!(ram.read_cstr(BASE, 0).unwrap(), b"");
    assert_eq!(
        ram.read_cstr(BASE + 0xf00, 0),
        Err(CStrError::TooLong { addr: BASE + 0xf00, max: 0 })
    );
    // The NUL is the last byte of RAM.
    ram.write(BASE + 0x4ffd, b"ab").unwrap();
    assert_eq!(ram.read_cstr(BASE + 0x4ffd, 4096).unwrap(), b"ab");
    // RAM ends before the string does.
    ram.write(BASE + 0x4ffd, b"abc").unwrap();
    assert_eq!(
        ram.read_cstr(BASE + 0x4ffd, 4096),
        Err(CStrError::Access(AccessError { addr: BASE + 0x4ffd, len: 4 }))
    );
    // ... but not before the allowed length.
    assert_eq!(
        ram.read_cstr(BASE + 0x4ffd, 2),
        Err(CStrError::TooLong { addr: BASE + 0x4ffd, max: 2 })
    );
    for addr in [0, BASE + 0x2000, u64::MAX] {
        assert_eq!(
            ram.read_cstr(addr, usize::MAX),
            Err(CStrError::Access(AccessError { addr, len: 1 }))
        );
    }
}

#[test]
fn slices_cover_the_range_in_order() {
    let ram = three();
    ram.write(BASE + 0xffe, b"abcd").unwrap();
    let pieces: Vec<Vec<u8>> = ram
        .slices(BASE + 0xffe, 4)
        .unwrap()
        .map(|slice| {
            let mut piece = vec![0; slice.len()];
            slice.copy_to(&mut piece[..]);
            piece
        })
        .collect();
    assert_eq!(pieces, [b"ab", b"cd"]);
}

#[test]
fn zeroing_stays_in_its_range() {
    let ram = ram(&[(0, 0x5000)]);
    ram.write(0, &[0xff; 0x5000]).unwrap();
    ram.zero(0x801, 0x3001).unwrap();
    let mut all = [0; 0x5000];
    ram.read(0, &mut all).unwrap();
    let zeroes: Vec<_> = (0..0x5000).filter(|&index| all[index] == 0).collect();
    assert_eq!(zeroes, (0x801..0x3802).collect::<Vec<_>>());
}

#[test]
fn mappings_and_clones_share_the_memory() {
    let ram = three();
    ram.write(BASE + 0x4003, &[42]).unwrap();
    let clone = ram.clone();
    let mappings: Vec<_> = ram.mappings().collect();
    assert_eq!(mappings.len(), 3);
    assert_eq!((mappings[2].guest, mappings[2].size), (BASE + 0x4000, 0x1000));
    // SAFETY: Offset 3 is inside the third region, and nothing else writes to it meanwhile.
    assert_eq!(unsafe { mappings[2].host.wrapping_add(3).read_volatile() }, 42);
    drop(ram);
    assert_eq!(clone.read_obj::<u8>(BASE + 0x4003), Ok(42));
}

#[test]
fn threads_may_use_it_at_once() {
    let ram = ram(&[(0, 0x10000)]);
    let patterns = [0x5555_5555_5555_5555_u64, 0xaaaa_aaaa_aaaa_aaaa];
    std::thread::scope(|scope| {
        for pattern in patterns {
            let ram = &ram;
            scope.spawn(move || {
                for round in 0..2000 {
                    ram.write_obj(round % 0xff00, &pattern).unwrap();
                }
            });
        }
        for round in 0..2000 {
            let bytes = ram.read_obj::<[u8; 64]>(round % 0xff00).unwrap();
            assert!(bytes.iter().all(|byte| [0, 0x55, 0xaa].contains(byte)), "{bytes:x?}");
        }
    });
}

#[test]
fn regions_are_checked() {
    let new = |regions: &[(u64, u64)], backing| {
        let regions: Vec<_> = regions.iter().map(|&(start, size)| Region { start, size }).collect();
        GuestRam::new(&regions, &backing).map(|_| ()).unwrap_err()
    };
    let plain = Backing::default();
    let huge = Backing { hugepages: true, ..plain };
    assert!(matches!(new(&[], plain), Error::NoRegions));
    for bad in [(0, 0), (0x800, 0x1000), (0, 0x1800), (u64::MAX - 0xfff, 0x1000)] {
        assert!(matches!(new(&[bad], plain), Error::BadRegion { .. }), "{bad:x?}");
    }
    assert!(
        matches!(new(&[(0, 0x1000)], huge), Error::BadRegion { .. }),
        "not a multiple of 2 MiB"
    );
    assert!(matches!(new(&[(0x1000, 0x1000), (0, 0x1001 + 0xfff)], plain), Error::Overlap { .. }));
    let error = new(&[(0, 0x20_0000)], Backing { thp: true, ..huge });
    assert!(error.to_string().contains("transparent huge pages"), "{error}");
    let error = new(&[(0, 0x20_0000)], Backing { ksm: true, ..huge });
    assert!(error.to_string().contains("page merging"), "{error}");
}

#[test]
fn more_than_the_host_has_is_an_error_with_its_size() {
    let region = Region { start: 0, size: 1 << 48 };
    let error = GuestRam::new(&[region], &Backing::default()).unwrap_err();
    assert!(matches!(error, Error::Map { .. }), "{error}");
    assert!(error.to_string().contains("cannot obtain 268435456 MiB"), "{error}");
    let region = Region { start: 0, size: 1 << 45 };
    let error =
        GuestRam::new(&[region], &Backing { hugepages: true, ..Backing::default() }).unwrap_err();
    assert!(error.to_string().contains("cannot obtain 16777216 huge pages"), "{error}");
}

/// The `VmFlags` of the mapping that holds `address`, from `/proc/self/smaps`.
fn vm_flags(address: usize) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let hex = |text| usize::from_str_radix(text, 16);
        if let Some((Ok(start), Ok(end))) = range.map(|(start, end)| (hex(start), hex(end))) {
            inside = (start..end).contains(&address);
        }
        if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    Vec::new()
}

#[test]
fn advice_reaches_the_mapping_or_is_an_error() {
    let cases = [
        (Backing { thp: true, ..Backing::default() }, "hg", "--thp"),
        (Backing { ksm: true, ..Backing::default() }, "mg", "--ksm"),
    ];
    for (backing, flag, option) in cases {
        match GuestRam::new(&[Region { start: 0, size: 4 << 20 }], &backing) {
            Ok(ram) => {
                let host = ram.mappings().next().unwrap().host.addr();
                let flags = vm_flags(host);
                assert!(
                    flags.is_empty() || flags.iter().any(|name| name == flag),
                    "{flag}: {flags:?}"
                );
                assert!(
                    !vm_flags(host + (4 << 20)).iter().any(|name| name == flag),
                    "beyond the region"
                );
            }
            Err(error) => assert!(error.to_string().contains(option), "{error}"),
        }
    }
}

#[test]
fn memory_is_not_counted_before_it_is_touched() {
    let ram = ram(&[(0, 4 << 20)]);
    let flags = vm_flags(ram.mappings().next().unwrap().host.addr());
    // Strict accounting (2) counts all memory, whatever is asked for.
    let strict = std::fs::read_to_string("/proc/sys/vm/overcommit_memory")
        .is_ok_and(|mode| mode.trim() == "2");
    assert!(strict || flags.iter().any(|name| name == "nr"), "{flags:?}");
}

#[test]
fn vm_memory_sees_the_same_ram() {
    let ram = three();
    ram.inner().write_slice(b"xyz", GuestAddress(BASE + 0xfff)).unwrap();
    assert_eq!(ram.read_obj::<[u8; 3]>(BASE + 0xfff), Ok(*b"xyz"));
    assert!(ram.inner().write_slice(b"xyz", GuestAddress(BASE + 0x1fff)).is_err());
    assert!(GuestMemory::check_range(
        ram.inner(),
        GuestAddress(BASE),
        0x2000,
        vm_memory::Permissions::ReadWrite
    ));
    fn is_shareable<T: Send + Sync>(_: &T) {}
    is_shareable(&ram);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// `check` agrees with asking for each page on its own.
    #[test]
    fn check_agrees_with_a_page_by_page_search(pages in proptest::collection::btree_set(0_u64..12, 1..8),
                                              addr in 0_u64..0xd000, len in 0_usize..0x8000) {
        let ram = ram(&pages.iter().map(|page| (page * PAGE, PAGE)).collect::<Vec<_>>());
        let end = addr + len as u64;
        let expected = (addr..end).all(|addr| pages.contains(&(addr / PAGE)));
        prop_assert_eq!(ram.check(addr, len as u64).is_ok(), expected);
        let mut data = vec![0; len];
        prop_assert_eq!(ram.read(addr, &mut data).is_ok(), expected);
        prop_assert_eq!(ram.write(addr, &data).is_ok(), expected);
    }
}

#[test]
fn discarded_pages_read_as_zeros_and_others_stay() {
    let regions =
        [Region { start: 0x1000, size: 0x4000 }, Region { start: 0x10_0000, size: 0x1000 }];
    let ram = GuestRam::new(&regions, &Backing::default()).unwrap();
    ram.write(0x1000, &[7; 0x4000]).unwrap();
    ram.discard(0x2000, 0x2000).unwrap();
    for (address, expected) in [(0x1fff, 7), (0x2000, 0), (0x3fff, 0), (0x4000, 7)] {
        assert_eq!(ram.read_obj::<u8>(address).unwrap(), expected, "{address:#x}");
    }
    for (address, length) in [
        (0, 0x1000),
        (0x4000, 0x2000),
        (0x5000, 0x1000),
        (0x1800, 0x1000),
        (0x1000, 0x800),
        (0x10_0000, u64::MAX - 0xfff),
        (u64::MAX - 0xfff, 0x1000),
    ] {
        assert!(ram.discard(address, length).is_err(), "{address:#x} {length:#x}");
    }
}
