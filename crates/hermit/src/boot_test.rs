use nerite_arch::paging::{self, TABLE_SIZE};
use nerite_loader::Image;
use nerite_loader::testing::{CODE, Elf};
use nerite_memory::Backing;

use super::*;
use nerite_testkit::image;
use nerite_testkit::log::line_of;

const MIB: u64 = 1 << 20;
const TSC_KHZ: u32 = 2_445_000;

fn plan(memory: u64) -> Plan {
    Plan {
        memory,
        cpus: 3,
        kernel_args: vec!["-ip".to_owned(), "10.0.5.3".to_owned()],
        app_args: vec!["two words".to_owned(), String::new()],
        env: vec![("KEY".to_owned(), "it's".to_owned())],
        mounts: Vec::new(),
    }
}

/// A guest in memory.
struct Booted {
    image: Image,
    layout: Layout,
    ram: GuestRam,
    loaded: LoadedKernel,
}

fn boot(elf: &Elf, plan: &Plan, random: u64) -> Booted {
    let image = image::parse(elf);
    let kernel = image.kernel();
    let layout = lay_out(kernel, plan, random != 0, random, &[]).unwrap();
    let ram =
        GuestRam::new(&regions(&layout, kernel.version(), false), &Backing::default()).unwrap();
    let loaded = load(kernel, &layout, &ram).unwrap();
    let clocks = Clocks { tsc_khz: Some(TSC_KHZ), boot_time: SystemTime::now() };
    describe(kernel, plan, &layout, &loaded, &ram, clocks, false).unwrap();
    Booted { image, layout, ram, loaded }
}

impl Booted {
    fn device_tree(&self) -> Vec<u8> {
        let mut blob = vec![0; usize::try_from(self.layout.fdt.size).unwrap()];
        self.ram.read(self.layout.fdt.start, &mut blob).unwrap();
        blob
    }

    fn translate(&self, address: u64) -> Option<u64> {
        let read = |entry| self.ram.read_obj::<u64>(entry).ok();
        paging::walk(self.layout.pml4, address, read).ok().map(|found| found.phys)
    }
}

/// Kernels of both interfaces, old and new, relocatable and not.
fn kernels() -> [Elf; 4] {
    let mut fixed = Elf::fixed(0x40_0000);
    fixed.notes.truncate(1);
    [image::elf(2, Some([0, 13, 2])), image::elf(1, Some([0, 10, 0])), image::elf(1, None), fixed]
}

#[test]
fn a_guest_finds_all_it_boots_from_mapped_where_it_is() {
    for elf in kernels() {
        for random in [0, 0x1234_5678_9abc_def1] {
            let guest = boot(&elf, &plan(32 * MIB), random);
            let layout = &guest.layout;
            let places = [
                layout.gdt,
                layout.fdt.start,
                layout.fdt.end() - 1,
                layout.boot_info,
                layout.pml4,
                layout.page_tables.start,
                layout.stack,
                layout.stack + nerite_memory::layout::STACK_SIZE - 1,
                guest.loaded.start,
                guest.loaded.entry,
                guest.loaded.end - 1,
            ];
            for place in places {
                assert_eq!(guest.translate(place), Some(place), "{place:#x} in {layout:x?}");
                assert!(guest.ram.check(place, 1).is_ok(), "{place:#x} is RAM");
            }
            // The kernel knows by this entry that all below its end is taken.
            let last = layout.pml4 + TABLE_SIZE as u64 - 8;
            assert_eq!(guest.ram.read_obj::<u64>(last).unwrap() & !0xfff, layout.pml4);
        }
    }
}

#[test]
fn only_what_is_needed_is_mapped_unless_the_kernel_is_old() {
    let new = boot(&image::elf(2, Some([0, 13, 2])), &plan(64 * MIB), 0);
    assert_eq!(new.translate(new.layout.identity_map.end()), None);
    assert!(new.layout.identity_map.end() < new.loaded.end + 2 * MIB);
    let old = boot(&image::elf(1, None), &plan(64 * MIB), 0);
    assert_eq!(old.translate((1 << 30) - 1), Some((1 << 30) - 1));
    assert_eq!(old.translate(1 << 30), None);
}

#[test]
fn the_descriptor_table_and_the_first_instructions_are_in_place() {
    for elf in kernels() {
        let guest = boot(&elf, &plan(32 * MIB), 0);
        let gdt: [u64; 3] = guest.ram.read_obj(guest.layout.gdt).unwrap();
        assert_eq!(gdt, [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]);
        let at = addresses(&guest.layout, &guest.loaded);
        assert_eq!(guest.ram.read_obj::<u8>(at.entry).unwrap(), 0x90);
        assert_eq!(at.entry, guest.layout.kernel.start + CODE);
        assert_eq!((at.boot_info, at.stack), (guest.layout.boot_info, guest.layout.stack));
        assert_eq!((at.pml4, at.gdt), (guest.layout.pml4, guest.layout.gdt));
    }
}

#[test]
fn the_boot_information_says_what_there_is() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    for (elf, port) in
        kernels().iter().zip([SERIAL_PORT_V2, SERIAL_PORT_V1, SERIAL_PORT_V1, SERIAL_PORT_V1])
    {
        let before = now();
        let guest = boot(elf, &plan(32 * MIB), 0);
        let after = now();
        let tls = guest.loaded.tls.unwrap();
        let bytes: [u8; 128] = guest.ram.read_obj(guest.layout.boot_info).unwrap();
        let time = i128::from_le_bytes(bytes[112..].try_into().unwrap());
        assert!((before..=after).contains(&u128::try_from(time).unwrap()));
        let expected = RawBootInfo::from(&BootInfo {
            phys_addr_range: guest.layout.base..guest.layout.base + 32 * MIB,
            serial_port: NonZeroU16::new(port),
            device_tree: NonZeroU64::new(guest.layout.fdt.start),
            kernel_range: guest.loaded.start..guest.loaded.end,
            tls: Some(TlsInfo {
                start: tls.start,
                filesz: tls.filesz,
                memsz: tls.memsz,
                align: tls.align,
            }),
            has_pci: false,
            num_cpus: NonZeroU64::new(3).unwrap(),
            cpu_freq_khz: NonZeroU32::new(TSC_KHZ),
            boot_time_ns: time,
        });
        assert_eq!(guest.ram.read_obj::<RawBootInfo>(guest.layout.boot_info).unwrap(), expected);
    }
}

#[test]
fn the_device_tree_in_memory_is_whole() {
    for elf in kernels() {
        let guest = boot(&elf, &plan(32 * MIB), 0);
        let blob = guest.device_tree();
        let tree = fdt_of(&blob);
        let memory: Vec<_> = tree
            .memory()
            .regions()
            .map(|region| (region.starting_address as u64, region.size))
            .collect();
        assert_eq!(memory, [(guest.layout.base, Some(32 << 20))]);
        assert_eq!(tree.cpus().count(), 3);
        let bootargs = tree.chosen().bootargs().unwrap();
        assert!(bootargs.starts_with("-ip 10.0.5.3 ") && bootargs.contains("it's"), "{bootargs}");
        assert!(bootargs.ends_with(" -- 'two words' ''"), "{bootargs}");
        let khz = tree.find_node("/hermit,tsc").and_then(|node| node.property("khz")).unwrap();
        assert_eq!(khz.as_usize(), Some(TSC_KHZ as usize));
    }
}

fn fdt_of(blob: &[u8]) -> ::fdt::Fdt<'_> {
    ::fdt::Fdt::new(blob).unwrap()
}

#[test]
fn a_device_tree_as_large_as_it_gets_does_not_reach_into_what_follows() {
    let large = Plan { app_args: vec!["x".repeat(100_000); 3], ..plan(32 * MIB) };
    let guest = boot(&image::elf(2, Some([0, 13, 2])), &large, 0);
    let blob = guest.device_tree();
    assert_eq!(fdt_of(&blob).chosen().bootargs().unwrap().matches('x').count(), 300_000);
    assert!(guest.layout.fdt.end() <= guest.layout.boot_info);
    assert_eq!(guest.translate(guest.layout.boot_info), Some(guest.layout.boot_info));
}

#[test]
fn a_v1_kernel_is_told_only_of_memory_its_calls_can_name() {
    let elf = image::elf(1, None);
    let plan = plan(4 << 30);
    let line = line_of(|| {
        let guest = boot(&elf, &plan, 0);
        let blob = guest.device_tree();
        let regions: Vec<_> = fdt_of(&blob)
            .memory()
            .regions()
            .map(|region| (region.starting_address as u64, region.size))
            .collect();
        assert_eq!(regions, [(0, Some(3 << 30))]);
        let end: u64 = guest.ram.read_obj(guest.layout.boot_info + 8).unwrap();
        assert_eq!(end, 3 << 30);
        assert_eq!(guest.image.kernel().interface(), Interface::V1);
    });
    assert!(line.contains("only the 3072 MiB"), "{line}");
}

#[test]
fn kernels_that_look_for_an_mp_table_find_zeros() {
    let layout = |elf: &Elf, random| {
        let image = image::parse(elf);
        let layout = lay_out(image.kernel(), &plan(16 * MIB), random != 0, random, &[]).unwrap();
        (layout, image.kernel().version())
    };
    let (high, version) = layout(&image::elf(2, Some([0, 13, 1])), 0);
    let with = regions(&high, version, false);
    assert_eq!(with[..2], MP_SEARCH);
    assert_eq!(with[2..], high.regions[..]);
    assert_eq!(regions(&high, version, true), high.regions, "huge pages are too large for it");
    let (high, version) = layout(&image::elf(2, Some([0, 13, 2])), 0);
    assert_eq!(regions(&high, version, false), high.regions, "this one does not look");
    let (low, version) = layout(&image::elf(1, None), 0);
    assert_eq!(low.base, 0);
    assert_eq!(regions(&low, version, false), low.regions, "RAM is there already");
}

#[test]
fn versions_are_compared_number_by_number() {
    let version = |major, minor, patch| Some(KernelVersion { major, minor, patch });
    assert!(is_before_0_10(None) && is_before_0_10(version(0, 9, 99)));
    assert!(!is_before_0_10(version(0, 10, 0)) && !is_before_0_10(version(1, 0, 0)));
    assert!(is_before(version(0, 13, 1), FIRST_WITHOUT_MP_SEARCH));
    assert!(!is_before(version(0, 14, 0), FIRST_WITHOUT_MP_SEARCH));
}

#[test]
fn address_bits_are_those_of_the_processor() {
    let leaf = |function, eax| CpuidEntry { function, eax, ..CpuidEntry::default() };
    assert_eq!(physical_bits(&[leaf(1, 99), leaf(0x8000_0008, 0x3028)]), 40);
    assert_eq!(physical_bits(&[leaf(1, 99)]), 36);
    let image = image::parse(&image::elf(2, None));
    let small = [leaf(0x8000_0008, 32)];
    let error = lay_out(image.kernel(), &plan(32 * MIB), false, 0, &small).unwrap_err().to_string();
    assert!(error.contains("32 physical address bits"), "{error}");
}
