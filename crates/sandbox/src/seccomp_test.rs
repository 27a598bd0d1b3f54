use super::*;
use crate::rules;

/// Runs a filter as the kernel would (`<linux/bpf_common.h>`), on a call of the given number and arguments.
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

fn judge(kind: Kind, files: bool, call: i64, arguments: [u64; 6]) -> u32 {
    verdict(&Filters::new(files, false).adapted(kind), call, arguments)
}

#[test]
fn every_call_of_the_tables_is_allowed_and_no_other() {
    for (kind, files) in [(Kind::Main, false), (Kind::Main, true), (Kind::Vcpu, false), (Kind::Vcpu, true)] {
        let rules = rules::rules(kind, files);
        for call in 0..600 {
            let always = rules.iter().any(|rule| rule.call == call && rule.conditions.is_empty());
            let sometimes = rules.iter().any(|rule| rule.call == call);
            let refused = rules::REFUSED.iter().any(|(refused, _)| *refused == call);
            // Arguments that no condition wants.
            let found = judge(kind, files, call, [0xdead_beef; 6]);
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
fn all_that_a_vcpu_may_do_the_main_thread_may_too() {
    // The filter of the thread that starts it stays in force.
    for files in [false, true] {
        let main = rules::rules(Kind::Main, files);
        for rule in rules::rules(Kind::Vcpu, files) {
            let same = |other: &&rules::Rule| format!("{other:?}") == format!("{rule:?}");
            assert!(main.iter().any(|other| same(&other)), "{rule:?}");
        }
    }
}

#[test]
fn arguments_are_looked_at() {
    let process = u64::from(std::process::id());
    let vcpu = |call, arguments| judge(Kind::Vcpu, false, call, arguments);
    let main = |call, arguments| judge(Kind::Main, false, call, arguments);
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
    // Filters are loaded once a thread, by the main thread's rules.
    assert_eq!(vcpu(libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]), TRAP);
}

#[test]
fn calls_of_other_architectures_end_the_process() {
    let program = Filters::new(true, false).adapted(Kind::Main);
    // Calls of the x32 interface have this bit (x86 psABI).
    assert_eq!(verdict(&program, libc::SYS_read | 0x4000_0000, [0; 6]), TRAP);
    let loads_architecture = program.iter().any(|i| i.code == 0x20 && i.k == 4);
    assert!(loads_architecture && program.iter().any(|i| i.k == libc::SECCOMP_RET_KILL_PROCESS));
}

#[test]
fn logging_forbids_nothing() {
    let program = Filters::new(false, true).adapted(Kind::Vcpu);
    assert_eq!(verdict(&program, libc::SYS_execve, [0; 6]), libc::SECCOMP_RET_LOG);
    assert_eq!(verdict(&program, libc::SYS_read, [0; 6]), ALLOW);
    assert!(!program.iter().any(|i| i.k == TRAP || i.k == OWN_PROCESS));
}

#[test]
fn filters_are_small() {
    // The kernel takes 4096 instructions; each costs a little at each call.
    for program in [&MAIN[..], &MAIN_FILES, &VCPU, &VCPU_FILES] {
        assert!(program.len() < 600, "{}", program.len());
    }
}

#[test]
fn kvm_has_these_numbers() {
    use kvm_bindings::*;
    let size = |size: usize| u32::try_from(size).unwrap();
    // The sizes in the numbers are those of KVM's structures (`<linux/kvm.h>`).
    for (number, size) in [
        (rules::kvm::SET_USER_MEMORY_REGION, size(size_of::<kvm_userspace_memory_region>())),
        (rules::kvm::CREATE_PIT2, size(size_of::<kvm_pit_config>())),
        (rules::kvm::GET_REGS, size(size_of::<kvm_regs>())),
        (rules::kvm::SET_REGS, size(size_of::<kvm_regs>())),
        (rules::kvm::GET_SREGS, size(size_of::<kvm_sregs>())),
        (rules::kvm::SET_SREGS, size(size_of::<kvm_sregs>())),
        (rules::kvm::SET_MSRS, size(size_of::<kvm_msrs>())),
        (rules::kvm::SET_CPUID2, size(size_of::<kvm_cpuid2>())),
        (rules::kvm::GET_SUPPORTED_CPUID, size(size_of::<kvm_cpuid2>())),
        (rules::kvm::SET_MP_STATE, size(size_of::<kvm_mp_state>())),
        (rules::kvm::ENABLE_CAP, size(size_of::<kvm_enable_cap>())),
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
