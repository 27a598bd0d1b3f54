//! Surroundings of a processor.

use nerite_memory::{Page, Pages};

/// Guest-physical memory.
pub trait Memory: Send {
    /// Returns the page of RAM that holds the guest-physical address; `None` where there is no RAM,
    /// so that an access is an exit. The answer for an address does not change while the processor
    /// runs.
    fn page(&self, address: u64) -> Option<Page>;
}

impl Memory for Pages {
    fn page(&self, address: u64) -> Option<Page> {
        Self::page(self, address)
    }
}

/// Sources of time and chance, and the other threads of the host.
pub trait Platform: Send {
    /// The time-stamp counter after so many instructions of this processor, before the guest's own
    /// offset. It must not go backwards. A virtual clock computes it from the instructions alone.
    fn tsc(&mut self, instructions: u64) -> u64;

    /// Random bits for RDRAND and RDSEED.
    fn random(&mut self) -> u64;

    /// Called for each PAUSE: the guest spins until another processor has done something. Where
    /// threads are processors, that one may be waiting for this thread's.
    fn pause(&mut self) {}
}

/// A platform of which each run is the same: a cycle for each instruction, and a fixed sequence of
/// numbers.
#[derive(Debug, Clone, Default)]
pub struct Deterministic {
    state: u64,
}

impl Platform for Deterministic {
    fn tsc(&mut self, instructions: u64) -> u64 {
        instructions
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
