//! Hardware counters of the guest's execution, where the host allows them.

use std::io;
use std::sync::Arc;

use nerite_hypervisor::{CounterKind, GuestCounter, Hypervisor, Vcpu};
use nerite_vcpu::ahead::{self, InstructionCount};

use crate::Error;
use crate::config::Observe;

/// Hardware counts of a guest, all vCPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessorCounts {
    /// Instructions that it has completed. Those that KVM carries out for the guest are not among
    /// them.
    pub instructions: u64,
    /// Cycles.
    pub cycles: u64,
}

/// The counters of a machine: opened before the process gives up the right to, used once there are
/// vCPUs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    statistics: Option<io::Result<[Box<dyn GuestCounter>; 2]>>,
    limit: Option<io::Result<Box<dyn GuestCounter>>>,
}

/// Reason to leave a counter unused that can be opened.
const COUNTS_WRONG: &str = "its counter of instructions does not count those of guests";

impl Counters {
    /// Those that are asked for.
    pub(crate) fn open(hypervisor: &dyn Hypervisor, observe: &Observe) -> Self {
        let both = || {
            let instructions = hypervisor.open_counter(CounterKind::Instructions, None)?;
            Ok([instructions, hypervisor.open_counter(CounterKind::Cycles, None)?])
        };
        let period = observe.instruction_limit.and_then(ahead::period);
        Self {
            statistics: observe.statistics.then(both),
            limit: period
                .map(|period| hypervisor.open_counter(CounterKind::Instructions, Some(period))),
        }
    }

    /// Those of them that do count, from now on. Says why there are none, unless the hypervisor
    /// `counts_exactly` by itself.
    pub(crate) fn begin(
        self,
        hypervisor: &dyn Hypervisor,
        vcpus: usize,
        counts_exactly: bool,
    ) -> Counting {
        let usable = |counter: &dyn GuestCounter| {
            let counts = hypervisor.counts_instructions(counter);
            if counts { Ok(()) } else { Err(io::Error::other(COUNTS_WRONG)) }
        };
        let statistics = self.statistics.and_then(|opened| {
            let checked = opened.and_then(|[instructions, cycles]| {
                usable(&*instructions)?;
                let first = (instructions.read()?, cycles.read()?);
                Ok(Arc::new(Totals { instructions, cycles, first }))
            });
            let because =
                |error| log::info!("the guest's instructions and cycles are not counted: {error}");
            checked.map_err(because).ok()
        });
        let limit = self.limit.filter(|_| !counts_exactly).and_then(|opened| {
            let checked = match opened {
                Ok(_) if vcpus > 1 => Err(io::Error::other("several vCPUs share the number")),
                Ok(counter) => usable(&*counter).map(|()| Arc::from(counter)),
                Err(error) => Err(error),
            };
            let because = |error| log::info!("instructions are counted one at a time: {error}");
            checked.map_err(because).ok()
        });
        Counting { statistics, limit }
    }
}

/// The counters of a machine that runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counting {
    pub(crate) statistics: Option<Arc<Totals>>,
    pub(crate) limit: Option<Arc<dyn GuestCounter>>,
}

/// Counters of all vCPUs together.
#[derive(Debug)]
pub(crate) struct Totals {
    instructions: Box<dyn GuestCounter>,
    cycles: Box<dyn GuestCounter>,
    /// Values at the beginning.
    first: (u64, u64),
}

impl Totals {
    /// Current values; `None` if the PMU multiplexed a counter out.
    pub(crate) fn read(&self) -> Option<ProcessorCounts> {
        let (instructions, cycles) = (self.instructions.read().ok()?, self.cycles.read().ok()?);
        Some(ProcessorCounts {
            instructions: instructions.wrapping_sub(self.first.0),
            cycles: cycles.wrapping_sub(self.first.1),
        })
    }
}

#[derive(Debug)]
struct Executed(Arc<dyn GuestCounter>);

impl InstructionCount for Executed {
    fn count(&self) -> Option<u64> {
        self.0.read().ok()
    }
}

/// A counter that kicks this vCPU, which the calling thread runs.
///
/// # Errors
/// If the host does not say when.
pub(crate) fn for_vcpu(
    vcpu: &mut dyn Vcpu,
    counter: &Arc<dyn GuestCounter>,
) -> Result<Box<dyn InstructionCount>, Error> {
    vcpu.kick_at_overflow(&**counter)?;
    Ok(Box::new(Executed(counter.clone())))
}
