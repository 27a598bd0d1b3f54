//! System calls.

use crate::{Attempt, FORBIDDEN};

const BAD_FD: i64 = -1;

/// Calls that no table has, each with arguments that would do nothing.
#[rustfmt::skip]
const NEVER: &[(&str, i64, &[i64])] = &[
    ("execve", libc::SYS_execve, &[0, 0, 0]),
    ("execveat", libc::SYS_execveat, &[BAD_FD, 0, 0, 0, 0]),
    ("fork", libc::SYS_clone, &[0x7fff_0000_0000_0000, 0]),
    ("vfork", libc::SYS_vfork, &[]),
    ("socket", libc::SYS_socket, &[-1, 0, 0]),
    ("socketpair", libc::SYS_socketpair, &[-1, 0, 0, 0]),
    ("connect", libc::SYS_connect, &[BAD_FD, 0, 0]),
    ("bind", libc::SYS_bind, &[BAD_FD, 0, 0]),
    ("ptrace", libc::SYS_ptrace, &[-1, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, &[0, 0, 0, 0, 0, 1]),
    ("process_vm_writev", libc::SYS_process_vm_writev, &[0, 0, 0, 0, 0, 1]),
    ("pidfd_open", libc::SYS_pidfd_open, &[0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, &[BAD_FD, 0, 0]),
    ("kill", libc::SYS_kill, &[0, 0]),
    ("tkill", libc::SYS_tkill, &[0, 0]),
    ("tgkill of another process", libc::SYS_tgkill, &[1, 1, 0]),
    ("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, &[0, 0, 0]),
    ("mmap of code", libc::SYS_mmap, &[0, 0, 4, 0x22, BAD_FD, 0]),
    ("mprotect to code", libc::SYS_mprotect, &[0, 0, 5]),
    ("pkey_mprotect", libc::SYS_pkey_mprotect, &[0, 0, 5, -1]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[0, 0]),
    ("bpf", libc::SYS_bpf, &[-1, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, &[0, 0, 0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, &[-1]),
    ("keyctl", libc::SYS_keyctl, &[-1]),
    ("add_key", libc::SYS_add_key, &[0, 0, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, &[0]),
    ("setns", libc::SYS_setns, &[BAD_FD, 0]),
    ("mount", libc::SYS_mount, &[0, 0, 0, 0, 0]),
    ("umount2", libc::SYS_umount2, &[0, 0]),
    ("pivot_root", libc::SYS_pivot_root, &[0, 0]),
    ("chroot", libc::SYS_chroot, &[0]),
    ("open_tree", libc::SYS_open_tree, &[BAD_FD, 0, 0]),
    ("fsopen", libc::SYS_fsopen, &[0, 0]),
    ("setuid", libc::SYS_setuid, &[-1]),
    ("setresuid", libc::SYS_setresuid, &[-1, -1, -1]),
    ("setgroups", libc::SYS_setgroups, &[-1, 0]),
    ("capset", libc::SYS_capset, &[0, 0]),
    ("chmod", libc::SYS_chmod, &[0, 0]),
    ("fchmod", libc::SYS_fchmod, &[BAD_FD, 0]),
    ("fchown", libc::SYS_fchown, &[BAD_FD, -1, -1]),
    ("rename", libc::SYS_rename, &[0, 0]),
    ("renameat2", libc::SYS_renameat2, &[BAD_FD, 0, BAD_FD, 0, 0]),
    ("link", libc::SYS_link, &[0, 0]),
    ("linkat", libc::SYS_linkat, &[BAD_FD, 0, BAD_FD, 0, 0]),
    ("symlink", libc::SYS_symlink, &[0, 0]),
    ("mknod", libc::SYS_mknod, &[0, 0, 0]),
    ("truncate", libc::SYS_truncate, &[0, 0]),
    ("setxattr", libc::SYS_setxattr, &[0, 0, 0, 0, 0]),
    ("utimensat", libc::SYS_utimensat, &[BAD_FD, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, &[BAD_FD, 0, 0]),
    ("init_module", libc::SYS_init_module, &[0, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, 0]),
    ("reboot", libc::SYS_reboot, &[0, 0, 0, 0]),
    ("swapon", libc::SYS_swapon, &[0, 0]),
    ("settimeofday", libc::SYS_settimeofday, &[0, 0]),
    ("clock_settime", libc::SYS_clock_settime, &[-1, 0]),
    ("prlimit64", libc::SYS_prlimit64, &[0, -1, 0, 0]),
    ("setpriority", libc::SYS_setpriority, &[-1, 0, 0]),
    ("shmget", libc::SYS_shmget, &[0, 0, 0]),
    ("mq_open", libc::SYS_mq_open, &[0, 0, 0, 0]),
    ("inotify_init1", libc::SYS_inotify_init1, &[-1]),
    ("personality", libc::SYS_personality, &[0xffff_ffff]),
    ("modify_ldt", libc::SYS_modify_ldt, &[-1, 0, 0]),
    ("iopl", libc::SYS_iopl, &[-1]),
    ("typing on a terminal (TIOCSTI)", libc::SYS_ioctl, &[BAD_FD, 0x5412, 0]),
    ("an ioctl of KVM that is not used (KVM_MEMORY_ENCRYPT_OP)", libc::SYS_ioctl, &[BAD_FD, 0xc008_aeba, 0]),
    ("taking a lock with fcntl", libc::SYS_fcntl, &[BAD_FD, 6, 0]),
    ("owning a descriptor's signals with fcntl", libc::SYS_fcntl, &[BAD_FD, 8, 0]),
    ("prctl(PR_SET_DUMPABLE)", libc::SYS_prctl, &[4, -1]),
    ("a call of the x32 interface", libc::SYS_write | 0x4000_0000, &[BAD_FD, 0, 0]),
    ("a call that does not exist", 1000, &[]),
];

/// Calls for building a machine, which a vCPU's thread does not need.
#[rustfmt::skip]
const NOT_FOR_VCPUS: &[(&str, i64, &[i64])] = &[
    ("starting a thread", libc::SYS_clone, &[0x10100 | 0x7fff_0000_0000_0000, 0]),
    ("KVM_CREATE_VM", libc::SYS_ioctl, &[BAD_FD, 0xae01, 0]),
    ("KVM_SET_USER_MEMORY_REGION", libc::SYS_ioctl, &[BAD_FD, 0x4020_ae46, 0]),
    ("KVM_CREATE_VCPU", libc::SYS_ioctl, &[BAD_FD, 0xae41, 0]),
    ("eventfd2", libc::SYS_eventfd2, &[0, -1]),
    ("prctl(PR_SET_NAME)", libc::SYS_prctl, &[15, 0]),
    ("seccomp", libc::SYS_seccomp, &[1, -1, 0]),
    ("sched_setaffinity", libc::SYS_sched_setaffinity, &[0, 0, 0]),
];

fn attempt(kind: &str, number: i64, arguments: &[i64]) -> Attempt {
    let numbers: Vec<String> = [&[number], arguments].concat().iter().map(i64::to_string).collect();
    Attempt::to("call").with("TARGET", format!("{kind} {}", numbers.join(" ")))
}

#[track_caller]
fn is_forbidden(kind: &str, name: &str, number: i64, arguments: &[i64]) {
    let ended = attempt(kind, number, arguments).run();
    assert_eq!(ended.code, FORBIDDEN, "{name} on the {kind} thread: {ended:?}");
    assert!(
        ended.stderr.contains(&format!("test: system call {number} (arguments 0x")),
        "{name}: {ended:?}"
    );
}

#[test]
fn what_nobody_needs_ends_the_process() {
    for (name, number, arguments) in NEVER {
        is_forbidden("main", name, *number, arguments);
    }
}

#[test]
fn a_vcpus_thread_may_do_less() {
    for (name, number, arguments) in NEVER.iter().chain(NOT_FOR_VCPUS) {
        is_forbidden("vcpu", name, *number, arguments);
    }
    // The main thread gets as far as the kernel's own answer.
    for (name, number, arguments) in NOT_FOR_VCPUS.iter().skip(1) {
        let ended = attempt("main", *number, arguments).run();
        assert_eq!(ended.code, 0, "{name}: {ended:?}");
    }
}

#[test]
fn the_calls_of_kvm_are_for_guests_on_kvm() {
    for request in [0xae01, 0xae80] {
        let on_kvm = attempt("main", libc::SYS_ioctl, &[BAD_FD, request, 0]).run();
        assert_eq!(on_kvm.found, libc::EBADF.to_string(), "{on_kvm:?}");
        for kind in ["main", "vcpu"] {
            let ended =
                attempt(kind, libc::SYS_ioctl, &[BAD_FD, request, 0]).with("SOFTWARE", "1").run();
            assert_eq!(ended.code, FORBIDDEN, "{request:#x} on the {kind} thread: {ended:?}");
        }
    }
}

#[test]
fn the_control_socket_is_answered_by_a_thread_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ended = |kind: &str, number, arguments: &[i64]| {
        attempt(kind, number, arguments).mounting(folder.path(), "rm").run()
    };
    assert_eq!(
        ended("control", libc::SYS_accept4, &[BAD_FD, 0, 0, 0]).found,
        libc::EBADF.to_string()
    );
    for (kind, number, arguments) in [
        ("vcpu", libc::SYS_accept4, &[BAD_FD, 0, 0, 0][..]),
        ("control", libc::SYS_ioctl, &[BAD_FD, 0xae80, 0]),
        ("control", libc::SYS_openat2, &[BAD_FD, 0, 0, 0]),
        ("main", libc::SYS_openat2, &[BAD_FD, 0, 0, 0]),
        ("control", libc::SYS_connect, &[BAD_FD, 0, 0]),
        ("control", libc::SYS_kill, &[1, 0]),
        ("control", libc::SYS_setsockopt, &[BAD_FD, 1, 25, 0, 0]),
    ] {
        assert_eq!(ended(kind, number, arguments).code, FORBIDDEN, "{kind} {number}");
    }
    is_forbidden("main", "accept4", libc::SYS_accept4, &[BAD_FD, 0, 0, 0]);
}

#[test]
fn threads_can_be_started_and_processes_not() {
    Attempt::to("thread").finds("ok");
    // The C library tries clone3 first, whose flags no filter can see.
    attempt("main", libc::SYS_clone3, &[0, 0]).finds(&libc::ENOSYS.to_string());
}

#[test]
fn nothing_is_opened_where_nothing_is_mounted() {
    for action in ["read", "write", "create", "list"] {
        Attempt::to(action).with("TARGET", "/dev/null").finds(&libc::EACCES.to_string());
    }
    is_forbidden("main", "openat2", libc::SYS_openat2, &[BAD_FD, 0, 0, 0]);
    is_forbidden("main", "mkdirat", libc::SYS_mkdirat, &[BAD_FD, 0, 0]);
    is_forbidden("main", "unlinkat", libc::SYS_unlinkat, &[BAD_FD, 0, 0]);
}

#[test]
fn logging_lets_everything_pass() {
    attempt("main", libc::SYS_getppid, &[]).with("SECCOMP", "log").finds("ok");
    attempt("vcpu", libc::SYS_getppid, &[]).with("SECCOMP", "log").finds("ok");
    attempt("main", libc::SYS_getppid, &[]).with("SECCOMP", "off").finds("ok");
    is_forbidden("main", "getppid", libc::SYS_getppid, &[]);
}

#[test]
fn off_is_off() {
    attempt("main", libc::SYS_getppid, &[]).with("LEVEL", "off").finds("ok");
    Attempt::to("read").with("LEVEL", "off").with("TARGET", "/etc/passwd").finds("ok");
    let on =
        attempt("main", libc::SYS_getppid, &[]).with("LEVEL", "off").with("SECCOMP", "on").run();
    assert_eq!(on.code, FORBIDDEN);
}

#[test]
fn cards_that_open_sockets_open_ipv4_sockets() {
    let inet = libc::AF_INET.into();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let (stream, datagram) = (libc::SOCK_STREAM | flags, libc::SOCK_DGRAM | flags);
    let socket = |kind, domain, socket: i32, protocol| {
        attempt(kind, libc::SYS_socket, &[domain, socket.into(), protocol]).with("NETWORK", "1")
    };
    socket("main", inet, stream, 0).with("SOCKETS", "1").finds("ok");
    socket("main", inet, datagram, 0).with("SOCKETS", "1").finds("ok");
    let sockets = |kind, domain, number, protocol| {
        socket(kind, domain, number, protocol).with("SOCKETS", "1").run()
    };
    for ended in [
        socket("main", inet, stream, 0).run(),
        sockets("vcpu", inet, stream, 0),
        sockets("main", libc::AF_UNIX.into(), stream, 0),
        sockets("main", libc::AF_INET6.into(), stream, 0),
        sockets("main", libc::AF_NETLINK.into(), datagram, 0),
        sockets("main", inet, libc::SOCK_RAW | flags, libc::IPPROTO_ICMP.into()),
        sockets("main", inet, stream, libc::IPPROTO_MPTCP.into()),
    ] {
        assert_eq!(ended.code, FORBIDDEN, "{ended:?}");
    }
    let with = |call, arguments: &[i64]| {
        attempt("main", call, arguments).with("NETWORK", "1").with("SOCKETS", "1").run()
    };
    assert_eq!(with(libc::SYS_connect, &[BAD_FD, 0, 0]).found, libc::EBADF.to_string());
    for call in [libc::SYS_bind, libc::SYS_listen] {
        assert_eq!(with(call, &[BAD_FD, 0, 0]).code, FORBIDDEN, "{call}");
    }
}

#[test]
fn panics_and_exhausted_memory_are_no_violation() {
    for (what, text) in
        [("panic", "deliberately"), ("exhaust", "memory allocation of 12345 bytes failed")]
    {
        for backtrace in ["0", "1", "full"] {
            let mut attempt = Attempt::to(what);
            attempt.command.env("RUST_BACKTRACE", backtrace);
            let ended = attempt.run();
            assert!(ended.code != FORBIDDEN && ended.code != 0, "{ended:?}");
            assert!(
                ended.stderr.contains(text) && !ended.stderr.contains("is forbidden"),
                "{ended:?}"
            );
        }
    }
}

#[test]
fn a_table_of_ones_own_takes_the_place_of_this_crates() {
    let own = |target: &str| Attempt::to("call").with("CALLS", "1").with("TARGET", target).run();
    let get = |call: i64| own(&format!("main {call}"));
    assert_eq!(get(libc::SYS_gettid).found, "ok");
    assert_eq!(get(libc::SYS_getcwd).found, libc::EACCES.to_string());
    let ended = get(libc::SYS_getpid);
    assert_eq!(ended.code, FORBIDDEN, "{ended:?}");
    assert!(
        ended.stderr.contains("test: system call 39 (arguments 0x0, 0x0, 0x0) is forbidden\n"),
        "{ended:?}"
    );
    let seek = |whence: i64| own(&format!("main {} -1 0 {whence}", libc::SYS_lseek));
    assert_eq!((seek(7).found.as_str(), seek(0).code), ("9", FORBIDDEN));
}
