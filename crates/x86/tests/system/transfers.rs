//! Changes of privilege and code segment, and the state that they leave.

use nerite_arch::Msr;

use crate::machine::{
    CODE, DATA, GDT, KERNEL_CS, KERNEL_CS_32, KERNEL_SS, Level, Machine, RSP, STACK, USER_CS,
    USER_CS_32, USER_SS,
};

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const SFMASK: u32 = 0xc000_0084;

/// A machine of which unprivileged code can use the pages of code, data and stack.
fn machine(level: Level, code: &[u8]) -> Machine {
    let machine = Machine::at(level, code);
    crate::paging::small_pages(&machine);
    for page in [CODE, DATA, RSP - 0x1000] {
        crate::paging::map(&machine, page, page | 7);
    }
    machine
}

fn push(machine: &mut Machine, values: &[u64]) {
    let top = RSP - values.len() as u64 * 8;
    for (index, value) in (0..).zip(values) {
        machine.put(top + index * 8, &value.to_le_bytes());
    }
    machine.set(|regs| regs.rsp = top);
}

#[test]
fn syscall_and_sysret_change_level_and_stay_in_64_bit_mode() {
    // User: syscall; int3 (which user code must not use: #GP). Kernel at DATA: sysretq
    let mut machine = machine(Level::User, &[0x0f, 0x05, 0xf4]);
    machine.put(0x1_1000, &[0x48, 0x0f, 0x07]);
    for (index, value) in
        [(STAR, 0x0010_0008_0000_0000), (LSTAR, 0x1_1000), (SFMASK, 0x200), (0xc000_0080, 0xd01)]
    {
        assert!(machine.cpu.set_msr(Msr { index, value }));
    }
    machine.set(|regs| regs.rflags = 0x246);
    machine.run(1);
    let special = machine.cpu.special_regs();
    let regs = machine.cpu.regs();
    assert_eq!((regs.rip, regs.rcx, regs.r11, regs.rflags), (0x1_1000, CODE + 2, 0x246, 0x46));
    assert_eq!(
        (special.cs.selector, special.cs.dpl, special.ss.selector),
        (KERNEL_CS, 0, KERNEL_SS)
    );
    machine.run(1);
    let special = machine.cpu.special_regs();
    assert_eq!((special.cs.selector, special.ss.selector, special.cs.l), (0x23, 0x1b, true));
    assert_eq!((machine.cpu.regs().rip, machine.cpu.regs().rflags), (CODE + 2, 0x246));
    assert_eq!(machine.run_to_halt(), Some(13), "HLT is privileged");
}

#[test]
fn a_trap_follows_sysret_and_syscall_that_end_with_tf() {
    // Kernel: sysretq, to an unprivileged nop at DATA.
    for (r11, rip) in [(0x302, Some(DATA)), (0x202, None)] {
        let mut machine = machine(Level::Kernel, &[0x48, 0x0f, 0x07]);
        machine.put(DATA, &[0x90, 0xf4]);
        assert!(machine.cpu.set_msr(Msr { index: STAR, value: 0x0010_0008_0000_0000 }));
        assert!(machine.cpu.set_msr(Msr { index: 0xc000_0080, value: 0xd01 }));
        machine.set(|regs| (regs.rcx, regs.r11) = (DATA, r11));
        assert_eq!(machine.run_to_halt(), Some(if rip.is_some() { 1 } else { 13 }));
        assert_eq!(
            machine.get(machine.cpu.regs().rsp + if rip.is_some() { 0 } else { 8 }),
            rip.unwrap_or(DATA + 1)
        );
    }
    // User: syscall with TF set, which the mask clears, and then not.
    for (mask, trapped) in [(0x100, None), (0, Some(1))] {
        let mut machine = machine(Level::User, &[0x0f, 0x05]);
        machine.put(0x1_1000, &[0xf4]);
        for (index, value) in
            [(STAR, 0x0010_0008_0000_0000), (LSTAR, 0x1_1000), (SFMASK, mask), (0xc000_0080, 0xd01)]
        {
            assert!(machine.cpu.set_msr(Msr { index, value }));
        }
        machine.set(|regs| regs.rflags |= 0x100);
        assert_eq!(machine.run_to_halt(), trapped, "{mask:#x}");
        assert_eq!(machine.cpu.events().debug, 0);
    }
}

#[test]
fn an_entry_to_the_system_leaves_later_traps_alone() {
    // User: syscall. Kernel: nop; push 0x102; popfq; nop, after which comes the trap.
    let mut machine = machine(Level::User, &[0x0f, 0x05]);
    machine.put(0x1_1000, &[0x90, 0x68, 2, 1, 0, 0, 0x9d, 0x90, 0xf4]);
    for (index, value) in
        [(STAR, 0x0010_0008_0000_0000), (LSTAR, 0x1_1000), (SFMASK, 0x100), (0xc000_0080, 0xd01)]
    {
        assert!(machine.cpu.set_msr(Msr { index, value }));
    }
    assert_eq!(machine.run_to_halt(), Some(1));
    assert_eq!(machine.get(machine.cpu.regs().rsp), 0x1_1008);
}

#[test]
fn syscall_is_undefined_unless_enabled() {
    let mut machine = machine(Level::User, &[0x0f, 0x05]);
    machine.set_special(|special| special.efer &= !1);
    assert_eq!(machine.run_to_halt(), Some(6));
}

#[test]
fn sysenter_and_sysexit_use_their_registers() {
    let mut machine = machine(Level::User, &[0x0f, 0x34, 0xf4]);
    machine.put(0x1_1000, &[0x48, 0x0f, 0x35]);
    for (index, value) in [(0x174, 8), (0x175, STACK), (0x176, 0x1_1000)] {
        assert!(machine.cpu.set_msr(Msr { index, value }));
    }
    machine.set(|regs| (regs.rcx, regs.rdx) = (RSP, CODE + 2));
    machine.run(1);
    assert_eq!((machine.cpu.regs().rip, machine.cpu.regs().rsp), (0x1_1000, STACK));
    assert_eq!(machine.cpu.special_regs().ss.dpl, 0);
    machine.run(1);
    assert_eq!((machine.cpu.regs().rip, machine.cpu.regs().rsp), (CODE + 2, RSP));
    assert_eq!(machine.cpu.special_regs().cs.dpl, 3);
}

#[test]
fn iret_enters_unprivileged_code_of_both_sizes() {
    for (cs, is_64) in [(USER_CS, true), (USER_CS_32, false)] {
        let mut machine = machine(Level::Kernel, &[0x48, 0xcf]);
        machine.put(DATA, &[0x31, 0xc0, 0xf4]);
        push(&mut machine, &[DATA, cs.into(), 0x202, RSP - 64, USER_SS.into()]);
        machine.run(1);
        let special = machine.cpu.special_regs();
        assert_eq!((special.cs.selector, special.cs.l, special.cs.dpl), (cs, is_64, 3));
        assert_eq!((machine.cpu.regs().rsp, machine.cpu.regs().rip), (RSP - 64, DATA));
        assert_eq!(machine.run_to_halt(), Some(13));
        assert_eq!(machine.get(machine.cpu.regs().rsp + 16), u64::from(cs));
    }
}

#[test]
fn iret_does_not_return_to_where_it_must_not() {
    for (frame, error) in [
        ([DATA, 0, 2, RSP, 0x1b], 0),
        ([DATA, KERNEL_SS.into(), 2, RSP, 0x1b], u64::from(KERNEL_SS)),
        ([DATA, USER_CS.into(), 2, RSP, KERNEL_SS.into()], u64::from(KERNEL_SS)),
        ([1 << 60, USER_CS.into(), 2, RSP, 0x1b], 0),
        ([DATA, 0x58, 2, RSP, 0x1b], 0x58),
    ] {
        let mut machine = machine(Level::Kernel, &[0x48, 0xcf]);
        push(&mut machine, &frame);
        assert_eq!(machine.run_to_halt(), Some(13), "{frame:x?}");
        assert_eq!(machine.get(machine.cpu.regs().rsp), error, "{frame:x?}");
        assert_eq!(machine.get(machine.cpu.regs().rsp + 8), CODE);
    }
}

#[test]
fn returns_to_less_privilege_drop_segments() {
    let mut machine = machine(Level::Kernel, &[0x48, 0xcf]);
    machine.set_special(|special| {
        let kernel = crate::machine::segment(KERNEL_SS);
        (special.ds, special.es) = (kernel, crate::machine::segment(USER_SS));
        special.gs = nerite_arch::Segment { base: 0x1234, ..kernel };
    });
    push(&mut machine, &[DATA, USER_CS.into(), 2, RSP, USER_SS.into()]);
    machine.run(1);
    let special = machine.cpu.special_regs();
    assert_eq!((special.ds.selector, special.ds.unusable), (0, true));
    assert_eq!((special.gs.selector, special.gs.unusable, special.gs.base), (0, true, 0x1234));
    assert_eq!((special.es.selector, special.es.unusable), (USER_SS, false));
}

#[test]
fn a_far_jump_enters_compatibility_mode_and_leaves_it() {
    // jmp far [rbx]; at DATA, 32 bits: mov eax, 1; jmp 8:CODE+0x100; at CODE+0x100, 64 bits: dec
    // rax is 48 ff c8
    let mut machine = machine(Level::Kernel, &[0xff, 0x2b]);
    machine.put(
        DATA + 0x100,
        &[&(DATA as u32).to_le_bytes()[..], &KERNEL_CS_32.to_le_bytes()].concat(),
    );
    machine.put(DATA, &[0xb8, 1, 0, 0, 0, 0x48, 0xea, 0, 1, 1, 0, 8, 0]);
    machine.put(CODE + 0x100, &[0x48, 0xff, 0xc8, 0xf4]);
    machine.set(|regs| regs.rbx = DATA + 0x100);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(
        machine.cpu.regs().rax,
        u64::MAX,
        "48 is DEC EAX in compatibility mode and a prefix in 64-bit mode"
    );
}

#[test]
fn a_call_gate_changes_level_and_stack() {
    // call far [rbx], through a gate at 0x48 to CODE+0x200, which returns: retfq
    let mut machine = machine(Level::User, &[0xff, 0x1b, 0xf4]);
    let target = CODE + 0x200;
    let gate = target & 0xffff | u64::from(KERNEL_CS) << 16 | 0xec00 << 32 | (target >> 16) << 48;
    machine.put(GDT + 0x48, &gate.to_le_bytes());
    machine.put(GDT + 0x50, &[0; 8]);
    machine.put(target, &[0x48, 0xcb]);
    machine.put(DATA, &[0, 0, 0, 0, 0x48, 0]);
    machine.set(|regs| regs.rbx = DATA);
    machine.run(1);
    let rsp = machine.cpu.regs().rsp;
    assert_eq!((machine.cpu.regs().rip, rsp), (target, STACK - 32));
    let frame: [u64; 4] = std::array::from_fn(|index| machine.get(rsp + index as u64 * 8));
    assert_eq!(frame, [CODE + 2, USER_CS.into(), RSP, USER_SS.into()]);
    machine.run(1);
    assert_eq!((machine.cpu.regs().rip, machine.cpu.regs().rsp), (CODE + 2, RSP));
    assert_eq!(machine.cpu.special_regs().cs.dpl, 3);
}

#[test]
fn swapgs_exchanges_the_bases() {
    // swapgs; mov rax, gs:[0]; hlt
    let mut machine =
        machine(Level::Kernel, &[0x0f, 0x01, 0xf8, 0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xf4]);
    machine.put(DATA, &0x77_u64.to_le_bytes());
    assert!(machine.cpu.set_msr(Msr { index: 0xc000_0102, value: DATA }));
    assert!(machine.cpu.set_msr(Msr { index: 0xc000_0101, value: 0x1234 }));
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 0x77);
    assert_eq!(machine.cpu.msr(0xc000_0102), Some(0x1234));
}

#[test]
fn bases_are_read_and_written_where_enabled() {
    // wrfsbase rax; rdfsbase rcx; hlt
    let code = [0xf3, 0x48, 0x0f, 0xae, 0xd0, 0xf3, 0x48, 0x0f, 0xae, 0xc1, 0xf4];
    for (cr4, value, vector) in
        [(1 << 16, DATA, None), (0, DATA, Some(6)), (1 << 16, 1 << 60, Some(13))]
    {
        let mut machine = machine(Level::Kernel, &code);
        machine.set_special(|special| special.cr4 |= cr4);
        machine.set(|regs| regs.rax = value);
        assert_eq!(machine.run_to_halt(), vector);
        if vector.is_none() {
            assert_eq!(machine.cpu.regs().rcx, DATA);
        }
    }
}

#[test]
fn ports_need_privilege_or_a_bit_of_the_task() {
    // out 0x80, al; hlt
    let mut machine = machine(Level::User, &[0xe6, 0x80, 0xf4]);
    assert_eq!(machine.run_to_halt(), Some(13));
    let mut machine = self::machine(Level::User, &[0xe6, 0x80, 0xf4]);
    machine.set_special(|special| special.tr.limit = 0x80);
    machine.put(crate::machine::TSS + 102, &0x68_u16.to_le_bytes());
    assert_eq!(machine.run(1), nerite_x86::Exit::PortOut { port: 0x80, width: 1, value: 0 });
    machine.put(crate::machine::TSS + 0x68 + 0x10, &[1]);
    machine.set(|regs| regs.rip = CODE);
    assert_eq!(machine.run_to_halt(), Some(13));
}

#[test]
fn bases_of_tables_and_tasks_must_be_canonical() {
    // lldt ax; ltr ax
    for (code, kind) in [([0x0f, 0x00, 0xd0, 0xf4], 2_u64), ([0x0f, 0x00, 0xd8, 0xf4], 9)] {
        for (upper, vector) in [(0xffff_ffff, None), (0x00ff_ffff, Some(13))] {
            let mut machine = machine(Level::Kernel, &code);
            let base = 0xff_u64 << 56 | 0xffff << 16;
            machine.put(GDT + 0x60, &(base | 0x67 | (0x80 | kind) << 40).to_le_bytes());
            machine.put(GDT + 0x68, &u64::to_le_bytes(upper));
            machine.set_special(|special| special.gdt.limit = 0x6f);
            machine.set(|regs| regs.rax = 0x60);
            assert_eq!(machine.run_to_halt(), vector, "{kind} {upper:#x}");
        }
    }
}
