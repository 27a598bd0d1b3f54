use nerite_arch::pc::{BIOS_DATA, COMMAND_LINE, EBDA, INFO, TABLES};
use nerite_loader::Limits;
use nerite_memory::Backing;

use super::*;

const MIB: u64 = 1 << 20;

/// A multiboot kernel with load addresses: header, 32 bytes, `bss` bytes of zeros.
fn kernel(load: u32, bss: u32) -> GuestImage {
    let (magic, flags) = (0x1bad_b002_u32, 1 << 16);
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    let words = [magic, flags, checksum, load, load, 0, load + 64 + bss, load + 32];
    let mut file: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.resize(64, 0xf4);
    GuestImage::parse(file, None, &Limits::default()).unwrap()
}

fn plan(memory: u64, command_line: &str) -> PcPlan {
    PcPlan {
        memory,
        cpus: 2,
        command_line: command_line.to_owned(),
        generation: [0; 16],
        lines: vec![16],
    }
}

fn ram(memory: u64) -> GuestRam {
    GuestRam::new(&regions(memory), &Backing::default()).unwrap()
}

fn file(name: &str, size: usize) -> InitFile {
    InitFile { name: name.to_owned(), bytes: vec![0x5a; size] }
}

fn u32_at(ram: &GuestRam, address: u64) -> u64 {
    ram.read_obj::<u32>(address).unwrap().into()
}

#[test]
fn ram_goes_around_the_gap() {
    assert_eq!(regions(128 * MIB), [Region { start: 0, size: 128 * MIB }]);
    let five = regions(5120 * MIB);
    assert_eq!(
        five,
        [Region { start: 0, size: 3 << 30 }, Region { start: 4 << 30, size: 2 << 30 }]
    );
}

#[test]
fn modules_follow_the_kernel_page_by_page() {
    let (ram, plan) = (ram(16 * MIB), plan(16 * MIB, "image one two"));
    let files = [file("first", 5000), file("second", 1)];
    let loaded = load(&kernel(0x10_0000, 0x1234), &files, &plan, &ram).unwrap();
    assert_eq!(loaded.kernel, 0x10_0000..0x10_1274);
    assert_eq!((loaded.boot.regs.rip, loaded.boot.regs.rbx), (0x10_0020, INFO));
    assert_eq!((u32_at(&ram, INFO + 20), u32_at(&ram, INFO + 24)), (2, TABLES));
    assert_eq!((u32_at(&ram, TABLES), u32_at(&ram, TABLES + 4)), (0x10_2000, 0x10_2000 + 5000));
    assert_eq!((u32_at(&ram, TABLES + 16), u32_at(&ram, TABLES + 20)), (0x10_4000, 0x10_4001));
    assert_eq!(u32_at(&ram, 0x10_2000), 0x5a5a_5a5a);
    assert_eq!(ram.read_cstr(COMMAND_LINE, 100).unwrap(), b"image one two");
}

#[test]
fn firmware_left_its_tables() {
    let (ram, plan) = (ram(16 * MIB), plan(16 * MIB, ""));
    load(&kernel(0x10_0000, 0), &[], &plan, &ram).unwrap();
    let mut signature = [0; 8];
    ram.read(acpi::RSDP, &mut signature).unwrap();
    assert_eq!(&signature, b"RSD PTR ");
    assert_eq!(u32_at(&ram, smbios::SMBIOS), u64::from(u32::from_le_bytes(*b"_SM3")));
    assert_eq!(u32_at(&ram, EBDA), u64::from(u32::from_le_bytes(*b"_MP_")));
    for (address, value) in BIOS_DATA {
        assert_eq!(ram.read_obj::<u16>(address).unwrap(), value);
    }
}

#[test]
fn a_kernel_cannot_lie_where_it_is_handed_things() {
    let (ram, plan) = (ram(16 * MIB), plan(16 * MIB, ""));
    for (start, fits) in [
        (0x100, false),
        (0x1000, true),
        (0x8_f000, true),
        (0x8_ffe0, false),
        (0x9_f000, false),
        (0x10_0000, true),
    ] {
        let loaded = load(&kernel(start, 0), &[], &plan, &ram);
        assert_eq!(loaded.is_ok(), fits, "{start:#x}");
        if let Err(error) = loaded {
            assert!(matches!(error, Error::KernelPlace { .. }), "{error}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (ram, small) = (ram(16 * MIB), plan(16 * MIB, ""));
    let error = |image: &GuestImage, files: &[InitFile], plan: &PcPlan| {
        load(image, files, plan, &ram).unwrap_err().to_string()
    };
    let image = kernel(0x10_0000, 0);
    assert!(
        error(&image, &[file("huge", 16 << 20)], &small)
            .contains("huge: 16777216 bytes do not fit")
    );
    assert!(error(&kernel(0x10_0000, 0x100_0000), &[], &small).contains("needs guest memory from"));
    assert!(error(&image, &[], &plan(16 * MIB, &"x".repeat(20_000))).contains("20000 bytes"));
    assert!(error(&image, &[], &plan(16 * MIB, "a\0b")).contains("NUL"));
    let many: Vec<_> = (0..65).map(|_| file("m", 1)).collect();
    assert!(error(&image, &many, &small).contains("65 modules"));
}
