//! Exceptions: which, with what error code, where, and what follows from one during another.

use nerite_x86::Exit;

use crate::machine::{
    CODE, DATA, GDT, HANDLERS, IDT, KERNEL_CS, Level, Machine, RSP, STACK, TSS, USER_CS, USER_SS,
};

const HLT: u8 = 0xf4;

/// Makes the code page and the stack available to unprivileged code.
fn user(code: &[u8]) -> Machine {
    let mut machine = Machine::at(Level::User, code);
    crate::paging::small_pages(&machine);
    for page in [CODE, DATA, RSP - 0x1000] {
        crate::paging::map(&machine, page, page | 7);
    }
    machine.set(|regs| regs.rbx = DATA);
    machine
}

/// The frame of an exception: error code if there is one, RIP, CS, RFLAGS, RSP, SS.
fn frame(machine: &Machine, with_error: bool) -> (Option<u64>, [u64; 5]) {
    let rsp = machine.cpu.regs().rsp;
    let start = rsp + if with_error { 8 } else { 0 };
    (
        with_error.then(|| machine.get(rsp)),
        std::array::from_fn(|index| machine.get(start + index as u64 * 8)),
    )
}

#[test]
fn a_division_by_zero_is_a_fault_at_the_division() {
    // xor ecx, ecx; div ecx
    let mut machine = Machine::at(Level::Kernel, &[0x31, 0xc9, 0xf7, 0xf1, HLT]);
    assert_eq!(machine.run_to_halt(), Some(0));
    let (_, [rip, cs, flags, rsp, _]) = frame(&machine, false);
    assert_eq!((rip, cs, rsp), (CODE + 2, u64::from(KERNEL_CS), RSP));
    assert_ne!(flags & 1 << 16, 0, "RF is set in the image of a fault");
    assert_eq!(machine.cpu.regs().rflags & 1 << 16, 0);
}

#[test]
fn the_stack_of_an_exception_is_aligned() {
    let mut machine = Machine::at(Level::Kernel, &[0x0f, 0x0b]);
    machine.set(|regs| regs.rsp = RSP - 3);
    assert_eq!(machine.run_to_halt(), Some(6));
    assert_eq!(machine.cpu.regs().rsp, RSP - 16 - 40);
}

#[test]
fn exceptions_of_unprivileged_code_change_the_stack() {
    let mut machine = user(&[HLT]);
    assert_eq!(machine.run_to_halt(), Some(13));
    let (error, [rip, cs, _, rsp, ss]) = frame(&machine, true);
    assert_eq!((error, rip, cs), (Some(0), CODE, u64::from(USER_CS)));
    assert_eq!((rsp, ss), (RSP, u64::from(USER_SS)));
    assert_eq!(machine.cpu.regs().rsp, STACK - 48);
    assert_eq!(machine.cpu.special_regs().ss.selector, 0);
}

#[test]
fn an_interrupt_stack_is_used_whatever_the_level() {
    let mut machine = Machine::at(Level::Kernel, &[0x0f, 0x0b]);
    machine.put(TSS + 36 + 8, &0x8800_u64.to_le_bytes());
    let low = machine.get(IDT + 6 * 16);
    machine.put(IDT + 6 * 16, &(low | 2 << 32).to_le_bytes());
    assert_eq!(machine.run_to_halt(), Some(6));
    assert_eq!(machine.cpu.regs().rsp, 0x8800 - 40);
}

#[test]
fn page_faults_tell_what_was_tried() {
    // mov [rbx], eax; mov eax, [rbx]; call rbx
    let (write, read, fetch): (&[u8], &[u8], &[u8]) =
        (&[0x89, 0x03, HLT], &[0x8b, 0x03, HLT], &[0xff, 0xd3]);
    for (code, entry, error) in [
        (write, 0, 0b110),
        (read, 0, 0b100),
        (fetch, 0, 0b1_0100),
        (write, DATA | 5, 0b111),
        (read, DATA | 3, 0b101),
        (fetch, DATA | 7 | 1 << 63, 0b1_0101),
        (read, DATA | 7 | 1 << 50, 0b1101),
    ] {
        let mut machine = user(code);
        crate::paging::map(&machine, DATA, entry);
        assert_eq!(machine.run_to_halt(), Some(14), "{code:x?} {entry:x}");
        assert_eq!(frame(&machine, true).0, Some(error), "{code:x?} {entry:x}");
        assert_eq!(machine.cpu.special_regs().cr2, DATA);
    }
}

#[test]
fn addresses_that_are_not_canonical_fault_by_segment() {
    // mov eax, [rbx]; mov eax, [rbp]; push rax
    for (code, vector) in [(&[0x8b, 0x03][..], 13), (&[0x8b, 0x45, 0], 12), (&[0x50], 12)] {
        let mut machine = Machine::at(Level::Kernel, code);
        // The handler needs a stack.
        for vector in [12, 13] {
            let low = machine.get(IDT + vector * 16);
            machine.put(IDT + vector * 16, &(low | 1 << 32).to_le_bytes());
        }
        machine.put(TSS + 36, &STACK.to_le_bytes());
        machine.set(|regs| {
            regs.rbx = 1 << 47;
            regs.rbp = 1 << 63;
            regs.rsp = 0x8000_0000_0000_1000;
        });
        assert_eq!(machine.run_to_halt(), Some(vector), "{code:x?}");
        assert_eq!(frame(&machine, true).0, Some(0));
    }
}

#[test]
fn a_fault_during_a_fault_is_a_double_fault() {
    let mut machine = Machine::at(Level::Kernel, &[0x0f, 0x0b]);
    // The gate of #UD is not present: #NP during #UD is delivered as it is; #NP during #GP is a
    // double fault.
    let low = machine.get(IDT + 6 * 16);
    machine.put(IDT + 6 * 16, &(low & !(1 << 47)).to_le_bytes());
    assert_eq!(machine.run_to_halt(), Some(11));
    assert_eq!(frame(&machine, true).0, Some(6 * 8 + 2 + 1));
    let mut machine = Machine::at(Level::Kernel, &[0x0f, 0x22, 0xd8]);
    let low = machine.get(IDT + 13 * 16);
    machine.put(IDT + 13 * 16, &(low & !(1 << 47)).to_le_bytes());
    machine.set(|regs| regs.rax = 1 << 60);
    assert_eq!(machine.run_to_halt(), Some(8));
    assert_eq!(frame(&machine, true).0, Some(0));
    assert_eq!(machine.get(machine.cpu.regs().rsp + 8), CODE);
}

#[test]
fn a_fault_during_a_double_fault_shuts_down() {
    let mut machine = Machine::at(Level::Kernel, &[0x0f, 0x0b]);
    machine.set_special(|special| special.idt.limit = 0);
    assert_eq!(machine.run(10), Exit::Shutdown);
    assert_eq!(machine.run(10), Exit::Shutdown, "it stays so");
    machine.cpu.init();
    machine.put(0, &[HLT]);
    machine.cpu.start(0);
    assert_eq!(machine.run(10), Exit::Halt);
}

#[test]
fn software_interrupts_need_the_privilege_of_their_gate() {
    // int 0x80
    let mut machine = user(&[0xcd, 0x80]);
    assert_eq!(machine.run_to_halt(), Some(13));
    assert_eq!(frame(&machine, true).0, Some(0x80 * 8 + 2));
    let mut machine = user(&[0xcd, 0x80]);
    let low = machine.get(IDT + 0x80 * 16);
    machine.put(IDT + 0x80 * 16, &(low | 3 << 45).to_le_bytes());
    assert_eq!(machine.run_to_halt(), Some(0x80));
    assert_eq!(frame(&machine, false).1[0], CODE + 2, "it returns after the instruction");
}

#[test]
fn an_instruction_that_is_too_long_faults() {
    let mut code = vec![0x66; 15];
    code.push(0x90);
    let mut machine = Machine::at(Level::Kernel, &code);
    assert_eq!(machine.run_to_halt(), Some(13));
    assert_eq!(frame(&machine, true).1[0], CODE);
}

#[test]
fn bad_gates_are_named_in_the_error_code() {
    for (change, vector, error) in [
        // No code segment, a data segment, a type that there is not in long mode.
        (Box::new(|low: u64| low & !0xffff_0000) as Box<dyn Fn(u64) -> u64>, 13, 0),
        (Box::new(|low| low & !0xffff_0000 | 0x10 << 16), 13, 0x10),
        (Box::new(|low| low & !(0xf << 40) | 5 << 40), 13, 3 * 8 + 2),
        (Box::new(|low| low & !0xffff_0000 | 0x58 << 16), 13, 0x58),
    ] {
        // int3
        let mut machine = Machine::at(Level::Kernel, &[0xcc]);
        let low = machine.get(IDT + 3 * 16);
        machine.put(IDT + 3 * 16, &change(low).to_le_bytes());
        assert_eq!(machine.run_to_halt(), Some(vector));
        // The event is a software interrupt: EXT is clear.
        assert_eq!(frame(&machine, true).0, Some(error), "{error:#x}");
    }
}

#[test]
fn alignment_is_checked_where_it_is_asked_for() {
    // mov eax, [rbx]
    let mut machine = user(&[0x8b, 0x03, 0x0f, 0x0b]);
    machine.set(|regs| {
        regs.rbx = DATA + 1;
        regs.rflags |= 1 << 18;
    });
    assert_eq!(machine.run_to_halt(), Some(6), "CR0.AM is clear");
    let mut machine = user(&[0x8b, 0x03, 0x0f, 0x0b]);
    machine.set(|regs| {
        regs.rbx = DATA + 1;
        regs.rflags |= 1 << 18;
    });
    machine.set_special(|special| special.cr0 |= 1 << 18);
    assert_eq!(machine.run_to_halt(), Some(17));
    assert_eq!(frame(&machine, true).0, Some(0));
}

#[test]
fn selectors_outside_of_their_table_are_named() {
    // mov ds, ax
    for (selector, vector) in [(0x58_u64, 13), (0x0c, 13), (0x30, 13), (USER_CS.into(), 6), (0, 6)]
    {
        let mut machine = Machine::at(Level::Kernel, &[0x8e, 0xd8, 0x0f, 0x0b]);
        machine.set(|regs| regs.rax = selector);
        assert_eq!(machine.run_to_halt(), Some(vector), "{selector:#x}");
        if vector == 13 {
            assert_eq!(frame(&machine, true).0, Some(selector & !3));
        }
    }
    let mut machine = Machine::at(Level::Kernel, &[0x8e, 0xd8]);
    let descriptor = machine.get(GDT + 0x18);
    machine.put(GDT + 0x18, &(descriptor & !(1 << 47)).to_le_bytes());
    machine.set(|regs| regs.rax = 0x18);
    assert_eq!(machine.run_to_halt(), Some(11));
    assert_eq!(machine.cpu.regs().rip, HANDLERS + 11 * 16 + 1);
}
