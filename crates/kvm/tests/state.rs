//! Saving a guest on KVM and in software, and restoring it on either: what is architectural goes
//! on anywhere.
//!
//! They are ignored by default because a build machine may have no `/dev/kvm`: `cargo xtask test`
//! runs them where there is one, or in the lab.

#![cfg(test)]
#![allow(clippy::print_stdout, reason = "figures are shown")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nerite_arch::cpuid::{self, Guest};
use nerite_arch::{BootState, CpuidEntry, Msr};
use nerite_hypervisor::{
    Activity, Entry, Error, Exit, GuestDebug, Hypervisor, PendingException, StateError, Vcpu,
    VcpuStart, VcpuState, Vm, VmOptions, VmState,
};
use nerite_kvm::System;
use nerite_log_budget::Causes;
use nerite_memory::GuestRam;
use nerite_software::Software;
use nerite_testkit::vm;

type Machine = (Box<dyn Vm>, Vec<Box<dyn Vcpu>>);
type Saved = (VmState, Vec<VcpuState>);

fn kvm() -> System {
    System::open().unwrap()
}

fn software() -> Software {
    Software::new().unwrap()
}

/// The leaves of a guest that runs on both.
fn leaves(vcpu_index: u32) -> Vec<CpuidEntry> {
    let common = cpuid::common(
        &software().supported_cpuid().unwrap(),
        &Hypervisor::supported_cpuid(&kvm()).unwrap(),
    );
    cpuid::for_guest(&common, &Guest { vcpu_index, vcpu_count: 2, tsc_deadline: true })
}

fn create(hypervisor: &dyn Hypervisor, ram: Arc<GuestRam>, starts: &[BootState]) -> Machine {
    let options = VmOptions { pit: true, vcpus: 2, ..VmOptions::default() };
    let vm = hypervisor.create_vm(ram, &options).unwrap();
    let start =
        |(index, state)| vm.create_vcpu(index, VcpuStart::At(state), &leaves(index)).unwrap();
    let vcpus = (0..).zip(starts).map(start).collect();
    (vm, vcpus)
}

fn save((vm, vcpus): &mut Machine) -> Saved {
    let states = vcpus.iter_mut().map(|vcpu| vcpu.save().unwrap()).collect();
    (vm.save().unwrap(), states)
}

/// A new VM on a copy of the RAM, with a saved state. Not every host's KVM can have the rate of
/// another time-stamp counter, which the guests here do not see.
fn restore(hypervisor: &dyn Hypervisor, ram: &GuestRam, (state, vcpus): &Saved) -> Machine {
    let (vm, mut restored) = create(hypervisor, vm::copy(ram), &vec![vm::compute(); vcpus.len()]);
    for (vcpu, state) in restored.iter_mut().zip(vcpus) {
        let tsc_khz = state.tsc_khz.filter(|_| hypervisor.name() != "KVM");
        vcpu.restore(&VcpuState { tsc_khz, ..state.clone() }).unwrap();
    }
    vm.restore(state).unwrap();
    (vm, restored)
}

/// The state that does not depend on time.
fn timeless(state: &VcpuState) -> VcpuState {
    let mut state = VcpuState { tsc: 0, tsc_khz: None, ..state.clone() };
    if let Some(apic) = &mut state.apic {
        apic.remaining = None;
    }
    state
}

fn computation_moves(from: &dyn Hypervisor, to: &dyn Hypervisor, is_same: bool) {
    let ram = vm::ram();
    let expected = vm::results(&mut *create(from, vm::copy(&ram), &[vm::compute()]).1[0]);
    assert_eq!(expected.len(), 8);
    let mut machine = create(from, ram.clone(), &[vm::compute()]);
    for round in 0..4 {
        assert_eq!(vm::next_write(&mut *machine.1[0]).0, vm::STEP, "round {round}");
        let undrained = machine.1[0].save();
        assert!(matches!(undrained, Err(Error::State { source: StateError::NotDrained, .. })));
        assert_eq!(machine.1[0].complete(Entry::Resume).unwrap(), None);
        let saved = save(&mut machine);
        let mut restored = restore(to, &ram, &saved);
        if is_same {
            let again = restored.1[0].save().unwrap();
            assert_eq!(timeless(&again), timeless(&saved.1[0]), "round {round}");
        }
        assert_eq!(vm::results(&mut *restored.1[0]), expected, "round {round}");
    }
}

#[test]
#[ignore = "needs a KVM that runs SSE"]
fn a_computation_moves_from_kvm_to_kvm() {
    computation_moves(&kvm(), &kvm(), true);
}

#[test]
#[ignore = "needs a KVM that runs SSE"]
fn a_computation_moves_from_kvm_to_software() {
    computation_moves(&kvm(), &software(), false);
}

#[test]
#[ignore = "needs a KVM that runs SSE"]
fn a_computation_moves_from_software_to_kvm() {
    computation_moves(&software(), &kvm(), false);
}

/// Runs until a kick comes while the vCPU is halted.
fn run_until_halted(vcpu: &mut dyn Vcpu) {
    let kicker = vcpu.kicker();
    let kick = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        kicker.kick();
    });
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    kick.join().unwrap();
    assert!(vcpu.is_halted().unwrap());
}

fn timer_moves(from: &dyn Hypervisor, to: &dyn Hypervisor, start: BootState) {
    let ram = vm::ram();
    let mut machine = create(from, ram.clone(), &[start, vm::application()]);
    assert_eq!(vm::next_write(&mut *machine.1[1]).0, vm::DONE);
    run_until_halted(&mut *machine.1[1]);
    assert_eq!(vm::next_write(&mut *machine.1[0]).0, vm::STEP);
    run_until_halted(&mut *machine.1[0]);
    let saved = save(&mut machine);
    assert_eq!([Activity::Halted; 2], [saved.1[0].run_state, saved.1[1].run_state]);
    drop(machine);
    let (_vm, mut restored) = restore(to, &ram, &saved);
    // The timer of the one interrupts the other.
    let mut application = restored.pop().unwrap();
    let waiter = thread::spawn(move || vm::next_write(&mut *application).0);
    assert_eq!(vm::next_write(&mut *restored[0]).0, vm::RESULT);
    assert_eq!(waiter.join().unwrap(), vm::INTERRUPTED);
}

#[test]
#[ignore = "needs a KVM"]
fn a_pending_timer_moves_between_hypervisors() {
    let (kvm, software) = (kvm(), software());
    let hypervisors: [&dyn Hypervisor; 2] = [&kvm, &software];
    for from in hypervisors {
        for to in hypervisors {
            for start in [vm::timer(), vm::deadline_timer()] {
                timer_moves(from, to, start);
            }
        }
    }
}

/// The 8259 pair, the I/O APIC and the timer as a guest has left them, seen from either side.
#[test]
#[ignore = "needs a KVM"]
fn shared_chips_move_between_hypervisors() {
    let saved = create(&software(), vm::ram(), &[vm::compute()]).0.save().unwrap();
    let mut board = saved.board.unwrap();
    board.ioapic.entries[4] = 0x0100_0000_0000_8031;
    board.ioapic.select = 0x18;
    board.pics.chips[0].masked = 0xfb;
    board.pics.chips[0].base = 0x30;
    board.pics.chips[0].in_service = 2;
    board.pics.chips[1].lowest = 3;
    let state = VmState { board: Some(board), ..saved };
    let (vm, _vcpus) = create(&kvm(), vm::ram(), &[vm::compute()]);
    vm.restore(&state).unwrap();
    let again = vm.save().unwrap().board.unwrap();
    assert_eq!((again.ioapic, again.pics), (board.ioapic, board.pics));
    let (software, _vcpus) = create(&software(), vm::ram(), &[vm::compute()]);
    software.restore(&VmState { board: Some(again), ..saved }).unwrap();
    assert_eq!(software.save().unwrap().board.unwrap().pics, board.pics);
    let mut bad = state;
    bad.board.as_mut().unwrap().pics.chips[0].lowest = 9;
    assert!(Causes(&vm.restore(&bad).unwrap_err()).to_string().contains("lowest is impossible"));
}

#[test]
#[ignore = "needs a KVM"]
fn states_that_cannot_be_are_refused_by_name() {
    let (_vm, mut vcpus) = create(&kvm(), vm::ram(), &[vm::compute()]);
    let vcpu = &mut vcpus[0];
    let good = vcpu.save().unwrap();
    type Change = dyn Fn(&mut VcpuState);
    let cases: &[(&str, &Change)] = &[
        ("cpuid", &|state| state.cpuid.clear()),
        ("local APIC", &|state| state.apic = None),
        ("requested is impossible", &|state| state.apic.as_mut().unwrap().requested[0] = 1),
        ("RFLAGS.IF", &|state| state.events.interrupt = Some(0x40)),
        ("xcr0", &|state| state.xcr0 = 1 << 62 | 3),
        ("xsave", &|state| state.xsave.resize(60_000, 1)),
        ("MSR 0x10 ", &|state| state.msrs.push(Msr { index: 0x10, value: 1 })),
        ("MSR 0x1234567 ", &|state| state.msrs.push(Msr { index: 0x0123_4567, value: 1 })),
        // Not canonical.
        ("MSR 0xc0000082 ", &|state| {
            let lstar = state.msrs.iter_mut().find(|msr| msr.index == 0xc000_0082);
            lstar.unwrap().value = 1 << 63;
        }),
        ("base is impossible", &|state| {
            state.special.apic_base = 1 << 63;
            state.apic.as_mut().unwrap().base = 1 << 63;
        }),
        // Supervisor protection keys, which the leaves do not show.
        ("KVM_SET_SREGS", &|state| state.special.cr4 |= 1 << 24),
        ("exception vector", &|state| {
            state.events.exception = Some(PendingException { vector: 2, error: None });
        }),
    ];
    for (name, change) in cases {
        let mut state = good.clone();
        change(&mut state);
        let error = vcpu.restore(&state).unwrap_err();
        let error = Causes(&error).to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
    vcpu.restore(&good).unwrap();
}

/// Moves a guest to the other hypervisor and back, each time after some rounds and some single
/// steps, on the same RAM. Its results are those of a run that stays, and its timer keeps running.
/// `NERITE_HAND_OVERS` sets the number for a long run.
#[test]
#[ignore = "needs a KVM that runs SSE"]
#[expect(clippy::print_stdout, reason = "figures for a long run by hand")]
fn a_guest_is_handed_over_a_thousand_times() {
    let count = std::env::var("NERITE_HAND_OVERS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1000);
    let rounds = count * 2;
    let expected = vm::results(&mut *create(&kvm(), vm::ram(), &[vm::checksum(rounds)]).1[0]);
    assert_eq!(expected.len(), 5);
    let ram = vm::ram();
    let (kvm, software) = (kvm(), software());
    let mut machines = [&kvm as &dyn Hypervisor, &software]
        .map(|hypervisor| create(hypervisor, ram.clone(), &[vm::checksum(rounds)]));
    let mut random = 0x1234_5678_u64;
    let mut step = |most: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % most
    };
    let (mut steps, mut interrupted) = (0, 0);
    for turn in 0..count {
        let [from, to] = &mut machines;
        let vcpu = &mut from.1[0];
        assert_eq!(vm::next_write(&mut **vcpu).0, vm::STEP, "turn {turn}");
        assert_eq!(vcpu.complete(Entry::Resume).unwrap(), None);
        vcpu.debug().unwrap().set_guest_debug(&SINGLE_STEP).unwrap();
        for _ in 0..step(100) {
            assert!(matches!(vcpu.run(Entry::Resume).unwrap(), Exit::Debug { .. }), "turn {turn}");
            steps += 1;
        }
        vcpu.debug().unwrap().set_guest_debug(&GuestDebug::default()).unwrap();
        let state = vcpu.save().unwrap();
        let shared = from.0.save().unwrap();
        interrupted += u64::from(state.apic.is_some_and(|apic| apic.in_service != [0; 8]));
        to.1[0].restore(&VcpuState { tsc_khz: None, ..state }).unwrap();
        to.0.restore(&shared).unwrap();
        machines.reverse();
    }
    let beats = ram.read_obj::<u32>(vm::BEATS).unwrap();
    assert_eq!(vm::results(&mut *machines[0].1[0]), expected);
    assert!(ram.read_obj::<u32>(vm::BEATS).unwrap() > beats, "the timer has stopped");
    assert!(interrupted > 0, "no interrupt handler was handed over");
    println!("{count} times, {steps} steps, {beats} interrupts, {interrupted} times in a handler");
}

const SINGLE_STEP: GuestDebug = GuestDebug {
    single_step: true,
    block_interrupts: false,
    software: false,
    trap: false,
    points: [None; 4],
};
