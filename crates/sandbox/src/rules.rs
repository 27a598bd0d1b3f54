//! Which system calls each kind of thread may make: **the list to extend when a thread does something new.**
//!
//! This file is compiled twice: by the build script, which turns the tables to BPF, and into the library, whose tests look
//! at them. A call that no table has ends the process with a message that names it, or with `--seccomp log` goes on and
//! is written to the kernel's log. Arguments are compared as 32-bit numbers.

use libc::{
    CLONE_THREAD, CLONE_VM, EACCES, ENOSYS, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL, PROT_EXEC,
};

/// The kinds of threads.
#[allow(unreachable_pub, reason = "the build script keeps it for itself")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The thread that builds the machine, starts the others and waits for their end. The others inherit its filter, so
    /// it has to have all that they have.
    Main,
    /// A thread that runs a vCPU and answers its exits.
    Vcpu,
}

/// A system call that is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Its number.
    pub(crate) call: i64,
    /// What must all be true of its arguments.
    pub(crate) conditions: &'static [Condition],
}

/// What must be true of an argument; they are counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition {
    /// It is one of these.
    OneOf(u8, &'static [u32]),
    /// These bits of it are as in the value.
    Bits {
        /// Which argument.
        argument: u8,
        /// Which bits.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// It is the number of this process.
    OwnProcess(u8),
    /// It is a null pointer.
    Null(u8),
}

use Condition::{Bits, Null, OneOf, OwnProcess};

/// Stands for this process's number, which the build script cannot know, until a filter is loaded. No process has it.
pub(crate) const OWN_PROCESS: u32 = 0x7e57_9a1d;

const fn any(call: i64) -> Rule {
    Rule { call, conditions: &[] }
}

const fn when(call: i64, conditions: &'static [Condition]) -> Rule {
    Rule { call, conditions }
}

/// Calls that fail with an error number instead of ending the process where no table has them: the C library and Rust's
/// standard library try them, for example to print a backtrace, and get on without.
pub(crate) const REFUSED: &[(i64, i32)] = &[
    // The flags are in memory, where no filter can look: the C library then takes `clone`.
    (libc::SYS_clone3, ENOSYS),
    (libc::SYS_open, EACCES),
    (libc::SYS_openat, EACCES),
    (libc::SYS_readlink, EACCES),
    (libc::SYS_statx, ENOSYS),
];

/// What a thread of this kind may do; `files` if files can be opened because something is mounted.
pub(crate) fn rules(kind: Kind, files: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    rules.extend_from_slice(RUNNING);
    rules.extend_from_slice(COMMON);
    if files {
        rules.extend_from_slice(FILES);
    }
    if kind == Kind::Main {
        rules.extend_from_slice(MAIN);
    }
    rules
}

/// `_IO`, `_IOW`, `_IOR` and `_IOWR` of `<asm-generic/ioctl.h>` for KVM's calls.
const fn io(number: u32) -> u32 {
    0xae00 | number
}
const fn iow(number: u32, size: u32) -> u32 {
    1 << 30 | size << 16 | io(number)
}
const fn ior(number: u32, size: u32) -> u32 {
    2 << 30 | size << 16 | io(number)
}
const fn iowr(number: u32, size: u32) -> u32 {
    3 << 30 | size << 16 | io(number)
}

/// KVM's call numbers (KVM API, 4), with their names for tests and messages. `KVM_` is left out.
pub(crate) mod kvm {
    use super::{io, ior, iow, iowr};

    pub(crate) const CREATE_VM: u32 = io(0x01);
    pub(crate) const CHECK_EXTENSION: u32 = io(0x03);
    pub(crate) const GET_VCPU_MMAP_SIZE: u32 = io(0x04);
    pub(crate) const GET_SUPPORTED_CPUID: u32 = iowr(0x05, 8);
    pub(crate) const CREATE_VCPU: u32 = io(0x41);
    pub(crate) const SET_USER_MEMORY_REGION: u32 = iow(0x46, 32);
    pub(crate) const SET_TSS_ADDR: u32 = io(0x47);
    pub(crate) const CREATE_IRQCHIP: u32 = io(0x60);
    pub(crate) const CREATE_PIT2: u32 = iow(0x77, 64);
    pub(crate) const RUN: u32 = io(0x80);
    pub(crate) const GET_REGS: u32 = ior(0x81, 144);
    pub(crate) const SET_REGS: u32 = iow(0x82, 144);
    pub(crate) const GET_SREGS: u32 = ior(0x83, 312);
    pub(crate) const SET_SREGS: u32 = iow(0x84, 312);
    pub(crate) const SET_MSRS: u32 = iow(0x89, 8);
    pub(crate) const SET_CPUID2: u32 = iow(0x90, 8);
    pub(crate) const SET_MP_STATE: u32 = iow(0x99, 4);
    pub(crate) const GET_TSC_KHZ: u32 = io(0xa3);
    pub(crate) const ENABLE_CAP: u32 = iow(0xa3, 104);
}

/// The call a vCPU's thread makes all the time comes first: filters are run from the beginning.
const RUNNING: &[Rule] = &[when(
    libc::SYS_ioctl,
    &[OneOf(1, &[kvm::RUN, kvm::GET_REGS, kvm::SET_REGS, kvm::GET_SREGS, kvm::SET_SREGS])],
)];

const NOT_EXECUTABLE: Condition = Bits { argument: 2, mask: PROT_EXEC.cast_unsigned(), value: 0 };

/// What every thread needs: its descriptors, memory, time, waiting, ending.
const COMMON: &[Rule] = &[
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_lseek),
    any(libc::SYS_fstat),
    any(libc::SYS_ftruncate),
    any(libc::SYS_close),
    any(libc::SYS_poll),
    any(libc::SYS_ppoll),
    when(
        libc::SYS_fcntl,
        &[OneOf(
            1,
            &[
                F_DUPFD_CLOEXEC.cast_unsigned(),
                F_GETFD.cast_unsigned(),
                F_SETFD.cast_unsigned(),
                F_GETFL.cast_unsigned(),
                F_SETFL.cast_unsigned(),
            ],
        )],
    ),
    // A guest's temporary files.
    any(libc::SYS_memfd_create),
    // A signal handler writes to the other end of its own socket, never to an address.
    when(libc::SYS_sendto, &[Null(4)]),
    when(libc::SYS_mmap, &[NOT_EXECUTABLE]),
    when(libc::SYS_mprotect, &[NOT_EXECUTABLE]),
    any(libc::SYS_munmap),
    any(libc::SYS_mremap),
    any(libc::SYS_madvise),
    any(libc::SYS_brk),
    any(libc::SYS_futex),
    any(libc::SYS_sched_yield),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_clock_gettime),
    any(libc::SYS_clock_nanosleep),
    any(libc::SYS_nanosleep),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_getrandom),
    any(libc::SYS_getpid),
    any(libc::SYS_gettid),
    when(libc::SYS_tgkill, &[OwnProcess(0)]),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    // Ending by a panic or abort.
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
];

/// Files below mounts. The paths are the host's kernel's to judge: `RESOLVE_BENEATH`, Landlock, a mount namespace.
const FILES: &[Rule] = &[
    any(libc::SYS_openat2),
    // Through /proc/self/fd, for a single mounted file.
    any(libc::SYS_openat),
    any(libc::SYS_newfstatat),
    any(libc::SYS_getdents64),
    any(libc::SYS_mkdirat),
    any(libc::SYS_unlinkat),
];

/// Building the machine and starting threads.
const MAIN: &[Rule] = &[
    when(
        libc::SYS_ioctl,
        &[OneOf(
            1,
            &[
                kvm::CREATE_VM,
                kvm::CHECK_EXTENSION,
                kvm::GET_VCPU_MMAP_SIZE,
                kvm::GET_SUPPORTED_CPUID,
                kvm::CREATE_VCPU,
                kvm::SET_USER_MEMORY_REGION,
                kvm::SET_TSS_ADDR,
                kvm::CREATE_IRQCHIP,
                kvm::CREATE_PIT2,
                kvm::SET_MSRS,
                kvm::SET_CPUID2,
                kvm::SET_MP_STATE,
                kvm::GET_TSC_KHZ,
                kvm::ENABLE_CAP,
            ],
        )],
    ),
    any(libc::SYS_eventfd2),
    // A thread, and no process.
    when(
        libc::SYS_clone,
        &[Bits {
            argument: 0,
            mask: (CLONE_THREAD | CLONE_VM).cast_unsigned(),
            value: (CLONE_THREAD | CLONE_VM).cast_unsigned(),
        }],
    ),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    // A vCPU's thread binds itself before its own filter is loaded.
    when(libc::SYS_sched_setaffinity, &[OneOf(0, &[0])]),
    when(
        libc::SYS_prctl,
        &[OneOf(
            0,
            &[
                libc::PR_SET_NAME.cast_unsigned(),
                // The C library names the memory it maps.
                0x5356_4d41,
            ],
        )],
    ),
    // A thread's own, narrower filter.
    when(libc::SYS_seccomp, &[OneOf(0, &[libc::SECCOMP_SET_MODE_FILTER])]),
];
