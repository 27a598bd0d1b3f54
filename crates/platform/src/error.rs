//! Failures of a platform.

use std::io;
use std::path::PathBuf;

use nerite_loader::Protocol;
use nerite_saved::RestoreError;

/// Smallest guest memory size in bytes: 16 MiB.
pub const MIN_MEMORY: u64 = 16 << 20;
/// Maximum number of vCPUs that can be asked for.
pub const MAX_CPUS: u32 = 16;

/// Origin of an error. It decides the exit code of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The configuration cannot be met.
    Config,
    /// The image is not one that can run.
    Image,
    /// The host lacks something, or failed.
    Host,
}

/// A platform cannot be made, or the host failed while its guest ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The image cannot be read or is malformed.
    #[error(transparent)]
    Image(#[from] nerite_loader::Error),
    /// The image says that it needs more memory than it was given.
    #[error("{}: the image requires {required} bytes of memory and was given {given}", image.display())]
    ImageNeedsMemory {
        /// The image.
        image: PathBuf,
        /// Required size in bytes.
        required: u64,
        /// Given size in bytes.
        given: u64,
    },
    /// The image says that it needs more CPUs than it was given.
    #[error("{}: the image requires {required} CPUs and was given {given}", image.display())]
    ImageNeedsCpus {
        /// The image.
        image: PathBuf,
        /// Required number.
        required: u32,
        /// Given number.
        given: u32,
    },
    /// A number of vCPUs that no machine can have.
    #[error("{given} CPUs are not possible (CPUs are 1..={})", MAX_CPUS)]
    CpuCount {
        /// Number asked for.
        given: u32,
    },
    /// A memory size that is too small for any guest.
    #[error("{given} bytes of memory are less than the minimum of {} MiB", MIN_MEMORY >> 20)]
    MemoryTooSmall {
        /// Size asked for in bytes.
        given: u64,
    },
    /// More strings than hypercall interface v1 can carry.
    #[error(
        "{given} {what} are more than the {allowed} that a kernel with hypercall interface v1 can take"
    )]
    TooManyStrings {
        /// Kind of the strings.
        what: &'static str,
        /// Given number.
        given: usize,
        /// Maximum number.
        allowed: usize,
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
    #[error("{given} initial file systems: a guest that boots as {protocol} takes one")]
    OneInitrd {
        /// Boot protocol.
        protocol: Protocol,
        /// Given number.
        given: usize,
    },
    /// The initial file system or a module does not fit into memory.
    #[error("{name}: {size} bytes do not fit into the guest's memory beside the kernel")]
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
        /// Boot protocol.
        protocol: Protocol,
        /// The segment's first address.
        start: u64,
        /// The address after its last one.
        end: u64,
    },
    /// The debug-exit port is another device's.
    #[error("debug-exit port {port:#x}")]
    DebugExitPort {
        /// The port.
        port: u16,
        /// Whose it is.
        source: nerite_bus::Error,
    },
    /// The guest's files cannot be set up.
    #[error(transparent)]
    Files(#[from] nerite_hostfs::Error),
    /// The memory cannot be laid out or obtained.
    #[error(transparent)]
    Memory(#[from] nerite_memory::Error),
    /// The boot information cannot be made.
    #[error(transparent)]
    Boot(#[from] nerite_arch::Error),
    /// Boot data does not fit into the memory that was laid out for it: a bug.
    #[error("writing {what} to guest memory (please report this)")]
    Write {
        /// Data that was written.
        what: &'static str,
        /// Cause.
        source: nerite_memory::AccessError,
    },
    /// The hypervisor cannot be used, or failed.
    #[error(transparent)]
    Hypervisor(#[from] nerite_hypervisor::Error),
    /// A bus range is taken twice: a bug.
    #[error(transparent)]
    Bus(#[from] nerite_bus::Error),
    /// A device of the embedding program has no room where it is to be.
    #[error(transparent)]
    OwnDevice(nerite_bus::Error),
    /// The guest's output cannot be written.
    #[error("cannot write the guest's output")]
    Output(#[source] io::Error),
    /// A saved state is not one that this platform can have.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// Arguments or variables for a guest that has taken the memory that they were in.
    #[error(
        "other arguments or environment variables cannot reach the guest: it has read them before \
         it was saved"
    )]
    WordsTaken,
    /// Another call of the host failed.
    #[error("{what}")]
    Host {
        /// The operation.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
}

impl Error {
    /// Names what was tried when the host failed.
    pub fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }

    /// Names what was written when boot data did not fit into guest memory.
    pub fn writing(what: &'static str) -> impl FnOnce(nerite_memory::AccessError) -> Self {
        move |source| Self::Write { what, source }
    }

    /// Origin of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Image(nerite_loader::Error::OutsideMemory { .. }) => ErrorKind::Config,
            Self::Image(_) | Self::KernelPlace { .. } | Self::Restore(_) => ErrorKind::Image,
            Self::ImageNeedsMemory { .. }
            | Self::ImageNeedsCpus { .. }
            | Self::CpuCount { .. }
            | Self::MemoryTooSmall { .. }
            | Self::TooManyStrings { .. }
            | Self::CommandLine { .. }
            | Self::OneInitrd { .. }
            | Self::InitrdSize { .. }
            | Self::DebugExitPort { .. }
            | Self::WordsTaken
            | Self::OwnDevice(_)
            | Self::Boot(_) => ErrorKind::Config,
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
                nerite_hypervisor::Error::TooManyVcpus { .. }
                | nerite_hypervisor::Error::TooMuchRam { .. },
            ) => ErrorKind::Config,
            _ => ErrorKind::Host,
        }
    }
}
