use std::io::Read as _;

use nerite_arch::Regs;
use nerite_arch::paging::IdentityMap;
use nerite_memory::{Backing, Region};
use object::{Object as _, ObjectSegment as _};

use super::*;

const MIB: u64 = 1 << 20;

fn ram() -> GuestRam {
    let regions = [Region { start: 0, size: 4 * MIB }, Region { start: 1 << 32, size: 2 * MIB }];
    GuestRam::new(&regions, &Backing::default()).unwrap()
}

fn vcpu(index: u32, cr3: Option<u64>) -> VcpuState {
    let paged =
        cr3.map(|cr3| SpecialRegs { cr0: 1 << 31, efer: 1 << 10, cr3, ..SpecialRegs::default() });
    VcpuState {
        index,
        regs: Regs { rip: 0x1234 + u64::from(index), rbx: 7, ..Regs::default() },
        special_regs: paged.unwrap_or_default(),
        fpu: None,
        backtrace: Vec::new(),
    }
}

fn written(core: &Core<'_>) -> Vec<u8> {
    let file = tempfile::tempfile().unwrap();
    core.write(&file, &|| false).unwrap();
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).unwrap();
    bytes
}

fn segments(bytes: &[u8]) -> Vec<(u64, u64)> {
    let file = object::File::parse(bytes).unwrap();
    file.segments().map(|segment| (segment.address(), segment.size())).collect()
}

#[test]
fn memory_is_where_the_guest_saw_it() {
    let ram = ram();
    let map = IdentityMap {
        pml4: 0x1000,
        tables_start: 0x2000,
        tables_end: 0x8000,
        start: 0,
        end: 2 * MIB,
    };
    for table in map.tables().unwrap() {
        ram.write(table.addr, table.bytes.as_slice()).unwrap();
    }
    // Entry 5 of the root leads to a table of which entry 3 is a page of 1 GiB, over the end of RAM
    // but for 2 MiB.
    ram.write_obj(0x1000 + 8 * 5, &(0x9000_u64 | 3)).unwrap();
    ram.write_obj(0x9000 + 8 * 3, &((1_u64 << 32) | 0x83)).unwrap();
    ram.write_obj((1 << 32) + 0x5000, &0x1122_3344_5566_7788_u64).unwrap();
    let vcpus = [vcpu(0, Some(0x1000)), vcpu(1, None)];
    let bytes = written(&Core { ram: &ram, vcpus: &vcpus, crashed: 1, entry: Some(0x40_0000) });
    let high = (5 << 39) + (3 << 30);
    let found = segments(&bytes);
    assert!(found.contains(&(0, 2 * MIB)), "{found:x?}");
    assert!(found.contains(&(high, 2 * MIB)), "{found:x?}");
    let file = object::File::parse(&*bytes).unwrap();
    let segment = file.segments().find(|segment| segment.address() == high).unwrap();
    let word = segment.data_range(high + 0x5000, 8).unwrap().unwrap();
    assert_eq!(word, 0x1122_3344_5566_7788_u64.to_le_bytes());
}

#[test]
fn without_page_tables_memory_is_where_it_is() {
    let ram = ram();
    let bytes = written(&Core { ram: &ram, vcpus: &[vcpu(0, None)], crashed: 0, entry: None });
    assert_eq!(segments(&bytes), [(0, 4 * MIB), (1 << 32, 2 * MIB)]);
    assert_eq!(bytes.len() as u64 % PAGE, 0);
}

/// RAM with two roots, every entry of which leads to the root itself.
fn circles() -> GuestRam {
    let ram = ram();
    for root in [0x1000, 0x2000] {
        for entry in 0..512 {
            ram.write_obj(root + 8 * entry, &(root | 7)).unwrap();
        }
    }
    ram
}

#[test]
fn tables_that_lead_in_circles_come_to_an_end() {
    let ram = circles();
    let bytes =
        written(&Core { ram: &ram, vcpus: &[vcpu(0, Some(0x1000))], crashed: 0, entry: None });
    assert!(segments(&bytes).len() <= MAX_SEGMENTS);
}

#[test]
fn the_page_tables_of_all_vcpus_share_one_budget() {
    let looks = |vcpus: &[VcpuState]| {
        let count = std::cell::Cell::new(0);
        let look = || {
            count.set(count.get() + 1);
            false
        };
        Core { ram: &circles(), vcpus, crashed: 0, entry: None }.segments(&look).unwrap();
        count.get()
    };
    let one = looks(&[vcpu(0, Some(0x1000))]);
    assert_eq!(one, MAX_STEPS / STEPS_BETWEEN_LOOKS);
    assert_eq!(looks(&[vcpu(0, Some(0x1000)), vcpu(1, Some(0x2000))]), one);
}

#[test]
fn writing_ends_when_it_is_stopped() {
    for vcpus in [[vcpu(0, None)], [vcpu(0, Some(0x1000))]] {
        let core = Core { ram: &circles(), vcpus: &vcpus, crashed: 0, entry: None };
        let error = core.write(&tempfile::tempfile().unwrap(), &|| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }
}

#[test]
fn the_one_that_crashed_is_the_first_thread() {
    let core =
        Core { ram: &ram(), vcpus: &[vcpu(0, None), vcpu(1, None)], crashed: 1, entry: Some(9) };
    let notes = core.notes();
    let word = |at: usize| u32::from_le_bytes(notes[at..at + 4].try_into().unwrap());
    // Two of 20 + 336 bytes, and one of 20 + 48.
    assert_eq!(notes.len(), 2 * 356 + 68);
    assert_eq!((word(8), word(20 + 12), word(20 + 32)), (NT_PRSTATUS, 11, 2));
    assert_eq!((word(356 + 20 + 12), word(356 + 20 + 32)), (0, 1));
    // RBX and RIP, the 6th and the 17th register.
    assert_eq!((word(20 + 112 + 5 * 8), word(20 + 112 + 16 * 8)), (7, 0x1235));
}

#[test]
fn vector_registers_follow_the_general_ones() {
    let mut fpu = Fpu::default();
    fpu.set_xmm(3, [3; 16]);
    fpu.set_ymm_high(3, [4; 16]);
    let vcpus = [VcpuState { fpu: Some(fpu), ..vcpu(0, None) }];
    let notes = Core { ram: &ram(), vcpus: &vcpus, crashed: 0, entry: None }.notes();
    let word = |at: usize| u32::from_le_bytes(notes[at..at + 4].try_into().unwrap());
    // 20 + 336 bytes, 20 + 512, and 20 + 832.
    assert_eq!(notes.len(), 356 + 532 + 852);
    assert_eq!((word(356 + 4), word(356 + 8)), (512, NT_FPREGSET));
    assert_eq!(notes[356 + 20 + 160 + 48..][..16], [3; 16]);
    let wide = 356 + 532;
    assert_eq!((word(wide), word(wide + 4), word(wide + 8)), (6, 832, NT_X86_XSTATE));
    assert_eq!(&notes[wide + 12..wide + 20], b"LINUX\0\0\0");
    assert_eq!(word(wide + 20 + XCR0), 7);
    assert_eq!(notes[wide + 20 + 576 + 48..][..16], [4; 16]);
}
