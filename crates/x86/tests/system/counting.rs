//! Counting how often each instruction is executed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use nerite_x86::Exit;

use crate::machine::{CODE, DATA, HANDLERS, Level, Machine, PD};

/// Executions by address.
type Counts = BTreeMap<u64, u64>;

/// l: mov al, 0; inc byte [l+1]; call f; loop l; hlt; f: push rcx; mov edi, DATA; mov ecx, 5000;
/// rep stosb; ud2; pop rcx; ret
const PROGRAM: &[u8] = &[
    0xb0, 0, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xe8, 3, 0, 0, 0, 0xe2, 0xf1, 0xf4, 0x51, 0xbf, 0,
    0, 2, 0, 0xb9, 0x88, 0x13, 0, 0, 0xf3, 0xaa, 0x0f, 0x0b, 0x59, 0xc3,
];
const ROUNDS: u64 = 50;

fn machine() -> Machine {
    assert_eq!(DATA, 0x2_0000);
    let mut machine = Machine::at(Level::Kernel, PROGRAM);
    // The handler skips the instruction: add qword [rsp], 2; iretq
    machine.put(HANDLERS + 6 * 16, &[0x48, 0x83, 0x04, 0x24, 2, 0x48, 0xcf]);
    // The same memory at 2 MiB.
    machine.put(PD + 8, &0x83_u64.to_le_bytes());
    machine.set(|regs| regs.rcx = ROUNDS);
    machine
}

/// Runs the program at both of its addresses, `budget` instructions at a time.
fn run(machine: &mut Machine, budget: u64, mut before: impl FnMut(&mut Machine)) {
    for base in [0, 2 << 20] {
        machine.set(|regs| (regs.rip, regs.rcx) = (base + CODE, ROUNDS));
        loop {
            before(machine);
            match machine.run(budget) {
                Exit::Budget => {}
                other => break assert_eq!(other, Exit::Halt),
            }
        }
    }
}

/// Executions as single steps have them.
fn stepped() -> Counts {
    let mut counts = Counts::new();
    let mut last = None;
    let mut note = |machine: &mut Machine| {
        let (rip, instructions) = (machine.cpu.regs().rip, machine.cpu.instructions());
        if let Some((from, before)) = last.replace((rip, instructions)) {
            *counts.entry(from).or_default() += instructions - before;
        }
    };
    let mut machine = machine();
    run(&mut machine, 1, &mut note);
    note(&mut machine);
    counts.retain(|_, count| *count > 0);
    counts
}

#[test]
fn executions_are_those_of_single_steps_and_their_sum_is_exact() {
    let expected = stepped();
    assert_eq!(expected[&(CODE + 13)], ROUNDS, "{expected:x?}");
    for budget in [1, 2, 7, 100_000] {
        let mut machine = machine();
        let counts = Arc::new(Mutex::new(Counts::new()));
        let shared = counts.clone();
        machine.cpu.count_executions(Box::new(move |address, times| {
            *shared.lock().unwrap().entry(address).or_default() += times;
        }));
        run(&mut machine, budget, |_| ());
        machine.cpu.report_executions();
        let counts = counts.lock().unwrap();
        assert_eq!(*counts, expected, "{budget}");
        assert_eq!(counts.values().sum::<u64>(), machine.cpu.instructions());
    }
}
