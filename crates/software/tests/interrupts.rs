//! Interrupts as the guest sees them.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::Machine;
use nerite_hypervisor::{Entry, Exit};

/// Waits until two NMIs were handled, tells so, and does it again.
const PROGRAM: &[u8] = &[
    0x83, 0x3e, 0, 0x20, 2, // l: cmp word [0x2000], 2
    0x75, 0xf9, // jnz l
    0xe6, 0x10, // out 0x10, al
    0xeb, 0xf5, // jmp l
];
/// Counts: inc word [0x2000]; iret.
const HANDLER: &[u8] = &[0xff, 0x06, 0, 0x20, 0xcf];
/// Interrupt vector 2 in the table of real mode.
const NMI: u64 = 2 * 4;
const HANDLER_AT: u16 = 0x800;
const COUNT: u64 = 0x2000;
/// A message to the local APIC 0, and its data: an NMI.
const MESSAGE: (u64, u32) = (0xfee0_0000, 0x400);

#[test]
fn two_nmis_at_a_time_are_both_handled_and_no_third() {
    let machine = Machine::new(PROGRAM);
    machine.ram.write(HANDLER_AT.into(), HANDLER).unwrap();
    machine.ram.write(NMI, &HANDLER_AT.to_le_bytes()).unwrap();
    let mut vcpu = machine.vcpu(0);
    let interrupts = machine.vm.interrupt_controller().unwrap();
    for _ in 0..3 {
        assert!(interrupts.send_message(MESSAGE.0, MESSAGE.1).unwrap());
    }
    let timer = vcpu.kick_timer().unwrap();
    timer.set(Duration::from_secs(20), Duration::ZERO).unwrap();
    let exit = vcpu.run(Entry::Resume).unwrap();
    assert_eq!(exit, Exit::PortOut { port: 0x10, width: 1, value: 0 });
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), exit, "there is no third one");
    let mut count = [0; 2];
    machine.ram.read(COUNT, &mut count).unwrap();
    assert_eq!(count, [2, 0]);
}

#[test]
fn two_nmis_that_wait_are_saved() {
    let machine = Machine::new(PROGRAM);
    let mut vcpu = machine.vcpu(0);
    let interrupts = machine.vm.interrupt_controller().unwrap();
    for _ in 0..3 {
        assert!(interrupts.send_message(MESSAGE.0, MESSAGE.1).unwrap());
    }
    assert_eq!(vcpu.save().unwrap().events.nmis, 2);
}

#[test]
fn the_base_of_a_local_apic_has_no_more_bits_than_an_address() {
    // mov ecx, 0x1b; mov edx, upper; mov eax, 0xfee00900; wrmsr; out 0x10, al. The handler:
    // out 0x11, al
    for (upper, port) in [(0xff, 0x10), (0x100, 0x11)] {
        let program = [
            &[0x66, 0xb9, 0x1b, 0, 0, 0, 0x66, 0xba][..],
            &u32::to_le_bytes(upper),
            &[0x66, 0xb8, 0, 9, 0xe0, 0xfe, 0x0f, 0x30, 0xe6, 0x10],
        ];
        let machine = Machine::new(&program.concat());
        machine.ram.write(HANDLER_AT.into(), &[0xe6, 0x11]).unwrap();
        machine.ram.write(13 * 4, &HANDLER_AT.to_le_bytes()).unwrap();
        let exit = machine.vcpu(0).run(Entry::Resume).unwrap();
        assert_eq!(exit, Exit::PortOut { port, width: 1, value: 0 });
    }
}

#[test]
fn an_interrupt_that_an_access_leads_to_comes_before_the_next_instruction() {
    // out 0x10, al; inc al; out 0x11, al. The handler: out 0x12, al; iret
    let machine = Machine::new(&[0xe6, 0x10, 0xfe, 0xc0, 0xe6, 0x11]);
    machine.ram.write(HANDLER_AT.into(), &[0xe6, 0x12, 0xcf]).unwrap();
    machine.ram.write(NMI, &HANDLER_AT.to_le_bytes()).unwrap();
    let mut vcpu = machine.vcpu(0);
    let interrupts = machine.vm.interrupt_controller().unwrap();
    let mut exits = Vec::new();
    for _ in 0..3 {
        let Exit::PortOut { port, value, .. } = vcpu.run(Entry::Resume).unwrap() else { panic!() };
        if port == 0x10 {
            interrupts.send_message(MESSAGE.0, MESSAGE.1).unwrap();
        }
        exits.push((port, value));
    }
    assert_eq!(exits, [(0x10, 0), (0x12, 0), (0x11, 1)]);
}
