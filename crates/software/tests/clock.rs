//! The virtual clock.

#![cfg(test)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Machine;
use nerite_hypervisor::{Entry, Exit, Vcpu};
use nerite_software::{IdleTime, Software};

/// mov ecx, MSR; mov eax, VALUE; wrmsr, with edx 0.
fn write_msr(msr: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0x66, 0xb9];
    code.extend(msr.to_le_bytes());
    code.extend([0x66, 0xb8]);
    code.extend(value.to_le_bytes());
    code.extend([0x0f, 0x30]);
    code
}

/// Vector of the local APIC's timer, and its handler: rdtsc; out 0x10, eax; end of interrupt; iret.
const VECTOR: u8 = 0x30;
const HANDLER_AT: u16 = 0x800;

fn handler() -> Vec<u8> {
    let clear = [0x66, 0x31, 0xd2]; // xor edx, edx
    [&[0x0f, 0x31, 0x66, 0xe7, 0x10], &clear[..], &write_msr(0x80b, 0), &[0xcf]].concat()
}

/// A guest whose x2APIC timer interrupts it every `period` nanoseconds (Intel SDM vol. 3, 12.5.4
/// and 12.12), while it executes `body` again and again.
fn guest(idle: IdleTime, period: u32, body: &[u8]) -> Machine {
    let setup = [
        &[0x66, 0x31, 0xd2][..],
        &write_msr(0x1b, 0xfee0_0d00),
        &write_msr(0x80f, 0x1ff),
        &write_msr(0x83e, 0xb),
        &write_msr(0x832, 0x2_0000 | u32::from(VECTOR)),
        &write_msr(0x838, period),
        &[0xfb],
    ]
    .concat();
    let back = u8::try_from(256 - body.len() - 2).unwrap();
    let program = [&setup[..], body, &[0xeb, back]].concat();
    let machine = Machine::on(Software::with_virtual_clock(idle), &program);
    machine.ram.write(u64::from(HANDLER_AT), &handler()).unwrap();
    machine.ram.write(u64::from(VECTOR) * 4, &HANDLER_AT.to_le_bytes()).unwrap();
    machine
}

/// Time-stamp counters at the first `count` interrupts.
fn ticks(vcpu: &mut dyn Vcpu, count: usize) -> Vec<u32> {
    let mut ticks = Vec::new();
    while ticks.len() < count {
        match vcpu.run(Entry::Resume).unwrap() {
            Exit::PortOut { port: 0x10, width: 4, value } => ticks.push(value),
            Exit::Kicked => {}
            other => panic!("{other:?}"),
        }
    }
    ticks
}

fn assert_periodic(ticks: &[u32], period: u32) {
    for pair in ticks.windows(2) {
        assert_eq!(pair[1] - pair[0], period, "{ticks:?}");
    }
}

const HALT: &[u8] = &[0xf4];
/// dec si; nop; nop
const WORK: &[u8] = &[0x4e, 0x90, 0x90];

#[test]
fn time_that_is_waited_for_is_skipped() {
    let period = 1_000_000_000;
    let machine = guest(IdleTime::Skipped, period / 10, HALT);
    let began = Instant::now();
    let ticks = ticks(&mut *machine.vcpu(0), 40);
    // Four seconds of the guest.
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_periodic(&ticks, period / 10);
    let elapsed = machine.vm.virtual_clock().unwrap().elapsed();
    assert!(
        elapsed >= Duration::from_secs(4) && elapsed < Duration::from_millis(4001),
        "{elapsed:?}"
    );
}

#[test]
fn time_that_is_waited_for_passes_where_devices_can_interrupt() {
    let machine = guest(IdleTime::Waited, 5_000_000, HALT);
    let began = Instant::now();
    let ticks = ticks(&mut *machine.vcpu(0), 10);
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
    assert_periodic(&ticks, 5_000_000);
}

#[test]
fn an_instruction_is_a_nanosecond_whatever_the_host_does() {
    let run = |is_kicked: bool| {
        let machine = guest(IdleTime::Skipped, 300_007, WORK);
        let mut vcpu = machine.vcpu(0);
        let (kicker, done) = (vcpu.kicker(), AtomicBool::new(!is_kicked));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    kicker.kick();
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
            let ticks = ticks(&mut *vcpu, 100);
            done.store(true, Ordering::Relaxed);
            let regs = vcpu.regs().unwrap();
            (ticks, regs, vcpu.instruction_counter().unwrap().instructions())
        })
    };
    let (ticks, regs, instructions) = run(false);
    assert_periodic(&ticks, 300_007);
    // All time is executed: the last interrupt is RDTSC and the write of the port.
    assert_eq!(u64::from(*ticks.last().unwrap()), instructions - 1);
    (0..3).for_each(|_| assert_eq!(run(true), (ticks.clone(), regs, instructions)));
}

#[test]
fn vcpus_that_wait_are_woken_by_the_time_of_others() {
    for (idle, body) in
        [(IdleTime::Skipped, HALT), (IdleTime::Skipped, WORK), (IdleTime::Waited, HALT)]
    {
        let machine = guest(idle, 300_000, body);
        let others: Vec<_> = (0..3).map(|index| machine.vcpu(index)).collect();
        std::thread::scope(|scope| {
            for mut vcpu in others {
                scope.spawn(move || {
                    let ticks = ticks(&mut *vcpu, 100);
                    assert!(ticks.is_sorted(), "{ticks:?}");
                });
            }
        });
        let elapsed = machine.vm.virtual_clock().unwrap().elapsed();
        assert!(elapsed >= Duration::from_millis(30), "{elapsed:?}");
    }
}

#[test]
fn random_numbers_are_the_same_each_time() {
    // rdrand eax; out 0x10, eax
    let random = |hypervisor: Software| {
        let machine = Machine::on(hypervisor, &[0x66, 0x0f, 0xc7, 0xf0, 0x66, 0xe7, 0x10]);
        ticks(&mut *machine.vcpu(0), 1)
    };
    let virtual_clock = || Software::with_virtual_clock(IdleTime::Skipped);
    assert_eq!(random(virtual_clock()), random(virtual_clock()));
    assert_ne!(random(Software::new().unwrap()), random(Software::new().unwrap()));
}
