//! What a machine runs, and what differs with it.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Instant;

use nerite_arch::{Regs, SpecialRegs};
use nerite_loader::{Image, LoadedKernel};
use nerite_memory::GuestRam;
use nerite_vcpu::{Control, Entry, Exit, Handler, Vcpu};

use crate::dispatch::{Dispatcher, End, Platform};
use crate::pc::{Pc, PcDispatcher};
use crate::posted::Clock;
use nerite_inspect::{Frame, Unwinder};

/// A guest with its platform.
#[derive(Debug)]
pub(crate) enum Guest {
    /// A Hermit image, which makes hypercalls.
    Hermit(Box<Hermit>),
    /// Another kernel, which has a PC.
    Pc(Pc),
}

/// What a machine keeps of a Hermit guest.
#[derive(Debug)]
pub(crate) struct Hermit {
    pub(crate) image: Image,
    pub(crate) loaded: LoadedKernel,
    pub(crate) platform: Arc<Platform>,
}

/// Answers the exits of one vCPU.
#[derive(Debug)]
pub(crate) enum AnyDispatcher {
    Hermit(Box<Dispatcher>),
    Pc(PcDispatcher),
}

impl Handler for AnyDispatcher {
    type End = End;

    fn handle(&mut self, vcpu: &mut dyn Vcpu, exit: Exit) -> ControlFlow<End, Entry> {
        match self {
            Self::Hermit(dispatcher) => dispatcher.handle(vcpu, exit),
            Self::Pc(dispatcher) => dispatcher.handle(vcpu, exit),
        }
    }
}

impl Guest {
    /// What answers the exits of one more vCPU.
    pub(crate) fn dispatcher(&self, control: Arc<Control>, deadline: Option<Instant>) -> AnyDispatcher {
        match self {
            Self::Hermit(hermit) => {
                let dispatcher = Dispatcher::new(hermit.platform.clone(), control, deadline);
                AnyDispatcher::Hermit(Box::new(dispatcher))
            }
            Self::Pc(pc) => AnyDispatcher::Pc(PcDispatcher::new(pc.platform.clone(), deadline)),
        }
    }

    /// When to look for output that nothing has told of; `None` if there is none of that kind.
    pub(crate) fn clock(&self) -> Option<Clock> {
        match self {
            Self::Hermit(hermit) => Clock::new(hermit.image.kernel().interface()),
            Self::Pc(_) => None,
        }
    }

    /// As [`Platform::collect_coalesced`].
    pub(crate) fn collect_coalesced(&self, final_call: bool) -> bool {
        match self {
            Self::Hermit(hermit) => hermit.platform.collect_coalesced(final_call),
            Self::Pc(_) => false,
        }
    }

    /// As [`Platform::has_coalesced`].
    pub(crate) fn has_coalesced(&self) -> bool {
        match self {
            Self::Hermit(hermit) => hermit.platform.has_coalesced(),
            Self::Pc(_) => false,
        }
    }

    /// Where the loaded kernel is.
    pub(crate) fn kernel_range(&self) -> Range<u64> {
        match self {
            Self::Hermit(hermit) => hermit.loaded.start..hermit.loaded.end,
            Self::Pc(pc) => pc.kernel.clone(),
        }
    }

    /// Where the loaded image is entered, if it is one with symbols at addresses of its own.
    pub(crate) fn entry(&self) -> Option<u64> {
        match self {
            Self::Hermit(hermit) => Some(hermit.loaded.entry),
            Self::Pc(_) => None,
        }
    }

    /// How much higher the kernel lies than it was linked to.
    pub(crate) fn load_offset(&self) -> u64 {
        match self {
            Self::Hermit(hermit) => hermit.loaded.start.wrapping_sub(hermit.image.kernel().link_start()),
            Self::Pc(_) => 0,
        }
    }

    /// Where a vCPU is and, if the guest's symbols are known, how it got there.
    pub(crate) fn backtrace(&self, ram: &GuestRam, regs: &Regs, special: &SpecialRegs) -> Vec<Frame> {
        match self {
            Self::Hermit(hermit) => {
                let unwinder = Unwinder { ram, kernel: hermit.image.kernel(), loaded: &hermit.loaded };
                unwinder.backtrace(regs, special)
            }
            Self::Pc(_) => vec![Frame { address: regs.rip, symbol: None, certain: true }],
        }
    }
}
