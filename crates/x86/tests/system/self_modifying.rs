//! Code that changes, by itself, another processor or a device.

use nerite_x86::{Entry, Exit};

use crate::machine::{CODE, DATA, Level, Machine, RSP};

#[test]
fn an_instruction_changes_the_next_one() {
    // mov byte [rip+2], 0x90 over the second byte of: jmp $ ; becomes jmp +0x90... here: mov word
    // [rip], 0x9090; jmp $; hlt
    let mut machine =
        Machine::at(Level::Kernel, &[0x66, 0xc7, 0x05, 0, 0, 0, 0, 0x90, 0x90, 0xeb, 0xfe, 0xf4]);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.instructions(), 4);
}

#[test]
fn a_loop_changes_its_own_immediate() {
    // l: mov al, 0; add rbx, rax; inc byte [rip-9]; loop l; hlt. The immediate counts up.
    let code = [0xb0, 0x00, 0x48, 0x01, 0xc3, 0xfe, 0x05, 0xf6, 0xff, 0xff, 0xff, 0xe2, 0xf3, 0xf4];
    let mut machine = Machine::at(Level::Kernel, &code);
    machine.set(|regs| (regs.rcx, regs.rbx) = (10, 0));
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rbx, 45);
}

#[test]
fn a_locked_change_of_code_happens_once() {
    // l: mov al, 0; lock inc byte [l+1]; cmp al, 5; jb l; hlt
    let code = [0xb0, 0x00, 0xf0, 0xfe, 0x05, 0xf8, 0xff, 0xff, 0xff, 0x3c, 0x05, 0x72, 0xf3, 0xf4];
    let mut machine = Machine::at(Level::Kernel, &code);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!((machine.cpu.regs().rax, machine.get(CODE + 1) & 0xff), (5, 6));
}

#[test]
fn a_device_changes_code() {
    // l: mov eax, 1; jmp l
    let mut machine = Machine::at(Level::Kernel, &[0xb8, 1, 0, 0, 0, 0xeb, 0xf9]);
    assert_eq!(machine.run(100), Exit::Budget);
    machine.put(CODE + 1, &[2]);
    assert_eq!(machine.run(100), Exit::Budget);
    assert_eq!(machine.cpu.regs().rax, 2);
}

#[test]
fn a_copy_of_many_elements_changes_code() {
    // rep movsb; jmp DATA, where other code was executed before.
    let copy = [0xf3, 0xa4, 0xff, 0xe3];
    let mut machine = Machine::at(Level::Kernel, &copy);
    machine.put(DATA, &[0xb0, 1, 0xf4]);
    machine.put(DATA + 0x1000, &[0xb0, 2, 0xf4]);
    machine.set(|regs| regs.rip = DATA);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 1);
    machine.set(|regs| {
        (regs.rip, regs.rbx, regs.rcx) = (CODE, DATA, 64);
        (regs.rsi, regs.rdi) = (DATA + 0x1000, DATA);
    });
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rax, 2);
}

#[test]
fn data_beside_code_does_not_disturb_it() {
    // l: inc dword [rip+0x100]; loop l; hlt
    let mut machine = Machine::at(Level::Kernel, &[0xff, 0x05, 0, 1, 0, 0, 0xe2, 0xf8, 0xf4]);
    machine.set(|regs| regs.rcx = 1000);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.get(CODE + 0x106), 1000);
}

#[test]
fn an_instruction_in_two_pages_changes_with_either() {
    // mov eax, imm32 with its opcode in one page and the immediate in the next; then hlt
    let mut machine = Machine::at(Level::Kernel, &[]);
    machine.put(CODE + 0xfff, &[0xb8, 1, 0, 0, 0, 0xf4]);
    for value in [1_u64, 2, 3] {
        machine.put(CODE + 0x1000, &[value as u8]);
        machine.set(|regs| regs.rip = CODE + 0xfff);
        assert_eq!(machine.run_to_halt(), None);
        assert_eq!(machine.cpu.regs().rax, value);
    }
    // mov ecx, imm32
    machine.put(CODE + 0xfff, &[0xb9]);
    machine.set(|regs| regs.rip = CODE + 0xfff);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rcx, 3);
}

#[test]
fn another_processor_changes_code() {
    // The first: l: mov eax, 1; cmp eax, 7; jne l; hlt. The second: mov byte [CODE+1], 7; hlt
    let mut machine =
        Machine::at(Level::Kernel, &[0xb8, 1, 0, 0, 0, 0x83, 0xf8, 7, 0x75, 0xf6, 0xf4]);
    machine.put(DATA, &[0xc6, 0x04, 0x25, 1, 0, 1, 0, 7, 0xf4]);
    let mut other = Machine::processor(&machine.ram, &machine.code);
    let (mut regs, special) = (machine.cpu.regs(), machine.cpu.special_regs());
    (regs.rip, regs.rsp) = (DATA, RSP - 0x1000);
    other.set_regs(&regs);
    other.set_special_regs(&special);
    assert_eq!(machine.run(1000), Exit::Budget);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| machine.run(u64::MAX));
        assert_eq!(other.run(Entry::Resume, 1000), Exit::Halt);
        assert_eq!(first.join().unwrap(), Exit::Halt);
    });
}

#[test]
fn locked_instructions_of_two_processors_are_atomic() {
    // l: lock inc qword [rbx]; lock xadd [rbx+8], rax; mov eax, 1; loop l; hlt, with words that are
    // not aligned
    let code = [
        0xf0, 0x48, 0xff, 0x03, 0xf0, 0x48, 0x0f, 0xc1, 0x43, 0x08, 0xb8, 1, 0, 0, 0, 0xe2, 0xef,
        0xf4,
    ];
    let mut machine = Machine::at(Level::Kernel, &code);
    machine.set(|regs| (regs.rax, regs.rbx, regs.rcx) = (1, DATA + 4, 20_000));
    let mut other = Machine::processor(&machine.ram, &machine.code);
    other.set_regs(&machine.cpu.regs());
    other.set_special_regs(&machine.cpu.special_regs());
    std::thread::scope(|scope| {
        let first = scope.spawn(|| machine.run(u64::MAX));
        assert_eq!(other.run(Entry::Resume, u64::MAX), Exit::Halt);
        assert_eq!(first.join().unwrap(), Exit::Halt);
    });
    assert_eq!((machine.get(DATA + 4), machine.get(DATA + 12)), (40_000, 40_000));
}
