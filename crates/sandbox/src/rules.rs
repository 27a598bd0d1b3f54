//! Which system calls each kind of thread may make: **the list to extend when a thread does
//! something new.**
//!
//! This file is compiled twice: by the build script, which turns the tables to BPF, and into the
//! library, whose tests look at them. A call that no table has ends the process with a message that
//! names it, or with `--seccomp log` is executed and written to the kernel's log. Arguments are
//! compared as 32-bit numbers.

use libc::{
    CLONE_THREAD, CLONE_VM, EACCES, ENOSYS, F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFD, F_SETFL,
    PROT_EXEC,
};

// The build script compiles this file too, for which the paths must be given.
#[path = "rules/features.rs"]
pub(crate) mod features;
#[path = "rules/kvm.rs"]
pub(crate) mod kvm;
#[path = "rules/rule.rs"]
pub(crate) mod rule;

pub(crate) use features::Features;
#[allow(unused_imports, reason = "the build script and tests use it")]
pub(crate) use rule::KINDS;
#[allow(unreachable_pub, reason = "the build script keeps them for itself")]
pub use rule::{Condition, Kind, Rule};
use rule::{any, when};

use Condition::{Bits, Null, OneOf, OwnProcess};

/// Placeholder of this process's number until a filter is loaded. No process has it.
pub(crate) const OWN_PROCESS: u32 = 0x7e57_9a1d;

/// Calls that fail with an error number instead of ending the process where no table has them: the
/// C library and Rust's standard library try them, and get on without.
pub(crate) const REFUSED: &[(i64, i32)] = &[
    // The flags are in memory, where no filter can look: the C library then takes `clone`.
    (libc::SYS_clone3, ENOSYS),
    (libc::SYS_open, EACCES),
    (libc::SYS_openat, EACCES),
    (libc::SYS_readlink, EACCES),
    // A panic's message has paths, and that of a failed allocation a backtrace.
    (libc::SYS_getcwd, EACCES),
];

/// System calls that a thread of this kind may make.
pub(crate) fn rules(kind: Kind, features: Features) -> Vec<Rule> {
    let mut rules = Vec::new();
    // It runs a vCPU, or has to have what those need that do.
    let runs = matches!(kind, Kind::Main | Kind::Vcpu);
    if features.kvm {
        rules.extend(kvm::rules(kind, features));
    }
    rules.extend_from_slice(COMMON);
    if features.files && runs {
        rules.extend_from_slice(FILES);
    }
    if features.control && matches!(kind, Kind::Main | Kind::Control) {
        rules.extend_from_slice(CONTROL);
    }
    let names = features.naming && kind == Kind::Main;
    // With a debugger's rights, the empty file of a core that was not needed.
    let removes = features.control && matches!(kind, Kind::Main | Kind::Control)
        || (features.debug || features.unix_sockets) && kind == Kind::Main
        || names;
    if removes && !(features.files && runs) {
        rules.push(REMOVE);
    }
    if names {
        rules.extend_from_slice(NAMING);
    }
    if features.network && runs {
        rules.extend_from_slice(NETWORK);
    }
    // Threads of network cards have the main thread's filter.
    if features.network && features.sockets && kind == Kind::Main {
        rules.extend_from_slice(SOCKETS);
    }
    if features.devices && matches!(kind, Kind::Main | Kind::Device) {
        rules.extend_from_slice(DISKS);
        if features.unix_sockets {
            rules.extend_from_slice(UNIX_SOCKETS);
        }
    }
    if features.debug && matches!(kind, Kind::Main | Kind::Control) {
        // Packets to a debugger go out at once.
        rules.push(NO_DELAY);
    }
    if kind == Kind::Main {
        rules.extend_from_slice(MAIN);
    }
    if (features.network || features.devices) && kind == Kind::Vcpu {
        rules.push(EVENT);
    }
    rules
}

/// `AT_EMPTY_PATH` among the flags.
const fn of_descriptor(argument: u8) -> Condition {
    let flag = libc::AT_EMPTY_PATH.cast_unsigned();
    Bits { argument, mask: flag, value: flag }
}

const NOT_EXECUTABLE: Condition = Bits { argument: 2, mask: PROT_EXEC.cast_unsigned(), value: 0 };

/// Calls that every thread needs: descriptors, memory, time, waiting, ending.
const COMMON: &[Rule] = &[
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_lseek),
    any(libc::SYS_fstat),
    // What is open, not what has a name.
    when(libc::SYS_statx, &[of_descriptor(2)]),
    when(libc::SYS_newfstatat, &[of_descriptor(3)]),
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
    // A limit to the guest's time.
    any(libc::SYS_timer_create),
    any(libc::SYS_timer_settime),
    any(libc::SYS_timer_delete),
    // The end of a process that a signal has asked for.
    any(libc::SYS_setitimer),
    // How large a page is (PR_GET_AUXV, which the C library's header of this name lacks).
    when(libc::SYS_prctl, &[OneOf(0, &[0x4155_5856])]),
    // How much of its memory a guest has touched.
    any(libc::SYS_mincore),
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

/// Files below mounts. The host's kernel confines the paths: `RESOLVE_BENEATH`, Landlock, mounts.
const FILES: &[Rule] = &[
    any(libc::SYS_openat2),
    // Through /proc/self/fd, for a single mounted file.
    any(libc::SYS_openat),
    // Of a name in a directory, before it is removed.
    when(
        libc::SYS_newfstatat,
        &[Bits { argument: 3, mask: u32::MAX, value: libc::AT_SYMLINK_NOFOLLOW.cast_unsigned() }],
    ),
    any(libc::SYS_getdents64),
    any(libc::SYS_mkdirat),
    REMOVE,
];

const REMOVE: Rule = any(libc::SYS_unlinkat);

/// Bringing what was written to the disk, and naming it. Landlock confines the directories.
const NAMING: &[Rule] = &[any(libc::SYS_fsync), any(libc::SYS_renameat2)];

/// Taking requests from a socket that listens already, and removing it in the end.
const CONTROL: &[Rule] = &[
    any(libc::SYS_accept4),
    any(libc::SYS_recvfrom),
    any(libc::SYS_recvmsg),
    // Ending this process at once.
    when(libc::SYS_kill, &[OwnProcess(0)]),
];

const NO_DELAY: Rule = when(
    libc::SYS_setsockopt,
    &[
        OneOf(1, &[libc::IPPROTO_TCP.cast_unsigned()]),
        OneOf(2, &[libc::TCP_NODELAY.cast_unsigned()]),
    ],
);
const EVENT: Rule = any(libc::SYS_eventfd2);

/// Disks: transfers between files and guest memory, flushes, and allocation or discard of room.
const DISKS: &[Rule] = &[
    any(libc::SYS_preadv),
    any(libc::SYS_pwritev),
    any(libc::SYS_fdatasync),
    any(libc::SYS_fallocate),
];

/// Network cards: taps, and the loops of the cards' threads.
const NETWORK: &[Rule] = &[
    when(
        libc::SYS_ioctl,
        &[OneOf(
            1,
            &[
                // TUNSETOFFLOAD, TUNSETVNETHDRSZ and TUNSETQUEUE of `<linux/if_tun.h>`.
                0x4004_54d0,
                0x4004_54d8,
                0x4004_54d9,
            ],
        )],
    ),
    any(libc::SYS_epoll_create1),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_wait),
    when(libc::SYS_sched_getscheduler, &[OneOf(0, &[0])]),
    when(
        libc::SYS_sched_setscheduler,
        &[
            OneOf(0, &[0]),
            OneOf(1, &[libc::SCHED_OTHER.cast_unsigned(), libc::SCHED_BATCH.cast_unsigned()]),
        ],
    ),
];

/// Flags of all sockets that are opened.
const SOCKET_FLAGS: u32 = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();

/// Connections of the host for network cards: IPv4 streams and datagrams. Sockets that listen are
/// made before.
const SOCKETS: &[Rule] = &[
    when(
        libc::SYS_socket,
        &[
            OneOf(0, &[libc::AF_INET.cast_unsigned()]),
            OneOf(
                1,
                &[
                    libc::SOCK_STREAM.cast_unsigned() | SOCKET_FLAGS,
                    libc::SOCK_DGRAM.cast_unsigned() | SOCKET_FLAGS,
                ],
            ),
            // The usual one: TCP or UDP.
            OneOf(2, &[0]),
        ],
    ),
    any(libc::SYS_connect),
    any(libc::SYS_accept4),
    any(libc::SYS_sendto),
    any(libc::SYS_recvfrom),
    any(libc::SYS_shutdown),
    NO_DELAY,
    // A reset instead of an end.
    when(
        libc::SYS_setsockopt,
        &[
            OneOf(1, &[libc::SOL_SOCKET.cast_unsigned()]),
            OneOf(2, &[libc::SO_LINGER.cast_unsigned()]),
        ],
    ),
    // Why it is not connected.
    when(
        libc::SYS_getsockopt,
        &[
            OneOf(1, &[libc::SOL_SOCKET.cast_unsigned()]),
            OneOf(2, &[libc::SO_ERROR.cast_unsigned()]),
        ],
    ),
    any(libc::SYS_epoll_pwait),
    // When a connection is due to do something.
    any(libc::SYS_timerfd_settime),
];

/// Connections of devices to Unix sockets. The socket that listens is made before.
const UNIX_SOCKETS: &[Rule] = &[
    when(
        libc::SYS_socket,
        &[
            OneOf(0, &[libc::AF_UNIX.cast_unsigned()]),
            OneOf(1, &[libc::SOCK_STREAM.cast_unsigned() | SOCKET_FLAGS]),
            OneOf(2, &[0]),
        ],
    ),
    any(libc::SYS_connect),
    any(libc::SYS_accept4),
    any(libc::SYS_shutdown),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_timerfd_settime),
];

/// Building the machine and starting threads.
const MAIN: &[Rule] = &[
    when(
        libc::SYS_ioctl,
        &[OneOf(
            1,
            &[
                // A terminal's mode: TIOCGWINSZ, TCGETS, TCSETS, TCGETS2, TCSETS2 of
                // `<asm-generic/ioctls.h>`.
                0x5413,
                0x5401,
                0x5402,
                0x802c_542a,
                0x402c_542b,
            ],
        )],
    ),
    EVENT,
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
