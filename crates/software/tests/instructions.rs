//! Counting instructions, and stopping at a number of them.

#![cfg(test)]

mod common;

use common::{CODE, Machine};
use nerite_arch::Regs;
use nerite_hypervisor::{DebugCause, Entry, Exit, GuestDebug, InstructionBudget, Vcpu};

/// A loop of 100, a repeated store of 3000 bytes, an undefined instruction whose handler returns
/// behind it, and a write of a port; again and again.
const PROGRAM: &[u8] = &[
    0xb9, 100, 0,    // mov cx, 100
    0x49, // l: dec cx
    0x75, 0xfd, // jnz l
    0xb9, 0xb8, 0x0b, // mov cx, 3000
    0xbf, 0, 0x20, // mov di, 0x2000
    0xf3, 0xaa, // rep stosb
    0x0f, 0x0b, // ud2
    0xe6, 0x10, // out 0x10, al
    0xeb, 0xec, // jmp
];
/// Skips the instruction: add word [esp], 2; iret.
const HANDLER: &[u8] = &[0x67, 0x83, 0x04, 0x24, 2, 0xcf];
/// Interrupt vector 6 in the table of real mode.
const UNDEFINED: u64 = 6 * 4;
const HANDLER_AT: u16 = 0x800;

fn machine() -> Machine {
    let machine = Machine::new(PROGRAM);
    machine.ram.write(u64::from(HANDLER_AT), HANDLER).unwrap();
    machine.ram.write(UNDEFINED, &HANDLER_AT.to_le_bytes()).unwrap();
    machine
}

fn count(vcpu: &mut dyn Vcpu) -> u64 {
    vcpu.instruction_counter().unwrap().instructions()
}

/// Runs until the budget is spent.
fn run_out(vcpu: &mut dyn Vcpu) -> Regs {
    loop {
        match vcpu.run(Entry::Resume).unwrap() {
            Exit::PortOut { port: 0x10, .. } => {}
            Exit::InstructionLimit { rip } => {
                let regs = vcpu.regs().unwrap();
                assert_eq!(regs.rip, rip);
                return regs;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn limited(limit: u64) -> Regs {
    let mut vcpu = machine().vcpu(0);
    vcpu.instruction_counter().unwrap().set_instruction_budget(InstructionBudget::new(limit));
    let regs = run_out(&mut *vcpu);
    assert_eq!(count(&mut *vcpu), limit);
    regs
}

#[test]
fn a_limit_is_the_same_place_as_so_many_steps() {
    let mut vcpu = machine().vcpu(0);
    let step = GuestDebug { single_step: true, ..GuestDebug::default() };
    vcpu.debug().unwrap().set_guest_debug(&step).unwrap();
    for limit in 0..700 {
        while count(&mut *vcpu) < limit {
            vcpu.run(Entry::Resume).unwrap();
        }
        // A fault and a part of a repeated instruction are steps and no instructions: the limit is
        // behind the instruction before.
        assert_eq!(count(&mut *vcpu), limit);
        assert_eq!(limited(limit), vcpu.regs().unwrap(), "{limit}");
    }
    let far = limited(1_000_003);
    (0..9).for_each(|_| assert_eq!(limited(1_000_003), far));
}

#[test]
fn an_instruction_that_the_hypervisor_handles_is_a_step() {
    // nop; in al, 0x21 (the interrupt controller's mask); hlt
    let mut vcpu = Machine::new(&[0x90, 0xe4, 0x21, 0xf4]).vcpu(0);
    let step = GuestDebug { single_step: true, ..GuestDebug::default() };
    vcpu.debug().unwrap().set_guest_debug(&step).unwrap();
    for (steps, behind) in [(1, 1), (2, 3), (3, 4)] {
        let rip = u64::from(CODE) + behind;
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Debug { rip, cause: DebugCause::STEP });
        assert_eq!(count(&mut *vcpu), steps);
    }
    assert!(vcpu.is_halted().unwrap());
}

#[test]
fn vcpus_share_a_budget_exactly() {
    let machine = machine();
    let budget = InstructionBudget::new(500_001);
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|index| {
                let mut vcpu = machine.vcpu(index);
                vcpu.instruction_counter().unwrap().set_instruction_budget(budget.clone());
                scope.spawn(move || {
                    run_out(&mut *vcpu);
                    count(&mut *vcpu)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(counts.iter().sum::<u64>(), 500_001, "{counts:?}");
}

#[test]
fn an_access_that_a_device_has_seen_is_completed() {
    // The write of the port is number 207: loop 201, store 3 and handler 2 come before.
    let mut vcpu = machine().vcpu(0);
    let budget = InstructionBudget::new(207);
    vcpu.instruction_counter().unwrap().set_instruction_budget(budget.clone());
    assert!(matches!(vcpu.run(Entry::Resume).unwrap(), Exit::PortOut { .. }));
    // Another vCPU finds none left.
    assert_eq!((count(&mut *vcpu), budget.left(), budget.take()), (206, 0, false));
    assert!(vcpu.complete(Entry::Resume).unwrap().is_none());
    assert_eq!(count(&mut *vcpu), 207);
    let jump = u64::from(CODE) + 18;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::InstructionLimit { rip: jump });
}
