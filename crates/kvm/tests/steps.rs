//! Steps, kicks and drains against a real KVM, with guests of a few integer instructions.
//!
//! They are ignored by default because a build machine may have no `/dev/kvm`: `cargo xtask test`
//! runs them where there is one, or in the lab.

#![cfg(test)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nerite_arch::hermit::BootAddresses;
use nerite_arch::paging::IdentityMap;
use nerite_arch::{BootState, cpuid, gdt};
use nerite_hypervisor::{DebugControl as _, Entry, Exit, GuestDebug, Vcpu, VcpuStart, VmOptions};
use nerite_kvm::{KvmVcpu, KvmVm, System};
use nerite_memory::{Backing, GuestRam, Region};

const RAM: u64 = 2 << 20;
const CODE: u64 = 0x10000;
const DATA: u64 = 0x20000;
/// Not RAM, but mapped by the guest's page tables.
const MMIO: u64 = 0x30_0000;

struct Guest {
    vcpu: KvmVcpu,
    ram: Arc<GuestRam>,
}

/// A vCPU in 64-bit mode at the first byte of `code`, with RSI = RDI = `DATA` and RBX = `MMIO`.
fn guest(code: &[u8]) -> Guest {
    let system = System::open().unwrap();
    let ram =
        Arc::new(GuestRam::new(&[Region { start: 0, size: RAM }], &Backing::default()).unwrap());
    let map = IdentityMap {
        pml4: 0x2000,
        tables_start: 0x3000,
        tables_end: CODE,
        start: 0,
        end: 4 << 20,
    };
    for table in map.tables().unwrap() {
        ram.write(table.addr, table.bytes.as_slice()).unwrap();
    }
    ram.write(0x1000, &gdt::bytes()).unwrap();
    ram.write(CODE, code).unwrap();
    let addresses =
        BootAddresses { entry: CODE, boot_info: 0, stack: CODE, pml4: 0x2000, gdt: 0x1000 };
    let mut state = BootState::hermit(0, &addresses);
    (state.regs.rsi, state.regs.rdi, state.regs.rbx) = (DATA, DATA, MMIO);
    let vm = KvmVm::new(&system, ram.clone(), &VmOptions::default()).unwrap();
    let guest = cpuid::Guest { vcpu_index: 0, vcpu_count: 1, tsc_deadline: false };
    let cpuid = cpuid::for_guest(&system.supported_cpuid().unwrap(), &guest);
    Guest { vcpu: vm.vcpu(0, VcpuStart::At(&state), &cpuid).unwrap(), ram }
}

/// The ports of these tests are none that KVM answers itself for its interrupt controllers and
/// timer.
fn out(port: u16, width: u8, value: u32) -> Exit {
    Exit::PortOut { port, width, value }
}

#[test]
#[ignore = "needs a KVM"]
fn port_accesses_carry_width_and_value_and_take_their_answer() {
    // in eax, 0x10 ; out 0x11, ax ; in al, 0x12 ; out 0x13, eax
    let mut vcpu = guest(&[0xe5, 0x10, 0x66, 0xe7, 0x11, 0xe4, 0x12, 0xe7, 0x13]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 0x10, width: 4 });
    assert_eq!(vcpu.run(Entry::Data(0xdead_1234)).unwrap(), out(0x11, 2, 0x1234));
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 0x12, width: 1 });
    // Only the access's own bytes are taken from an answer.
    assert_eq!(vcpu.run(Entry::Data(0xffff_ff56)).unwrap(), out(0x13, 4, 0xdead_1256));
}

#[test]
#[ignore = "needs a KVM"]
fn an_unanswered_read_gives_all_ones() {
    // in ax, 0x10 ; out 0x11, eax
    let mut vcpu = guest(&[0x66, 0xe5, 0x10, 0xe7, 0x11]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 0x10, width: 2 });
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x11, 4, 0xffff));
}

#[test]
#[ignore = "needs a KVM"]
fn mmio_goes_both_ways_in_all_widths() {
    // mov rax, [rbx] ; mov [rbx+8], eax ; mov al, [rbx+1] ; mov [rbx+2], al
    let code = [0x48, 0x8b, 0x03, 0x89, 0x43, 0x08, 0x8a, 0x43, 0x01, 0x88, 0x43, 0x02];
    let mut vcpu = guest(&code).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::MmioRead { address: MMIO, width: 8 });
    assert_eq!(
        vcpu.run(Entry::Data(0x1122_3344_5566_7788)).unwrap(),
        Exit::MmioWrite { address: MMIO + 8, width: 4, value: 0x5566_7788 }
    );
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::MmioRead { address: MMIO + 1, width: 1 });
    let write = Exit::MmioWrite { address: MMIO + 2, width: 1, value: 0x99 };
    assert_eq!(vcpu.run(Entry::Data(0x99)).unwrap(), write);
}

#[test]
#[ignore = "needs a KVM"]
fn strings_come_one_element_at_a_time() {
    // mov edx, 0x50 ; mov ecx, 4 ; rep outsw ; mov ecx, 3 ; rep insb ; out 0x51, al
    let mut guest = guest(&[
        0xba, 0x50, 0, 0, 0, 0xb9, 4, 0, 0, 0, 0x66, 0xf3, 0x6f, 0xb9, 3, 0, 0, 0, 0xf3, 0x6c,
        0xe6, 0x51,
    ]);
    guest.ram.write(DATA, &[1, 0, 2, 0, 3, 0, 4, 0]).unwrap();
    for value in 1..=4 {
        assert_eq!(guest.vcpu.run(Entry::Resume).unwrap(), out(0x50, 2, value));
    }
    let read = Exit::PortIn { port: 0x50, width: 1 };
    assert_eq!(guest.vcpu.run(Entry::Resume).unwrap(), read);
    assert_eq!(guest.vcpu.run(Entry::Data(0x61)).unwrap(), read);
    assert_eq!(guest.vcpu.run(Entry::Data(0x62)).unwrap(), read);
    assert_eq!(guest.vcpu.run(Entry::Data(0x63)).unwrap(), out(0x51, 1, 0));
    let mut got = [0; 4];
    guest.ram.read(DATA, &mut got).unwrap();
    assert_eq!(&got, &[0x61, 0x62, 0x63, 0]);
}

#[test]
#[ignore = "needs a KVM"]
fn a_drained_vcpu_has_its_answer_and_has_run_no_further() {
    // in al, 0x10 ; out 0x11, al
    let mut vcpu = guest(&[0xe4, 0x10, 0xe6, 0x11]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 0x10, width: 1 });
    assert_eq!(vcpu.complete(Entry::Data(0x42)).unwrap(), None);
    let regs = vcpu.regs().unwrap();
    assert_eq!((regs.rax, regs.rip), (0x42, CODE + 2));
    // Draining again changes nothing.
    assert_eq!(vcpu.complete(Entry::Resume).unwrap(), None);
    assert_eq!(vcpu.regs().unwrap().rip, CODE + 2);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x11, 1, 0x42));
}

#[test]
#[ignore = "needs a KVM"]
fn draining_in_the_middle_of_a_string_asks_for_the_rest() {
    // mov edx, 0x50 ; mov ecx, 2 ; rep insb ; hlt
    let mut guest = guest(&[0xba, 0x50, 0, 0, 0, 0xb9, 2, 0, 0, 0, 0xf3, 0x6c, 0xf4]);
    let read = Exit::PortIn { port: 0x50, width: 1 };
    assert_eq!(guest.vcpu.run(Entry::Resume).unwrap(), read);
    assert_eq!(guest.vcpu.complete(Entry::Data(0x31)).unwrap(), Some(read));
    assert_eq!(guest.vcpu.complete(Entry::Data(0x32)).unwrap(), None);
    let mut got = [0; 2];
    guest.ram.read(DATA, &mut got).unwrap();
    assert_eq!(&got, b"12");
}

#[test]
#[ignore = "needs a KVM"]
fn registers_can_be_changed_between_steps() {
    // out 0x10, al ; out 0x11, al
    let mut vcpu = guest(&[0xe6, 0x10, 0xe6, 0x11]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x10, 1, 0));
    assert_eq!(vcpu.complete(Entry::Resume).unwrap(), None);
    let mut regs = vcpu.regs().unwrap();
    assert_eq!(regs.rip, CODE + 2);
    regs.rax = 0x77;
    vcpu.set_regs(&regs).unwrap();
    assert_eq!(vcpu.regs().unwrap(), regs);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x11, 1, 0x77));
    let mut special = vcpu.special_regs().unwrap();
    special.cr2 = 0x1234;
    vcpu.set_special_regs(&special).unwrap();
    assert_eq!(vcpu.special_regs().unwrap(), special);
}

#[test]
#[ignore = "needs a KVM"]
fn a_kick_before_the_run_ends_it_before_the_first_instruction_and_once() {
    // out 0x10, al
    let mut vcpu = guest(&[0xe6, 0x10]).vcpu;
    let kicker = vcpu.kicker();
    kicker.kick();
    kicker.kick();
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert_eq!(vcpu.regs().unwrap().rip, CODE);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x10, 1, 0));
}

#[test]
#[ignore = "needs a KVM"]
fn a_kick_while_an_exit_is_handled_completes_the_access_first() {
    // in al, 0x10 ; out 0x11, al
    let mut vcpu = guest(&[0xe4, 0x10, 0xe6, 0x11]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 0x10, width: 1 });
    vcpu.kicker().kick();
    assert_eq!(vcpu.run(Entry::Data(0x42)).unwrap(), Exit::Kicked);
    assert_eq!(vcpu.regs().unwrap().rax, 0x42);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x11, 1, 0x42));
}

#[test]
#[ignore = "needs a KVM"]
fn a_kick_during_a_drain_is_kept_for_the_run() {
    // in al, 0x10 ; out 0x11, al
    let mut vcpu = guest(&[0xe4, 0x10, 0xe6, 0x11]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::PortIn { port: 0x10, width: 1 });
    vcpu.kicker().kick();
    assert_eq!(vcpu.complete(Entry::Data(1)).unwrap(), None);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), out(0x11, 1, 1));
}

#[test]
#[ignore = "needs a KVM"]
fn no_kick_is_lost_however_it_is_timed() {
    // jmp $
    let mut vcpu = guest(&[0xeb, 0xfe]).vcpu;
    let kicker = vcpu.kicker();
    let (ask, asked) = std::sync::mpsc::channel::<u32>();
    let done = Arc::new(AtomicBool::new(false));
    let other = {
        let done = done.clone();
        std::thread::spawn(move || {
            for delay in asked {
                // From "before it enters" to "long in the guest".
                for _ in 0..delay {
                    std::hint::spin_loop();
                }
                kicker.kick();
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    for round in 0..200_u32 {
        ask.send(round * round).unwrap();
        // A lost kick would leave the guest in its loop forever.
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked, "round {round}");
    }
    drop(ask);
    other.join().unwrap();
    assert!(done.load(Ordering::SeqCst));
}

#[test]
#[ignore = "needs a KVM"]
fn a_kick_ends_a_halt_with_interrupts_off() {
    // cli ; hlt
    let mut vcpu = guest(&[0xfa, 0xf4]).vcpu;
    let kicker = vcpu.kicker();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        kicker.kick();
    });
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    other.join().unwrap();
}

#[test]
#[ignore = "needs a KVM"]
fn a_kicker_may_outlive_its_vcpu() {
    let vcpu = guest(&[0xf4]).vcpu;
    let kicker = vcpu.kicker();
    drop(vcpu);
    kicker.kick();
}

#[test]
#[ignore = "needs a KVM"]
fn a_triple_fault_is_a_shutdown() {
    // ud2, without an IDT
    let mut vcpu = guest(&[0x0f, 0x0b]).vcpu;
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), Exit::Shutdown);
}

#[test]
#[ignore = "needs a KVM"]
fn an_msr_that_is_refused_is_named() {
    let system = System::open().unwrap();
    let ram =
        Arc::new(GuestRam::new(&[Region { start: 0, size: RAM }], &Backing::default()).unwrap());
    let vm = KvmVm::new(&system, ram, &VmOptions::default()).unwrap();
    let msrs = vec![nerite_arch::Msr { index: 0xdead_beef, value: 1 }];
    let error = vm
        .vcpu(0, VcpuStart::At(&BootState { msrs, ..BootState::default() }), &[])
        .unwrap_err()
        .to_string();
    assert!(error.contains("KVM_SET_MSRS took 0 of 1") && error.contains("0xdeadbeef"), "{error}");
}

#[test]
#[ignore = "needs a KVM"]
fn registers_cost_no_calls_where_nothing_changed_them() {
    // in eax, 0x10 ; jmp back
    let mut vcpu = guest(&[0xe5, 0x10, 0xeb, 0xfc]).vcpu;
    let read = Exit::PortIn { port: 0x10, width: 4 };
    assert_eq!(vcpu.run(Entry::Resume).unwrap(), read);
    let before = vcpu.register_calls();
    for round in 0..100 {
        assert_eq!(vcpu.run(Entry::Data(round)).unwrap(), read);
    }
    assert_eq!(vcpu.register_calls(), before, "steps that touch no register");
    for round in 0..100 {
        assert_eq!(vcpu.complete(Entry::Data(round)).unwrap(), None);
        let mut regs = vcpu.regs().unwrap();
        assert_eq!((regs.rax, regs.rip), (round, CODE + 2));
        regs.r15 = regs.r15.wrapping_add(round);
        vcpu.set_regs(&regs).unwrap();
        assert_eq!(vcpu.regs().unwrap(), regs);
        assert_eq!(vcpu.run(Entry::Resume).unwrap(), read);
    }
    assert_eq!(vcpu.regs().unwrap().r15, 4950);
    assert_eq!(vcpu.register_calls(), before, "general registers, read and written");
    let special = vcpu.special_regs().unwrap();
    assert_eq!(vcpu.special_regs().unwrap(), special);
    assert_eq!(vcpu.register_calls(), before + 1, "segments, read twice");
}

#[test]
#[ignore = "needs a KVM"]
fn what_is_written_to_registers_is_there_for_everyone() {
    // out 0x10, al ; mov eax, gs:[0] ; out 0x11, eax ; jmp $
    let code = [0xe6, 0x10, 0x65, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0xe7, 0x11, 0xeb, 0xfe];
    let mut guest = guest(&code);
    guest.ram.write(DATA, &0x1234_5678_u32.to_le_bytes()).unwrap();
    assert!(matches!(guest.vcpu.run(Entry::Resume).unwrap(), Exit::PortOut { port: 0x10, .. }));
    assert_eq!(guest.vcpu.complete(Entry::Resume).unwrap(), None);
    let mut special = guest.vcpu.special_regs().unwrap();
    special.gs.base = DATA;
    guest.vcpu.set_special_regs(&special).unwrap();
    assert_eq!(guest.vcpu.special_regs().unwrap().gs.base, DATA);
    let mut regs = guest.vcpu.regs().unwrap();
    regs.rbx = 77;
    guest.vcpu.set_regs(&regs).unwrap();
    // A call that looks at the registers in the kernel, and one that reads them from there.
    guest.vcpu.set_guest_debug(&GuestDebug::default()).unwrap();
    assert_eq!(guest.vcpu.regs().unwrap(), regs);
    assert_eq!(guest.vcpu.run(Entry::Resume).unwrap(), out(0x11, 4, 0x1234_5678));
    // After a kick the registers in the page are those that the kernel has.
    guest.vcpu.kicker().kick();
    assert_eq!(guest.vcpu.run(Entry::Resume).unwrap(), Exit::Kicked);
    let told = guest.vcpu.regs().unwrap();
    guest.vcpu.set_guest_debug(&GuestDebug::default()).unwrap();
    assert_eq!(guest.vcpu.regs().unwrap(), told);
    assert_eq!((told.rbx, told.rip), (77, CODE + 12));
}
