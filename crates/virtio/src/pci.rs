//! A virtio device as a PCI function (virtio 1.2, 4.1).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_log_budget::LogBudget;
use nerite_memory::GuestRam;
use nerite_pci::{COMMAND, ConfigSpace, Function, MessageRoutes, Msix, command};

use crate::{Action, Common, Event, Notifier, VirtioDevice};

mod config;
mod doorbells;
mod life_cycle;
mod state;

use config::{Layout, config_space};
pub use doorbells::{DoorbellError, Doorbells, NoDoorbells};
pub use state::VirtioPciState;

/// Offsets of the structures behind base address 0.
pub mod region {
    /// The common configuration (4.1.4.3).
    pub const COMMON: u64 = 0x0000;
    /// ISR status (4.1.4.5).
    pub const ISR: u64 = 0x1000;
    /// The device's own configuration (4.1.4.6).
    pub const DEVICE: u64 = 0x2000;
    /// Notifications (4.1.4.4): four bytes for each queue.
    pub const NOTIFY: u64 = 0x3000;
    /// The table of MSI-X vectors.
    pub const MSIX_TABLE: u64 = 0x4000;
    /// The pending bits of MSI-X vectors.
    pub const MSIX_PENDING: u64 = 0x5000;
    /// Each of them has a page of its own.
    pub(crate) const SIZE: u64 = 0x1000;
}

/// Bytes behind base address 0.
pub const BAR_SIZE: u32 = 0x8000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;
/// The largest number of queues: their notification addresses and vectors fill less than a page
/// each.
const MAX_QUEUES: usize = 128;

/// Log lines that a device's driver can cause.
const LOG_LINES: u32 = 16;

/// Status register, bit 3: the function wants the pin raised.
const INTERRUPT_STATUS: u32 = 1 << 19;

/// Connections of a function.
pub struct Wiring {
    /// Guest memory.
    pub ram: Arc<GuestRam>,
    /// Doorbells for its queues.
    pub doorbells: Arc<dyn Doorbells>,
    /// Ways for its messages.
    pub messages: Arc<dyn MessageRoutes>,
    /// Initial value of its base address 0.
    pub address: u64,
    /// The line of the interrupt controller that its pin is wired to.
    pub line: u8,
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring")
            .field("address", &self.address)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// A PCI function that is a virtio device.
///
/// vCPUs come here for configuration only. Queues are worked on elsewhere: requests come by the
/// events of [`crate::Activation::kicks`], and interrupts go through [`Notifier`].
pub struct VirtioPci<D: VirtioDevice> {
    device: Arc<D>,
    ram: Arc<GuestRam>,
    kicks: Arc<[Event]>,
    notifier: Arc<Notifier>,
    doorbells: Arc<dyn Doorbells>,
    log: Arc<LogBudget>,
    state: Mutex<State>,
}

struct State {
    config: ConfigSpace,
    common: Common,
    msix: Msix,
    /// Offset of MSI-X's message control.
    msix_control: u8,
    /// Offset of the capability that gives access to what is behind base addresses (4.1.4.9).
    pci_cfg: u8,
    /// The base address that doorbells are attached for, and for which queues.
    attached: Option<(u64, Vec<u16>)>,
    /// The driver has made the function a bus master.
    is_bus_master: bool,
    /// The machine is paused.
    is_paused: bool,
    /// The function may access memory: it is a bus master, and not paused.
    is_active: bool,
    /// The driver has reset the device, which still works on a request.
    is_resetting: bool,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Makes `device` a PCI function.
    ///
    /// # Errors
    /// If the process or the host has no descriptor left, or the device has more than 128 queues.
    pub fn new(device: Arc<D>, wiring: Wiring) -> std::io::Result<Self> {
        let queues = device.queue_sizes().len();
        if queues > MAX_QUEUES {
            return Err(std::io::Error::other(format!("a virtio device of {queues} queues")));
        }
        let events =
            |count| (0..count).map(|_| Event::new()).collect::<std::io::Result<Arc<[Event]>>>();
        // One for each queue, and one for changes of the configuration.
        let vectors = events(queues.saturating_add(1))?;
        let notifier = Arc::new(Notifier::new(queues, vectors.clone())?);
        let log = Arc::new(LogBudget::new(device.kind().driver(), LOG_LINES));
        let msix = Msix::new(vectors, wiring.messages, log.clone());
        let common = Common::new(device.features(), device.queue_sizes(), msix.vectors());
        let (config, msix_control, pci_cfg) =
            config_space(device.as_ref(), &msix, Layout::Current, wiring.address, wiring.line)
                .map_err(std::io::Error::other)?;
        // Until the driver makes the function a bus master.
        device.pause();
        let state = State {
            config,
            common,
            msix,
            msix_control,
            pci_cfg,
            attached: None,
            is_bus_master: false,
            is_paused: false,
            is_active: false,
            is_resetting: false,
        };
        Ok(Self {
            device,
            ram: wiring.ram,
            kicks: events(queues)?,
            notifier,
            doorbells: wiring.doorbells,
            log,
            state: Mutex::new(state),
        })
    }

    /// Notifier that raises its interrupts.
    pub fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    /// The device within.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// Logs what its driver does wrong.
    pub fn log(&self) -> &Arc<LogBudget> {
        &self.log
    }

    /// The events of its queues' notifications.
    pub fn kicks(&self) -> &Arc<[Event]> {
        &self.kicks
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each register is whole at every moment.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.finish_reset(&mut state);
        state
    }

    fn read_region(&self, state: &State, offset: u64, width: u8) -> u64 {
        let within = offset & region::SIZE.wrapping_sub(1);
        match offset.saturating_sub(within) {
            region::COMMON => {
                state.common.read(within, width, self.notifier.generation(), self.notifier.status())
            }
            region::ISR if (within, width) == (0, 1) => self.notifier.take_isr().into(),
            region::DEVICE => {
                self.notifier.config_read();
                self.device.read_config(within, width)
            }
            // Nothing is to be read there (4.1.4.4).
            region::NOTIFY => 0,
            region::MSIX_TABLE => state.msix.read_table(within, width),
            region::MSIX_PENDING => state.msix.read_pending(within, width),
            _ => u64::MAX,
        }
    }

    fn write_region(&self, state: &mut State, offset: u64, width: u8, value: u64) {
        let within = offset & region::SIZE.wrapping_sub(1);
        match offset.saturating_sub(within) {
            // The driver waits for the end of a reset (4.1.4.3.2).
            region::COMMON | region::DEVICE | region::NOTIFY if state.is_resetting => {}
            region::COMMON => {
                let action = state.common.write(within, width, value);
                self.act(state, action);
            }
            region::DEVICE => self.device.write_config(within, width, value),
            region::NOTIFY => self.kick(state, within),
            region::MSIX_TABLE => state.msix.write_table(within, width, value),
            _ => {}
        }
    }

    /// A notification that came by a vCPU. Before the driver is ready, there is nothing to notify.
    fn kick(&self, state: &State, offset: u64) {
        let index = offset >> NOTIFY_MULTIPLIER.trailing_zeros();
        let Ok(index) = u16::try_from(index) else { return };
        if state.common.is_live(index) {
            self.kicks.get(usize::from(index)).into_iter().for_each(Event::signal);
        }
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::None => {}
            Action::Reset => self.reset(state),
            Action::ConfigVector(vector) => self.notifier.set_config_vector(vector),
            Action::QueueVector { index, vector } => self.notifier.set_queue_vector(index, vector),
            Action::CheckFeatures { features, then_start } => {
                if self.device.accepts(features) {
                    state.common.features_ok();
                    if then_start {
                        self.start(state);
                    }
                }
            }
            Action::Start => self.start(state),
        }
    }

    /// Applies a write to configuration space.
    fn config_written(&self, state: &mut State) {
        let control = state.config.read(state.msix_control, 2);
        state.msix.set_control(u16::try_from(control).unwrap_or_default());
        let pin_disabled = state.config.command() & command::INTX_DISABLE != 0;
        self.notifier.set_mode(state.msix.is_enabled(), pin_disabled);
        state.is_bus_master = state.config.command() & command::BUS_MASTER != 0;
        self.update_access(state);
        self.place_doorbells(state);
    }

    /// The window that configuration space has on what is behind base addresses (4.1.4.9): which
    /// offset it shows, and how many bytes.
    fn pci_cfg_target(state: &State) -> Option<(u64, u8)> {
        let at = state.pci_cfg;
        let bar = state.config.read(at.checked_add(4)?, 1);
        let offset = u64::from(state.config.read(at.checked_add(8)?, 4));
        let length = u8::try_from(state.config.read(at.checked_add(12)?, 4)).ok()?;
        let fits = offset.checked_add(length.into())? <= u64::from(BAR_SIZE);
        (bar == 0 && matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length.into()) && fits)
            .then_some((offset, length))
    }

    fn is_pci_cfg_data(state: &State, offset: u8) -> bool {
        state
            .pci_cfg
            .checked_add(16)
            .is_some_and(|data| (data..=data.saturating_add(3)).contains(&offset))
    }
}

impl<D: VirtioDevice> Function for VirtioPci<D> {
    fn read_config(&self, offset: u8, width: u8) -> u32 {
        let state = self.lock();
        if Self::is_pci_cfg_data(&state, offset) {
            let Some((at, length)) = Self::pci_cfg_target(&state) else { return u32::MAX };
            return u32::try_from(self.read_region(&state, at, length) & 0xffff_ffff)
                .unwrap_or(u32::MAX);
        }
        let value = state.config.read(offset, width);
        let has_status = offset == COMMAND && width == 4 && self.notifier.wants_pin();
        if has_status { value | INTERRUPT_STATUS } else { value }
    }

    fn write_config(&self, offset: u8, width: u8, value: u32) {
        let mut state = self.lock();
        if Self::is_pci_cfg_data(&state, offset) {
            if let Some((at, length)) = Self::pci_cfg_target(&state) {
                self.write_region(&mut state, at, length, value.into());
            }
            return;
        }
        state.config.write(offset, width, value);
        self.config_written(&mut state);
    }

    fn read_memory(&self, address: u64, width: u8) -> Option<u64> {
        let state = self.lock();
        let (_, offset) = state.config.decode(address, width)?;
        Some(self.read_region(&state, offset, width))
    }

    fn write_memory(&self, address: u64, width: u8, value: u64) -> bool {
        let mut state = self.lock();
        let Some((_, offset)) = state.config.decode(address, width) else { return false };
        self.write_region(&mut state, offset, width, value);
        true
    }
}

impl<D: VirtioDevice> fmt::Debug for VirtioPci<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioPci").field("kind", &self.device.kind()).finish_non_exhaustive()
    }
}
