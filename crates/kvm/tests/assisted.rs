//! Instructions that KVM cannot execute, on the processor in software.
//!
//! They are ignored by default because a build machine may have no `/dev/kvm`: `cargo xtask test`
//! runs them where there is one, or in the lab. A KVM that interprets guests fails at each
//! instruction of SSE and x87, so that there they are the hardest.

#![cfg(test)]

use std::sync::Arc;

use nerite_arch::cpuid::{self, Guest};
use nerite_arch::{BootState, CpuidEntry};
use nerite_hypervisor::{Entry, Exit, Hypervisor, Vcpu, VcpuStart, VmOptions};
use nerite_kvm::System;
use nerite_memory::GuestRam;
use nerite_software::Software;
use nerite_testkit::vm;
use nerite_vcpu::{Assistance, Assisted};

const SOURCE: u64 = 0x5_0000;
const TARGET: u64 = 0x5_1000;
/// CR4: OSFXSR, OSXMMEXCPT and OSXSAVE.
const CR4_OSXSAVE: u64 = 0x4_0600;

/// Stores and loads 32 bytes of MMIO at once, and copies from RAM to MMIO.
#[rustfmt::skip]
const WIDE: [u8; 34] = [
    0xc5, 0xfc, 0x10, 0x06,       // vmovups ymm0,YMMWORD PTR [rsi]
    0xc5, 0xfc, 0x11, 0x03,       // vmovups YMMWORD PTR [rbx],ymm0
    0xc5, 0xfc, 0x10, 0x4b, 0x40, // vmovups ymm1,YMMWORD PTR [rbx+0x40]
    0xc5, 0xfc, 0x11, 0x0f,       // vmovups YMMWORD PTR [rdi],ymm1
    0x48, 0x89, 0xfe,             // mov rsi,rdi
    0x48, 0x89, 0xdf,             // mov rdi,rbx
    0xb9, 0x04, 0x00, 0x00, 0x00, // mov ecx,0x4
    0xf3, 0x48, 0xa5,             // rep movs QWORD PTR es:[rdi],QWORD PTR ds:[rsi]
    0xe6, 0x92,                   // out 0x92,al
    0xf4,                         // hlt
];

fn leaves() -> Vec<CpuidEntry> {
    let host = Hypervisor::supported_cpuid(&System::open().unwrap()).unwrap();
    cpuid::for_guest(&host, &Guest { vcpu_index: 0, vcpu_count: 1, tsc_deadline: true })
}

fn vcpu(hypervisor: &dyn Hypervisor, ram: &Arc<GuestRam>, start: &BootState) -> Box<dyn Vcpu> {
    let vm = hypervisor.create_vm(ram.clone(), &VmOptions::default()).unwrap();
    vm.create_vcpu(0, VcpuStart::At(start), &leaves()).unwrap()
}

fn assisted(ram: &Arc<GuestRam>, start: &BootState) -> Assisted {
    let assistance =
        Assistance::new(ram.clone(), 1, || Ok(Arc::new(Software::new()?) as Arc<dyn Hypervisor>));
    Assisted::new(vcpu(&System::open().unwrap(), ram, start), Arc::new(assistance))
}

fn results(vcpu: &mut dyn Vcpu) -> Vec<u32> {
    let mut results = Vec::new();
    loop {
        match vcpu.run(Entry::Resume).unwrap() {
            Exit::PortOut { port: vm::RESULT, value, .. } => results.push(value),
            Exit::PortOut { port: vm::DONE, .. } => return results,
            Exit::PortOut { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_computation_has_the_results_of_software() {
    let ram = vm::ram();
    let expected = results(&mut *vcpu(&Software::new().unwrap(), &vm::copy(&ram), &vm::compute()));
    assert_eq!(results(&mut assisted(&ram, &vm::compute())), expected);
}

/// KVM itself ends with an internal error here, on any host.
#[test]
#[ignore = "needs a KVM with AVX"]
fn wide_accesses_of_mmio_are_exits() {
    let ram = vm::ram();
    ram.write(vm::CODE, &WIDE).unwrap();
    let words = [0x0706_0504_0302_0100_u64, 1, u64::MAX, 0x1234_5678_9abc_def0];
    for (address, word) in (SOURCE..).step_by(8).zip(words) {
        ram.write_obj(address, &word).unwrap();
    }
    let mut start = vm::entry_state(0, vm::CODE);
    (start.regs.rsi, start.regs.rdi, start.regs.rbx) = (SOURCE, TARGET, vm::MMIO);
    let mut vcpu = assisted(&ram, &start);
    // Not by the guest: not every processor that runs KVM as its guest lets it see XSETBV.
    let mut state = vcpu.save().unwrap();
    (state.xcr0, state.special.cr4) = (7, state.special.cr4 | CR4_OSXSAVE);
    vcpu.restore(&state).unwrap();
    let mut entry = Entry::Resume;
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    loop {
        entry = match vcpu.run(std::mem::take(&mut entry)).unwrap() {
            Exit::MmioWrite { address, width: 8, value } => {
                writes.push((address - vm::MMIO, value));
                Entry::Resume
            }
            Exit::MmioRead { address, width: 8 } => {
                reads.push(address - vm::MMIO);
                Entry::Data(address * 3)
            }
            Exit::PortOut { port: vm::DONE, .. } => break,
            other => panic!("{other:?}"),
        };
    }
    let loaded = [0x40, 0x48, 0x50, 0x58].map(|offset| (vm::MMIO + offset) * 3);
    let expected: Vec<_> = [0, 8, 16, 24].into_iter().zip(words).collect();
    assert_eq!((&writes[..4], &reads[..]), (&expected[..], &[0x40, 0x48, 0x50, 0x58][..]));
    let copied: Vec<_> = [0, 8, 16, 24].into_iter().zip(loaded).collect();
    assert_eq!(writes[4..], copied);
    let stored = [0, 8, 16, 24].map(|offset| ram.read_obj::<u64>(TARGET + offset).unwrap());
    assert_eq!(stored, loaded);
    vcpu.complete(Entry::Resume).unwrap();
    assert_eq!(vcpu.regs().unwrap().rcx, 0);
}
