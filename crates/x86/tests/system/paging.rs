//! Page tables: rights, accessed and dirty bits, sizes, and translations that are kept.

use nerite_arch::paging::walk;
use nerite_x86::{Entry, Exit};

use crate::machine::{CODE, DATA, Level, Machine, PD, PDPT, PML4, PT};

/// Maps the lowest 2 MiB to themselves by pages of 4 KiB, for privileged code alone.
pub(crate) fn small_pages(machine: &Machine) {
    for page in 0..512_u64 {
        machine.put(PT + page * 8, &(page << 12 | 3).to_le_bytes());
    }
    machine.put(PD, &(PT | 7).to_le_bytes());
}

/// Sets the entry of a page of 4 KiB.
pub(crate) fn map(machine: &Machine, page: u64, entry: u64) {
    machine.put(PT + (page >> 12) * 8, &entry.to_le_bytes());
}

const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

/// A load and a store through RBX, each followed by HLT.
const LOAD_STORE: &[u8] = &[0x8b, 0x03, 0xf4, 0x89, 0x03, 0xf4];

fn machine(code: &[u8]) -> Machine {
    let mut machine = Machine::at(Level::Kernel, code);
    small_pages(&machine);
    machine.set(|regs| regs.rbx = DATA);
    machine
}

fn entry(machine: &Machine, page: u64) -> u64 {
    machine.get(PT + (page >> 12) * 8)
}

#[test]
fn accessed_and_dirty_bits_are_set_by_what_uses_a_page() {
    let mut machine = machine(LOAD_STORE);
    assert_eq!(entry(&machine, DATA) & (ACCESSED | DIRTY), 0);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(entry(&machine, DATA) & (ACCESSED | DIRTY), ACCESSED);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(entry(&machine, DATA) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
    for table in [PML4, PDPT, PD] {
        assert_eq!(machine.get(table) & (ACCESSED | DIRTY), ACCESSED, "{table:#x}");
    }
    assert_eq!(entry(&machine, CODE) & (ACCESSED | DIRTY), ACCESSED);
}

#[test]
fn write_protection_of_privileged_code_is_an_option() {
    for (wp, vector) in [(0, None), (1 << 16, Some(14))] {
        let mut machine = machine(&[0x89, 0x03, 0xf4]);
        map(&machine, DATA, DATA | 1);
        machine.set_special(|special| special.cr0 = special.cr0 & !(1 << 16) | wp);
        assert_eq!(machine.run_to_halt(), vector);
    }
}

#[test]
fn smep_and_smap_keep_privileged_code_from_user_pages() {
    let (smep, smap) = (1 << 20, 1 << 21);
    // jmp rbx; mov eax, [rbx]; stac; mov eax, [rbx]
    let (jump, load, with_ac): (&[u8], &[u8], &[u8]) =
        (&[0xff, 0xe3], &[0x8b, 0x03, 0xf4], &[0x0f, 0x01, 0xcb, 0x8b, 0x03, 0xf4]);
    for (code, cr4, vector) in [
        (jump, 0, None),
        (jump, smep, Some(14)),
        (load, 0, None),
        (load, smap, Some(14)),
        (with_ac, smap, None),
    ] {
        let mut machine = machine(code);
        map(&machine, DATA, DATA | 7);
        machine.put(DATA, &[0xf4]);
        machine.set_special(|special| special.cr4 |= cr4);
        assert_eq!(machine.run_to_halt(), vector, "{code:x?} {cr4:x}");
    }
}

#[test]
fn translations_are_kept_until_they_are_dropped() {
    // l: mov eax, [rbx]; hlt; invlpg [rbx]; jmp l
    let mut machine = machine(&[0x8b, 0x03, 0xf4, 0x0f, 0x01, 0x3b, 0xeb, 0xf8]);
    machine.put(DATA, &1_u32.to_le_bytes());
    machine.put(DATA + 0x1000, &2_u32.to_le_bytes());
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 1);
    map(&machine, DATA, (DATA + 0x1000) | 3);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 2, "INVLPG drops it");
}

#[test]
fn global_translations_outlive_a_load_of_cr3() {
    // l: mov rax, cr3; mov cr3, rax; mov eax, [rbx]; hlt; jmp l
    let code = [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x8b, 0x03, 0xf4, 0xeb, 0xf5];
    for (bits, value) in [(0, 2), (1 << 8, 1)] {
        let mut machine = machine(&code);
        machine.set_special(|special| special.cr4 |= 1 << 7);
        map(&machine, DATA, DATA | 3 | bits);
        machine.put(DATA, &1_u32.to_le_bytes());
        machine.put(DATA + 0x1000, &2_u32.to_le_bytes());
        assert_eq!(machine.run_to_halt(), None);
        map(&machine, DATA, (DATA + 0x1000) | 3 | bits);
        assert_eq!(machine.run_to_halt(), None);
        assert_eq!(machine.cpu.regs().rax, value, "{bits:x}");
    }
}

#[test]
fn pages_of_all_sizes_lead_to_the_same_place() {
    // mov eax, [rbx]
    let code = [0x8b, 0x03, 0xf4];
    for (table, entry, address) in [
        (PDPT + 8, 0x83, 0x4000_0000 + DATA),
        (PD + 8, 0x83, 0x20_0000 + DATA),
        (PD + 16, PT | 7, 0x40_0000 + DATA),
    ] {
        let mut machine = Machine::at(Level::Kernel, &code);
        for page in 0..512_u64 {
            machine.put(PT + page * 8, &(page << 12 | 3).to_le_bytes());
        }
        machine.put(table, &entry.to_le_bytes());
        machine.put(DATA, &0x1234_u32.to_le_bytes());
        machine.set(|regs| regs.rbx = address);
        assert_eq!(machine.run_to_halt(), None, "{address:#x}");
        assert_eq!(machine.cpu.regs().rax, 0x1234);
    }
}

#[test]
fn tables_outside_of_ram_and_reserved_bits_fault() {
    for (table, entry, error) in [
        (PML4, PDPT | 7 | 1 << 7, 0b1001),
        (PDPT + 8, 0x83_u64 | 1 << 20, 0b1001),
        (PDPT + 8, 0x7_0000_0000 | 3, 0b1001),
        (PD + 8, 0x83 | 1 << 15, 0b1001),
    ] {
        let mut machine = Machine::at(Level::Kernel, &[0x8b, 0x03]);
        machine.set(|regs| regs.rbx = 0x4000_0000);
        if table == PD + 8 {
            machine.set(|regs| regs.rbx = 0x20_0000);
        }
        if table == PML4 {
            // The code itself has a translation, which a change of the tables does not touch.
            assert_eq!(machine.run(0), Exit::Budget);
            machine.put(PML4 + 8, &entry.to_le_bytes());
            machine.set(|regs| regs.rbx = 1 << 39);
        } else {
            machine.put(table, &entry.to_le_bytes());
        }
        assert_eq!(machine.run_to_halt(), Some(14), "{entry:#x}");
        assert_eq!(machine.get(machine.cpu.regs().rsp), error, "{entry:#x}");
    }
}

#[test]
fn memory_outside_of_ram_is_a_device() {
    let mut machine = Machine::at(Level::Kernel, &[0x48, 0x8b, 0x03, 0xf4]);
    machine.put(PD + 8, &(0x4000_0083_u64).to_le_bytes());
    machine.set(|regs| regs.rbx = 0x20_1230);
    assert_eq!(machine.run(10), Exit::MmioRead { address: 0x4000_1230, width: 8 });
    assert_eq!(machine.cpu.run(Entry::Data(77), 10), Exit::Halt);
    assert_eq!(machine.cpu.regs().rax, 77);
}

/// Page tables at random are walked as `nerite_arch` does it.
#[test]
fn the_walk_agrees_with_that_of_a_debugger() {
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let (mut found, mut missing) = (0, 0);
    for _ in 0..2000 {
        let mut machine = Machine::at(Level::Kernel, &[0x8a, 0x03, 0xf4]);
        // Tables of their own, for the upper half.
        let tables = [0x10_0000_u64, 0x10_1000, 0x10_2000];
        let address = 0xffff_8000_0000_0000
            | random(4) << 39
            | random(4) << 30
            | random(4) << 21
            | random(4) << 12
            | 8;
        for (level, table) in (0..).zip(tables) {
            for index in 0..4 {
                let next = tables.get(level + 1).copied().unwrap_or(random(256) << 12);
                let mut entry = next | 2 | random(8).min(1);
                if random(6) == 0 && level < 2 {
                    entry = (random(2) << 21) | 0x83 | (random(8) / 7) << 13;
                }
                machine.put(table + index * 8, &entry.to_le_bytes());
            }
        }
        for index in 0..4 {
            machine.put(PML4 + (256 + index) * 8, &(tables[0] | 3).to_le_bytes());
        }
        let read = |at: u64| machine.ram.read_obj(at).ok();
        let expected = walk(PML4, address, read).map(|found| found.phys);
        if let Ok(physical) = expected {
            if machine.ram.write(physical, &[0x5a]).is_err() {
                continue;
            }
            found += 1;
        } else {
            missing += 1;
        }
        machine.set(|regs| regs.rbx = address);
        let vector = machine.run_to_halt();
        assert_eq!(vector.is_none(), expected.is_ok(), "{address:#x}: {expected:?}, {vector:?}");
        if expected.is_ok() {
            assert_eq!(machine.cpu.regs().rax, 0x5a);
        }
    }
    assert!(found > 300 && missing > 100, "{found} {missing}");
}
