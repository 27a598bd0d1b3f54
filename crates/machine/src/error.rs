//! What can go wrong outside of the guest.

use std::io;
use std::path::PathBuf;

use nerite_loader::Protocol;

/// Whose fault an [`Error`] is. It decides the exit code of the `vmm` program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked for cannot be: an option needs another value.
    Config,
    /// The image is not one that can run.
    Image,
    /// The host lacks something, or failed.
    Host,
}

/// A machine cannot be made, or the host failed while it ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be read or is malformed.
    #[error(transparent)]
    Image(#[from] nerite_loader::Error),
    /// The image says that it needs more memory than it was given.
    #[error(
        "{}: the image requires {required} bytes of memory and was given {given}; pass --memory {}M or more",
        image.display(), required.div_ceil(1 << 20)
    )]
    ImageNeedsMemory {
        /// The image.
        image: PathBuf,
        /// What it requires, in bytes.
        required: u64,
        /// What it was given, in bytes.
        given: u64,
    },
    /// The image says that it needs more CPUs than it was given.
    #[error("{}: the image requires {required} CPUs and was given {given}; pass --cpus {required} or more", image.display())]
    ImageNeedsCpus {
        /// The image.
        image: PathBuf,
        /// How many it requires.
        required: u32,
        /// How many it was given.
        given: u32,
    },
    /// A number of vCPUs that no machine can have.
    #[error("{given} CPUs: pass 1 to {} to --cpus", crate::config::MAX_CPUS)]
    CpuCount {
        /// How many were asked for.
        given: u32,
    },
    /// A memory size that is too small for any guest.
    #[error("{given} bytes of memory: pass at least {}M to --memory", crate::config::MIN_MEMORY >> 20)]
    MemoryTooSmall {
        /// What was asked for, in bytes.
        given: u64,
    },
    /// The list of host CPUs does not fit the vCPUs.
    #[error("{given} host CPUs in --affinity for {cpus} vCPUs: name one for each")]
    Affinity {
        /// How many host CPUs were named.
        given: usize,
        /// How many vCPUs there are.
        cpus: u32,
    },
    /// A vCPU cannot be bound to its host CPU.
    #[error(
        "cannot bind vCPU {vcpu} to host CPU {cpu}: {source}; name CPUs that this process may use in --affinity"
    )]
    Pin {
        /// The vCPU.
        vcpu: u32,
        /// The host CPU.
        cpu: usize,
        /// Why not.
        source: io::Error,
    },
    /// More strings than hypercall interface v1 can carry.
    #[error("{given} {what} are more than the {allowed} that a kernel with hypercall interface v1 can take")]
    TooManyStrings {
        /// What they are.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many there can be.
        allowed: usize,
    },
    /// An option that has no meaning for this kind of guest.
    #[error("{option} has no meaning for a guest that boots as {protocol}; leave it out")]
    NotForThisGuest {
        /// The option.
        option: &'static str,
        /// How the guest boots.
        protocol: Protocol,
    },
    /// The command line is longer than the kernel takes.
    #[error("a command line of {length} bytes; this kernel takes at most {allowed}")]
    CommandLine {
        /// Its length in bytes.
        length: usize,
        /// The most it can have.
        allowed: u64,
    },
    /// More than one initial file system.
    #[error("{given} files in --initrd: a guest that boots as {protocol} takes one; concatenate them")]
    OneInitrd {
        /// How the guest boots.
        protocol: Protocol,
        /// How many were given.
        given: usize,
    },
    /// The initial file system or a module does not fit into memory.
    #[error(
        "{name}: {size} bytes do not fit into the guest's memory beside the kernel; give the guest more with --memory"
    )]
    InitrdSize {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
    /// A kernel that is linked to where it is handed information.
    #[error(
        "{protocol} kernel: a segment at {start:#x}..{end:#x} lies where the boot information goes; \
         link it to 1 MiB or above, or below 0x90000"
    )]
    KernelPlace {
        /// How the guest boots.
        protocol: Protocol,
        /// The segment's first address.
        start: u64,
        /// The address after its last one.
        end: u64,
    },
    /// The debug-exit port is another device's.
    #[error("--debug-exit {port:#x}: {source}")]
    DebugExitPort {
        /// The port.
        port: u16,
        /// Whose it is.
        source: nerite_bus::Error,
    },
    /// The guest's files cannot be set up.
    #[error(transparent)]
    Files(#[from] nerite_hostfs::Error),
    /// A network card cannot be connected.
    #[error(transparent)]
    Net(#[from] nerite_net::Error),
    /// A network card cannot be made.
    #[error(transparent)]
    Card(#[from] nerite_virtio_net::Error),
    /// More network cards than there is room for.
    #[error("{given} network cards: pass --net at most {} times", crate::config::MAX_CARDS)]
    CardCount {
        /// How many were asked for.
        given: usize,
    },
    /// More queue pairs than vCPUs, which could not use them.
    #[error(
        "a network card with {queues} queue pairs for {cpus} vCPUs: pass queues={cpus} or less to --net, or more --cpus"
    )]
    CardQueues {
        /// How many queue pairs were asked for.
        queues: u16,
        /// How many vCPUs there are.
        cpus: u32,
    },
    /// A disk cannot be opened.
    #[error(transparent)]
    Disk(#[from] nerite_virtio_blk::OpenError),
    /// More disks than there is room for.
    #[error("{given} disks: pass --disk at most {} times", crate::config::MAX_DISKS)]
    DiskCount {
        /// How many were asked for.
        given: usize,
    },
    /// The process cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] nerite_sandbox::Error),
    /// The memory cannot be laid out or obtained.
    #[error(transparent)]
    Memory(#[from] nerite_memory::Error),
    /// What the guest is to be told cannot be put into its boot information.
    #[error(transparent)]
    Boot(#[from] nerite_arch::Error),
    /// Boot data does not fit into the memory that was laid out for it: a bug.
    #[error("writing {what} to guest memory: {source}; please report this")]
    Write {
        /// What was written.
        what: &'static str,
        /// Why it failed.
        source: nerite_memory::AccessError,
    },
    /// The hypervisor cannot be used, or failed.
    #[error(transparent)]
    Hypervisor(#[from] nerite_hypervisor::Error),
    /// The host's KVM interprets guests, and met an instruction it does not know.
    #[error(
        "this host's KVM only emulates processors and stopped at the instruction {instruction}; \
         run on a host with hardware virtualisation, or in the lab (`cargo xtask lab -- vmm run ...`)"
    )]
    EmulatingKvm {
        /// The instruction's bytes.
        instruction: String,
    },
    /// A bus range is taken twice: a bug.
    #[error(transparent)]
    Bus(#[from] nerite_bus::Error),
    /// The file for the guest's output cannot be made.
    #[error("{}: cannot create the output file: {source}", path.display())]
    OutputFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file for the trace cannot be made.
    #[error("{}: cannot create the trace file: {source}", path.display())]
    TraceFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What was asked for needs the kernel's interrupt controllers.
    #[error(
        "--irqchip user has local APICs only: it cannot be combined with network cards, an interval timer, or a guest that is \
         not Hermit; leave out one of them"
    )]
    UserIrqchip,
    /// The core file cannot be made or written.
    #[error("{}: cannot write the core file: {source}", path.display())]
    CoreFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guest's output cannot be written.
    #[error("cannot write the guest's output: {0}")]
    Output(#[source] io::Error),
    /// Another call of the host failed.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Names what was tried when the host failed.
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }

    /// Whose fault this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(nerite_loader::Error::OutsideMemory { .. }) => ErrorKind::Config,
            Self::Image(_) | Self::KernelPlace { .. } => ErrorKind::Image,
            Self::ImageNeedsMemory { .. }
            | Self::ImageNeedsCpus { .. }
            | Self::CpuCount { .. }
            | Self::CardCount { .. }
            | Self::CardQueues { .. }
            | Self::Disk(_)
            | Self::DiskCount { .. }
            | Self::MemoryTooSmall { .. }
            | Self::Affinity { .. }
            | Self::TooManyStrings { .. }
            | Self::NotForThisGuest { .. }
            | Self::CommandLine { .. }
            | Self::OneInitrd { .. }
            | Self::InitrdSize { .. }
            | Self::DebugExitPort { .. }
            | Self::UserIrqchip
            | Self::Boot(_) => ErrorKind::Config,
            Self::Net(error) if error.is_usage() => ErrorKind::Config,
            Self::Files(files) => match files {
                nerite_hostfs::Error::ImageFile { .. } => ErrorKind::Image,
                nerite_hostfs::Error::NoOpenat2 { .. } | nerite_hostfs::Error::NoProc { .. } => {
                    ErrorKind::Host
                }
                _ => ErrorKind::Config,
            },
            Self::Memory(memory) => match memory {
                nerite_memory::Error::ImageTooLarge { .. }
                | nerite_memory::Error::NoRoomBelowKernel { .. } => ErrorKind::Image,
                nerite_memory::Error::Map { .. }
                | nerite_memory::Error::HugePages { .. }
                | nerite_memory::Error::Advise { .. } => ErrorKind::Host,
                _ => ErrorKind::Config,
            },
            Self::Hypervisor(
                nerite_hypervisor::Error::TooManyVcpus { .. } | nerite_hypervisor::Error::TooMuchRam { .. },
            ) => ErrorKind::Config,
            _ => ErrorKind::Host,
        }
    }
}
