//! Configuration of a virtual machine: one plain, serialisable-by-hand [`Config`].

mod observe;

use std::num::NonZeroU64;
use std::path::PathBuf;

pub use nerite_arch::cpuid::{CpuModel, ModelError as CpuModelError};
pub use nerite_devices::pc::DebugExit;
pub use nerite_hermit::DEFAULT_MEMORY;
pub use nerite_hostfs::{Access, Error as MountError, Limits as FileLimits, Mount, OnChanged};
pub use nerite_loader::Protocol;
pub use nerite_net::{Link as CardLink, Spec as CardSpec, SpecError as CardSpecError};
pub use nerite_pc::DEFAULT_MEMORY as DEFAULT_PC_MEMORY;
pub use nerite_platform::{MAX_CPUS, MIN_MEMORY};
pub use nerite_sandbox::{Level as SandboxLevel, Policy as SandboxPolicy, Seccomp, User};
pub use nerite_virtio_blk::{Spec as DiskSpec, SpecError as DiskSpecError};
pub use nerite_virtio_vsock::{Spec as VsockSpec, SpecError as VsockSpecError};
pub use observe::{
    Debug, Observe, OnCrash, OnReboot, Place, PlannedSnapshot, SnapshotMoment, SwitchAt,
};

use crate::Setting;

/// Guest memory sizes are multiples of this many bytes: 2 MiB, the page size of the boot page
/// tables.
pub const MEMORY_GRANULARITY: u64 = 2 << 20;
/// The largest number of network cards: each has an interrupt line of its own.
pub const MAX_CARDS: usize = 4;
/// The largest number of disks.
pub const MAX_DISKS: usize = 4;

/// Everything that decides how a virtual machine is built and run.
///
/// It comes from the trusted side (command line, configuration file, embedding program). What the
/// image itself asks for (`hermit.toml`) is merged in by [`crate::Machine::new`], and never wins
/// over what is set here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Path of the image: a Hermit image (an ELF file or a gzip'd tar), or a Linux, PVH or
    /// multiboot kernel. `-` is standard input.
    pub image: PathBuf,
    /// Snapshot whose guest is resumed. The image, and what the guest was given at its start, are
    /// the snapshot's then; mounts, disks and network cards are those of this configuration, and
    /// must be the ones that the guest has. Arguments of the application, environment variables and
    /// addresses of cards that are set here take the place of the snapshot's, for a guest that has
    /// not read them before it was saved.
    pub restore: Option<Restore>,
    /// Boot settings.
    pub boot: BootConfig,
    /// The hypervisor.
    pub accelerator: Accelerator,
    /// Guest memory.
    pub memory: MemoryConfig,
    /// Virtual CPUs.
    pub cpus: CpuConfig,
    /// Arguments and environment of the guest.
    pub guest: GuestConfig,
    /// Files and directories of the host that the guest sees. Nothing else of the host is visible
    /// to it.
    pub mounts: Vec<Mount>,
    /// Limits on the guest's use of the host's files.
    pub file_limits: FileLimits,
    /// Network cards, at most [`MAX_CARDS`].
    pub network: Vec<CardSpec>,
    /// Disks, which only guests have that are not Hermit, and other devices.
    pub devices: DeviceConfig,
    /// Destination of the guest's console output.
    pub output: Output,
    /// Limits on the guest's output there and into the log.
    pub output_limits: OutputLimits,
    /// Observation, and the guest's time limit.
    pub observe: Observe,
}

impl Config {
    /// The setting that only the processor in software can meet, if there is one.
    pub(crate) fn needs_software(&self) -> Option<Setting> {
        if self.observe.count && !self.accelerator.is_switchable() {
            return Some(Setting::Counting);
        }
        (self.cpus.clock == Clock::Virtual).then_some(Setting::VirtualClock)
    }
}

/// A snapshot to restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restore {
    /// Directory of the snapshot.
    pub directory: PathBuf,
    /// `true` reads the whole memory and compares it with its digest.
    pub verify: bool,
    /// Treatment of a file that was open when the guest was saved, and has changed since.
    pub on_changed: OnChanged,
}

/// Hypervisor that runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// KVM where it runs ordinary guests, and the processor in software elsewhere.
    #[default]
    Auto,
    /// KVM of the host's kernel.
    Kvm,
    /// A processor in software.
    Software,
    /// Both: the guest starts on KVM, and can be handed over.
    KvmAndSoftware,
    /// Both: the guest starts on the processor in software, and can be handed over.
    SoftwareAndKvm,
}

impl Accelerator {
    /// `true` if a running guest can be handed over to another hypervisor.
    pub const fn is_switchable(self) -> bool {
        matches!(self, Self::KvmAndSoftware | Self::SoftwareAndKvm)
    }

    /// `true` if KVM is asked for by name.
    pub(crate) const fn names_kvm(self) -> bool {
        self.is_switchable() || matches!(self, Self::Kvm)
    }
}

/// Boot settings, and the data that kernels other than Hermit are handed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootConfig {
    /// The protocol, or `None` for the one that the image is recognised to have.
    pub protocol: Option<Protocol>,
    /// The initial file system of Linux, or the modules of a multiboot kernel.
    pub initrd: Vec<PathBuf>,
    /// The kernel's command line. The guest's `app_args` follow it.
    pub command_line: Option<String>,
    /// The first of four ports by which a guest ends itself with an exit code, or `None` for no
    /// such device, but [`DebugExit::DEFAULT_PORT`] with multiboot.
    pub debug_exit: Option<u16>,
}

/// Virtio devices besides network cards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceConfig {
    /// Disks, at most [`MAX_DISKS`].
    pub disks: Vec<DiskSpec>,
    /// `true` if there is a source of random numbers.
    pub random: bool,
    /// `true` if there is a balloon, by which memory of the guest is given back to the host
    /// ([`crate::Handle::set_balloon`]).
    pub balloon: bool,
    /// Sockets between the guest and the host, if there are any.
    pub vsock: Option<VsockSpec>,
    /// Device that the guest's input goes to.
    pub console: ConsoleKind,
}

impl DeviceConfig {
    /// Returns `true` if there is any device.
    pub(crate) fn any(&self) -> bool {
        let Self { disks, random, balloon, vsock, console } = self;
        let others = *random || *balloon || vsock.is_some() || *console == ConsoleKind::Virtio;
        !disks.is_empty() || others
    }
}

/// Which of a guest's lines its input goes to. Output comes from both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConsoleKind {
    /// The serial port of a PC, or the hypercalls of a Hermit guest: always there.
    #[default]
    Serial,
    /// A virtio console, which is there then.
    Virtio,
}

/// Policy for guest accesses to MSRs that the hypervisor does not handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MsrPolicy {
    /// A general protection fault, as from a processor.
    #[default]
    Fault,
    /// Zero when it reads; what it writes is lost.
    Ignore,
    /// A general protection fault, and a line in the log.
    Report,
}

/// Treatment of instructions that the hypervisor cannot execute, such as a store of 32 bytes to a
/// device's memory on KVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnemulated {
    /// They are executed on a processor in software.
    #[default]
    Software,
    /// They crash the guest.
    Crash,
}

/// Implementation of a machine's interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Irqchip {
    /// In the host's kernel.
    #[default]
    Kernel,
    /// Here: local APICs without the TSC deadline mode, and nothing else. For Hermit guests without
    /// network cards.
    User,
}

/// Time of a guest: its time-stamp counter, timers and time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// The host's.
    #[default]
    Host,
    /// A nanosecond for each instruction of the vCPU that is furthest ahead; only with the
    /// processor in software. The time of day begins in 2026, random numbers are always the same,
    /// and the image is not placed at random, so that each run of a guest is the same that has one
    /// vCPU and hears from nothing but its timers.
    Virtual,
}

/// Guest memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Size in bytes, or `None` for what the image asks for, and [`DEFAULT_MEMORY`] if it asks for
    /// nothing.
    pub size: Option<u64>,
    /// Place the guest at a random guest-physical address, if its image can be relocated.
    pub aslr: bool,
    /// Advise transparent huge pages (`MADV_HUGEPAGE`).
    pub thp: bool,
    /// Advise kernel same-page merging (`MADV_MERGEABLE`).
    pub ksm: bool,
    /// Back the memory with reserved 2 MiB huge pages (`MAP_HUGETLB`).
    pub hugepages: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { size: None, aslr: true, thp: false, ksm: false, hugepages: false }
    }
}

/// Virtual CPUs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuConfig {
    /// Number of vCPUs, 1 to [`MAX_CPUS`], or `None` for the number that the image requests, and 1
    /// if it requests none.
    pub count: Option<u32>,
    /// Processor that the guest sees: which features it has.
    pub model: CpuModel,
    /// Host CPU of each vCPU, in order; empty for no pinning.
    pub affinity: Vec<usize>,
    /// Let the guest manage the host CPU's power states: HLT, MWAIT and PAUSE no longer leave the
    /// guest.
    pub power_management: bool,
    /// Create an in-kernel i8254 interval timer.
    pub pit: bool,
    /// Policy for accesses to unknown model-specific registers.
    pub msr: MsrPolicy,
    /// Implementation of the interrupt controllers.
    pub irqchip: Irqchip,
    /// Treatment of instructions that the hypervisor cannot execute.
    pub on_unemulated: OnUnemulated,
    /// Time of the guest.
    pub clock: Clock,
}

/// Arguments and environment of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestConfig {
    /// Arguments of the kernel, such as `-ip 10.0.5.3`. Empty: those of the image's `hermit.toml`.
    pub kernel_args: Vec<String>,
    /// Arguments of the application, after its name. Empty: those of the image's `hermit.toml`.
    pub app_args: Vec<String>,
    /// Environment variables, in order; a later one of the same name wins.
    pub env: Vec<(String, String)>,
}

/// Limits on a guest's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Bytes a second on the console, or `None` for as fast as the host takes them. After a
    /// silence, a second's worth may come at once. A vCPU that writes more is made to wait.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Lines in the log about hypercalls the guest gets wrong, in the life of the machine.
    pub log_lines: u32,
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { bytes_per_second: None, log_lines: 64 }
    }
}

/// Destination of the guest's console output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Output {
    /// Standard output.
    #[default]
    Stdout,
    /// A file, created or truncated.
    File(PathBuf),
    /// Nowhere.
    None,
}
