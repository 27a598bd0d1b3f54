//! The process of a container: it enters the container's namespaces, waits for `start`, and then
//! is the guest's virtual machine monitor.
//!
//! It speaks with `create` through two pipes, each step a byte or a line:
//!
//! | `create` | this process |
//! |---|---|
//! | puts it into the cgroup, permits | |
//! | | enters namespaces, reports |
//! | runs the runtime's hooks, permits | |
//! | | runs `createContainer` hooks, connects the network, reports |
//! | writes down the process, permits | |
//! | | waits for `start` |
//!
//! If either ends, the other's pipe ends, and it gives up: whatever is killed, nothing waits
//! without end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use oci_spec::runtime::{LinuxNamespaceType, PosixRlimit, PosixRlimitType};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

use crate::bundle::Bundle;
use crate::cli::Monitor;
use crate::container::{Container, Status};
use crate::guest::{Guest, Share};
use crate::network::{self, Connected};
use crate::{FAILED, hooks};

/// Report that a step is done.
pub(crate) const DONE: &[u8] = b"done\n";

/// Runs the process of a container and returns the exit code of its guest.
///
/// # Errors
/// If a hook before the guest's start fails.
pub fn main(root: &Path, args: &Monitor) -> Result<u8> {
    let mut create = Create {
        report: OpenOptions::new().write(true).open(descriptor(args.report)).context("pipe")?,
        permit: File::open(descriptor(args.permit)).context("pipe")?,
    };
    create.wait()?;
    match prepare(root, &args.id, &mut create) {
        Ok(prepared) => prepared.start(create),
        Err(error) => {
            // If `create` has ended, the report has no reader.
            let _ = write!(create.report, "{error:#}");
            Ok(FAILED)
        }
    }
}

/// Path by which a process opens its own descriptor again.
fn descriptor(number: i32) -> String {
    format!("/proc/self/fd/{number}")
}

/// The other side of the pipes.
struct Create {
    report: File,
    permit: File,
}

impl Create {
    /// Waits until `create` permits to go on.
    fn wait(&mut self) -> Result<()> {
        self.permit.read_exact(&mut [0]).context("`create` has ended")
    }

    fn report_done(&mut self) -> Result<()> {
        self.report.write_all(DONE).context("`create` has ended")
    }
}

struct Prepared {
    container: Container,
    bundle: Bundle,
    /// The guest, unless the container only holds the namespaces of a pod.
    guest: Option<Guest>,
    network: Vec<Connected>,
    start: File,
}

fn prepare(root: &Path, id: &str, create: &mut Create) -> Result<Prepared> {
    let container = Container::open(root, id)?;
    let bundle = container.bundle()?;
    let mut guest = (!bundle.is_sandbox()).then(|| Guest::of(&bundle)).transpose()?;
    // Opened before anything changes what paths mean.
    let start = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(container.path("start"))
        .context("start")?;
    enter_namespaces(&bundle)?;
    create.report_done()?;
    create.wait()?;
    let hooks = bundle.spec.hooks().as_ref();
    let state = container.state_with(Status::Creating)?;
    hooks::run(hooks.and_then(|hooks| hooks.create_container().as_ref()), &state)?;
    let mut network = Vec::new();
    if let Some(guest) = &mut guest {
        mount_tmpfs(&container, &bundle, guest)?;
        if bundle.has_network_namespace() {
            network = network::connect()?;
        }
        check(guest, &network)?;
    }
    limit(&bundle)?;
    create.report_done()?;
    create.wait()?;
    Ok(Prepared { container, bundle, guest, network, start })
}

/// Enters the container's namespaces. That of processes was entered by `create`, because it is
/// only for children.
fn enter_namespaces(bundle: &Bundle) -> Result<()> {
    let of = |kind| match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        _ => CloneFlags::empty(),
    };
    let mut new = CloneFlags::empty();
    for namespace in bundle.namespaces() {
        let flag = of(namespace.typ());
        if flag.is_empty() {
            continue;
        }
        match namespace.path() {
            Some(path) => {
                File::open(path)
                    .and_then(|file| setns(file, flag).map_err(Into::into))
                    .with_context(|| format!("{} namespace {}", namespace.typ(), path.display()))?
            }
            None => new |= flag,
        }
    }
    unshare(new).context("namespaces")?;
    if new.contains(CloneFlags::CLONE_NEWNS) {
        // Mounts of the host still arrive, those made here do not leave.
        let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("mounts")?;
    }
    Ok(())
}

/// Mounts the file systems in memory, each at a place of the container's state, and shares them
/// with the guest.
fn mount_tmpfs(container: &Container, bundle: &Bundle, guest: &mut Guest) -> Result<()> {
    let has_own_mounts = bundle.namespaces().iter().any(|namespace| {
        namespace.typ() == LinuxNamespaceType::Mount && namespace.path().is_none()
    });
    for (number, tmpfs) in std::mem::take(&mut guest.tmpfs).into_iter().enumerate() {
        let name = tmpfs.guest.display();
        if !has_own_mounts {
            bail!("mount {name}: a tmpfs needs a new mount namespace");
        }
        let host = container.path(&format!("tmpfs-{number}"));
        fs::create_dir(&host).with_context(|| host.display().to_string())?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &host, Some("tmpfs"), flags, Some(tmpfs.data.as_str()))
            .with_context(|| format!("mount {name}: tmpfs {}", tmpfs.data))?;
        guest.shares.push(Share { host, guest: tmpfs.guest, is_writable: true });
    }
    Ok(())
}

/// Finds out whether `vmm` understands the guest's options, while `create` can still report it.
fn check(guest: &Guest, network: &[Connected]) -> Result<()> {
    use clap::Parser as _;
    let words = guest.words(&cards(network))?;
    nerite_vmm::cli::Cli::try_parse_from(words).map(drop).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        anyhow::anyhow!("{}", first.trim_start_matches("error: ").to_owned())
    })
}

fn cards(network: &[Connected]) -> Vec<crate::guest::Card> {
    network.iter().map(|connected| connected.card.clone()).collect()
}

/// Sets the limits of the process that the bundle asks for.
fn limit(bundle: &Bundle) -> Result<()> {
    let process = bundle.process()?;
    for limit in process.rlimits().iter().flatten() {
        setrlimit(resource(limit), limit.soft(), limit.hard())
            .with_context(|| format!("{}", limit.typ()))?;
    }
    if let Some(adjustment) = process.oom_score_adj() {
        fs::write("/proc/self/oom_score_adj", adjustment.to_string()).context("oomScoreAdj")?;
    }
    Ok(())
}

fn resource(limit: &PosixRlimit) -> Resource {
    match limit.typ() {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

/// Waits for a signal that ends it.
fn hold_namespaces() -> Result<u8> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    // They are ignored by default in the first process of a namespace.
    signals.thread_block().context("signals")?;
    signals.wait().context("signals")?;
    Ok(0)
}

impl Prepared {
    /// Waits for `start` and runs the guest.
    fn start(self, create: Create) -> Result<u8> {
        drop(create);
        self.wait_for_start()?;
        let hooks = self.bundle.spec.hooks().as_ref();
        if let Some(hooks) = hooks.and_then(|hooks| hooks.start_container().as_ref()) {
            hooks::run(Some(hooks), &self.container.state_with(Status::Created)?)?;
        }
        let Some(guest) = &self.guest else {
            return hold_namespaces();
        };
        let words = guest.words(&cards(&self.network))?;
        // The monitor closes every descriptor that it was not told of: none of ours may be used,
        // nor closed, after this.
        std::process::exit(nerite_vmm::program::main(words).into())
    }

    fn wait_for_start(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.start, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None)).map(drop).context("waiting for `start`")
    }
}
