//! Single pieces of a vCPU's state that KVM keeps in its own way: what is restored is what is there
//! afterwards, whatever the vCPU had before.
//!
//! They are ignored by default because a build machine may have no `/dev/kvm`: `cargo xtask test`
//! runs them where there is one, or in the lab.

#![cfg(test)]

use std::thread;
use std::time::{Duration, Instant};

use nerite_arch::cpuid::{self, Guest};
use nerite_hypervisor::{
    Activity, Hypervisor, PendingEvents, PendingException, Vcpu, VcpuStart, VcpuState, Vm,
    VmOptions,
};
use nerite_kvm::System;
use nerite_software::Software;
use nerite_testkit::vm;

type Machine = (Box<dyn Vm>, Vec<Box<dyn Vcpu>>);

/// Vector of the timer, and its entry's modes (Intel SDM vol. 3, 12.5.1).
const VECTOR: u32 = 0x41;
const ONCE: u32 = VECTOR;
const PERIODIC: u32 = 1 << 17 | VECTOR;
const DEADLINE: u32 = 2 << 17 | VECTOR;
/// Divide configuration: by 1, a count is a nanosecond.
const BY_ONE: u32 = 0b1011;

/// A VM of each hypervisor, whose vCPUs have the leaves of both.
fn machines() -> [Machine; 2] {
    let (kvm, software) = (System::open().unwrap(), Software::new().unwrap());
    let leaves = cpuid::common(
        &software.supported_cpuid().unwrap(),
        &Hypervisor::supported_cpuid(&kvm).unwrap(),
    );
    let hypervisors: [&dyn Hypervisor; 2] = [&kvm, &software];
    hypervisors.map(|hypervisor| {
        let options = VmOptions { pit: true, vcpus: 2, ..VmOptions::default() };
        let vm = hypervisor.create_vm(vm::ram(), &options).unwrap();
        let create = |vcpu_index| {
            let guest = Guest { vcpu_index, vcpu_count: 2, tsc_deadline: true };
            let leaves = cpuid::for_guest(&leaves, &guest);
            vm.create_vcpu(vcpu_index, VcpuStart::At(&vm::compute()), &leaves).unwrap()
        };
        let vcpus = (0..2).map(create).collect();
        (vm, vcpus)
    })
}

/// A state whose local APIC is enabled, with its timer in this mode.
fn with_timer(base: &VcpuState, entry: u32) -> VcpuState {
    let mut state = base.clone();
    let apic = state.apic.as_mut().unwrap();
    apic.spurious = 0x1ff;
    apic.entries[0] = entry;
    state
}

/// The same with a count of which so many nanoseconds are left.
fn counting(base: &VcpuState, entry: u32, whole: u32, left: u64) -> VcpuState {
    let mut state = with_timer(base, entry);
    let apic = state.apic.as_mut().unwrap();
    (apic.divide, apic.initial_count, apic.remaining) = (BY_ONE, whole, Some(left));
    state
}

fn is_requested(state: &VcpuState) -> bool {
    state.apic.unwrap().requested[2] & 1 << (VECTOR - 0x40) != 0
}

/// Restores one state after the other and saves the last.
fn restored(vcpu: &mut dyn Vcpu, states: &[&VcpuState]) -> VcpuState {
    for state in states {
        vcpu.restore(state).unwrap();
    }
    vcpu.save().unwrap()
}

#[test]
#[ignore = "needs a KVM"]
fn an_old_deadline_does_not_come_back() {
    for (_vm, mut vcpus) in machines() {
        let vcpu = &mut *vcpus[0];
        let base = vcpu.save().unwrap();
        let mut armed = with_timer(&base, DEADLINE);
        armed.apic.as_mut().unwrap().tsc_deadline = armed.tsc + 1000;
        let state = restored(vcpu, &[&armed, &with_timer(&base, DEADLINE)]);
        assert_eq!((state.apic.unwrap().tsc_deadline, is_requested(&state)), (0, false));
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_count_follows_a_deadline() {
    for (_vm, mut vcpus) in machines() {
        let vcpu = &mut *vcpus[0];
        let base = vcpu.save().unwrap();
        let mut armed = with_timer(&base, DEADLINE);
        armed.apic.as_mut().unwrap().tsc_deadline = armed.tsc + (1 << 40);
        for entry in [ONCE, PERIODIC] {
            let whole = 4_000_000_000;
            let state = restored(vcpu, &[&armed, &counting(&base, entry, whole, whole.into())]);
            let apic = state.apic.unwrap();
            assert_eq!((apic.initial_count, apic.tsc_deadline), (whole, 0), "{entry:#x}");
            assert!(apic.remaining.is_some_and(|left| left > 0), "{entry:#x}");
        }
        // And the other way round.
        let state = restored(vcpu, &[&counting(&base, ONCE, 4_000_000_000, 9), &armed]);
        let expected = armed.apic.unwrap().tsc_deadline;
        assert_eq!(state.apic.unwrap().tsc_deadline, expected);
    }
}

/// A periodic timer has the vCPU entered while it is saved, which ends its halt.
#[test]
#[ignore = "needs a KVM"]
fn a_halt_that_an_interrupt_has_ended_is_over() {
    const INTERRUPTS: u64 = 1 << 9;
    for (_vm, mut vcpus) in machines() {
        let vcpu = &mut *vcpus[0];
        let base = vcpu.save().unwrap();
        let mut halted = counting(&base, PERIODIC, 50_000, 1);
        halted.run_state = Activity::Halted;
        halted.regs.rflags |= INTERRUPTS;
        halted.apic.as_mut().unwrap().requested[2] = 1;
        for round in 0..100 {
            let state = restored(vcpu, &[&halted]);
            let (interrupt, run_state) = (state.events.interrupt, state.run_state);
            assert!(
                interrupt.is_none() || run_state == Activity::Runnable,
                "round {round}: {interrupt:?}, {run_state:?}"
            );
        }
    }
}

/// A count that comes to its end while the vCPU does not run, at any moment.
#[test]
#[ignore = "needs a KVM"]
fn a_count_that_is_over_is_not_lost() {
    for (_vm, mut vcpus) in machines() {
        let vcpu = &mut *vcpus[0];
        let base = vcpu.save().unwrap();
        let mut check = |left, wait: Option<Duration>| {
            vcpu.restore(&counting(&base, ONCE, 10_000_000, left)).unwrap();
            wait.into_iter().for_each(thread::sleep);
            let state = vcpu.save().unwrap();
            let remaining = state.apic.unwrap().remaining;
            assert!(is_requested(&state) || remaining.is_some(), "{left} ns, {wait:?}");
        };
        for round in 0..50 {
            check(1 + round * 20_000, Some(Duration::from_micros(round * 20)));
        }
        // The host's timer may be late, above all on a busy host.
        for left in (1..500_000).step_by(1000) {
            check(left, None);
        }
        // A period that has passed, too.
        vcpu.restore(&counting(&base, PERIODIC, 2_000_000_000, 1)).unwrap();
        thread::sleep(Duration::from_millis(1));
        let state = vcpu.save().unwrap();
        assert!(is_requested(&state) && state.apic.unwrap().remaining.is_some());
    }
}

#[test]
#[ignore = "needs a KVM"]
fn one_that_is_over_for_long_does_not_come_again() {
    for (_vm, mut vcpus) in machines() {
        let vcpu = &mut *vcpus[0];
        let mut state = with_timer(&vcpu.save().unwrap(), ONCE);
        (state.apic.as_mut().unwrap().divide, state.apic.as_mut().unwrap().initial_count) =
            (BY_ONE, 1000);
        for _ in 0..3 {
            state = restored(vcpu, &[&state]);
            assert_eq!((state.apic.unwrap().remaining, is_requested(&state)), (None, false));
        }
    }
}

/// A counter goes on from the value that it is given, also if that is near to the one it has, and
/// those of two vCPUs go together.
#[test]
#[ignore = "needs a KVM"]
fn counters_go_on_from_their_values() {
    for (vm, mut vcpus) in machines() {
        let bases: Vec<_> = vcpus.iter_mut().map(|vcpu| vcpu.save().unwrap()).collect();
        let shared = vm.save().unwrap();
        let khz = u128::from(vcpus[0].tsc_khz().unwrap());
        for ahead_ms in [0_u64, 5000, 5300, 4900, 100, 200] {
            let start = bases[0].tsc + ahead_ms * u64::try_from(khz).unwrap();
            let outside = Instant::now();
            for (vcpu, base) in vcpus.iter_mut().zip(&bases) {
                vcpu.restore(&VcpuState { tsc: start, ..base.clone() }).unwrap();
                // The later one does not begin later.
                thread::sleep(Duration::from_millis(20));
            }
            vm.restore(&shared).unwrap();
            let between = Instant::now();
            let [first, second] =
                [0, 1].map(|index| vcpus[index].save().unwrap().tsc.wrapping_sub(start));
            // The host's clock and the counter differ a little.
            let ticks = |time: Duration| time.as_nanos() * khz / 1_000_000 * 101 / 100 + khz;
            let (most, apart) = (ticks(outside.elapsed()), ticks(between.elapsed()));
            assert!(u128::from(first) <= most, "{ahead_ms} ms: {first} of {most}");
            assert!(second >= first, "{ahead_ms} ms: {first} {second}");
            assert!(u128::from(second - first) <= apart, "{ahead_ms} ms: {first} {second}");
        }
    }
}

/// Everything that waits for delivery, and debug registers, CR2 and MSRs, from each side to the
/// other.
#[test]
#[ignore = "needs a KVM"]
fn pieces_come_over_as_they_are() {
    type Change = dyn Fn(&mut VcpuState);
    let cases: &[(&str, &Change)] = &[
        ("nothing", &|_| {}),
        ("an interrupt shadow", &|state| state.events.shadow = true),
        ("an NMI", &|state| state.events.nmis = 1),
        ("an NMI behind one", &|state| {
            (state.events.nmis, state.events.nmi_masked) = (1, true);
        }),
        ("a page fault", &|state| {
            state.events.exception = Some(PendingException { vector: 14, error: Some(2) });
            state.special.cr2 = 0x1234_5678_9000;
        }),
        ("debug registers", &|state| {
            state.debug.addresses = [1, 2, 3, 4];
            state.debug.dr6 |= 0x4001;
        }),
        ("a swapped GS", &|state| {
            state.special.gs.base = 0x7fff_1234_0000;
            let kernel = state.msrs.iter_mut().find(|msr| msr.index == 0xc000_0102);
            kernel.unwrap().value = 0xffff_8881_0000_0000;
        }),
        ("memory types", &|state| {
            for (index, value) in [(0x277, 0x0007_0106_0007_0106), (0x2ff, 0xc06)] {
                let found = state.msrs.iter_mut().find(|msr| msr.index == index);
                match found {
                    Some(msr) => msr.value = value,
                    None => state.msrs.push(nerite_arch::Msr { index, value }),
                }
            }
        }),
        ("interrupts in all places", &|state| {
            let apic = state.apic.as_mut().unwrap();
            apic.spurious = 0x1ff;
            (apic.requested[2], apic.in_service[3], apic.level[3]) = (0x30, 0x10, 0x10);
            apic.task_priority = 0x20;
            state.special.cr8 = 2;
        }),
    ];
    let [mut kvm, mut software] = machines();
    for (name, change) in cases {
        for is_back in [false, true] {
            let (from, to) =
                if is_back { (&mut software, &mut kvm) } else { (&mut kvm, &mut software) };
            let plain = from.1[0].save().unwrap();
            let plain = VcpuState { events: PendingEvents::default(), ..plain };
            let mut wanted = plain.clone();
            change(&mut wanted);
            let state = restored(&mut *from.1[0], &[&wanted]);
            let over = restored(&mut *to.1[0], &[&VcpuState { tsc_khz: None, ..state.clone() }]);
            let pieces = |state: &VcpuState| {
                let apic = state.apic.unwrap();
                let chip = (apic.requested, apic.in_service, apic.level, apic.task_priority);
                (state.regs, state.special, state.debug, state.xcr0, state.events, chip)
            };
            let msrs = |state: &VcpuState| {
                [0xc000_0102, 0x277, 0x2ff].map(|index| state.msr(index).unwrap_or(0))
            };
            for (side, state) in [("its own", &state), ("the other", &over)] {
                assert_eq!(pieces(state), pieces(&wanted), "{name}, {is_back}, {side}");
                assert_eq!(msrs(state), msrs(&wanted), "{name}, {is_back}, {side}");
            }
            from.1[0].restore(&plain).unwrap();
        }
    }
}
