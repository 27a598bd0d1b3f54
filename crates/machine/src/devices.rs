//! Disks, the source of random numbers, the balloon, the virtio console and sockets: PCI functions
//! with a thread each.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use nerite_platform::{Environment, InputLine};
use nerite_sandbox::ThreadKind;
use nerite_saved::{RestoreError, SaveError, require_same};
use nerite_service::{BalloonReport, DeviceCounters};
use nerite_virtio::{Enter, VirtioDevice, VirtioPci, VirtioPciState};
use nerite_virtio_balloon::{Balloon, BalloonState, PAGE};
use nerite_virtio_blk::{Blk, BlkState, Disk as _, RawFile, Totals};
use nerite_virtio_console::{Console, ConsoleState, Output};
use nerite_virtio_rng::Rng;
use nerite_virtio_vsock::{Listener, VsockState};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::config::{ConsoleKind, DeviceConfig, MAX_DISKS};
use crate::embedding::OwnFunction;
use crate::vcpu_thread::Shared;
use crate::vsock::VsockDevice;
use crate::wires::PciBuilder;
use crate::{Embedding, Error, MAX_OWN_VIRTIO};

/// Interrupt lines of the devices' pins, in order: those of the I/O APIC that no ISA device has,
/// and those of a PC's parallel port and of its second disk controller, of which there are none.
/// Each device has its own.
pub(crate) const LINES: [u8; MAX_DISKS + 4 + MAX_OWN_VIRTIO] =
    [16, 17, 18, 19, 20, 21, 22, 23, 7, 15];

/// The devices of a machine.
#[derive(Debug, Default)]
pub struct Devices {
    disks: Vec<Disk>,
    random: Option<Arc<VirtioPci<Rng>>>,
    balloon: Option<Arc<VirtioPci<Balloon>>>,
    console: Option<Arc<VirtioPci<Console>>>,
    vsock: Option<VsockDevice>,
    /// Those of the embedding program.
    own: Vec<OwnFunction>,
    /// `true` if the embedding program has devices, on whatever bus.
    has_own: bool,
}

#[derive(Debug)]
struct Disk {
    function: Arc<VirtioPci<Blk>>,
    path: PathBuf,
    read_only: bool,
}

/// State of the disks and the other devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevicesState {
    /// Disks, in order. Their contents stay where they are.
    pub disks: Vec<VirtioPciState<BlkState>>,
    /// Source of random numbers.
    pub random: Option<VirtioPciState<()>>,
    /// Balloon.
    #[serde(default)]
    pub balloon: Option<VirtioPciState<BalloonState>>,
    /// Virtio console.
    pub console: Option<VirtioPciState<ConsoleState>>,
    /// Sockets.
    #[serde(default)]
    pub vsock: Option<VirtioPciState<VsockState>>,
}

impl Devices {
    /// Makes what is asked for.
    pub(crate) fn new(
        config: &DeviceConfig,
        files: Vec<RawFile>,
        listener: Option<Listener>,
        embedding: &mut Embedding,
        pci: &mut PciBuilder<'_>,
    ) -> Result<Self, Error> {
        let mut devices = Self { has_own: embedding.has_devices(), ..Self::default() };
        let host = || Error::host("making a virtio device");
        let mut lines = LINES.into_iter();
        // There are not more devices than lines.
        let mut line =
            || lines.next().ok_or(io::Error::from(io::ErrorKind::StorageFull)).map_err(host());
        for (file, spec) in files.into_iter().zip(&config.disks) {
            let read_only = file.is_read_only();
            let blk = Blk::new(Box::new(file), spec.serial_bytes()).map_err(host())?;
            let function = pci.add(blk, line()?)?;
            devices.disks.push(Disk { function, path: spec.path.clone(), read_only });
        }
        if config.random {
            devices.random = Some(pci.add(Rng::new().map_err(host())?, line()?)?);
        }
        if config.balloon {
            devices.balloon = Some(pci.add(Balloon::new().map_err(host())?, line()?)?);
        }
        if config.console == ConsoleKind::Virtio {
            devices.console = Some(pci.add(Console::new().map_err(host())?, line()?)?);
        }
        if let (Some(spec), Some(listener)) = (&config.vsock, listener) {
            devices.vsock = Some(VsockDevice::new(spec, listener, pci, line()?)?);
        }
        for own in std::mem::take(&mut embedding.virtio) {
            devices.own.push(own.add(pci, line()?)?);
        }
        Ok(devices)
    }

    /// The console that takes input, if it is not the serial port.
    pub(crate) fn console(&self) -> Option<Arc<dyn InputLine>> {
        let line = |console: &Arc<VirtioPci<Console>>| VirtioLine(console.device().clone());
        self.console.as_ref().map(|console| Arc::new(line(console)) as Arc<dyn InputLine>)
    }

    /// Starts the devices' threads.
    pub(crate) fn run(&self, environment: &Environment, shared: &Arc<Shared>) -> Result<(), Error> {
        let enter = || -> Enter {
            let shared = shared.clone();
            Box::new(move || match &shared.confinement {
                Some(confinement) => {
                    confinement.enter_thread(ThreadKind::Device).map_err(io::Error::other)
                }
                None => Ok(()),
            })
        };
        let host = || Error::host("starting a device's thread");
        for Disk { function, .. } in &self.disks {
            function.device().run(function.notifier(), function.kicks(), enter()).map_err(host())?;
        }
        if let Some(function) = &self.random {
            function.device().run(function.notifier(), function.kicks(), enter()).map_err(host())?;
        }
        if let Some(function) = &self.balloon {
            function.device().run(function.notifier(), function.kicks(), enter()).map_err(host())?;
        }
        if let Some(function) = &self.console {
            let output = output(environment.clone(), shared.clone());
            let (notifier, kicks) = (function.notifier(), function.kicks());
            function.device().run(notifier, kicks, enter(), output).map_err(host())?;
        }
        if let Some(VsockDevice { function, .. }) = &self.vsock {
            function.device().run(function.notifier(), function.kicks(), enter()).map_err(host())?;
        }
        self.own.iter().try_for_each(|own| own.run()).map_err(host())?;
        Ok(())
    }

    /// Ends the devices' threads.
    pub(crate) fn halt(&self) {
        for disk in &self.disks {
            disk.function.device().halt();
        }
        self.random.iter().for_each(|random| random.device().halt());
        self.balloon.iter().for_each(|balloon| balloon.device().halt());
        self.console.iter().for_each(|console| console.device().halt());
        self.vsock.iter().for_each(VsockDevice::halt);
        self.own.iter().for_each(|own| own.halt());
    }

    /// Pauses all devices: when this returns, none touches guest memory.
    pub fn pause(&self) {
        self.disks.iter().for_each(|disk| disk.function.pause());
        self.random.iter().for_each(|random| random.pause());
        self.balloon.iter().for_each(|balloon| balloon.pause());
        self.console.iter().for_each(|console| console.pause());
        self.vsock.iter().for_each(|vsock| vsock.function.pause());
        self.own.iter().for_each(|own| own.pause());
    }

    /// Ends [`Self::pause`] or [`Self::restore`].
    pub fn resume(&self) {
        self.disks.iter().for_each(|disk| disk.function.resume());
        self.random.iter().for_each(|random| random.resume());
        self.balloon.iter().for_each(|balloon| balloon.resume());
        self.console.iter().for_each(|console| console.resume());
        self.vsock.iter().for_each(|vsock| vsock.function.resume());
        self.own.iter().for_each(|own| own.resume());
    }

    /// State of all devices, which are paused.
    ///
    /// # Errors
    /// Fails if they are not, or the host fails.
    pub fn save(&self) -> Result<DevicesState, SaveError> {
        if self.has_own {
            let reason = "the state of the embedding program's devices is not known";
            return Err(SaveError::host("machine")(reason));
        }
        let disk = |disk: &Disk| disk.function.save().map_err(|error| error.within(disk.name()));
        let random = self.random.as_ref().map(|random| random.save());
        let balloon = self.balloon.as_ref().map(|balloon| balloon.save());
        let console = self.console.as_ref().map(|console| console.save());
        let vsock = self.vsock.as_ref().map(|vsock| vsock.function.save());
        Ok(DevicesState {
            disks: self.disks.iter().map(disk).collect::<Result<_, _>>()?,
            random: random.transpose().map_err(|error| error.within("random-number device"))?,
            balloon: balloon.transpose().map_err(|error| error.within("balloon"))?,
            console: console.transpose().map_err(|error| error.within("virtio console"))?,
            vsock: vsock.transpose().map_err(|error| error.within("vsock device"))?,
        })
    }

    /// Puts all devices into a saved state, paused. The interrupt controllers have theirs by now.
    ///
    /// # Errors
    /// Fails if these are other devices, or one cannot have its state.
    pub fn restore(&self, saved: &DevicesState) -> Result<(), RestoreError> {
        require_same("machine", "number of own devices", !self.has_own)?;
        require_same("machine", "number of disks", saved.disks.len() == self.disks.len())?;
        for (disk, saved) in self.disks.iter().zip(&saved.disks) {
            disk.function.restore(saved).map_err(|error| error.within(disk.name()))?;
        }
        restore_optional("random-number device", self.random.as_deref(), saved.random.as_ref())?;
        restore_optional("balloon", self.balloon.as_deref(), saved.balloon.as_ref())?;
        restore_optional("virtio console", self.console.as_deref(), saved.console.as_ref())?;
        let vsock = self.vsock.as_ref().map(|vsock| &*vsock.function);
        restore_optional("vsock device", vsock, saved.vsock.as_ref())
    }

    /// The balloon, if there is one.
    pub(crate) fn balloon(&self) -> Option<&VirtioPci<Balloon>> {
        self.balloon.as_deref()
    }

    /// State of the balloon, without statistics of the guest, if there is one.
    pub(crate) fn balloon_report(&self) -> Option<BalloonReport> {
        let balloon = self.balloon()?.device();
        let bytes = |pages: u64| pages.saturating_mul(PAGE);
        let totals = balloon.totals();
        Some(BalloonReport {
            target: bytes(balloon.target().into()),
            actual: bytes(balloon.actual().into()),
            given: bytes(totals.given),
            refused: bytes(totals.refused),
            taken_back: bytes(totals.taken_back),
            statistics: Vec::new(),
        })
    }

    /// Counters of the devices so far.
    pub(crate) fn counters(&self) -> Vec<DeviceCounters> {
        let balloon = self.balloon_report().map(|balloon| balloon_counters(&balloon));
        let vsock = self.vsock.as_ref().map(VsockDevice::counters);
        self.disks.iter().map(Disk::counters).chain(balloon).chain(vsock).collect()
    }
}

impl Disk {
    /// Name in messages.
    fn name(&self) -> String {
        format!("disk {}", self.path.display())
    }

    /// Counters so far.
    fn counters(&self) -> DeviceCounters {
        let Totals { reads, read_bytes, writes, written_bytes, others, errors } =
            self.function.device().totals();
        DeviceCounters {
            device: "disk",
            name: self.path.display().to_string(),
            note: self.read_only.then_some("read-only"),
            counters: vec![
                ("reads", reads),
                ("read_bytes", read_bytes),
                ("writes", writes),
                ("written_bytes", written_bytes),
                ("others", others),
                ("errors", errors),
            ],
            ..DeviceCounters::default()
        }
    }
}

/// Counters of a balloon.
fn balloon_counters(report: &BalloonReport) -> DeviceCounters {
    let BalloonReport { target, actual, given, refused, taken_back, .. } = *report;
    DeviceCounters {
        device: "balloon",
        counters: vec![
            ("target_bytes", target),
            ("actual_bytes", actual),
            ("given_bytes", given),
            ("taken_back_bytes", taken_back),
            ("refused_bytes", refused),
        ],
        ..DeviceCounters::default()
    }
}

/// Restores a device that a machine may have or not.
fn restore_optional<D: VirtioDevice>(
    name: &'static str,
    function: Option<&VirtioPci<D>>,
    saved: Option<&VirtioPciState<D::State>>,
) -> Result<(), RestoreError> {
    match (function, saved) {
        (Some(function), Some(saved)) => {
            function.restore(saved).map_err(|error| error.within(name))
        }
        (None, None) => Ok(()),
        _ => require_same("machine", name, false),
    }
}

/// The virtio console as the guest's input.
struct VirtioLine(Arc<Console>);

impl InputLine for VirtioLine {
    fn enqueue(&self, bytes: &[u8]) -> usize {
        self.0.enqueue(bytes)
    }

    fn room(&self) -> BorrowedFd<'_> {
        self.0.room()
    }

    fn acknowledge(&self) {
        self.0.acknowledge();
    }
}

/// Destination of the virtio console's output: the serial port's, except that the device's thread
/// waits.
fn output(environment: Environment, shared: Arc<Shared>) -> Output {
    Box::new(move |bytes| {
        write(&environment, bytes).inspect_err(|error| {
            // This error is the device's, the machine needs one of its own.
            let errno = error.raw_os_error().map(io::Error::from_raw_os_error);
            let error = errno.unwrap_or_else(|| error.kind().into());
            shared.finish(None, Err(Error::Output(error)));
        })
    })
}

/// Writes `bytes` when the rate and the sink allow it, or gives up when the machine ends.
fn write(environment: &Environment, bytes: &[u8]) -> io::Result<()> {
    let Environment { console, rate, stop, .. } = environment;
    if let Some(rate) = rate
        && !rate.wait(bytes.len(), console, stop)?
    {
        return Ok(());
    }
    while !console.try_write(bytes)? {
        let mut polled = vec![PollFd::new(stop, PollFlags::IN)];
        polled.extend(console.sink().map(|sink| PollFd::from_borrowed_fd(sink, PollFlags::OUT)));
        match poll(&mut polled, None) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if polled.first().is_some_and(|stopped| !stopped.revents().is_empty()) {
            break;
        }
    }
    Ok(())
}
