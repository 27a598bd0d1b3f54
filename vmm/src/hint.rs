//! Hints: options and commands of the host that help against an error.
//!
//! Libraries report data. Their callers know how a user asked for something, so the words of the
//! command line are here and in no library.

use std::io;

use rustix::io::Errno;

use crate::error::Error;

/// Returns advice against `error`: one line, without a full stop.
#[must_use]
pub fn hint(error: &Error) -> Option<String> {
    match error {
        Error::Image(error) => image(error),
        Error::Sandbox(error) => sandbox(error),
        Error::Machine(source) | Error::OfImage { source, .. } => machine(source),
        Error::Control(nerite_control::ClientError::Connect { .. }) => {
            some("is a machine running with this --api-socket?")
        }
        _ => None,
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn machine(error: &nerite_machine::Error) -> Option<String> {
    use nerite_hypervisor::Error as Hypervisor;
    use nerite_machine::Error as Machine;
    match error {
        Machine::Hypervisor(Hypervisor::TooMuchRam { .. }) => some("pass less to --memory"),
        Machine::Hypervisor(Hypervisor::Ram { .. }) => {
            some("pass less to --memory, or free memory on this host")
        }
        Machine::Hypervisor(Hypervisor::Vcpu { source, .. })
            if Errno::from_io_error(source) == Some(Errno::FAULT) =>
        {
            some("has the file of the snapshot's memory become shorter, or is its disk full?")
        }
        Machine::MountOfSnapshot { guest, rights } => {
            Some(format!("pass --mount HOST:{guest}:{rights}"))
        }
        Machine::CpuModel(_) => some("`vmm inspect --host` lists what --cpu can turn on"),
        Machine::MissingFeature { .. } => some(
            "a guest that is started with --cpu x86-64-v2 or so runs on each host of that level",
        ),
        Machine::Affinity { .. } => some("name one host CPU for each vCPU in --affinity"),
        Machine::Pin { .. } => some("name CPUs that this process may use in --affinity"),
        Machine::NotForThisGuest { setting, .. } => {
            Some(format!("leave out {}", option(*setting)?))
        }
        Machine::NeedsSoftware { setting } => {
            Some(format!("leave out --accel kvm, or {}", option(*setting)?))
        }
        Machine::CardCount { .. } => some("pass --net less often"),
        Machine::CardQueues { cpus, .. } => {
            Some(format!("pass queues={cpus} or less to --net, or more to --cpus"))
        }
        Machine::Unfit { setting: nerite_machine::Setting::SwitchAt, .. } => {
            some("pass --accel kvm,software or --accel software,kvm; with insn:N, the latter")
        }
        Machine::Unfit { setting, .. } => Some(format!("leave out {}", option(*setting)?)),
        Machine::VhostWithoutKernel { .. } => some("leave out vhost=on"),
        Machine::Disk(nerite_virtio_blk::OpenError::Open { read_only: false, source, .. })
            if source.kind() != io::ErrorKind::NotFound =>
        {
            some("`,ro` after the path of --disk asks for reading alone")
        }
        Machine::SameDisk { .. } => some("append `,ro` to both, or leave out one"),
        Machine::DiskCount { .. } => some("pass --disk less often"),
        Machine::EmulatingKvm { .. } => some("leave out --accel kvm to run it in software"),
        Machine::UserIrqchip => {
            some("leave out --irqchip user, or what it cannot be combined with")
        }
        Machine::Net(error) => net(error),
        Machine::Sandbox(error) => sandbox(error),
        Machine::Platform(error) => platform(error),
        _ => None,
    }
}

fn platform(error: &nerite_platform::Error) -> Option<String> {
    use nerite_platform::{Error as Platform, MIN_MEMORY};
    match error {
        Platform::Image(error) => image(error),
        Platform::Memory(error) => memory(error),
        Platform::ImageNeedsMemory { required, .. } => {
            Some(format!("pass --memory {}M or more", required.div_ceil(1 << 20)))
        }
        Platform::ImageNeedsCpus { required, .. } => {
            Some(format!("pass --cpus {required} or more"))
        }
        Platform::MemoryTooSmall { .. } => {
            Some(format!("pass --memory {}M or more", MIN_MEMORY >> 20))
        }
        Platform::OneInitrd { .. } => some("concatenate the files, and pass --initrd once"),
        Platform::InitrdSize { .. } => some("pass more to --memory"),
        Platform::DebugExitPort { .. } => some("pass another port to --debug-exit"),
        _ => None,
    }
}

/// Option of a setting.
fn option(setting: nerite_machine::Setting) -> Option<&'static str> {
    use nerite_machine::Setting;
    Some(match setting {
        Setting::InitialFileSystem => "--initrd",
        Setting::CommandLine => "--cmdline",
        Setting::DebugExit => "--debug-exit",
        Setting::Disk => "--disk",
        Setting::KernelArguments => "--kernel-arg",
        Setting::Environment => "--env",
        Setting::Mounts => "--mount",
        Setting::Counting => "--count",
        Setting::VirtualClock => "--clock virtual",
        Setting::InstructionLimit => "--insn-limit",
        Setting::SwitchAt => "--switch-at",
        Setting::CountFrom => "--count-from",
        Setting::Snapshot => "--snapshot",
        Setting::GracefulStop => "--graceful",
        Setting::Restart => "--on-reboot restart",
        _ => return None,
    })
}

fn image(error: &nerite_loader::Error) -> Option<String> {
    use nerite_loader::Error as Image;
    match error {
        Image::InFile { error, .. } | Image::InArchive { error, .. } => image(error),
        Image::UnknownFormat { .. }
        | Image::Class32 { .. }
        | Image::BigEndian { .. }
        | Image::WrongArchitecture { .. }
        | Image::NotExecutable { .. }
        | Image::Dynamic { .. }
        | Image::NoNote { later: false } => {
            some("is this a Hermit image? build it with --target x86_64-unknown-hermit")
        }
        Image::NotOfProtocol { .. } => some("leave out --boot to have the kernel recognised"),
        Image::OutsideMemory { .. } => some("pass more to --memory"),
        _ => None,
    }
}

fn memory(error: &nerite_memory::Error) -> Option<String> {
    use nerite_memory::Error as Memory;
    match error {
        Memory::BadSize { suggestion, .. } => {
            Some(format!("pass --memory {suggestion}M, for example"))
        }
        Memory::TooSmall { needed, .. } => Some(format!("pass --memory {needed}M or more")),
        Memory::BeyondHost { .. } => some("pass less to --memory"),
        Memory::Conflict { .. } => some("leave out --hugepages, or both --thp and --ksm"),
        Memory::Map { .. } => some(
            "pass less to --memory, or raise the limits of this process (ulimit -v) or sysctl vm.overcommit_memory",
        ),
        Memory::HugePages { pages, .. } => Some(format!(
            "reserve them first with sysctl vm.nr_hugepages={pages} (or more, if others use them too), or leave out \
             --hugepages"
        )),
        Memory::Advise { advised: nerite_memory::Advised::HugePages, .. } => {
            some("leave out --thp, or see /sys/kernel/mm/transparent_hugepage/enabled")
        }
        Memory::Advise { advised: nerite_memory::Advised::Merging, .. } => {
            some("leave out --ksm, or see /sys/kernel/mm/ksm/run")
        }
        _ => None,
    }
}

fn net(error: &nerite_net::Error) -> Option<String> {
    use nerite_net::{Error as Net, TapRefusal};
    match error {
        Net::OpenTun(error) => {
            Some(format!("{}, or use --net user, which needs no tap", device(error, "tun")))
        }
        Net::Tap { refusal: TapRefusal::Permission, .. } => some(
            "make the tap as root with `ip tuntap add NAME mode tap user $USER vnet_hdr`, or use --net user",
        ),
        Net::Tap { refusal: TapRefusal::SingleQueue, .. } => some(
            "make the tap with `ip tuntap add NAME mode tap multi_queue`, or leave out queues=",
        ),
        Net::Tap { refusal: TapRefusal::Other, .. } => some("look at the tap with `ip -d link`"),
        Net::Descriptor { fd, .. } => {
            Some(format!("--net fd={fd} takes a tap that the parent process has opened"))
        }
        Net::Mtu { name, mtu, .. } => {
            Some(format!("set it before, as root, with `ip link set {name} mtu {mtu}`"))
        }
        Net::Vhost { source } => {
            Some(format!("{}, or leave out vhost=on", device(source, "vhost_net")))
        }
        _ => None,
    }
}

/// Advice against an error of opening the device file of a kernel module.
fn device(error: &io::Error, module: &str) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => "give this user access to the device file".to_owned(),
        _ => format!("load the kernel module {module}"),
    }
}

fn sandbox(error: &nerite_sandbox::Error) -> Option<String> {
    use nerite_sandbox::Error as Sandbox;
    match error {
        Sandbox::Strict(_) => some("use --sandbox normal to go on with less"),
        Sandbox::User { .. } => {
            some("only root can take --user, and only users of its user namespace")
        }
        Sandbox::Chroot { .. } => some("--chroot takes a directory, and only root can use it"),
        Sandbox::Seccomp(_) => {
            some("is the kernel built with CONFIG_SECCOMP_FILTER? --seccomp off does without it")
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "hint_test.rs"]
mod tests;
