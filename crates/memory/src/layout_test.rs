use nerite_arch::paging::IdentityMap;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn request() -> Request {
    Request {
        memory_size: 64 * MIB,
        kernel_mem_size: 3 * MIB,
        fixed_start: None,
        address_limit: AddressLimit::Bits64,
        aslr: false,
        fdt_size: 0x400,
        initrd_size: 0,
        legacy_identity_map: false,
    }
}

fn place(request: &Request) -> Layout {
    Layout::place(request, 0, 48).unwrap()
}

/// Every part of a layout with its name, RAM excepted.
fn parts(layout: &Layout) -> Vec<(&'static str, Region)> {
    let page = |start| Region { start, size: PAGE };
    let mut parts = vec![
        ("gdt", page(layout.gdt)),
        ("fdt", layout.fdt),
        ("boot info", page(layout.boot_info)),
        ("pml4", page(layout.pml4)),
        ("page tables", layout.page_tables),
        ("stack", Region { start: layout.stack, size: STACK_SIZE }),
        ("kernel", layout.kernel),
    ];
    parts.extend(layout.initrd.map(|initrd| ("initrd", initrd)));
    parts
}

#[test]
fn the_offsets_that_kernels_rely_on() {
    let layout = place(&request());
    let base = 4 << 30;
    assert_eq!(layout.base, base);
    assert_eq!(layout.regions, [Region { start: base, size: 64 * MIB }]);
    assert_eq!((layout.gdt, layout.boot_info, layout.pml4), (base, base + 0x5000, base + 0x10000));
    assert_eq!(layout.fdt, Region { start: base + 0x1000, size: 0x4000 });
    assert_eq!(layout.page_tables, Region::from_bounds(base + 0x11000, base + 0x38000));
    assert_eq!(layout.stack, base + 0x38000);
    assert_eq!(layout.kernel, Region { start: base + 0x40000, size: 3 * MIB });
    assert_eq!(layout.identity_map, Region { start: base, size: 4 * MIB });
    assert_eq!(layout.span(), Region { start: base, size: 64 * MIB });
}

#[test]
fn a_32_bit_guest_starts_at_0() {
    let layout = place(&Request { address_limit: AddressLimit::Bits32, ..request() });
    assert_eq!((layout.base, layout.kernel.start), (0, 0x40000));
}

#[test]
fn ram_goes_on_after_the_gap() {
    let below = Region { start: 0, size: 3 << 30 };
    for (gib, above) in [(3, None), (5, Some(Region { start: 4 << 30, size: 2 << 30 }))] {
        for fixed_start in [None, Some(0x40_0000)] {
            let request = Request {
                memory_size: gib << 30,
                address_limit: AddressLimit::Bits32,
                aslr: true,
                fixed_start,
                ..request()
            };
            let layout = Layout::place(&request, u64::MAX, 48).unwrap();
            let expected: Vec<_> = [below].into_iter().chain(above).collect();
            assert_eq!(layout.regions, expected);
            assert_eq!(layout.span().end(), expected.last().unwrap().end());
        }
    }
}

#[test]
fn a_fixed_kernel_stays_where_it_is_linked() {
    for address_limit in [AddressLimit::Bits32, AddressLimit::Bits64] {
        let request =
            Request { fixed_start: Some(0x40_0123), address_limit, aslr: true, ..request() };
        let layout = Layout::place(&request, 12345, 48).unwrap();
        assert_eq!((layout.base, layout.kernel.start), (0, 0x40_0123));
        assert_eq!(layout.stack, 0x3f_8000);
        assert_eq!(layout.page_tables.end(), layout.stack);
    }
}

#[test]
fn a_fixed_kernel_needs_room_below_it() {
    // GDT to page tables take up to 0x11000, then a directory and its parent, then the stack.
    let lowest = 0x11000 + 0x2000 + 0x8000;
    let at = |start| Layout::place(&Request { fixed_start: Some(start), ..request() }, 0, 48);
    assert!(at(lowest).is_ok());
    let error = at(lowest - 1).unwrap_err();
    assert!(
        matches!(error, Error::NoRoomBelowKernel { needed, .. } if needed == lowest),
        "{error}"
    );
    assert!(at(0).is_err());
    // A large device tree makes it need more, page by page.
    let fdt = Request { fixed_start: Some(lowest), fdt_size: 0x4001, ..request() };
    assert!(matches!(Layout::place(&fdt, 0, 48), Err(Error::NoRoomBelowKernel { .. })));
    assert!(Layout::place(&Request { fixed_start: Some(lowest + 0x1000), ..fdt }, 0, 48).is_ok());
}

#[test]
fn a_large_device_tree_moves_the_kernel_up() {
    let small = place(&Request { fdt_size: 0x4000, ..request() });
    let large = place(&Request { fdt_size: 0x4001, ..request() });
    assert_eq!(small.kernel.start - small.base, 0x40000);
    assert_eq!(large.kernel.start - large.base, 0x80000, "in steps that keep its alignment");
    assert!(large.fdt.size > 0x4000);
    assert_eq!(large.boot_info, large.fdt.end());
}

#[test]
fn a_legacy_kernel_has_its_gib_mapped() {
    let request =
        Request { legacy_identity_map: true, address_limit: AddressLimit::Bits32, ..request() };
    assert_eq!(place(&request).identity_map, Region { start: 0, size: 1 << 30 });
    // 700 * 2 MiB lies in the second GiB.
    let layout = Layout::place(&Request { aslr: true, ..request }, 700, 48).unwrap();
    assert_eq!(layout.identity_map, Region::from_bounds(700 * 2 * MIB, 2 << 30));
}

#[test]
fn image_files_follow_the_kernel_and_are_mapped() {
    let layout = place(&Request { kernel_mem_size: 0x1001, initrd_size: 5 * MIB, ..request() });
    let start = layout.base + 0x42000;
    assert_eq!(layout.initrd, Some(Region { start, size: 5 * MIB }));
    assert_eq!(layout.identity_map.size, 6 * MIB);
}

#[test]
fn what_does_not_fit_says_what_would() {
    let tight = Request { memory_size: 2 * MIB, kernel_mem_size: 2 * MIB - 0x40000, ..request() };
    assert!(Layout::place(&tight, 0, 48).is_ok());
    let error = Layout::place(&Request { kernel_mem_size: 40 * MIB, ..tight }, 0, 48).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the guest image does not fit in 2 MiB of guest memory, it needs 42 MiB"
    );
    let error = Layout::place(&Request { memory_size: 3 * MIB, ..request() }, 0, 48).unwrap_err();
    assert!(matches!(error, Error::BadSize { suggestion: 16, .. }), "{error}");
    assert!(matches!(
        Layout::place(&Request { memory_size: 0, ..request() }, 0, 48),
        Err(Error::BadSize { suggestion: 16, .. })
    ));
    // Larger than what lies below the gap, and than what the tables map.
    let huge = Request { memory_size: 64 << 30, kernel_mem_size: 3 << 30, ..request() };
    let low = Request { address_limit: AddressLimit::Bits32, ..huge };
    assert!(matches!(Layout::place(&low, 0, 48), Err(Error::ImageTooLarge { .. })));
    assert!(Layout::place(&huge, 0, 48).is_ok());
    let tables = Request { kernel_mem_size: 40 << 30, ..huge };
    assert!(matches!(Layout::place(&tables, 0, 48), Err(Error::ImageTooLarge { .. })));
}

#[test]
fn the_advised_start_has_room_for_the_tables_it_needs() {
    // Moved to where its tables would fit, this kernel reaches into a ninth GiB, and moved again
    // into a tenth.
    let mut request = Request {
        memory_size: 2 * MIB,
        kernel_mem_size: 6_599_225_345,
        fixed_start: Some(0),
        fdt_size: 3_064_320_001,
        ..request()
    };
    let Err(Error::NoRoomBelowKernel { needed, .. }) = Layout::place(&request, 0, 36) else {
        panic!("there is no room below address 0");
    };
    for (start, enough) in [(needed - PAGE, false), (needed, true)] {
        request.fixed_start = Some(start);
        let placed = Layout::place(&request, 0, 36);
        assert_eq!(!matches!(placed, Err(Error::NoRoomBelowKernel { .. })), enough, "{placed:?}");
    }
}

#[test]
fn the_host_limits_the_addresses() {
    let request = Request { memory_size: 60 << 30, ..request() };
    assert!(Layout::place(&request, 0, 36).is_ok());
    let error =
        Layout::place(&Request { memory_size: request.memory_size + 2 * MIB, ..request }, 0, 36);
    assert!(matches!(error, Err(Error::BeyondHost { phys_bits: 36, .. })), "{error:?}");
    // Too large to be moved, small enough for a host with more bits.
    let large = Request { memory_size: 100 << 30, aslr: true, ..request };
    assert_eq!(Layout::place(&large, u64::MAX, 40).unwrap().base, 4 << 30);
}

#[test]
fn randomisation_reaches_both_ends() {
    let bases = |address_limit, size: u64| {
        let request = Request { aslr: true, address_limit, memory_size: size, ..request() };
        (0..).map(move |random| Layout::place(&request, random, 48).unwrap().base)
    };
    let size = (60 << 30) - 4 * MIB;
    let all: Vec<_> = bases(AddressLimit::Bits64, size).take(4).collect();
    let low = 4 << 30;
    assert_eq!(all, [low, low + 2 * MIB, low + 4 * MIB, low]);
    let all: Vec<_> = bases(AddressLimit::Bits32, (3 << 30) - 2 * MIB).take(3).collect();
    assert_eq!(all, [0, 2 * MIB, 0]);
}

#[test]
fn no_kernel_ends_where_its_first_new_page_directory_would_be() {
    const GIB: u64 = 1 << 30;
    let place = |address_limit, kernel_mem_size, fdt_size, random| {
        let memory_size = align_up(kernel_mem_size, LARGE_PAGE).unwrap() + 64 * MIB;
        let request = Request {
            memory_size,
            aslr: true,
            address_limit,
            kernel_mem_size,
            fdt_size,
            ..request()
        };
        Layout::place(&request, random, 48).unwrap()
    };
    // The last number of each is the base at which such a kernel would end at 1 GiB, or at 5 GiB.
    for (limit, kernel, fdt, bad) in [
        (AddressLimit::Bits32, MIB, 0x400, GIB - 2 * MIB),
        (AddressLimit::Bits32, 2 * MIB - 0x40000, 0x400, GIB - 2 * MIB),
        (AddressLimit::Bits32, 3 * MIB, 0x400, GIB - 4 * MIB),
        (AddressLimit::Bits32, MIB, 2 * MIB, GIB - 4 * MIB),
        (AddressLimit::Bits64, MIB, 0x400, 5 * GIB - 2 * MIB),
    ] {
        let low = if limit == AddressLimit::Bits32 { 0 } else { 4 * GIB };
        let bases = [0, 1, 2].map(|more| {
            let layout = place(limit, kernel, fdt, (bad - low) / (2 * MIB) - 1 + more);
            let end = align_up(layout.kernel.end(), LARGE_PAGE).unwrap();
            assert!(!end.is_multiple_of(GIB), "{layout}");
            layout.base
        });
        assert_eq!(bases, [bad - 2 * MIB, bad - 2 * MIB, bad + 2 * MIB]);
    }
    // Nor if it is the lowest base of all.
    assert_eq!(place(AddressLimit::Bits32, GIB - MIB, 0x400, 0).base, 2 * MIB);
}

#[test]
fn display_lists_every_part() {
    let layout = place(&Request { initrd_size: 1, ..request() });
    let text = layout.to_string();
    for (name, region) in parts(&layout) {
        assert!(text.contains(&region.to_string()), "{name} is missing:\n{text}");
    }
    assert_eq!(text.lines().count(), 10);
}

/// Sizes that are small, around the limits, or anything at all.
fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..64 * MIB,
        4 => 0_u64..140 << 30,
        1 => prop_oneof![Just(GAP_START), Just(GAP_END), Just(60 << 30), Just(64 << 30)],
        1 => any::<u64>(),
    ]
}

fn requests() -> impl Strategy<Value = Request> {
    let memory =
        prop_oneof![8 => sizes().prop_map(|size| align_down(size, LARGE_PAGE)), 1 => sizes()];
    let fixed =
        prop_oneof![3 => Just(None), 2 => (0..8 * MIB).prop_map(Some), 1 => sizes().prop_map(Some)];
    let fdt = prop_oneof![4 => 0_u64..0x4001, 2 => 0..4 * MIB, 1 => sizes()];
    let initrd = prop_oneof![2 => Just(0), 2 => 0..8 * MIB, 1 => sizes()];
    let limit = prop_oneof![Just(AddressLimit::Bits32), Just(AddressLimit::Bits64)];
    (memory, sizes(), fixed, limit, any::<bool>(), fdt, initrd, any::<bool>()).prop_map(
        |(
            memory_size,
            kernel_mem_size,
            fixed_start,
            address_limit,
            aslr,
            fdt_size,
            initrd_size,
            legacy_identity_map,
        )| {
            Request {
                memory_size,
                kernel_mem_size,
                fixed_start,
                address_limit,
                aslr,
                fdt_size,
                initrd_size,
                legacy_identity_map,
            }
        },
    )
}

fn check_ram(request: &Request, layout: &Layout, phys_bits: u8) {
    let gap = Region::from_bounds(GAP_START, GAP_END);
    let total: u64 = layout.regions.iter().map(|region| region.size).sum();
    assert_eq!(total, request.memory_size);
    assert!((1..=2).contains(&layout.regions.len()));
    for region in &layout.regions {
        assert!(!region.overlaps(&gap), "{region} reaches into the gap");
        assert!(region.start.is_multiple_of(LARGE_PAGE) && region.size.is_multiple_of(LARGE_PAGE));
        assert!(region.size > 0 && region.end() <= 1 << phys_bits);
    }
    if let [low, high] = layout.regions[..] {
        assert_eq!((low.end(), high.start), (GAP_START, GAP_END), "split without need");
    }
    assert_eq!(layout.base, layout.regions[0].start);
    let starts_low = request.fixed_start.is_some() || request.address_limit == AddressLimit::Bits32;
    assert_eq!(layout.base < GAP_START, starts_low);
    if request.fixed_start.is_some() || !request.aslr {
        assert_eq!(layout.base, if starts_low { 0 } else { GAP_END });
    }
}

fn check_parts(request: &Request, layout: &Layout) {
    let parts = parts(layout);
    for (index, (name, part)) in parts.iter().enumerate() {
        assert!(layout.regions[0].contains(part), "{name} {part} is not in RAM:\n{layout}");
        assert!(layout.identity_map.contains(part), "{name} {part} is not mapped:\n{layout}");
        for (other_name, other) in &parts[index + 1..] {
            assert!(
                !part.overlaps(other),
                "{name} {part} overlaps {other_name} {other}:\n{layout}"
            );
        }
    }
    assert!(layout.fdt.size >= request.fdt_size);
    assert_eq!(layout.kernel.size, request.kernel_mem_size);
    assert_eq!(layout.initrd.map_or(0, |initrd| initrd.size), request.initrd_size);
    assert!(request.fixed_start.is_none_or(|start| layout.kernel.start == start));
    let aligned =
        [layout.gdt, layout.fdt.start, layout.boot_info, layout.pml4, layout.page_tables.start];
    assert!(aligned.into_iter().chain([layout.stack]).all(|start| start.is_multiple_of(PAGE)));
    let tables = IdentityMap {
        pml4: layout.pml4,
        tables_start: layout.page_tables.start,
        tables_end: layout.page_tables.end(),
        start: layout.identity_map.start,
        end: layout.identity_map.end(),
    };
    tables.tables().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_overlaps_and_all_is_in_ram(request in requests(), random: u64, phys_bits in 36_u8..=52) {
        match Layout::place(&request, random, phys_bits) {
            Ok(layout) => {
                check_ram(&request, &layout, phys_bits);
                check_parts(&request, &layout);
            }
            // What the error advises must help, if the host can do it.
            Err(Error::TooSmall { needed, .. }) if needed < 1 << 24 => {
                let better = Layout::place(&Request { memory_size: needed * MIB, ..request }, random, phys_bits);
                prop_assert!(!matches!(better, Err(Error::TooSmall { .. } | Error::BadSize { .. })), "{better:?}");
            }
            Err(Error::NoRoomBelowKernel { needed, .. }) => {
                let request = Request { fixed_start: Some(needed), ..request };
                let better = Layout::place(&request, random, phys_bits);
                prop_assert!(!matches!(better, Err(Error::NoRoomBelowKernel { .. })), "{better:?}");
            }
            Err(_) => {}
        }
    }

    /// Ordinary requests are not refused.
    #[test]
    fn ordinary_guests_are_placed(
        memory in 8_u64..2048, kernel in 0_u64..14 * MIB, low: bool, aslr: bool, random: u64
    ) {
        let address_limit = if low { AddressLimit::Bits32 } else { AddressLimit::Bits64 };
        let request = Request {
            memory_size: memory * 2 * MIB, kernel_mem_size: kernel, address_limit, aslr, ..request()
        };
        let layout = Layout::place(&request, random, 36).unwrap();
        check_ram(&request, &layout, 36);
        check_parts(&request, &layout);
    }
}
