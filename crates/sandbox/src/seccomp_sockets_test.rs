//! Sockets that devices and cards open.

use super::*;

#[test]
fn unix_sockets_are_opened_for_devices_that_do_so() {
    const UNIX: u64 = libc::AF_UNIX as u64;
    const FLAGS: u64 = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    const STREAM: u64 = libc::SOCK_STREAM as u64 | FLAGS;
    let disks = Features { devices: true, ..NONE };
    let vsock = Features { unix_sockets: true, ..disks };
    for (call, arguments) in [
        (libc::SYS_socket, [UNIX, STREAM, 0, 0, 0, 0]),
        (libc::SYS_connect, [3, 0, 16, 0, 0, 0]),
        (libc::SYS_accept4, [3, 0, 0, FLAGS, 0, 0]),
        (libc::SYS_shutdown, [3, 1, 0, 0, 0, 0]),
        (libc::SYS_epoll_ctl, [3, 1, 4, 0, 0, 0]),
        (libc::SYS_epoll_pwait, [3, 0, 1, 0, 0, 0]),
        (libc::SYS_timerfd_settime, [3, 0, 0, 0, 0, 0]),
    ] {
        for kind in [Kind::Main, Kind::Device] {
            assert_eq!(judge(kind, vsock, call, arguments), ALLOW, "{kind:?} {call}");
            assert_eq!(judge(kind, disks, call, arguments), TRAP, "{kind:?} {call}");
        }
        for kind in [Kind::Vcpu, Kind::Control] {
            assert_eq!(judge(kind, vsock, call, arguments), TRAP, "{kind:?} {call}");
        }
    }
    let socket = |domain: i32, kind: u64| [domain as u64, kind, 0, 0, 0, 0];
    for arguments in [
        socket(libc::AF_UNIX, libc::SOCK_DGRAM as u64 | FLAGS),
        socket(libc::AF_UNIX, libc::SOCK_STREAM as u64),
        socket(libc::AF_INET, STREAM),
        socket(libc::AF_VSOCK, STREAM),
    ] {
        assert_eq!(judge(Kind::Device, vsock, libc::SYS_socket, arguments), TRAP);
    }
    for call in [libc::SYS_bind, libc::SYS_listen, libc::SYS_sendmsg, libc::SYS_recvmsg] {
        assert_eq!(judge(Kind::Device, vsock, call, [3, 0, 0, 0, 0, 0]), TRAP, "{call}");
    }
    // The socket goes in the end.
    assert_eq!(judge(Kind::Main, vsock, libc::SYS_unlinkat, [3, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(judge(Kind::Device, vsock, libc::SYS_unlinkat, [3, 0, 0, 0, 0, 0]), TRAP);
}

#[test]
fn sockets_are_opened_for_cards_that_do_so() {
    const INET: u64 = libc::AF_INET as u64;
    const FLAGS: u64 = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    const STREAM: u64 = libc::SOCK_STREAM as u64 | FLAGS;
    const DATAGRAM: u64 = libc::SOCK_DGRAM as u64 | FLAGS;
    let taps = Features { network: true, ..NONE };
    let user = Features { sockets: true, ..taps };
    let option = |level: i32, option: i32| [3, level as u64, option as u64, 0, 0, 0];
    let address = 0x1000_0000_0000;
    for (call, arguments) in [
        (libc::SYS_socket, [INET, STREAM, 0, 0, 0, 0]),
        (libc::SYS_socket, [INET, DATAGRAM, 0, 0, 0, 0]),
        (libc::SYS_connect, [3, address, 16, 0, 0, 0]),
        (libc::SYS_accept4, [3, 0, 0, FLAGS, 0, 0]),
        (libc::SYS_sendto, [3, 0, 1, 0, address, 16]),
        (libc::SYS_recvfrom, [3, 0, 1, 0, address, 16]),
        (libc::SYS_shutdown, [3, 1, 0, 0, 0, 0]),
        (libc::SYS_setsockopt, option(libc::IPPROTO_TCP, libc::TCP_NODELAY)),
        (libc::SYS_setsockopt, option(libc::SOL_SOCKET, libc::SO_LINGER)),
        (libc::SYS_getsockopt, option(libc::SOL_SOCKET, libc::SO_ERROR)),
        (libc::SYS_epoll_pwait, [3, 0, 1, 0, 0, 0]),
        (libc::SYS_timerfd_settime, [3, 0, 0, 0, 0, 0]),
    ] {
        assert_eq!(judge(Kind::Main, user, call, arguments), ALLOW, "{call} {arguments:?}");
        assert_eq!(judge(Kind::Main, taps, call, arguments), TRAP, "{call} {arguments:?}");
        for kind in [Kind::Vcpu, Kind::Control, Kind::Device] {
            assert_eq!(judge(kind, user, call, arguments), TRAP, "{kind:?} {call}");
        }
    }
    for (call, arguments) in [
        (libc::SYS_socket, [libc::AF_UNIX as u64, STREAM, 0, 0, 0, 0]),
        (libc::SYS_socket, [libc::AF_INET6 as u64, STREAM, 0, 0, 0, 0]),
        (libc::SYS_socket, [libc::AF_NETLINK as u64, DATAGRAM, 0, 0, 0, 0]),
        (libc::SYS_socket, [libc::AF_PACKET as u64, DATAGRAM, 0, 0, 0, 0]),
        (libc::SYS_socket, [INET, libc::SOCK_RAW as u64 | FLAGS, 0, 0, 0, 0]),
        (libc::SYS_socket, [INET, libc::SOCK_SEQPACKET as u64 | FLAGS, 0, 0, 0, 0]),
        (libc::SYS_socket, [INET, libc::SOCK_STREAM as u64, 0, 0, 0, 0]),
        (libc::SYS_socket, [INET, STREAM, libc::IPPROTO_MPTCP as u64, 0, 0, 0]),
        (libc::SYS_socket, [INET, STREAM, libc::IPPROTO_SCTP as u64, 0, 0, 0]),
        (libc::SYS_socket, [INET, DATAGRAM, libc::IPPROTO_ICMP as u64, 0, 0, 0]),
        (libc::SYS_bind, [3, address, 16, 0, 0, 0]),
        (libc::SYS_listen, [3, 1, 0, 0, 0, 0]),
        (libc::SYS_setsockopt, option(libc::SOL_SOCKET, libc::SO_BINDTODEVICE)),
        (libc::SYS_setsockopt, option(libc::IPPROTO_TCP, libc::SO_LINGER)),
        (libc::SYS_getsockopt, option(libc::SOL_SOCKET, libc::SO_PEERCRED)),
        (libc::SYS_sendmsg, [3, address, 0, 0, 0, 0]),
        (libc::SYS_kill, [1, 9, 0, 0, 0, 0]),
        (libc::SYS_wait4, [0; 6]),
    ] {
        assert_eq!(judge(Kind::Main, ALL, call, arguments), TRAP, "{call} {arguments:?}");
    }
}
