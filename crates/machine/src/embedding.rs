//! Parts of a machine that the program brings in which it is embedded.

use std::fmt;
use std::io;
use std::ops::{ControlFlow, RangeInclusive};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nerite_arch::Regs;
use nerite_bus::{Device, Width};
use nerite_devices::Sink;
use nerite_event::Event;
use nerite_loader::ImageSource;
use nerite_memory::GuestRam;
use nerite_platform::{End, ExitHandler, OwnDevices, Stop};
use nerite_vcpu::{Entry, Exit, Handler, Vcpu};
use nerite_virtio::{VirtioDevice, VirtioPci};

use crate::image_file::{in_memory, open_image};
use crate::wires::PciBuilder;
use crate::{Config, Error, LateImage};

/// Number of own virtio devices for which there is room beside all others.
pub const MAX_OWN_VIRTIO: usize = 2;

/// Parts of a machine that the embedding program brings, in place of files and of standard input
/// and output, and besides the devices of its [`Config`].
///
/// A machine with own devices or hypercalls is not saved: their state is the program's.
#[derive(Debug, Default)]
#[must_use]
pub struct Embedding {
    image: Option<Vec<u8>>,
    /// In place of it.
    pub(crate) late_image: Option<Box<dyn LateImage>>,
    pub(crate) output: Option<Sink>,
    pub(crate) input: Option<OwnedFd>,
    pub(crate) devices: OwnDevices,
    pub(crate) interrupts: Vec<(u32, Event)>,
    pub(crate) hypercalls: Hypercalls,
    pub(crate) virtio: Vec<Box<dyn OwnVirtio>>,
}

impl Embedding {
    /// None: everything is as [`Config`] says.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the image from memory. [`Config::image`] is only its name then.
    pub fn image(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.image = Some(bytes.into());
        self.late_image = None;
        self
    }

    /// Puts the image together once the process is confined.
    pub fn late_image(mut self, image: Box<dyn LateImage>) -> Self {
        self.late_image = Some(image);
        self
    }

    /// Writes the guest's output to a descriptor: a pipe, a socket, a terminal.
    pub fn output(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.output = Some(Sink::Fd(descriptor.into()));
        self
    }

    /// Calls a function with the guest's output, a line or a buffer at a time, on the thread of the
    /// vCPU or device that writes. It holds the guest up while it runs, and an error ends the
    /// machine.
    pub fn output_with(
        mut self,
        write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.output = Some(Sink::Call(Box::new(write)));
        self
    }

    /// Reads the guest's input from a descriptor: a pipe, a socket, a file.
    pub fn input(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.input = Some(descriptor.into());
        self
    }

    /// Adds a device with ports. `name` is for messages.
    pub fn ports(
        mut self,
        name: &'static str,
        range: RangeInclusive<u16>,
        device: Arc<dyn Device>,
    ) -> Self {
        self.devices.add_ports(name, range, device);
        self
    }

    /// Adds a device with registers in memory. `name` is for messages. There is room where no
    /// RAM, PCI device or interrupt controller is: from 0xfec0_1000 to 0xfedf_ffff, for example.
    pub fn mmio(
        mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        device: Arc<dyn Device>,
    ) -> Self {
        self.devices.add_mmio(name, range, device);
        self
    }

    /// Makes each signal of `event` an edge of this interrupt line, for a device on a bus.
    pub fn interrupt(mut self, line: u32, event: Event) -> Self {
        self.interrupts.push((line, event));
        self
    }

    /// Adds a hypercall: `handle` answers each write to `port`, on the vCPU's thread. It ends the
    /// machine by breaking with an exit code. Reads of the port are all ones. Output that the
    /// hypervisor coalesces may still be on its way when it is called.
    pub fn hypercall(
        mut self,
        port: u16,
        handle: impl Fn(&mut Hypercall<'_>) -> ControlFlow<i32> + Send + Sync + 'static,
    ) -> Self {
        self.devices.add_ports("hypercall", port..=port, Arc::new(HypercallPort));
        self.hypercalls.0.push((port, Arc::new(handle)));
        self
    }

    /// Adds a virtio device behind PCI; there is room for [`MAX_OWN_VIRTIO`]. `run` is called once,
    /// before the guest runs: a device with a [worker](nerite_virtio::Worker) starts it there. When
    /// the machine has ended, the device is paused and stopped.
    pub fn virtio<D: VirtioDevice + 'static>(
        mut self,
        device: D,
        run: impl Fn(&VirtioPci<D>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.virtio.push(Box::new(Planned { device, run: Box::new(run) }));
        self
    }

    /// `true` if there is a part of the guest's machine that snapshots do not know.
    pub(crate) fn has_devices(&self) -> bool {
        !self.devices.is_empty() || !self.virtio.is_empty() || !self.interrupts.is_empty()
    }

    /// Image of the guest, opened.
    pub(crate) fn open_image(&mut self, config: &Config) -> Result<ImageSource, Error> {
        let Some(bytes) = self.image.take() else { return Ok(open_image(&config.image)?) };
        let file =
            in_memory(bytes.as_slice()).map_err(Error::host("keeping the image in memory"))?;
        Ok(ImageSource::from_file(&config.image, file)?)
    }
}

/// A write to the port of a hypercall.
pub struct Hypercall<'a> {
    /// Number of bytes written: 1, 2 or 4.
    pub width: u8,
    /// Value written.
    pub value: u32,
    vcpu: &'a mut dyn Vcpu,
    ram: &'a GuestRam,
}

impl Hypercall<'_> {
    /// Index of the vCPU.
    pub fn vcpu(&self) -> u32 {
        self.vcpu.index()
    }

    /// Registers of the vCPU.
    ///
    /// # Errors
    /// Fails if the hypervisor does.
    pub fn regs(&mut self) -> Result<Regs, nerite_vcpu::Error> {
        self.vcpu.regs()
    }

    /// Guest RAM: arguments and results. Another vCPU may change it at any time, so arguments are
    /// read once.
    pub fn ram(&self) -> &GuestRam {
        self.ram
    }
}

impl fmt::Debug for Hypercall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, value, .. } = self;
        f.debug_struct("Hypercall").field("width", width).field("value", value).finish()
    }
}

type HandleCall = dyn Fn(&mut Hypercall<'_>) -> ControlFlow<i32> + Send + Sync;

/// Own hypercalls by port.
#[derive(Clone, Default)]
pub(crate) struct Hypercalls(Vec<(u16, Arc<HandleCall>)>);

impl Hypercalls {
    /// Puts the calls before the handler of a vCPU's exits, if there are any.
    pub(crate) fn before(
        &self,
        handler: Box<dyn ExitHandler>,
        ram: &Arc<GuestRam>,
    ) -> Box<dyn ExitHandler> {
        if self.0.is_empty() {
            return handler;
        }
        Box::new(WithHypercalls { calls: self.clone(), ram: ram.clone(), handler })
    }
}

impl fmt::Debug for Hypercalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(port, _)| port)).finish()
    }
}

/// A handler that own hypercalls do not reach.
#[derive(Debug)]
struct WithHypercalls {
    calls: Hypercalls,
    ram: Arc<GuestRam>,
    handler: Box<dyn ExitHandler>,
}

impl Handler for WithHypercalls {
    type End = Stop;

    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: &Exit) -> ControlFlow<Stop, Entry> {
        let Exit::PortOut { port, width, value } = *exit else {
            return self.handler.handle(vcpu, exit);
        };
        match self.calls.0.iter().find(|(own, _)| *own == port) {
            None => self.handler.handle(vcpu, exit),
            Some((_, handle)) => {
                match handle(&mut Hypercall { width, value, vcpu, ram: &self.ram }) {
                    ControlFlow::Continue(()) => ControlFlow::Continue(Entry::Resume),
                    ControlFlow::Break(code) => ControlFlow::Break(Ok(End::Exited(code))),
                }
            }
        }
    }
}

/// Keeps the port of a hypercall from other devices.
struct HypercallPort;

impl Device for HypercallPort {
    fn read(&self, _: u64, width: Width) -> u64 {
        width.all_ones()
    }

    fn write(&self, _: u64, _: Width, _: u64) {}
}

/// A virtio device on its way into a machine.
pub(crate) trait OwnVirtio: fmt::Debug + Send {
    /// Adds it to the bus, with this interrupt line.
    fn add(self: Box<Self>, pci: &mut PciBuilder<'_>, line: u8) -> Result<OwnFunction, Error>;
}

/// A virtio device of the embedding program in a machine.
pub(crate) type OwnFunction = Arc<dyn OwnVirtioFunction>;

/// Virtio device of which a machine knows nothing but this.
pub(crate) trait OwnVirtioFunction: fmt::Debug + Send + Sync {
    fn run(&self) -> io::Result<()>;
    fn pause(&self);
    fn resume(&self);
    fn halt(&self);
}

type Run<D> = Box<dyn Fn(&VirtioPci<D>) -> io::Result<()> + Send + Sync>;

struct Planned<D: VirtioDevice> {
    device: D,
    run: Run<D>,
}

impl<D: VirtioDevice + 'static> OwnVirtio for Planned<D> {
    fn add(self: Box<Self>, pci: &mut PciBuilder<'_>, line: u8) -> Result<OwnFunction, Error> {
        Ok(Arc::new(Added { function: pci.add(self.device, line)?, run: self.run }))
    }
}

impl<D: VirtioDevice> fmt::Debug for Planned<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("own virtio device")
    }
}

struct Added<D: VirtioDevice> {
    function: Arc<VirtioPci<D>>,
    run: Run<D>,
}

impl<D: VirtioDevice> OwnVirtioFunction for Added<D> {
    fn run(&self) -> io::Result<()> {
        (self.run)(&self.function)
    }

    fn pause(&self) {
        self.function.pause();
    }

    fn resume(&self) {
        self.function.resume();
    }

    fn halt(&self) {
        self.function.pause();
        self.function.device().stop();
    }
}

impl<D: VirtioDevice> fmt::Debug for Added<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("own virtio device")
    }
}

#[cfg(test)]
#[path = "embedding_test.rs"]
mod tests;
