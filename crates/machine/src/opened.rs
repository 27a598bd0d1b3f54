//! Host resources of a machine, opened.

use std::fs::{File, OpenOptions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nerite_devices::Sink;
use nerite_hostfs::{Mounts, Needs};
use nerite_hypervisor::Hypervisor;
use nerite_loader::ImageSource;
use nerite_memory::PageMap;
use nerite_net::Connection;
use nerite_sandbox::{Confinement, Missing, Policy, Reachable, Rights};
use nerite_snapshot::{Snapshot, Staging};
use nerite_vcpu::Tracer;
use nerite_virtio_blk::{OpenError, RawFile};
use nerite_virtio_vsock::Listener;

use crate::accelerator::Choice;
use crate::config::{Config, MAX_DISKS, OnCrash, OnReboot, Output};
use crate::core_file::CoreFile;
use crate::counting::Counters;
use crate::snapshot::restore::Origin;
use crate::{Embedding, Error, Timeline, accelerator, applicable, network};

/// Everything that a machine needs of its host, opened, and the image not looked into yet.
///
/// From here on nothing is opened by path any more, except below what is mounted. So this is the
/// place to give up all rights that are left: before the first byte of the image, which is hostile,
/// is parsed.
#[derive(Debug)]
pub struct Opened {
    pub(crate) origin: Origin,
    pub(crate) resources: HostResources,
}

/// Host resources besides the image.
#[derive(Debug)]
pub(crate) struct HostResources {
    pub(crate) config: Config,
    /// Errors are reported only after the image has been validated.
    pub(crate) hypervisor: Result<Choice, nerite_hypervisor::Error>,
    pub(crate) mounts: Mounts,
    pub(crate) output: OpenOutput,
    pub(crate) embedding: Embedding,
    pub(crate) tracer: Option<Tracer>,
    /// The core file to be.
    pub(crate) core: Option<CoreFile>,
    pub(crate) counters: Counters,
    pub(crate) links: Vec<Connection>,
    /// Initial file systems or modules.
    pub(crate) initrd: Vec<ImageSource>,
    pub(crate) disks: Vec<RawFile>,
    /// The socket for clients of the guest.
    pub(crate) vsock: Option<Listener>,
    /// The page tables, if the guest's memory is to be copied and the host shows them.
    pub(crate) page_map: Option<PageMap>,
    /// Files of a snapshot that is due at a moment.
    pub(crate) staging: Option<Staging>,
    pub(crate) confinement: Option<Confinement>,
    pub(crate) timeline: Timeline,
}

impl Opened {
    /// Opens what `config` names: the image, KVM, the mounts, the disks, the output and the
    /// network.
    ///
    /// # Errors
    /// If one of them cannot be opened. If there is no KVM, [`Opened::build`] says so.
    pub fn open(config: &Config) -> Result<Self, Error> {
        Self::open_embedded(config, Embedding::new())
    }

    /// As [`Opened::open`], with parts that the calling program brings.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub fn open_embedded(config: &Config, embedding: Embedding) -> Result<Self, Error> {
        let config = accelerator::with_one_for_breakpoints(config);
        Self::open_with(&config, embedding, || accelerator::open(&config))
    }

    /// As [`Opened::open`], on a hypervisor of the caller's choice.
    ///
    /// # Errors
    /// As [`Opened::open`].
    pub fn open_on(config: &Config, hypervisor: Arc<dyn Hypervisor>) -> Result<Self, Error> {
        Self::open_with(config, Embedding::new(), || Ok(hypervisor.into()))
    }

    fn open_with(
        config: &Config,
        mut embedding: Embedding,
        hypervisor: impl FnOnce() -> Result<Choice, nerite_hypervisor::Error>,
    ) -> Result<Self, Error> {
        let mut timeline = Timeline::begin();
        let origin = match &config.restore {
            Some(restore) => Origin::Snapshot(Box::new(Snapshot::open(&restore.directory)?)),
            None => match embedding.late_image.take() {
                Some(image) => Origin::Late(image),
                None => Origin::Image(embedding.open_image(config)?),
            },
        };
        let mounts = Mounts::open(&config.mounts)?;
        let output = match embedding.output.take() {
            Some(sink) => OpenOutput { sink, file: None },
            None => OpenOutput::open(&config.output)?,
        };
        let tracer = config.observe.trace.as_ref().map(|path| trace_file(path)).transpose()?;
        let core = match &config.observe.on_crash {
            OnCrash::Dump(path) => Some(CoreFile::open(path)?),
            _ => None,
        };
        let hypervisor = hypervisor();
        if let Ok(choice) = &hypervisor {
            applicable::check_hypervisor(config, &*choice.hypervisor)?;
        }
        let links = network::open(&config.network)?;
        let initrd =
            config.boot.initrd.iter().map(ImageSource::open).collect::<Result<Vec<_>, _>>()?;
        let disks = open_disks(config)?;
        let vsock = config.devices.vsock.as_ref().map(|spec| Listener::bind(&spec.socket));
        let vsock = vsock.transpose()?;
        let counters = match &hypervisor {
            Ok(choice) => Counters::open(&*choice.hypervisor, &config.observe),
            Err(_) => Counters::default(),
        };
        let restarts = config.observe.on_reboot == OnReboot::Restart;
        // Without them a copy of the memory takes longer.
        let copies = config.observe.saves() || restarts;
        let page_map = copies.then(PageMap::open).and_then(Result::ok);
        let planned = config.observe.snapshot.as_ref();
        let staging = planned.map(|it| Staging::create(&it.directory)).transpose()?;
        if staging.as_ref().is_some_and(Staging::replaced_remains) {
            log::warn!("an interrupted snapshot of the same name was replaced");
        }
        timeline.done("open files and KVM");
        let resources = HostResources {
            config: config.clone(),
            hypervisor,
            mounts,
            output,
            embedding,
            tracer,
            core,
            counters,
            links,
            initrd,
            disks,
            vsock,
            page_map,
            staging,
            confinement: None,
            timeline,
        };
        Ok(Self { origin, resources })
    }

    /// Confines the calling process, for good, to what the machine needs. Gives what the host lacks
    /// for it.
    ///
    /// It should have no other threads than this one, and everything else it wants open. `sockets`
    /// are the folders of sockets for others to connect to: they are removed from there in the end.
    ///
    /// # Errors
    /// If the host refuses what the policy demands.
    pub fn confine(
        &mut self,
        policy: &Policy,
        sockets: &[BorrowedFd<'_>],
    ) -> Result<&[Missing], Error> {
        let resources = &mut self.resources;
        let mounts = resources.mounts.paths().map(|path| Reachable {
            file: path.file,
            rights: match path.needs {
                Needs::Read => Rights::Read,
                Needs::Write => Rights::Write,
                Needs::RemoveFiles => Rights::RemoveFiles,
                Needs::MakeFiles => Rights::MakeFiles,
            },
            is_directory: path.is_directory,
        });
        let core = resources.core.as_ref().and_then(CoreFile::directory);
        let folder = sockets.iter().copied().chain(core).map(|file| Reachable {
            file,
            rights: Rights::Remove,
            is_directory: true,
        });
        let named = resources.staging.iter().map(|staging| Reachable {
            file: staging.parent(),
            rights: Rights::RenameDirectories,
            is_directory: true,
        });
        let vsock = resources.vsock.iter().filter_map(Listener::folder).map(|file| Reachable {
            file,
            rights: Rights::Sockets,
            is_directory: true,
        });
        let layout = match &self.origin {
            Origin::Late(image) => image.directory(),
            _ => None,
        };
        let layout =
            layout.map(|file| Reachable { file, rights: Rights::Read, is_directory: true });
        let observe = &resources.config.observe;
        let debug = observe.debug.is_some()
            || observe.instruction_limit.is_some()
            || matches!(observe.on_crash, OnCrash::Dump(_));
        // What a saved guest has is not known yet.
        let devices = resources.config.devices.any()
            || !resources.embedding.virtio.is_empty()
            || resources.config.restore.is_some();
        let network = !resources.links.is_empty();
        let opens_sockets = resources.links.iter().any(|link| link.opens_sockets);
        let in_kernel = |choice: &Choice| choice.hypervisor.capabilities().in_kernel;
        let kvm = resources.hypervisor.as_ref().is_ok_and(in_kernel);
        // Both give vCPUs a state while the machine runs.
        let switch =
            resources.config.accelerator.is_switchable() || observe.on_reboot == OnReboot::Restart;
        let policy = Policy {
            network,
            sockets: opens_sockets,
            devices,
            kvm,
            switch,
            debug,
            ..policy.clone()
        };
        let reachable = mounts.chain(folder).chain(named).chain(vsock).chain(layout);
        let confinement = nerite_sandbox::enter(&policy, reachable)?;
        // Paths from the root directory lead nowhere any more.
        resources.vsock.iter_mut().for_each(Listener::use_working_directory);
        Ok(resources.confinement.insert(confinement).missing())
    }
}

fn open_disks(config: &Config) -> Result<Vec<RawFile>, Error> {
    let disks = &config.devices.disks;
    if disks.len() > MAX_DISKS {
        return Err(Error::DiskCount { given: disks.len() });
    }
    let mut opened = Vec::new();
    for (index, spec) in disks.iter().enumerate() {
        let others = disks.iter().take(index).map(|other| other.path.as_path());
        opened.push(RawFile::open(&spec.path, spec.read_only).map_err(|error| match error {
            OpenError::InUse(path)
                if others.into_iter().any(|other| is_same_file(other, &path)) =>
            {
                Error::SameDisk { path }
            }
            error => error.into(),
        })?);
    }
    Ok(opened)
}

/// Returns `true` if two paths lead to the same file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|data| (data.dev(), data.ino())).ok();
    id(one).is_some_and(|one| Some(one) == id(other))
}

fn trace_file(path: &Path) -> Result<Tracer, Error> {
    let file =
        File::create(path).map_err(|source| Error::TraceFile { path: path.to_owned(), source })?;
    Ok(Tracer::new(file))
}

/// Destination of the guest's output.
#[derive(Debug)]
pub(crate) struct OpenOutput {
    sink: Sink,
    /// The file to be emptied once there is something to run.
    file: Option<(PathBuf, File)>,
}

impl OpenOutput {
    fn open(output: &Output) -> Result<Self, Error> {
        let (sink, file) = match output {
            Output::None => (Sink::Null, None),
            Output::Stdout => (Sink::Stdout, None),
            Output::File(path) => {
                let failed = |source| Error::OutputFile { path: path.clone(), source };
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
                (Sink::Null, Some((path.clone(), file.map_err(failed)?)))
            }
        };
        Ok(Self { sink, file })
    }

    /// The sink, with nothing of an earlier run in it.
    pub(crate) fn sink(self) -> Result<Sink, Error> {
        let Some((path, file)) = self.file else { return Ok(self.sink) };
        let emptied = match file.metadata() {
            // A pipe or terminal has nothing that could be taken away.
            Ok(metadata) if !metadata.is_file() => Ok(()),
            Ok(_) => file.set_len(0),
            Err(error) => Err(error),
        };
        emptied.map_err(|source| Error::OutputFile { path, source })?;
        Ok(Sink::Fd(file.into()))
    }
}
