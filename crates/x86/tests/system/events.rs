//! Interrupts, their shadows, and debug exceptions.

use nerite_x86::{DebugRegs, Entry, Exit};

use crate::machine::{CODE, DATA, Level, Machine, RSP};

const NOP: u8 = 0x90;
const STI: u8 = 0xfb;
const HLT: u8 = 0xf4;
const IF: u64 = 1 << 9;
const TF: u64 = 1 << 8;

/// RIP that the handler would return to.
fn interrupted(machine: &Machine) -> u64 {
    machine.get(machine.cpu.regs().rsp)
}

#[test]
fn an_interrupt_waits_for_the_instruction_after_sti() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, STI, NOP, NOP, HLT]);
    machine.cpu.inject_interrupt(0x30);
    assert!(!machine.cpu.can_interrupt());
    assert_eq!(machine.run_to_halt(), Some(0x30));
    assert_eq!(interrupted(&machine), CODE + 3);
    assert_eq!(machine.cpu.regs().rflags & IF, 0);
    assert_eq!(machine.cpu.events().interrupt, None);
}

#[test]
fn the_shadow_of_sti_ends_with_a_halt() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, STI, HLT, NOP]);
    assert_eq!(machine.run(10), Exit::Halt);
    assert!(machine.cpu.can_interrupt(), "an interrupt ends the halt");
    machine.cpu.inject_interrupt(0x30);
    assert_eq!(machine.run_to_halt(), Some(0x30));
    assert_eq!(interrupted(&machine), CODE + 3);
}

#[test]
fn a_load_of_ss_delays_interrupts_and_nmis() {
    // mov ss, ax; nop
    let mut machine = Machine::at(Level::Kernel, &[0x8e, 0xd0, NOP, NOP, HLT]);
    machine.set(|regs| (regs.rax, regs.rflags) = (0x10, 2));
    assert_eq!(machine.run(1), Exit::Budget);
    assert!(machine.cpu.events().shadow);
    machine.cpu.inject_nmi();
    assert_eq!(machine.run_to_halt(), Some(2));
    assert_eq!(interrupted(&machine), CODE + 3);
}

#[test]
fn nmis_wait_for_an_iret() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, HLT]);
    // The handler of an NMI: nop; iretq
    machine.put(crate::machine::HANDLERS + 32, &[NOP, 0x48, 0xcf]);
    machine.cpu.inject_nmi();
    assert_eq!(machine.run(1), Exit::Budget);
    assert!(machine.cpu.events().nmi_blocked);
    machine.cpu.inject_nmi();
    assert_eq!(machine.run(1), Exit::Budget);
    assert!(!machine.cpu.events().nmi_blocked && machine.cpu.events().nmi);
    assert_eq!(machine.cpu.regs().rip, CODE);
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.regs().rsp, RSP);
}

#[test]
fn an_nmi_that_waited_comes_right_after_the_iret() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, NOP, NOP, HLT]);
    // The handler of an NMI: nop; iretq
    machine.put(crate::machine::HANDLERS + 32, &[NOP, 0x48, 0xcf]);
    machine.cpu.inject_nmi();
    assert_eq!(machine.run(1), Exit::Budget);
    machine.cpu.inject_nmi();
    // IRET, and the first instruction of the handler again.
    assert_eq!(machine.run(2), Exit::Budget);
    assert_eq!(
        (machine.cpu.regs().rip, interrupted(&machine)),
        (crate::machine::HANDLERS + 33, CODE)
    );
}

#[test]
fn priorities_below_cr8_wait() {
    let mut machine = Machine::at(Level::Kernel, &[STI, NOP, NOP, HLT]);
    machine.set_special(|special| special.cr8 = 3);
    machine.cpu.inject_interrupt(0x3f);
    assert_eq!(machine.run_to_halt(), None);
    machine.set_special(|special| special.cr8 = 2);
    machine.set(|regs| regs.rip = CODE);
    assert_eq!(machine.run_to_halt(), Some(0x3f));
}

#[test]
fn the_window_opens_where_an_interrupt_would_be_taken() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, STI, NOP, NOP, HLT]);
    machine.cpu.request_interrupt_window(true);
    assert_eq!(machine.run(10), Exit::InterruptWindow);
    assert_eq!(machine.cpu.regs().rip, CODE + 3);
    assert!(machine.cpu.can_interrupt());
    assert_eq!(machine.run(10), Exit::Halt);
}

#[test]
fn no_interrupt_comes_between_an_access_and_its_answer() {
    let mut machine = Machine::at(Level::Kernel, &[0xe4, 0x60, NOP, HLT]);
    machine.set(|regs| regs.rflags |= IF);
    assert_eq!(machine.run(10), Exit::PortIn { port: 0x60, width: 1 });
    machine.cpu.inject_interrupt(0x40);
    assert_eq!(machine.cpu.run(Entry::Data(7), 10), Exit::Halt);
    assert_eq!(machine.handler(), Some(0x40));
    assert_eq!((interrupted(&machine), machine.cpu.regs().rax), (CODE + 2, 7));
}

#[test]
fn a_single_step_traps_after_the_instruction() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, NOP, HLT]);
    machine.set(|regs| regs.rflags |= TF);
    assert_eq!(machine.run_to_halt(), Some(1));
    assert_eq!(interrupted(&machine), CODE + 1);
    assert_eq!(machine.cpu.debug_regs().dr6 & 0xf00f, 1 << 14);
    assert_eq!(machine.cpu.regs().rflags & TF, 0);
}

#[test]
fn popf_sets_tf_for_the_instruction_after_it() {
    // push 0x102; popfq; nop; nop
    let mut machine = Machine::at(Level::Kernel, &[0x68, 2, 1, 0, 0, 0x9d, NOP, NOP, HLT]);
    assert_eq!(machine.run_to_halt(), Some(1));
    assert_eq!(interrupted(&machine), CODE + 7);
}

#[test]
fn breakpoints_on_code_are_faults_and_on_data_traps() {
    // nop; mov [rbx], eax; nop
    let code = [NOP, 0x89, 0x03, NOP, HLT];
    for (address, kind, rip, bits) in [
        (CODE + 1, 0_u64, CODE + 1, 1),
        (DATA, 1, CODE + 3, 1),
        (DATA + 2, 0b11 | 0b01 << 2, CODE + 3, 1),
    ] {
        let mut machine = Machine::at(Level::Kernel, &code);
        machine.set(|regs| regs.rbx = DATA);
        machine.cpu.set_debug_regs(&DebugRegs {
            addresses: [address, 0, 0, 0],
            dr6: 0xffff_0ff0,
            dr7: 0x401 | kind << 16,
        });
        assert_eq!(machine.run_to_halt(), Some(1), "{address:#x}");
        assert_eq!(interrupted(&machine), rip, "{address:#x}");
        assert_eq!(machine.cpu.debug_regs().dr6 & 0xf, bits);
    }
}

#[test]
fn a_debug_exception_clears_the_bits_of_breakpoints_alone() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, HLT]);
    let dr6 = 0xffff_0ff0 | 1 << 14 | 0b1011;
    machine.cpu.set_debug_regs(&DebugRegs { addresses: [0, 0, CODE, 0], dr6, dr7: 0x410 });
    assert_eq!(machine.run_to_halt(), Some(1));
    assert_eq!(machine.cpu.debug_regs().dr6, 0xffff_0ff0 | 1 << 14 | 0b100);
}

#[test]
fn int1_loses_the_trap_of_a_load_of_ss_and_has_none() {
    // mov ss, ax; int1
    for code in [&[0x8e, 0xd0, 0xf1, HLT][..], &[0xf1, HLT]] {
        let mut machine = Machine::at(Level::Kernel, code);
        machine.set(|regs| (regs.rax, regs.rflags) = (0x10, TF | 2));
        assert_eq!(machine.run_to_halt(), Some(1));
        assert_eq!(interrupted(&machine), CODE + code.len() as u64 - 1);
        assert_eq!(machine.cpu.debug_regs().dr6 & 0xf00f, 0);
        assert_eq!(machine.cpu.events().debug, 0);
    }
}

#[test]
fn an_access_to_a_watched_debug_register_loses_the_trap_of_a_load_of_ss() {
    // mov ss, ax; mov dr6, rcx
    let mut machine = Machine::at(Level::Kernel, &[0x8e, 0xd0, 0x0f, 0x23, 0xf1, HLT]);
    machine.set(|regs| (regs.rax, regs.rflags) = (0x10, TF | 2));
    machine.cpu.set_debug_regs(&DebugRegs { addresses: [0; 4], dr6: 0xffff_0ff0, dr7: 0x2400 });
    assert_eq!(machine.run_to_halt(), Some(1));
    assert_eq!(interrupted(&machine), CODE + 2);
    assert_eq!(machine.cpu.debug_regs().dr6 & 0xf00f, 1 << 13);
}

#[test]
fn a_return_with_rf_passes_a_breakpoint() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, NOP, HLT]);
    // The handler: iretq
    machine.put(crate::machine::HANDLERS + 16, &[0x48, 0xcf]);
    machine.cpu.set_debug_regs(&DebugRegs { addresses: [CODE + 1, 0, 0, 0], dr6: 0, dr7: 0x401 });
    assert_eq!(machine.run_to_halt(), None);
    assert_eq!(machine.cpu.instructions(), 4);
}

#[test]
fn a_debugger_takes_breakpoints_and_steps() {
    let mut machine = Machine::at(Level::Kernel, &[NOP, 0xcc, NOP, HLT]);
    machine.cpu.intercept_debug(true, true);
    assert_eq!(machine.run(10), Exit::Debug { rip: CODE + 1, vector: 3, dr6: 0 });
    assert_eq!(machine.cpu.regs().rip, CODE + 1);
    machine.set(|regs| {
        regs.rip = CODE + 2;
        regs.rflags |= TF;
    });
    assert_eq!(machine.run(10), Exit::Debug { rip: CODE + 3, vector: 1, dr6: 1 << 14 });
    assert_eq!(machine.cpu.regs().rip, CODE + 3);
}

#[test]
fn states_between_instructions_are_saved_and_restored() {
    let mut machine = Machine::at(Level::Kernel, &[STI, NOP, NOP, HLT]);
    machine.cpu.inject_interrupt(0x55);
    assert_eq!(machine.run(1), Exit::Budget);
    let (regs, special, events) =
        (machine.cpu.regs(), machine.cpu.special_regs(), machine.cpu.events());
    let mut other = Machine::processor(&machine.ram, &machine.code);
    other.set_regs(&regs);
    other.set_special_regs(&special);
    other.set_events(&events);
    machine.cpu = other;
    assert_eq!(machine.run_to_halt(), Some(0x55));
    assert_eq!(interrupted(&machine), CODE + 2);
}

#[test]
fn no_trap_follows_a_fault_or_an_entry_to_the_system() {
    // ud2; int 0x21
    for (code, vector) in [([0x0f, 0x0b, HLT], 6), ([0xcd, 0x21, HLT], 0x21)] {
        let mut machine = Machine::at(Level::Kernel, &code);
        machine.set(|regs| regs.rflags |= TF);
        assert_eq!(machine.run_to_halt(), Some(vector));
        assert_eq!(machine.cpu.events().debug, 0);
    }
}

#[test]
fn a_guest_of_nothing_but_faults_uses_its_budget_up() {
    let mut machine = Machine::at(Level::Kernel, &[0x0f, 0x0b]);
    // The handler of #UD is undefined, too, and has a stack of its own.
    machine.put(crate::machine::HANDLERS + 6 * 16, &[0x0f, 0x0b]);
    let gate = machine.get(crate::machine::IDT + 6 * 16);
    machine.put(crate::machine::IDT + 6 * 16, &(gate | 1 << 32).to_le_bytes());
    machine.put(crate::machine::TSS + 36, &crate::machine::STACK.to_le_bytes());
    assert_eq!(machine.run(1000), Exit::Budget);
    assert_eq!(machine.cpu.instructions(), 0);
}
