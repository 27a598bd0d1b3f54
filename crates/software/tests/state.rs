//! Saving a guest in the middle of its work, and restoring it into another VM.

#![cfg(test)]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nerite_arch::cpuid::{self, Guest};
use nerite_arch::{BootState, CpuidEntry, Msr};
use nerite_hypervisor::{
    Activity, Entry, Error, Exit, Hypervisor, PendingException, StateError, Vcpu, VcpuStart,
    VcpuState, Vm, VmOptions, VmState,
};
use nerite_log_budget::Causes;
use nerite_memory::GuestRam;
use nerite_software::Software;
use nerite_testkit::vm;
use proptest::prelude::*;

fn leaves(vcpu_index: u32) -> Vec<CpuidEntry> {
    let guest = Guest { vcpu_index, vcpu_count: 2, tsc_deadline: true };
    cpuid::for_guest(&Software::new().unwrap().supported_cpuid().unwrap(), &guest)
}

fn create(ram: Arc<GuestRam>, starts: &[BootState]) -> (Box<dyn Vm>, Vec<Box<dyn Vcpu>>) {
    let options = VmOptions { pit: true, vcpus: 2, ..VmOptions::default() };
    let vm = Software::new().unwrap().create_vm(ram, &options).unwrap();
    let start =
        |(index, state)| vm.create_vcpu(index, VcpuStart::At(state), &leaves(index)).unwrap();
    let vcpus = (0..).zip(starts).map(start).collect();
    (vm, vcpus)
}

/// The state of a whole VM, which is not run any more.
fn save(vm: &dyn Vm, vcpus: &mut [Box<dyn Vcpu>]) -> (VmState, Vec<VcpuState>) {
    let states = vcpus.iter_mut().map(|vcpu| vcpu.save().unwrap()).collect();
    (vm.save().unwrap(), states)
}

/// A new VM on a copy of the RAM, with a saved state.
fn restore(
    ram: &GuestRam,
    (state, vcpus): &(VmState, Vec<VcpuState>),
) -> (Box<dyn Vm>, Vec<Box<dyn Vcpu>>) {
    let starts = vec![BootState::default(); vcpus.len()];
    let (vm, mut restored) = create(vm::copy(ram), &starts);
    for (vcpu, state) in restored.iter_mut().zip(vcpus) {
        vcpu.restore(state).unwrap();
    }
    vm.restore(state).unwrap();
    (vm, restored)
}

#[test]
fn a_computation_goes_on_in_another_vm() {
    let ram = vm::ram();
    let expected = vm::results(&mut *create(vm::copy(&ram), &[vm::compute()]).1[0]);
    assert_eq!(expected.len(), 8);
    let (vm, mut vcpus) = create(ram.clone(), &[vm::compute()]);
    for round in 0..16 {
        assert_eq!(vm::next_write(&mut *vcpus[0]).0, vm::STEP, "round {round}");
        assert!(matches!(
            vcpus[0].save(),
            Err(Error::State { source: StateError::NotDrained, .. })
        ));
        assert_eq!(vcpus[0].complete(Entry::Resume).unwrap(), None);
        let saved = save(&*vm, &mut vcpus);
        let (_vm, mut restored) = restore(&ram, &saved);
        let again = restored[0].save().unwrap();
        assert_eq!(VcpuState { tsc: 0, ..again }, VcpuState { tsc: 0, ..saved.1[0].clone() });
        assert_eq!(vm::results(&mut *restored[0]), expected, "round {round}");
    }
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

fn timer_goes_on(start: BootState) {
    let ram = vm::ram();
    let (vm, mut vcpus) = create(ram.clone(), &[start, vm::application()]);
    assert_eq!(vm::next_write(&mut *vcpus[1]).0, vm::DONE);
    run_until_halted(&mut *vcpus[1]);
    assert_eq!(vm::next_write(&mut *vcpus[0]).0, vm::STEP);
    run_until_halted(&mut *vcpus[0]);
    let saved = save(&*vm, &mut vcpus);
    assert_eq!([Activity::Halted; 2], [saved.1[0].run_state, saved.1[1].run_state]);
    drop((vm, vcpus));
    let (_vm, mut restored) = restore(&ram, &saved);
    // The timer of the one interrupts the other.
    let mut application = restored.pop().unwrap();
    let waiter = thread::spawn(move || vm::next_write(&mut *application).0);
    assert_eq!(vm::next_write(&mut *restored[0]).0, vm::RESULT);
    assert_eq!(waiter.join().unwrap(), vm::INTERRUPTED);
}

/// Another hypervisor saves a halted processor with an interrupt that it has handed over.
#[test]
fn an_interrupt_that_was_handed_over_ends_a_halt() {
    const IPI_VECTOR: u8 = 0x41;
    let ram = vm::ram();
    let (vm, mut vcpus) = create(ram.clone(), &[vm::timer(), vm::application()]);
    assert_eq!(vm::next_write(&mut *vcpus[1]).0, vm::DONE);
    run_until_halted(&mut *vcpus[1]);
    let mut saved = save(&*vm, &mut vcpus);
    saved.1[1].events.interrupt = Some(IPI_VECTOR);
    saved.1[1].apic.as_mut().unwrap().in_service[2] = 1 << (IPI_VECTOR - 0x40);
    let (_vm, mut restored) = restore(&ram, &saved);
    assert!(!restored[1].is_halted().unwrap());
    assert_eq!(vm::next_write(&mut *restored[1]).0, vm::INTERRUPTED);
}

#[test]
fn processors_that_were_not_started_yet_are_saved() {
    let ram = vm::ram();
    let options = VmOptions { vcpus: 2, ..VmOptions::default() };
    let vm = Software::new().unwrap().create_vm(ram.clone(), &options).unwrap();
    let waits = |index| vm.create_vcpu(index, VcpuStart::WaitForSipi(&[]), &leaves(index)).unwrap();
    let mut vcpus: Vec<_> = (0..2).map(waits).collect();
    let saved = save(&*vm, &mut vcpus);
    let (_vm, mut restored) = restore(&ram, &saved);
    for (index, vcpu) in restored.iter_mut().enumerate() {
        let state = vcpu.save().unwrap();
        assert_eq!(state.run_state, Activity::WaitForSipi);
        // Only the first is the bootstrap processor (Intel SDM vol. 3, 12.4.4).
        assert_eq!(state.special.apic_base, 0xfee0_0800 | u64::from(index == 0) << 8);
    }
}

#[test]
fn a_pending_timer_wakes_halted_processors_in_another_vm() {
    timer_goes_on(vm::timer());
}

#[test]
fn a_tsc_deadline_holds_in_another_vm() {
    timer_goes_on(vm::deadline_timer());
}

/// A VM whose only vCPU has done a few rounds, with its state.
fn computing() -> (Box<dyn Vm>, Box<dyn Vcpu>, VcpuState) {
    let (vm, mut vcpus) = create(vm::ram(), &[vm::compute()]);
    let mut vcpu = vcpus.pop().unwrap();
    vm::next_write(&mut *vcpu);
    vcpu.complete(Entry::Resume).unwrap();
    let state = vcpu.save().unwrap();
    (vm, vcpu, state)
}

#[test]
fn an_exception_from_elsewhere_is_delivered_first() {
    let (_vm, mut vcpu, mut state) = computing();
    // Vector 14 has no gate, nor has any other exception: a triple fault.
    state.events.exception = Some(PendingException { vector: 14, error: Some(2) });
    vcpu.restore(&state).unwrap();
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
    // And a processor that has shut down can be restored.
    state.events.exception = None;
    vcpu.restore(&state).unwrap();
    assert_eq!(vm::next_write(&mut *vcpu).0, vm::STEP);
}

#[test]
fn the_counter_keeps_the_rate_that_it_had() {
    let (_vm, mut vcpu, state) = computing();
    vcpu.restore(&VcpuState { tsc_khz: Some(2_500_000), tsc: 1 << 40, ..state }).unwrap();
    let outside = Instant::now();
    let first = vcpu.save().unwrap();
    let inside = Instant::now();
    thread::sleep(Duration::from_millis(30));
    let inside = inside.elapsed().as_nanos();
    let second = vcpu.save().unwrap();
    let outside = outside.elapsed().as_nanos();
    assert_eq!((first.tsc_khz, vcpu.tsc_khz()), (Some(2_500_000), Some(2_500_000)));
    let ticks = u128::from(second.tsc - first.tsc);
    assert!(
        (inside * 5 / 2..=outside * 5 / 2 + 3).contains(&ticks),
        "{ticks} in {inside} to {outside} ns"
    );
    assert!(first.tsc >= 1 << 40);
}

/// The counter does not run on from the moment of a restore that came to nothing.
#[test]
fn a_restore_that_was_given_up_leaves_nothing() {
    let (_vm, mut vcpu, state) = computing();
    vcpu.restore(&state).unwrap();
    thread::sleep(Duration::from_millis(30));
    let begin = Instant::now();
    vcpu.restore(&state).unwrap();
    let ticks = vcpu.save().unwrap().tsc - state.tsc;
    let most = begin.elapsed().as_nanos();
    assert!(u128::from(ticks) <= most, "{ticks} ticks in {most} ns");
}

#[test]
fn states_that_cannot_be_are_refused_by_name() {
    let (vm, mut vcpu, good) = computing();
    type Change = dyn Fn(&mut VcpuState);
    let cases: &[(&str, &Change)] = &[
        ("cpuid", &|state| state.cpuid.clear()),
        ("tsc_khz", &|state| state.tsc_khz = Some(0)),
        ("local APIC", &|state| state.apic = None),
        ("id is impossible", &|state| state.apic.as_mut().unwrap().id = 1),
        ("requested is impossible", &|state| state.apic.as_mut().unwrap().requested[0] = 1),
        // PCIDE, which the leaves do not show.
        ("cr4", &|state| state.special.cr4 |= 1 << 17),
        ("efer", &|state| state.special.efer |= 1 << 12),
        ("xcr0", &|state| state.xcr0 |= 1 << 9),
        ("xsave", &|state| state.xsave.extend([1; 8])),
        ("MSR 0x48 ", &|state| state.msrs.push(Msr { index: 0x48, value: 1 })),
        // KVM's poll control, which the guest has set without having seen it.
        ("MSR 0x4b564d05 (KVM_POLL_CONTROL) ", &|state| {
            state.msrs.push(Msr { index: 0x4b56_4d05, value: 0 });
        }),
        ("MSR 0x10 ", &|state| state.msrs.push(Msr { index: 0x10, value: 1 })),
        ("MSR 0xc0000082 ", &|state| state.msrs.push(Msr { index: 0xc000_0082, value: 1 << 63 })),
    ];
    for (name, change) in cases {
        let mut state = good.clone();
        change(&mut state);
        let error = vcpu.restore(&state).unwrap_err();
        let error = Causes(&error).to_string();
        assert!(error.starts_with("vCPU 0: ") && error.contains(name), "{name}: {error}");
    }
    // MSRs of another hypervisor that say nothing are none.
    let mut state = good;
    state.msrs.push(Msr { index: 0x48, value: 0 });
    // As it is after a reset, and the guest has not seen it.
    state.msrs.push(Msr { index: 0x4b56_4d05, value: 1 });
    state.xsave.extend([0; 64]);
    vcpu.restore(&state).unwrap();
    let mut board = vm.save().unwrap();
    board.version = 7;
    assert!(Causes(&vm.restore(&board).unwrap_err()).to_string().contains("version 7"));
    board = VmState { board: None, ..vm.save().unwrap() };
    assert!(Causes(&vm.restore(&board).unwrap_err()).to_string().contains("board"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever a file holds in the place of a state: an error or a guest that ends, but no panic.
    #[test]
    fn mutated_states_never_panic(changes in prop::collection::vec((0_usize..40, any::<u64>()), 1..6)) {
        let (vm, mut vcpu, mut state) = computing();
        for (field, value) in changes {
            mutate(&mut state, field, value);
        }
        if vcpu.restore(&state).is_ok() {
            vm.restore(&vm.save().unwrap()).unwrap();
            let kicker = vcpu.kicker();
            // A guest that got lost ends at the first kick.
            kicker.kick();
            vcpu.run(Entry::Resume).unwrap();
            let timer = vcpu.kick_timer().unwrap();
            timer.set(Duration::from_millis(2), Duration::ZERO).unwrap();
            vcpu.run(Entry::Resume).unwrap();
            vcpu.complete(Entry::Data(state.tsc)).unwrap();
            let _ = vcpu.save();
        }
    }
}

fn mutate(state: &mut VcpuState, field: usize, value: u64) {
    let word = u32::try_from(value & 0xffff_ffff).unwrap();
    let [byte, second, ..] = value.to_le_bytes();
    let at = usize::from(second);
    let special = &mut state.special;
    let apic = state.apic.as_mut().unwrap();
    match field {
        0 => state.regs.rip = value,
        1 => state.regs.rflags ^= 1 << (byte % 22),
        2 => special.cr0 ^= 1 << (byte % 32),
        3 => special.cr4 ^= 1 << (byte % 33),
        4 => special.efer ^= 1 << (byte % 16),
        5 => special.cr3 = value,
        6 => special.cs.kind = byte & 15,
        7 => special.cs.l ^= true,
        8 => special.cs.db ^= true,
        9 => special.ss.dpl = byte & 3,
        10 => special.ss.unusable ^= true,
        11 => special.cs.base = value >> 17,
        12 => special.cs.limit = word,
        13 => special.idt.base = value >> 17,
        14 => special.gdt.limit = byte.into(),
        15 => special.tr.kind = byte & 15,
        16 => special.tr.base = value >> 20,
        17 => state.debug.dr7 = word.into(),
        18 => state.debug.addresses[at % 4] = value,
        19 => state.xcr0 ^= 1 << (byte % 10),
        20 => {
            let at = usize::from(second) * 11 % state.xsave.len();
            state.xsave[at] = byte;
        }
        21 => state.xsave.truncate(at * 4),
        22 => {
            let at = at % state.msrs.len();
            state.msrs[at].value = value;
        }
        23 => {
            let at = at % state.msrs.len();
            state.msrs[at].index = word;
        }
        24 => state.tsc = value,
        25 => state.events.interrupt = Some(byte),
        26 => state.events.exception = Some(PendingException { vector: byte & 31, error: None }),
        27 => {
            state.events.exception = Some(PendingException { vector: byte & 31, error: Some(word) })
        }
        28 => state.events.nmis = byte & 3,
        29 => state.events.shadow ^= true,
        30 => {
            state.run_state = [Activity::Runnable, Activity::Halted, Activity::WaitForSipi][at % 3]
        }
        31 => apic.requested[at % 8] = word,
        32 => apic.in_service[at % 8] = word,
        33 => apic.entries[at % 6] = word & 0x7_ffff,
        34 => apic.initial_count = word,
        35 => apic.remaining = Some(value),
        36 => apic.tsc_deadline = value,
        37 => (apic.base, special.apic_base) = (value & 0xfff, value & 0xfff),
        38 => apic.divide = word & 15,
        _ => state.regs.rsp = value,
    }
}

/// A guest of a level that was started on any other hypervisor can be restored here.
#[test]
fn each_level_up_to_v2_is_one_of_this_processor() {
    let leaf = |function, index| nerite_arch::CpuidEntry {
        index,
        eax: u32::MAX,
        ebx: u32::MAX,
        ecx: u32::MAX,
        edx: u32::MAX,
        function,
    };
    let functions = [1, 0x4000_0001, 0x8000_0001, 0x8000_0008].map(|function| leaf(function, None));
    let indexed = [(7, 0), (7, 1), (0xd, 0), (0xd, 1)].map(|(leaf_of, at)| leaf(leaf_of, Some(at)));
    let everything: Vec<_> = functions.into_iter().chain(indexed).collect();
    let here = Software::new().unwrap().supported_cpuid().unwrap();
    for level in ["x86-64", "x86-64-v2"] {
        let model: cpuid::CpuModel = level.parse().unwrap();
        let shown = model.apply(everything.clone(), "any").unwrap();
        assert_eq!(cpuid::missing_feature(&shown, &here), None, "{level}");
    }
}
