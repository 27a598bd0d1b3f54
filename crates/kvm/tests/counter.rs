//! The time-stamp counter of a restored guest.

#![cfg(test)]

use std::thread;
use std::time::Duration;

use nerite_arch::cpuid::{self, Guest};
use nerite_hypervisor::{Hypervisor, Vcpu, VcpuStart, VcpuState, VmOptions};
use nerite_kvm::System;
use nerite_testkit::vm;

/// Two vCPUs of a new VM.
fn vcpus(kvm: &dyn Hypervisor) -> Vec<Box<dyn Vcpu>> {
    let machine = kvm.create_vm(vm::ram(), &VmOptions { vcpus: 2, ..VmOptions::default() });
    let machine = machine.unwrap();
    let supported = kvm.supported_cpuid().unwrap();
    let starts = [vm::compute(), vm::application()];
    let vcpu = |(vcpu_index, start)| {
        let guest = Guest { vcpu_index, vcpu_count: 2, tsc_deadline: true };
        let leaves = cpuid::for_guest(&supported, &guest);
        machine.create_vcpu(vcpu_index, VcpuStart::At(start), &leaves).unwrap()
    };
    (0..).zip(&starts).map(vcpu).collect()
}

#[test]
#[ignore = "needs a KVM"]
fn a_young_guest_keeps_its_counter_and_vcpus_have_the_same() {
    let kvm = System::open().unwrap();
    let mut first = vcpus(&kvm);
    let states: Vec<_> = first.iter_mut().map(|vcpu| vcpu.save().unwrap()).collect();
    let second = u64::from(states[0].tsc_khz.unwrap()) * 1000;
    for tsc in [1, second / 5, second / 2, second * 9 / 10, second * 3, second * 1000] {
        let mut restored = vcpus(&kvm);
        // Twice: also a guest that is reset to a state in place.
        for turn in ["new", "in place"] {
            // KVM has a counter of its own meanwhile.
            thread::sleep(Duration::from_millis(50));
            for (vcpu, state) in restored.iter_mut().zip(&states) {
                vcpu.restore(&VcpuState { tsc, tsc_khz: None, ..state.clone() }).unwrap();
            }
            let read = [0, 1, 0, 1].map(|index: usize| restored[index].save().unwrap().tsc);
            assert!(tsc <= read[0], "{turn}: {tsc} became {read:?}");
            assert!(read.is_sorted(), "{turn}: {read:?}");
        }
    }
}
