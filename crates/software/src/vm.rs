//! A VM.

use std::io;
use std::sync::Arc;

use nerite_arch::CpuidEntry;
use nerite_hypervisor::{
    CoalescedWrites, Doorbells, Error, InterruptController, Irqchip, STATE_VERSION, StateError,
    Vcpu, VcpuStart, VirtualClock, Vm, VmOptions, VmState,
};
use nerite_irqchip::{ChipsConfig, SharedChips};
use nerite_memory::{GuestRam, WriteObserver};
use nerite_x86::CodePages;
use parking_lot::Mutex;
use rand::rngs::StdRng;

use crate::clock::Clock;
use crate::controller::Controller;
use crate::cpuid;
use crate::shared::{Chips, Shared};
use crate::signal::Signals;
use crate::timers::Timers;
use crate::vcpu::SoftwareVcpu;

/// A VM whose processors are software.
#[derive(Debug)]
pub(crate) struct SoftwareVm {
    shared: Arc<Shared>,
}

/// Drops decoded instructions that the VMM overwrites.
struct Decoded(Arc<CodePages>);

impl WriteObserver for Decoded {
    fn written(&self, addr: u64, len: u64) {
        self.0.written(addr, len);
    }
}

impl SoftwareVm {
    pub(crate) fn new(
        ram: Arc<GuestRam>,
        options: &VmOptions,
        clock: Clock,
        random: StdRng,
    ) -> Result<Self, Error> {
        let (signals, code) = (Signals::new(options.vcpus), CodePages::new());
        ram.observe(Arc::new(Decoded(code.clone())));
        let config =
            ChipsConfig { address_bits: cpuid::address_bits(), ..ChipsConfig::of(options.vcpus) };
        let chips = (options.irqchip == Irqchip::Hypervisor).then(|| {
            let shared = Arc::new(SharedChips::new(&config, signals.clone()));
            let controller = Arc::new(Controller::new(shared.clone()));
            Chips { shared, controller, pit: options.pit }
        });
        let timers = if chips.is_some() || options.kick_timers {
            let (board, time) = (chips.as_ref().map(|chips| chips.shared.clone()), clock.clone());
            let timers = Timers::start(move || {
                let board = board.as_ref()?;
                board.advance_board(time.now());
                time.moment(board.next_board_event()?)
            });
            let operation = "starting the timers' thread";
            Some(timers.map_err(|source| Error::Call { operation, source })?)
        } else {
            None
        };
        let shared = Shared {
            ram,
            signals,
            clock,
            code,
            chips,
            bells: Arc::default(),
            ring: Arc::default(),
            timers,
            random: Mutex::new(random),
            restored: Mutex::default(),
            msr_exits: options.msr_exits || options.irqchip == Irqchip::User,
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Vm for SoftwareVm {
    fn ram(&self) -> &Arc<GuestRam> {
        &self.shared.ram
    }

    fn create_vcpu(
        &self,
        index: u32,
        start: VcpuStart<'_>,
        cpuid: &[CpuidEntry],
    ) -> Result<Box<dyn Vcpu>, Error> {
        let Some(signal) = self.shared.signals.of(index).cloned() else {
            let source = io::ErrorKind::InvalidInput.into();
            return Err(Error::Vcpu { index, operation: "creating a vCPU", source });
        };
        Ok(Box::new(SoftwareVcpu::new(index, self.shared.clone(), signal, start, cpuid)?))
    }

    fn interrupt_controller(&self) -> Option<Arc<dyn InterruptController>> {
        self.shared
            .chips
            .as_ref()
            .map(|chips| chips.controller.clone() as Arc<dyn InterruptController>)
    }

    fn virtual_clock(&self) -> Option<Arc<dyn VirtualClock>> {
        match &self.shared.clock {
            Clock::Host(_) => None,
            Clock::Virtual(clock) => Some(clock.clone()),
        }
    }

    fn doorbells(&self) -> Arc<dyn Doorbells> {
        self.shared.bells.clone()
    }

    fn coalesce_port_writes(&self, first: u16, size: u16) -> Result<(), Error> {
        self.shared.ring.add_ports(first, size);
        Ok(())
    }

    fn coalesced_writes(&self) -> Option<Arc<dyn CoalescedWrites>> {
        Some(self.shared.ring.clone())
    }

    fn save(&self) -> Result<VmState, Error> {
        let now = self.shared.clock.now();
        let board = self.shared.chips.as_ref().map(|chips| chips.shared.save_board(now));
        Ok(VmState { version: STATE_VERSION, board, clock: now })
    }

    /// The VM's clock is not one that a guest can read here: it stays.
    fn restore(&self, state: &VmState) -> Result<(), Error> {
        state.check().map_err(Error::VmState)?;
        // RAM has been written or mapped anew.
        self.shared.code.all_written();
        let moment = self.shared.restore_chips();
        match (&self.shared.chips, state.board) {
            (Some(chips), Some(mut board)) => {
                board.lower_lines();
                let restored = chips.shared.restore_board(&board, moment);
                restored.map_err(|error| Error::VmState(error.into()))?;
                let next =
                    chips.shared.next_board_event().and_then(|next| self.shared.clock.moment(next));
                self.shared.set_board_timer(next);
                Ok(())
            }
            (None, None) => Ok(()),
            _ => {
                let value = "not where the interrupt controllers are".to_owned();
                Err(Error::VmState(StateError::Field { field: "board", value }))
            }
        }
    }
}
