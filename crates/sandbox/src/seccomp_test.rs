use super::*;
use crate::rules;

#[path = "seccomp_sockets_test.rs"]
mod sockets;

/// Runs a filter as the kernel would (`<linux/bpf_common.h>`), on a call of the given number and
/// arguments.
fn verdict(program: &[Instruction], call: i64, arguments: [u64; 6]) -> u32 {
    // struct seccomp_data: number, architecture, instruction pointer, arguments.
    let mut data = Vec::new();
    data.extend_from_slice(&i32::try_from(call).unwrap().to_ne_bytes());
    data.extend_from_slice(&0xc000_003e_u32.to_ne_bytes());
    data.extend_from_slice(&0_u64.to_ne_bytes());
    arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_ne_bytes()));
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            0x20 => {
                let offset = k as usize;
                accumulator = u32::from_ne_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_TRAP;

/// A guest on KVM, and nothing more.
const NONE: Features = Features {
    files: false,
    control: false,
    network: false,
    sockets: false,
    debug: false,
    devices: false,
    unix_sockets: false,
    kvm: true,
    switch: false,
    naming: false,
};
const ALL: Features = Features {
    files: true,
    control: true,
    network: true,
    sockets: true,
    debug: true,
    devices: true,
    unix_sockets: false,
    kvm: true,
    switch: false,
    naming: true,
};

fn filters(features: Features, log: bool) -> Filters {
    Filters::new(features, &Policy::default(), log)
}

fn judge(kind: Kind, features: Features, call: i64, arguments: [u64; 6]) -> u32 {
    let filters = filters(features, false);
    verdict(&filters.adapted(filters.program(kind)), call, arguments)
}

/// Every filter there is.
fn all() -> impl Iterator<Item = (Kind, Features)> {
    rules::KINDS.into_iter().flat_map(|kind| Features::all().map(|features| (kind, features)))
}

#[test]
fn combinations_are_in_their_places() {
    for (place, features) in Features::all().into_iter().enumerate() {
        assert_eq!(features.index(), place);
    }
}

#[test]
fn every_call_of_the_tables_is_allowed_and_no_other() {
    for (kind, features) in all() {
        let rules = rules::rules(kind, features);
        for call in 0..600 {
            let always = rules.iter().any(|rule| rule.call == call && rule.conditions.is_empty());
            let sometimes = rules.iter().any(|rule| rule.call == call);
            let refused = rules::REFUSED.iter().any(|(refused, _)| *refused == call);
            // Arguments that no condition wants.
            let found = judge(kind, features, call, [0xdead_0004; 6]);
            match found {
                ALLOW => assert!(always, "{kind:?} {call}"),
                TRAP => assert!(!always, "{kind:?} {call}"),
                errno => {
                    assert_eq!(errno & libc::SECCOMP_RET_ACTION_FULL, libc::SECCOMP_RET_ERRNO);
                    assert!(refused && !sometimes, "{kind:?} {call}");
                }
            }
        }
    }
}

#[test]
fn what_others_may_do_the_main_thread_may_too() {
    // The filter of the thread that starts them stays in force.
    for (kind, features) in all() {
        let main = rules::rules(Kind::Main, features);
        for rule in rules::rules(kind, features) {
            let same = |other: &&rules::Rule| {
                let always = other.call == rule.call && other.conditions.is_empty();
                always || format!("{other:?}") == format!("{rule:?}")
            };
            assert!(main.iter().any(|other| same(&other)), "{rule:?}");
        }
    }
}

#[test]
fn arguments_are_looked_at() {
    let process = u64::from(std::process::id());
    let vcpu = |call, arguments| judge(Kind::Vcpu, NONE, call, arguments);
    let main = |call, arguments| judge(Kind::Main, NONE, call, arguments);
    let ioctl = |request: u32| [3, request.into(), 0, 0, 0, 0];
    assert_eq!(vcpu(libc::SYS_ioctl, ioctl(rules::kvm::RUN)), ALLOW);
    assert_eq!(vcpu(libc::SYS_ioctl, ioctl(rules::kvm::CREATE_VM)), TRAP);
    assert_eq!(main(libc::SYS_ioctl, ioctl(rules::kvm::CREATE_VM)), ALLOW);
    // TIOCSTI types on a terminal.
    assert_eq!(main(libc::SYS_ioctl, ioctl(0x5412)), TRAP);
    assert_eq!(vcpu(libc::SYS_tgkill, [process, 1, 34, 0, 0, 0]), ALLOW);
    assert_eq!(vcpu(libc::SYS_tgkill, [process + 1, 1, 34, 0, 0, 0]), TRAP);
    assert_eq!(vcpu(libc::SYS_mmap, [0, 4096, 3, 0x22, 0, 0]), ALLOW);
    assert_eq!(vcpu(libc::SYS_mmap, [0, 4096, 7, 0x22, 0, 0]), TRAP);
    assert_eq!(vcpu(libc::SYS_mprotect, [0, 4096, 4, 0, 0, 0]), TRAP);
    assert_eq!(vcpu(libc::SYS_sendto, [3, 0, 1, 0, 0, 0]), ALLOW);
    assert_eq!(vcpu(libc::SYS_sendto, [3, 0, 1, 0, 0x1000_0000_0000, 16]), TRAP);
    let thread = (libc::CLONE_THREAD | libc::CLONE_VM) as u64;
    assert_eq!(main(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(main(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]), TRAP);
    assert_eq!(vcpu(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), TRAP);
    let control = |features, call| judge(Kind::Control, features, call, [5, process, 0, 0, 0, 0]);
    assert_eq!(control(ALL, libc::SYS_accept4), ALLOW);
    assert_eq!(control(ALL, libc::SYS_openat2), TRAP);
    assert_eq!(control(NONE, libc::SYS_accept4), TRAP);
    assert_eq!(judge(Kind::Vcpu, ALL, libc::SYS_accept4, [0; 6]), TRAP);
    assert_eq!(judge(Kind::Vcpu, ALL, libc::SYS_ioctl, ioctl(rules::kvm::IRQFD)), ALLOW);
    assert_eq!(vcpu(libc::SYS_ioctl, ioctl(rules::kvm::IRQFD)), TRAP);
    // TUNSETIFF attaches a tap to another interface.
    assert_eq!(judge(Kind::Main, ALL, libc::SYS_ioctl, ioctl(0x4004_54ca)), TRAP);
    assert_eq!(judge(Kind::Control, ALL, libc::SYS_ioctl, ioctl(rules::kvm::RUN)), TRAP);
    // A snapshot of a guest with devices.
    assert_eq!(judge(Kind::Control, ALL, libc::SYS_ioctl, ioctl(rules::kvm::IRQFD)), ALLOW);
    assert_eq!(judge(Kind::Control, NONE, libc::SYS_ioctl, ioctl(rules::kvm::IRQFD)), TRAP);
    let set_backend = ioctl(0x4008_af30);
    assert_eq!(judge(Kind::Control, ALL, libc::SYS_ioctl, set_backend), ALLOW);
    assert_eq!(judge(Kind::Control, NONE, libc::SYS_ioctl, set_backend), TRAP);
    let device = |call, arguments| judge(Kind::Device, ALL, call, arguments);
    assert_eq!(device(libc::SYS_pwritev, [3, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(device(libc::SYS_ioctl, ioctl(rules::kvm::RUN)), TRAP);
    assert_eq!(device(libc::SYS_ioctl, ioctl(rules::kvm::IRQFD)), TRAP);
    for call in [
        libc::SYS_openat2,
        libc::SYS_accept4,
        libc::SYS_unlinkat,
        libc::SYS_recvfrom,
        libc::SYS_execve,
    ] {
        assert_eq!(device(call, [0; 6]), TRAP, "{call}");
    }
    assert_eq!(vcpu(libc::SYS_pwritev, [3, 0, 0, 0, 0, 0]), TRAP);
    assert_eq!(judge(Kind::Vcpu, ALL, libc::SYS_pwritev, [3, 0, 0, 0, 0, 0]), TRAP);
    let disks = Features { devices: true, ..NONE };
    assert_eq!(judge(Kind::Vcpu, disks, libc::SYS_ioctl, ioctl(rules::kvm::IOEVENTFD)), ALLOW);
    assert_eq!(judge(Kind::Vcpu, disks, libc::SYS_recvfrom, [0; 6]), TRAP);
    // Of processes, only this one, where the control socket can ask for it.
    let controlled = Features { control: true, ..NONE };
    for (features, number, expected) in [
        (controlled, process, ALLOW),
        (controlled, 1, TRAP),
        (controlled, 0xffff_ffff, TRAP),
        (Features { network: true, sockets: true, ..NONE }, process, TRAP),
        (NONE, process, TRAP),
    ] {
        let found = judge(Kind::Main, features, libc::SYS_kill, [number, 9, 0, 0, 0, 0]);
        assert_eq!(found, expected, "{features:?} {number}");
    }
    // Filters are loaded once a thread, by the main thread's rules.
    assert_eq!(vcpu(libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]), TRAP);
}

#[test]
fn only_the_main_thread_gives_a_snapshot_its_name() {
    let naming = Features { naming: true, ..NONE };
    for call in [libc::SYS_fsync, libc::SYS_renameat2, libc::SYS_unlinkat] {
        assert_eq!(judge(Kind::Main, naming, call, [0; 6]), ALLOW, "{call}");
        assert_eq!(judge(Kind::Main, NONE, call, [0; 6]), TRAP, "{call}");
        for kind in [Kind::Vcpu, Kind::Device] {
            assert_eq!(judge(kind, naming, call, [0; 6]), TRAP, "{kind:?} {call}");
        }
    }
    let request = [3, rules::kvm::GET_IRQCHIP.into(), 0, 0, 0, 0];
    assert_eq!(judge(Kind::Main, naming, libc::SYS_ioctl, request), ALLOW);
    assert_eq!(judge(Kind::Vcpu, naming, libc::SYS_ioctl, request), TRAP);
}

#[test]
fn only_a_guest_that_is_handed_over_gets_a_state_while_it_runs() {
    let switched = Features { switch: true, ..NONE };
    let ioctl = |request: u32| [3, request.into(), 0, 0, 0, 0];
    use rules::kvm::{CREATE_VCPU, CREATE_VM, IRQ_LINE, SET_IRQCHIP, SET_LAPIC, SET_MP_STATE};
    for (kind, request) in [
        (Kind::Vcpu, SET_LAPIC),
        (Kind::Vcpu, SET_MP_STATE),
        (Kind::Control, SET_IRQCHIP),
        (Kind::Device, IRQ_LINE),
    ] {
        assert_eq!(judge(kind, switched, libc::SYS_ioctl, ioctl(request)), ALLOW, "{request:#x}");
        assert_eq!(judge(kind, NONE, libc::SYS_ioctl, ioctl(request)), TRAP, "{request:#x}");
    }
    for kind in [Kind::Vcpu, Kind::Control, Kind::Device] {
        for request in [CREATE_VM, CREATE_VCPU] {
            assert_eq!(judge(kind, switched, libc::SYS_ioctl, ioctl(request)), TRAP, "{kind:?}");
        }
    }
}

#[test]
fn without_kvm_its_calls_are_forbidden() {
    for (kind, features) in all().filter(|(_, features)| !features.kvm) {
        for condition in rules::rules(kind, features).iter().flat_map(|rule| rule.conditions) {
            let rules::Condition::OneOf(1, values) = condition else { continue };
            // The type of KVM's and of vhost's calls is the second byte of their numbers.
            let is_foreign = |value: &&u32| matches!(**value >> 8 & 0xff, 0xae | 0xaf);
            assert_eq!(values.iter().find(is_foreign), None, "{kind:?}");
        }
    }
    let software = Features { kvm: false, ..ALL };
    for request in [rules::kvm::RUN, rules::kvm::CREATE_VM, rules::kvm::IRQFD, 0x4008_af30] {
        let arguments = [3, request.into(), 0, 0, 0, 0];
        for kind in rules::KINDS {
            assert_eq!(
                judge(kind, software, libc::SYS_ioctl, arguments),
                TRAP,
                "{kind:?} {request:#x}"
            );
        }
        assert_eq!(judge(Kind::Main, ALL, libc::SYS_ioctl, arguments), ALLOW, "{request:#x}");
    }
    // A terminal's mode.
    assert_eq!(judge(Kind::Main, software, libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn calls_of_other_architectures_end_the_process() {
    let filters = filters(ALL, false);
    let program = filters.adapted(filters.program(Kind::Main));
    // Calls of the x32 interface have this bit (x86 psABI).
    assert_eq!(verdict(&program, libc::SYS_read | 0x4000_0000, [0; 6]), TRAP);
    let loads_architecture = program.iter().any(|i| i.code == 0x20 && i.k == 4);
    assert!(loads_architecture && program.iter().any(|i| i.k == libc::SECCOMP_RET_KILL_PROCESS));
}

#[test]
fn logging_forbids_nothing() {
    let filters = filters(NONE, true);
    let program = filters.adapted(filters.program(Kind::Vcpu));
    assert_eq!(verdict(&program, libc::SYS_execve, [0; 6]), libc::SECCOMP_RET_LOG);
    assert_eq!(verdict(&program, libc::SYS_read, [0; 6]), ALLOW);
    assert!(!program.iter().any(|i| i.k == TRAP || i.k == OWN_PROCESS));
}

#[test]
fn filters_are_small() {
    // The kernel takes 4096 instructions; each costs a little at each call.
    for program in PROGRAMS.iter().flatten() {
        assert!((50..800).contains(&program.len()), "{}", program.len());
    }
}

#[test]
fn kvm_has_these_numbers() {
    use kvm_bindings::*;
    let size = |size: usize| u32::try_from(size).unwrap();
    // The sizes in the numbers are those of KVM's structures (`<linux/kvm.h>`).
    for (number, size) in [
        (rules::kvm::SET_USER_MEMORY_REGION, size(size_of::<kvm_userspace_memory_region>())),
        (rules::kvm::REGISTER_COALESCED_MMIO, size(size_of::<kvm_coalesced_mmio_zone>())),
        (rules::kvm::SET_GSI_ROUTING, size(size_of::<kvm_irq_routing>())),
        (rules::kvm::IRQ_LINE, size(size_of::<kvm_irq_level>())),
        (rules::kvm::IRQFD, size(size_of::<kvm_irqfd>())),
        (rules::kvm::IOEVENTFD, size(size_of::<kvm_ioeventfd>())),
        (rules::kvm::CREATE_PIT2, size(size_of::<kvm_pit_config>())),
        (rules::kvm::GET_REGS, size(size_of::<kvm_regs>())),
        (rules::kvm::SET_REGS, size(size_of::<kvm_regs>())),
        (rules::kvm::GET_SREGS, size(size_of::<kvm_sregs>())),
        (rules::kvm::SET_SREGS, size(size_of::<kvm_sregs>())),
        (rules::kvm::INTERRUPT, size(size_of::<kvm_interrupt>())),
        (rules::kvm::SIGNAL_MSI, size(size_of::<kvm_msi>())),
        (rules::kvm::SET_MSRS, size(size_of::<kvm_msrs>())),
        (rules::kvm::SET_CPUID2, size(size_of::<kvm_cpuid2>())),
        (rules::kvm::GET_SUPPORTED_CPUID, size(size_of::<kvm_cpuid2>())),
        (rules::kvm::GET_MP_STATE, size(size_of::<kvm_mp_state>())),
        (rules::kvm::SET_MP_STATE, size(size_of::<kvm_mp_state>())),
        (rules::kvm::GET_MSR_INDEX_LIST, size(size_of::<kvm_msr_list>())),
        (rules::kvm::GET_MSRS, size(size_of::<kvm_msrs>())),
        (rules::kvm::GET_LAPIC, size(size_of::<kvm_lapic_state>())),
        (rules::kvm::SET_SIGNAL_MASK, size(size_of::<kvm_signal_mask>())),
        (rules::kvm::GET_VCPU_EVENTS, size(size_of::<kvm_vcpu_events>())),
        (rules::kvm::SET_VCPU_EVENTS, size(size_of::<kvm_vcpu_events>())),
        (rules::kvm::GET_DEBUGREGS, size(size_of::<kvm_debugregs>())),
        (rules::kvm::SET_DEBUGREGS, size(size_of::<kvm_debugregs>())),
        (rules::kvm::GET_XCRS, size(size_of::<kvm_xcrs>())),
        (rules::kvm::SET_XCRS, size(size_of::<kvm_xcrs>())),
        (rules::kvm::ENABLE_CAP, size(size_of::<kvm_enable_cap>())),
        (rules::kvm::GET_IRQCHIP, size(size_of::<kvm_irqchip>())),
        (rules::kvm::SET_IRQCHIP, size(size_of::<kvm_irqchip>())),
        (rules::kvm::GET_PIT2, size(size_of::<kvm_pit_state2>())),
        (rules::kvm::SET_PIT2, size(size_of::<kvm_pit_state2>())),
        (rules::kvm::GET_CLOCK, size(size_of::<kvm_clock_data>())),
        (rules::kvm::SET_CLOCK, size(size_of::<kvm_clock_data>())),
        (rules::kvm::SET_LAPIC, size(size_of::<kvm_lapic_state>())),
        (rules::kvm::GET_XSAVE2, size(size_of::<kvm_xsave>())),
    ] {
        assert_eq!(number >> 16 & 0x3fff, size, "{number:#x}");
    }
}

#[test]
fn a_message_needs_no_allocator() {
    let mut message = Message::default();
    message.decimal(0);
    message.text(b" ");
    message.decimal(18_446_744_073_709_551_615);
    message.text(b" ");
    message.hexadecimal(0xae80);
    assert_eq!(&message.bytes[..message.length], b"0 18446744073709551615 ae80");
    message.text(&[b'x'; 1000]);
    assert_eq!(message.length, message.bytes.len());
}
