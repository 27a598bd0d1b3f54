//! The process that enters the sandbox.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nerite_sandbox::{
    Condition, Confinement, Level, Policy, Program, Reachable, Rights, Rule, Seccomp, ThreadKind,
    Violation, enter,
};

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("SANDBOX_TEST_{name}")).ok()
}

fn policy() -> Policy {
    Policy {
        level: match variable("LEVEL").as_deref() {
            Some("strict") => Level::Strict,
            Some("off") => Level::Off,
            _ => Level::Normal,
        },
        seccomp: variable("SECCOMP").map(|seccomp| match seccomp.as_str() {
            "off" => Seccomp::Off,
            "log" => Seccomp::Log,
            _ => Seccomp::On,
        }),
        user: variable("USER").map(|user| user.parse().unwrap()),
        chroot: variable("CHROOT").map(Into::into),
        network: variable("NETWORK").is_some(),
        sockets: variable("SOCKETS").is_some(),
        devices: variable("DEVICES").is_some(),
        switch: false,
        kvm: variable("SOFTWARE").is_none(),
        debug: variable("DEBUG").is_some(),
        open_files: Some(100),
        calls: variable("CALLS").map(|_| own_calls()),
        violation: Violation { before: "test: ", after: " is forbidden\n", exit_code: 243 },
    }
}

/// Calls of a process that prints a line and ends.
fn own_calls() -> Program {
    let rules = [
        libc::SYS_write,
        libc::SYS_poll,
        libc::SYS_gettid,
        libc::SYS_munmap,
        libc::SYS_mmap,
        libc::SYS_madvise,
        libc::SYS_mprotect,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_sched_yield,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .map(|call| Rule { call, conditions: &[] });
    let lower = Rule { call: libc::SYS_lseek, conditions: &[Condition::OneOf(2, &[7])] };
    Program::compile(&[&rules[..], &[lower]].concat(), &[(libc::SYS_getcwd, libc::EACCES)]).unwrap()
}

#[test]
#[ignore = "the other tests start it"]
fn process() {
    let Some(action) = variable("ACTION") else { panic!("only the other tests start it") };
    let mount: Option<OwnedFd> = variable("MOUNT").map(|path| {
        OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).unwrap().into()
    });
    let reachable = mount.as_ref().map(|file| Reachable {
        file: file.as_fd(),
        rights: match variable("ACCESS").as_deref() {
            Some("rw") => Rights::Write,
            Some("rm") => Rights::Remove,
            Some("mv") => Rights::RenameDirectories,
            Some("sockets") => Rights::Sockets,
            _ => Rights::Read,
        },
        is_directory: rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(file).unwrap().st_mode)
            == rustix::fs::FileType::Directory,
    });
    let target = variable("TARGET").unwrap_or_default();
    let confinement = match enter(&policy(), reachable) {
        Ok(confinement) => confinement,
        Err(error) => return println!("found: {}", nerite_log_budget::Causes(&error)),
    };
    let found = match act(&action, &target, &confinement, mount.as_ref()) {
        Ok(()) => "ok".to_owned(),
        Err(error) => {
            error.raw_os_error().map_or_else(|| error.to_string(), |number| number.to_string())
        }
    };
    println!("\nfound: {found}");
}

fn act(
    action: &str,
    target: &str,
    confinement: &Confinement,
    mount: Option<&OwnedFd>,
) -> io::Result<()> {
    match action {
        "read" => File::open(target).map(drop),
        "write" => OpenOptions::new().write(true).open(target).map(drop),
        "truncate" => {
            OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(target).map(drop)
        }
        "create" => OpenOptions::new().write(true).create_new(true).open(target).map(drop),
        "list" => std::fs::read_dir(target).map(drop),
        "remove" => {
            let (directory, name) = target.rsplit_once('/').unwrap();
            let directory =
                rustix::fs::open(directory, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
            Ok(rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty())?)
        }
        "mkdir" => {
            let (directory, name) = target.rsplit_once('/').unwrap();
            let directory =
                rustix::fs::open(directory, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
            Ok(rustix::fs::mkdirat(directory, name, rustix::fs::Mode::RWXU)?)
        }
        "rename" => {
            let (directory, name) = target.rsplit_once('/').unwrap();
            let directory =
                rustix::fs::open(directory, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            Ok(rustix::fs::renameat_with(&directory, name, &directory, "renamed", flags)?)
        }
        "reopen" => {
            let path = format!("/proc/self/fd/{}", mount.unwrap().as_raw_fd());
            File::open(path)?.read_exact(&mut [0; 1])
        }
        "call" => call(target, confinement),
        "thread" => std::thread::spawn(|| ()).join().map_err(|_| io::ErrorKind::Other.into()),
        "listen" => std::net::TcpListener::bind(target).map(drop),
        "connect" => std::net::TcpStream::connect(target).map(drop),
        "connect to" => {
            use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
            confinement.enter_thread(ThreadKind::Device).unwrap();
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            Ok(rustix::net::connect(&socket, &SocketAddrUnix::new(target)?)?)
        }
        "kill" => {
            let process = rustix::process::Pid::from_raw(target.parse().unwrap()).unwrap();
            Ok(rustix::process::test_kill_process(process)?)
        }
        "panic" => panic!("deliberately"),
        "exhaust" => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; 12_345]>()),
        "wait" => {
            println!("\nfound: waiting");
            io::stdin().read_line(&mut String::new()).map(drop)
        }
        other => panic!("{other}"),
    }
}

/// Makes a system call by number: `KIND NUMBER [ARGUMENTS]`.
fn call(target: &str, confinement: &Confinement) -> io::Result<()> {
    let (kind, numbers) = target.split_once(' ').unwrap();
    match kind {
        "vcpu" => confinement.enter_thread(ThreadKind::Vcpu).unwrap(),
        "control" => confinement.enter_thread(ThreadKind::Control).unwrap(),
        "device" => confinement.enter_thread(ThreadKind::Device).unwrap(),
        _ => {}
    }
    let numbers: Vec<i64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    let argument = |index: usize| numbers.get(index).copied().unwrap_or(0);
    // SAFETY: the callers pass calls that the sandbox forbids, and arguments that would do nothing
    // if it did not: null pointers and descriptors that are not open. A socket only takes a number.
    let result = unsafe {
        libc::syscall(
            argument(0),
            argument(1),
            argument(2),
            argument(3),
            argument(4),
            argument(5),
            argument(6),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
