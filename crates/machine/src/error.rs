//! Errors from outside of the guest.

use std::io;
use std::path::PathBuf;

use nerite_loader::Protocol;
pub use nerite_platform::ErrorKind;
use nerite_saved::RestoreError;

use crate::Setting;

/// A machine cannot be made, or the host failed while it ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of host CPUs does not fit the vCPUs.
    #[error("{given} host CPUs for the affinity of {cpus} vCPUs")]
    Affinity {
        /// Number of host CPUs that were named.
        given: usize,
        /// Number of vCPUs.
        cpus: u32,
    },
    /// The hypervisor has no such processor on this host.
    #[error(transparent)]
    CpuModel(#[from] nerite_arch::cpuid::ModelError),
    /// A vCPU cannot be bound to its host CPU.
    #[error("cannot bind vCPU {vcpu} to host CPU {cpu}")]
    Pin {
        /// The vCPU.
        vcpu: u32,
        /// The host CPU.
        cpu: usize,
        /// Cause.
        source: io::Error,
    },
    /// A setting that has no meaning for this kind of guest.
    #[error("a guest that boots as {protocol} takes no {setting}")]
    NotForThisGuest {
        /// The setting.
        setting: Setting,
        /// Boot protocol.
        protocol: Protocol,
    },
    /// A network card cannot be connected.
    #[error(transparent)]
    Net(#[from] nerite_net::Error),
    /// A network card cannot be made.
    #[error(transparent)]
    Card(#[from] nerite_virtio_net::Error),
    /// More network cards than there is room for.
    #[error("{given} network cards are more than the {} of a machine", crate::config::MAX_CARDS)]
    CardCount {
        /// Number asked for.
        given: usize,
    },
    /// More queue pairs than vCPUs, which could not use them.
    #[error("a network card has {queues} queue pairs, more than the {cpus} vCPUs can use")]
    CardQueues {
        /// Number of queue pairs that were requested.
        queues: u16,
        /// Number of vCPUs.
        cpus: u32,
    },
    /// vhost on a hypervisor that is not the host's kernel.
    #[error(
        "vhost needs KVM: the host's kernel cannot interrupt a guest on the hypervisor {hypervisor}"
    )]
    VhostWithoutKernel {
        /// Name of the hypervisor.
        hypervisor: &'static str,
    },
    /// A disk cannot be opened.
    #[error(transparent)]
    Disk(#[from] nerite_virtio_blk::OpenError),
    /// The same file as two disks, at least one of which is written.
    #[error("the disk {} is given twice, and can be written only by one of the two", path.display())]
    SameDisk {
        /// The file.
        path: PathBuf,
    },
    /// More disks than there is room for.
    #[error("{given} disks are more than the {} of a machine", crate::config::MAX_DISKS)]
    DiskCount {
        /// Number asked for.
        given: usize,
    },
    /// The socket for clients of the guest cannot be made.
    #[error(transparent)]
    Vsock(#[from] nerite_virtio_vsock::nerite_private_socket::BindError),
    /// The process cannot be confined.
    #[error(transparent)]
    Sandbox(#[from] nerite_sandbox::Error),
    /// The guest's platform cannot be made.
    #[error(transparent)]
    Platform(nerite_platform::Error),
    /// The hypervisor cannot be used, or failed.
    #[error(transparent)]
    Hypervisor(#[from] nerite_hypervisor::Error),
    /// The host's KVM interprets guests, and met an instruction it does not know.
    #[error(
        "this host's KVM only emulates processors and stopped at the instruction {instruction}; \
         other guests need a host with hardware virtualisation"
    )]
    EmulatingKvm {
        /// The instruction's bytes.
        instruction: String,
    },
    /// The image cannot be put together.
    #[error(transparent)]
    LateImage(Box<dyn std::error::Error + Send + Sync>),
    /// The file for the guest's output cannot be made.
    #[error("{}: cannot create the output file", path.display())]
    OutputFile {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file for the trace cannot be made.
    #[error("{}: cannot create the trace file", path.display())]
    TraceFile {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A setting that KVM cannot meet.
    #[error("KVM has no {setting}")]
    NeedsSoftware {
        /// The setting.
        setting: Setting,
    },
    /// A setting that does not fit another one.
    #[error("{setting}: {reason}")]
    Unfit {
        /// The setting.
        setting: Setting,
        /// Reason.
        reason: &'static str,
    },
    /// There is no function of this name.
    #[error("the image has no function {name:?}")]
    NoFunction {
        /// The name.
        name: String,
    },
    /// The request needs the kernel's interrupt controllers.
    #[error(
        "interrupt controllers in user space are local APICs only, without network cards, an interval timer, a virtual \
         clock, or guests that are not Hermit"
    )]
    UserIrqchip,
    /// A snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] nerite_snapshot::Error),
    /// The state in a snapshot is not one of a machine.
    #[error("the snapshot is malformed: {0}")]
    BadState(&'static str),
    /// A device cannot resume from its saved state.
    #[error(transparent)]
    Restore(#[from] nerite_saved::RestoreError),
    /// The guest of a snapshot uses a feature of the processor that there is not.
    #[error(
        "the guest of this snapshot uses {feature}, which this host or hypervisor lacks; \
         run it where there is {feature}, or save a guest that was started here"
    )]
    MissingFeature {
        /// Name of the feature.
        feature: String,
    },
    /// The guest of a snapshot has a mount that was not given.
    #[error(
        "the guest of this snapshot has files of the host at {guest} ({rights}), which were not given"
    )]
    MountOfSnapshot {
        /// The guest's path.
        guest: String,
        /// Its rights, `ro` or `rw`.
        rights: &'static str,
    },
    /// The guest of a snapshot has no such part.
    #[error("the guest of this snapshot has no {what}; leave it out")]
    NotInSnapshot {
        /// The part.
        what: String,
    },
    /// The core file cannot be made or written.
    #[error("{}: cannot write the core file", path.display())]
    CoreFile {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The guest's output cannot be written.
    #[error("cannot write the guest's output")]
    Output(#[source] io::Error),
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
    pub(crate) fn host<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { what, source: source.into() }
    }

    /// Origin of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::CardCount { .. }
            | Self::CardQueues { .. }
            | Self::Disk(_)
            | Self::DiskCount { .. }
            | Self::SameDisk { .. }
            | Self::Vsock(_)
            | Self::Affinity { .. }
            | Self::CpuModel(_)
            | Self::NotForThisGuest { .. }
            | Self::VhostWithoutKernel { .. }
            | Self::MountOfSnapshot { .. }
            | Self::NotInSnapshot { .. }
            | Self::NeedsSoftware { .. }
            | Self::Unfit { .. }
            | Self::NoFunction { .. }
            | Self::UserIrqchip => ErrorKind::Config,
            Self::Restore(error) if is_mismatch(error) => ErrorKind::Config,
            Self::BadState(_) | Self::Restore(_) | Self::LateImage(_) => ErrorKind::Image,
            Self::Snapshot(error) if error.is_bad_snapshot() => ErrorKind::Image,
            Self::Hypervisor(
                nerite_hypervisor::Error::State { .. } | nerite_hypervisor::Error::VmState(_),
            ) => ErrorKind::Image,
            Self::Net(error) if error.is_usage() => ErrorKind::Config,
            Self::Platform(error) => error.kind(),
            Self::Hypervisor(
                nerite_hypervisor::Error::TooManyVcpus { .. }
                | nerite_hypervisor::Error::TooMuchRam { .. },
            ) => ErrorKind::Config,
            _ => ErrorKind::Host,
        }
    }
}

/// Returns `true` if a saved state is that of a machine with other devices.
fn is_mismatch(error: &RestoreError) -> bool {
    match error {
        RestoreError::Mismatch { .. } => true,
        RestoreError::Within { source, .. } => is_mismatch(source),
        _ => false,
    }
}

impl From<nerite_platform::Error> for Error {
    fn from(error: nerite_platform::Error) -> Self {
        match error {
            nerite_platform::Error::Hypervisor(error) => Self::Hypervisor(error),
            nerite_platform::Error::Output(error) => Self::Output(error),
            other => Self::Platform(other),
        }
    }
}

impl From<nerite_loader::Error> for Error {
    fn from(error: nerite_loader::Error) -> Self {
        Self::Platform(error.into())
    }
}

impl From<nerite_hostfs::Error> for Error {
    fn from(error: nerite_hostfs::Error) -> Self {
        Self::Platform(error.into())
    }
}
