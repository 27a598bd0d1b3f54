//! Real mode, protected mode with 16 and 32 bits, virtual-8086 mode, and the way to long mode.

use nerite_arch::{DescriptorTable, Segment};
use nerite_x86::Exit;

use crate::machine::{
    CODE, DATA, GDT, HANDLERS, IDT, KERNEL_CS_32, KERNEL_SS, Level, Machine, PD, RSP, TSS, segment,
};

/// A machine in real mode at 0x1000:0, which is [`CODE`].
fn real(code: &[u8]) -> Machine {
    let mut machine = Machine::new();
    machine.put(CODE, code);
    machine.cpu.start((CODE >> 12) as u8);
    machine.set(|regs| regs.rsp = 0x8000);
    machine
}

/// A machine in protected mode with 32 bits and no paging.
fn protected(code: &[u8]) -> Machine {
    let mut machine = Machine::at(Level::Kernel, code);
    machine.set_special(|special| {
        special.cs = segment(KERNEL_CS_32);
        (special.cr0, special.efer) = (0x11, 0);
        special.idt.limit = 0x7ff;
    });
    for vector in 0..256 {
        let handler = HANDLERS + vector * 16;
        let gate =
            handler & 0xffff | u64::from(KERNEL_CS_32) << 16 | 0x8e00 << 32 | (handler >> 16) << 48;
        machine.put(IDT + vector * 8, &gate.to_le_bytes());
    }
    machine
}

#[test]
fn a_reset_begins_below_4_gib() {
    let mut machine = Machine::new();
    machine.cpu.init();
    let (regs, special) = (machine.cpu.regs(), machine.cpu.special_regs());
    assert_eq!((special.cs.base, regs.rip, regs.rflags), (0xffff_0000, 0xfff0, 2));
    // There is no RAM: #UD, through an interrupt table of zeros, and so on.
    assert_eq!(machine.run(1), Exit::Budget);
}

#[test]
fn real_mode_addresses_are_segment_and_offset() {
    // mov ax, 0x2000; mov ds, ax; mov word [0x10], 0x1234; mov eax, [0x10]; hlt
    let mut machine =
        real(&[0xb8, 0, 0x20, 0x8e, 0xd8, 0xc7, 6, 0x10, 0, 0x34, 0x12, 0x66, 0xa1, 0x10, 0, 0xf4]);
    assert_eq!(machine.run(10), Exit::Halt);
    assert_eq!((machine.cpu.regs().rax, machine.get(0x2_0010)), (0x1234, 0x1234));
    assert_eq!(machine.cpu.special_regs().ds.base, 0x2_0000);
}

#[test]
fn real_mode_interrupts_use_the_table_at_zero() {
    // int 0x21; hlt. The handler at 0x2000:4: inc ax; iret
    let mut machine = real(&[0xcd, 0x21, 0xf4]);
    machine.put(0x21 * 4, &[4, 0, 0, 0x20]);
    machine.put(DATA + 4, &[0x40, 0xcf]);
    assert_eq!(machine.run(10), Exit::Halt);
    assert_eq!((machine.cpu.regs().rax, machine.cpu.regs().rsp), (1, 0x8000));
    assert_eq!(machine.cpu.regs().rip, 3);
}

#[test]
fn real_mode_segments_end_after_64_kib() {
    // mov ax, [0xffff], across the end
    let mut machine = real(&[0xa1, 0xff, 0xff, 0xf4]);
    machine.put(13 * 4, &[0, 0, 0, 0x20]);
    machine.put(DATA, &[0xf4]);
    assert_eq!(machine.run(10), Exit::Halt);
    assert_eq!(machine.cpu.special_regs().cs.selector, 0x2000, "#GP");
}

#[test]
fn code_ends_with_its_segment() {
    let mut machine = real(&[]);
    // At 0xfffd: inc ax; inc ax; inc ax; and nothing at 0x10000.
    machine.put(CODE + 0xfffd, &[0x40, 0x40, 0x40]);
    machine.put(13 * 4, &[0, 0, 0, 0x20]);
    machine.put(DATA, &[0xf4]);
    machine.set(|regs| regs.rip = 0xfffd);
    assert_eq!(machine.run(10), Exit::Halt);
    assert_eq!((machine.cpu.regs().rax, machine.cpu.special_regs().cs.selector), (3, 0x2000));
}

#[test]
fn start_code_reaches_long_mode() {
    start_code(11);
    // As AMD's processors begin.
    start_code(3);
}

/// Goes to long mode with a task register of this type, which was never loaded.
fn start_code(task: u8) {
    // Real mode: lgdt, cr0.pe, far jump; protected mode: cr4.pae, cr3, efer.lme, cr0.pg, far jump;
    // long mode.
    let pointer = 0x600_u16;
    let mut code = vec![0x0f, 0x01, 0x16];
    code.extend(pointer.to_le_bytes());
    code.extend([0x0f, 0x20, 0xc0, 0x0c, 1, 0x0f, 0x22, 0xc0]);
    let at_32 = CODE as u32 + 0x100;
    code.extend([0x66, 0xea]);
    code.extend(at_32.to_le_bytes());
    code.extend(KERNEL_CS_32.to_le_bytes());
    let mut machine = real(&code);
    machine.put(
        u64::from(pointer),
        &[&0x57_u16.to_le_bytes()[..], &(GDT as u32).to_le_bytes()].concat(),
    );
    let mut code = vec![0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0];
    code.extend([0xb8, 0, 0x10, 0, 0, 0x0f, 0x22, 0xd8]);
    code.extend([0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0xba, 0xe8, 8, 0x0f, 0x30]);
    code.extend([0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xe8, 31, 0x0f, 0x22, 0xc0]);
    code.push(0xea);
    code.extend((CODE as u32 + 0x200).to_le_bytes());
    code.extend([8, 0]);
    machine.put(CODE + 0x100, &code);
    // mov r8, 1; hlt
    machine.put(CODE + 0x200, &[0x49, 0xc7, 0xc0, 1, 0, 0, 0, 0xf4]);
    machine.set_special(|special| {
        (special.tr.selector, special.tr.kind, special.tr.unusable) = (0, task, false);
    });
    assert_eq!(machine.run(100), Exit::Halt, "{}", machine.cpu.regs());
    let special = machine.cpu.special_regs();
    assert_eq!((machine.cpu.regs().r8, special.cs.l, special.efer & 0x500), (1, true, 0x500));
    assert_eq!(special.cr0 >> 31, 1);
}

#[test]
fn protected_segments_have_limits_and_rights() {
    // mov [ebx], eax
    for (change, rbx, vector) in [
        (Box::new(|ds: &mut Segment| ds.limit = 0x1fff) as Box<dyn Fn(&mut Segment)>, 0x1ffc, None),
        (Box::new(|ds| ds.limit = 0x1fff), 0x1ffd, Some(13)),
        (Box::new(|ds| ds.kind = 1), 0x1000, Some(13)),
        (Box::new(|ds| ds.unusable = true), 0x1000, Some(13)),
        (Box::new(|ds| (ds.kind, ds.limit) = (7, 0xffff)), 0x1_0000, None),
        (Box::new(|ds| (ds.kind, ds.limit) = (7, 0xffff)), 0xffff, Some(13)),
    ] {
        let mut machine = protected(&[0x89, 0x03, 0xf4]);
        machine.set(|regs| (regs.rbx, regs.rip) = (rbx, CODE));
        if rbx == 0x1_0000 {
            machine.set(|regs| regs.rbx = DATA);
        }
        machine.set_special(|special| change(&mut special.ds));
        assert_eq!(machine.run_to_halt(), vector, "{rbx:#x}");
    }
}

#[test]
fn tables_of_32_bits_map_pages_of_both_sizes() {
    // mov eax, [ebx]; hlt
    let mut machine = protected(&[0x8b, 0x03, 0xf4]);
    let (directory, table) = (0x10_0000_u64, 0x10_1000_u64);
    machine.put(directory, &0x83_u32.to_le_bytes());
    machine.put(directory + 4, &(table as u32 | 3).to_le_bytes());
    machine.put(table, &(DATA as u32 | 3).to_le_bytes());
    machine.put(DATA, &0x55_u32.to_le_bytes());
    machine.set_special(|special| {
        (special.cr3, special.cr4, special.cr0) = (directory, 0x10, 0x8000_0011);
    });
    machine.set(|regs| regs.rbx = 0x40_0000);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 0x55);
    machine.set(|regs| (regs.rbx, regs.rip) = (0x40_1000, CODE));
    assert_eq!(machine.run_to_halt(), Some(14));
    assert_eq!(machine.get(machine.cpu.regs().rsp) as u32, 0);
}

#[test]
fn pae_tables_have_four_entries_at_the_top() {
    let mut machine = protected(&[0x8b, 0x03, 0xf4]);
    let pointers = 0x10_0020_u64;
    machine.put(pointers, &(PD | 1).to_le_bytes());
    machine.put(pointers + 24, &(PD | 1).to_le_bytes());
    machine.put(DATA, &0x66_u32.to_le_bytes());
    machine.set_special(|special| {
        (special.cr3, special.cr4, special.cr0) = (pointers, 0x20, 0x8000_0011);
    });
    machine.set(|regs| regs.rbx = 0xc000_0000 + DATA);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 0x66);
}

#[test]
fn virtual_8086_mode_is_entered_and_left() {
    // iretd to 0x2000:0, where HLT faults.
    let mut machine = protected(&[0xcf]);
    let frame = [0_u32, 0x2000, 0x2_0202, 0x7000, 0x1000, 0x11, 0x12, 0x13, 0x14];
    let bytes: Vec<u8> = frame.into_iter().flat_map(u32::to_le_bytes).collect();
    machine.put(RSP, &bytes);
    machine.put(DATA, &[0x40, 0xf4]);
    machine.put(TSS + 4, &[&0x9000_u32.to_le_bytes()[..], &KERNEL_SS.to_le_bytes()].concat());
    machine.run(1);
    let special = machine.cpu.special_regs();
    assert_eq!((special.cs.base, special.es.base, special.gs.selector), (DATA, 0x110, 0x14));
    assert_eq!(machine.run_to_halt(), Some(13));
    let rsp = machine.cpu.regs().rsp;
    let saved: [u32; 10] = std::array::from_fn(|index| machine.get(rsp + index as u64 * 4) as u32);
    assert_eq!(saved, [0, 1, 0x2000, 0x3_0202, 0x7000, 0x1000, 0x11, 0x12, 0x13, 0x14]);
    assert_eq!(
        (machine.cpu.special_regs().ds.unusable, machine.cpu.regs().rflags >> 17 & 1),
        (true, 0)
    );
}

#[test]
fn a_16_bit_stack_wraps() {
    // push ax, with SP 0 and a segment of 64 KiB
    let mut machine = real(&[0x50, 0xf4]);
    machine.set(|regs| (regs.rsp, regs.rax) = (0xabcd_0000, 0x77));
    machine.set_special(|special| special.ss.base = DATA);
    assert_eq!(machine.run(10), Exit::Halt);
    assert_eq!((machine.cpu.regs().rsp, machine.get(DATA + 0xfffe) & 0xffff), (0xabcd_fffe, 0x77));
}

#[test]
fn a_task_gate_is_not_followed() {
    let mut machine = protected(&[0xcc]);
    machine.put(
        IDT + 3 * 8,
        &(0x8500_u64 << 32 | u64::from(crate::machine::TSS_SELECTOR) << 16).to_le_bytes(),
    );
    assert_eq!(machine.run_to_halt(), Some(13));
    assert_eq!(machine.get(machine.cpu.regs().rsp) as u32, 3 * 8 + 2);
    let table = DescriptorTable { base: IDT, limit: 0x7ff };
    assert_eq!(machine.cpu.special_regs().idt, table);
}
