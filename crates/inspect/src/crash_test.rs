use nerite_arch::Segment;
use nerite_hypervisor::{InstructionBytes, InternalError};
use nerite_loader::Image;
use nerite_loader::testing::{CODE, Elf, Symbol};
use nerite_memory::{Backing, Region};
use nerite_testkit::{image, tables};
use proptest::prelude::*;

use super::*;

const KERNEL: u64 = 0x4_0000;
/// Address of the code once the kernel is loaded.
const TEXT: u64 = KERNEL + CODE;
const RAM_END: u64 = 2 << 20;
const STACK: u64 = 0x10_0000;

/// A kernel with two functions in memory, and all of 2 MiB mapped to itself but the last page.
struct Guest {
    image: Image,
    ram: GuestRam,
    loaded: LoadedKernel,
    special: SpecialRegs,
}

fn guest() -> Guest {
    let mut elf = Elf::hermit();
    let symbol =
        |name, offset, size| Symbol { name, info: 0x12, section: 1, value: CODE + offset, size };
    elf.symbols.truncate(1);
    elf.symbols.extend([symbol(b"outer", 0x10, 0x30), symbol(b"inner", 0x40, 0x30)]);
    let image = image::parse(&elf);
    let ram = GuestRam::new(&[Region { start: 0, size: RAM_END }], &Backing::default()).unwrap();
    let loaded = image.kernel().load(ram.inner(), KERNEL).unwrap();
    let pages: Vec<_> = (0..511).map(|page| (page, page * 0x1000)).collect();
    let special = tables::map(&ram, &pages);
    Guest { image, ram, loaded, special }
}

impl Guest {
    fn words(&self, at: u64, words: &[u64]) {
        for (at, word) in (at..).step_by(8).zip(words) {
            self.ram.write_obj(at, word).unwrap();
        }
    }

    fn backtrace(&self, rip: u64, rbp: u64, rsp: u64) -> Vec<Frame> {
        let unwinder =
            Unwinder { ram: &self.ram, kernel: self.image.kernel(), loaded: &self.loaded };
        unwinder.backtrace(&Regs { rip, rbp, rsp, ..Regs::default() }, &self.special)
    }

    fn shown(&self, rip: u64, rbp: u64, rsp: u64) -> Vec<String> {
        self.backtrace(rip, rbp, rsp).iter().map(ToString::to_string).collect()
    }
}

#[test]
fn frame_pointers_lead_to_the_callers() {
    let guest = guest();
    guest.words(STACK, &[STACK + 0x20, TEXT + 0x20]);
    guest.words(STACK + 0x20, &[0, TEXT + 0x40]);
    // A call at a function's end returns to where the next one begins.
    let expected = [
        "0x0000000000050045 inner+0x5",
        "0x0000000000050020 outer+0x10",
        "0x0000000000050040 outer+0x30",
    ];
    assert_eq!(guest.shown(TEXT + 0x45, STACK, 0), expected);
}

#[test]
fn without_frame_pointers_the_stack_is_searched() {
    let guest = guest();
    guest
        .words(STACK, &[1, TEXT + 0x45, KERNEL, u64::MAX, TEXT + 0x123, TEXT + 0x122, TEXT + 0x18]);
    let expected = [
        "0x00000000d0000000 ?",
        "0x0000000000050045 inner+0x5 (found on the stack)",
        "0x0000000000050122 ? (found on the stack)",
        "0x0000000000050018 outer+0x8 (found on the stack)",
    ];
    assert_eq!(guest.shown(0xd000_0000, 0, STACK), expected);
    assert_eq!(guest.backtrace(0, 0, STACK + 4).len(), 1, "a stack is aligned");
    // It ends where memory does.
    guest.words(RAM_END - 0x1010, &[TEXT, TEXT + 1]);
    assert_eq!(guest.backtrace(0, 0, RAM_END - 0x1010).len(), 3);
}

#[test]
fn no_chain_of_frames_is_followed_in_circles_or_for_ever() {
    let guest = guest();
    // To itself; down; up and down again.
    for (frames, length) in [
        (vec![(STACK, STACK)], 2),
        (vec![(STACK, STACK - 0x10), (STACK - 0x10, STACK)], 2),
        (vec![(STACK, STACK + 0x20), (STACK + 0x20, STACK)], 3),
    ] {
        for (at, next) in frames {
            guest.words(at, &[next, TEXT + 0x20]);
        }
        assert_eq!(guest.backtrace(TEXT, STACK, 0).len(), length);
    }
    for n in 0..1000 {
        guest.words(STACK + 16 * n, &[STACK + 16 * (n + 1), TEXT + 0x20]);
    }
    assert_eq!(guest.backtrace(TEXT, STACK, 0).len(), MAX_FRAMES);
}

#[test]
fn frame_pointers_to_nowhere_end_the_chain() {
    let guest = guest();
    let unmapped = RAM_END - 0x1000;
    for pointer in
        [0, unmapped, 0x8000_0000_0000, 0xffff_7fff_ffff_fff8, u64::MAX - 7, u64::MAX, STACK + 3]
    {
        assert_eq!(guest.backtrace(TEXT, pointer, 0).len(), 1, "{pointer:#x}");
        guest.words(STACK, &[pointer, TEXT + 0x20]);
        assert_eq!(guest.backtrace(TEXT, STACK, 0).len(), 2, "{pointer:#x}");
    }
    // The last word that is mapped is no whole frame.
    guest.words(unmapped - 8, &[TEXT + 0x20]);
    assert_eq!(guest.backtrace(TEXT, unmapped - 8, 0).len(), 1);
    // Data, which cannot be executed, and the ends of the code are no places to return to.
    for target in [TEXT + 0x1128, TEXT - 1, TEXT + 0x123, 0, u64::MAX] {
        guest.words(STACK, &[0, target]);
        assert_eq!(guest.backtrace(TEXT, STACK, 0).len(), 1, "{target:#x}");
    }
}

#[test]
fn broken_page_tables_leave_the_first_frame() {
    let mut guest = guest();
    guest.words(STACK, &[0, TEXT + 0x20]);
    for cr3 in [RAM_END, 0x10_0000_0000, u64::MAX] {
        guest.special.cr3 = cr3;
        assert_eq!(guest.backtrace(TEXT + 0x45, STACK, STACK).len(), 1);
    }
}

#[test]
fn five_levels_of_page_tables_are_honoured() {
    let mut guest = guest();
    guest.words(STACK, &[0, TEXT + 0x20]);
    let table = 0x18_0000;
    guest.words(table + 511 * 8, &[tables::ROOT | 3]);
    guest.special.cr3 = table;
    let upper = 0xffff_0000_0000_0000;
    assert_eq!(
        guest.backtrace(TEXT, upper + STACK, 0).len(),
        1,
        "no such address with four levels"
    );
    guest.special.cr4 |= 1 << 12;
    assert_eq!(guest.backtrace(TEXT, upper + STACK, 0).len(), 2);
    assert_eq!(guest.backtrace(TEXT, STACK, 0).len(), 1, "not mapped");
}

#[test]
fn outside_of_64_bit_mode_nothing_is_followed() {
    let mut guest = guest();
    guest.words(STACK, &[0, TEXT + 0x20]);
    assert_eq!(guest.backtrace(TEXT, STACK, STACK).len(), 2);
    guest.special.cr0 = 0x6000_0010;
    assert_eq!(guest.backtrace(TEXT, STACK, STACK).len(), 1);
}

#[test]
fn registers_after_a_reset_are_told_from_those_of_the_guest() {
    let told = |rip, cr0, base| {
        let special_regs = SpecialRegs {
            cr0,
            cs: Segment { base, ..Segment::default() },
            ..SpecialRegs::default()
        };
        let regs = Regs { rip, ..Regs::default() };
        let vcpu = VcpuState { index: 2, regs, special_regs, fpu: None, backtrace: Vec::new() };
        let report = CrashReport { vcpu: 2, exit: Exit::Shutdown, vcpus: vec![vcpu], kernel: 0..0 };
        let report = report.to_string();
        let told = report.contains("\nvCPU 2\n(on AMD, a triple fault leaves no state behind");
        assert_eq!(report.contains("backtrace"), !told, "{report}");
        told
    };
    assert!(told(0xfff0, 0x6000_0010, 0xffff_0000));
    assert!(!told(0xfff0, 0x8000_0031, 0xffff_0000));
    assert!(!told(0x1_0004_1000, 0x6000_0010, 0xffff_0000));
    assert!(!told(0xfff0, 0x6000_0010, 0));
}

fn report(exit: Exit) -> String {
    let vcpus = vec![
        VcpuState {
            index: 0,
            regs: Regs { rax: 0x1234, ..Regs::default() },
            special_regs: SpecialRegs {
                cr2: 0x5678,
                cs: Segment::default(),
                ..tables::special_regs()
            },
            fpu: None,
            backtrace: vec![Frame {
                address: 0x1_0000,
                symbol: Some(("main".to_owned(), 4)),
                certain: true,
            }],
        },
        VcpuState {
            index: 1,
            regs: Regs::default(),
            special_regs: tables::special_regs(),
            fpu: None,
            backtrace: vec![Frame { address: 0x2_0000, symbol: None, certain: false }],
        },
    ];
    CrashReport { vcpu: 1, exit, vcpus, kernel: 0x4_0000..0x5_0000 }.to_string()
}

#[test]
fn a_report_has_the_reason_and_all_vcpus() {
    let report = report(Exit::Shutdown);
    let lines: Vec<_> = report.lines().collect();
    assert!(lines[0].starts_with("guest crashed on vCPU 1: triple fault"), "{report}");
    assert_eq!(lines[1], "kernel at 0x40000..0x50000");
    for part in ["vCPU 0", "rax 0000000000001234", "cr2 0000000000005678", "vCPU 1"] {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(report.contains("\n   0 0x0000000000010000 main+0x4\n"), "{report}");
    assert!(report.ends_with("\n   0 0x0000000000020000 ? (found on the stack)\n"), "{report}");
}

#[test]
fn reasons_are_told_with_what_is_known() {
    let internal = |suberror, bytes: &[u8]| {
        let instruction = InstructionBytes::new(bytes);
        Exit::InternalError(InternalError { suberror, instruction, data: [0; 4] })
    };
    let reasons = [
        (Exit::EntryFailed { hardware_reason: 0x8000_0021 }, "hardware reason 0x80000021"),
        (
            internal(1, &[0x0f, 0x0b]),
            "KVM internal error 1 (an instruction could not be emulated), instruction bytes 0f 0b",
        ),
        (internal(2, &[]), "(exceptions at the same time), instruction bytes not known"),
        (internal(3, &[]), "(an event could not be delivered)"),
        (internal(4, &[]), "(an unexpected exit of the processor)"),
        (internal(99, &[]), "KVM internal error 99 (not known)"),
        (Exit::Unknown { reason: 77 }, "unhandled KVM exit reason 77"),
        (Exit::Halt, "nothing can wake it"),
        (Exit::InterruptWindow, "unhandled exit: InterruptWindow"),
    ];
    for (exit, expected) in reasons {
        let report = report(exit);
        assert!(report.lines().next().unwrap().contains(expected), "{expected} in {report}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is on the stack: an end, no more frames than are shown, and return addresses only
    /// into code.
    #[test]
    fn any_stack_is_survived(
        words in proptest::collection::vec(
            prop_oneof![STACK..STACK + 0x400, TEXT..TEXT + 0x123, any::<u64>()], 128),
        rbp in prop_oneof![STACK..STACK + 0x400, any::<u64>()],
        rsp in prop_oneof![STACK..STACK + 0x400, any::<u64>()],
        rip: u64,
        cr3 in prop_oneof![8 => Just(tables::ROOT), 1 => any::<u64>(), 1 => STACK..STACK + 0x400],
    ) {
        let mut guest = guest();
        guest.special.cr3 = cr3;
        guest.words(STACK, &words);
        let frames = guest.backtrace(rip, rbp, rsp);
        prop_assert!(frames.len() <= MAX_FRAMES);
        prop_assert_eq!(frames[0].address, rip);
        for frame in &frames[1..] {
            prop_assert!((TEXT..TEXT + 0x123).contains(&frame.address), "{frame}");
        }
    }
}
