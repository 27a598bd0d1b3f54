//! Bench of this crate's unit tests: a machine without a hypervisor, and a log that can be read.

use std::io::Read;
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nerite_devices::{Console, Input, Sink};
use nerite_hostfs::{HostFs, Limits};
use nerite_hypercall::{v1, v2};
use nerite_hypervisor::scripted::Scripted;
use nerite_memory::{Backing, GuestRam, Region};
use nerite_vcpu::CoalescedWrites;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::builder::shared;
use crate::dispatch::{Dispatcher, Shared};
use crate::hypercalls::{CommandLine, Hypercalls, Next, Scratch};
use nerite_platform::{LogBudget, Rate, StopToken};

pub(crate) const MIB: u64 = 1 << 20;
/// The end of the lower part of RAM.
pub(crate) const RAM_END: u64 = 4 * MIB;
/// Start of the higher part of RAM, which 32 bits cannot express.
pub(crate) const HIGH: u64 = 5 << 30;
/// Address of parameters.
pub(crate) const PARAMS: u64 = 0x5000;

/// A machine as the hypercalls and the dispatcher see it: RAM at 0 to 4 MiB and 5 GiB to 5 GiB + 2
/// MiB, a console whose other end is here, and a scripted vCPU.
pub(crate) struct Guest {
    pub(crate) ram: Arc<GuestRam>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) vcpu: Scripted,
    pub(crate) scratch: Scratch,
    /// The other end of the console's output.
    pub(crate) screen: UnixStream,
    /// The other end of the console's input, which ends when this is dropped.
    pub(crate) keyboard: Option<UnixStream>,
}

/// Differences of a [`Guest`] from the usual one.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) command_line: CommandLine,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) coalesced: Option<Arc<dyn CoalescedWrites>>,
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let regions = [Region { start: 0, size: RAM_END }, Region { start: HIGH, size: 2 * MIB }];
        let ram = Arc::new(GuestRam::new(&regions, &Backing::default()).unwrap());
        let (console, screen) = UnixStream::pair().unwrap();
        let (keyboard, input) = UnixStream::pair().unwrap();
        screen.set_nonblocking(true).unwrap();
        let calls = Hypercalls {
            ram: ram.clone(),
            console: Arc::new(Console::new(Sink::Fd(console.into()))),
            input: Input::new(Some(input.into())),
            files: HostFs::new(&[], &[], Limits::default()).unwrap(),
            command_line: std::sync::Mutex::new(Arc::new(setup.command_line)),
            stop: StopToken::new().unwrap(),
            rate: setup
                .bytes_per_second
                .and_then(NonZeroU64::new)
                .map(|rate| Arc::new(Rate::new(rate))),
            budget: LogBudget::new(64),
        };
        Self {
            ram,
            shared: Arc::new(shared(calls, setup.coalesced, &nerite_pci::Bridge::new()).unwrap()),
            vcpu: Scripted::default(),
            scratch: Scratch::default(),
            screen,
            keyboard: Some(keyboard),
        }
    }

    pub(crate) fn calls(&self) -> &Hypercalls {
        &self.shared.calls
    }

    pub(crate) fn dispatcher(&self) -> Dispatcher {
        Dispatcher::new(self.shared.clone(), Arc::default(), None)
    }

    /// Console output so far, a partial line included.
    pub(crate) fn shown(&mut self) -> Vec<u8> {
        self.calls().console.flush().unwrap();
        self.arrived()
    }

    /// Console output that has arrived so far.
    pub(crate) fn arrived(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = self.screen.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..length]);
        }
        shown
    }

    /// Says that the machine is being stopped, as the end of another vCPU does.
    pub(crate) fn stop(&self) {
        self.calls().stop.request();
    }

    pub(crate) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.ram.read(address, &mut bytes).unwrap();
        bytes
    }

    /// A call of interface v1 with what is in EAX.
    pub(crate) fn v1_at(&mut self, call: v1::Call, eax: u64) -> Next {
        let eax = u32::try_from(eax).unwrap();
        self.shared.calls.v1(call, eax, &mut self.vcpu, &mut self.scratch)
    }

    /// A call of interface v1 that must come back, with these parameters; gives what they are
    /// afterwards.
    pub(crate) fn v1<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        call: v1::Call,
        params: T,
    ) -> T {
        self.ram.write_obj(PARAMS, &params).unwrap();
        let next = self.v1_at(call, PARAMS);
        assert!(matches!(next, Next::Resume), "{call:?}: {next:?}");
        self.ram.read_obj(PARAMS).unwrap()
    }

    /// A call of interface v2 with what is in RDI.
    pub(crate) fn v2_at(&mut self, call: v2::Call, rdi: u64) -> Next {
        self.shared.calls.v2(call, rdi, &mut self.scratch)
    }

    /// A call of interface v2 that must come back, with these parameters, which lie beyond 4 GiB;
    /// gives what they are afterwards.
    pub(crate) fn v2<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        call: v2::Call,
        params: T,
    ) -> T {
        let address = HIGH + PARAMS;
        self.ram.write_obj(address, &params).unwrap();
        let next = self.v2_at(call, address);
        assert!(matches!(next, Next::Resume), "{call:?}: {next:?}");
        self.ram.read_obj(address).unwrap()
    }
}
