//! Counting how often each instruction is executed.

use std::fmt;

/// Receives the address of an instruction (RIP in 64-bit mode, the linear address elsewhere) and
/// the number of its executions since it was reported last.
pub type Executions = Box<dyn FnMut(u64, u64) + Send>;

/// Executions of blocks that have not been reported.
pub(crate) struct Counter {
    report: Executions,
    /// By index of the block.
    blocks: Vec<Counts>,
    /// The block that is executed, and the number of instructions completed before it.
    current: Option<(usize, u64)>,
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter").finish_non_exhaustive()
    }
}

/// Executions of a block.
#[derive(Debug, Default)]
struct Counts {
    /// Address of its first instruction: the same code can be mapped at several.
    address: u64,
    /// Offsets of its instructions.
    offsets: Vec<u16>,
    /// Number of executions that ended after so many instructions, by that number. Empty if there
    /// were none.
    ended: Vec<u64>,
}

impl Counts {
    fn report(&mut self, report: &mut Executions) {
        // Each instruction was executed each time the block continued behind it.
        let mut executions = self.ended.iter().fold(0_u64, |sum, count| sum.wrapping_add(*count));
        for (offset, ended) in self.offsets.iter().zip(&self.ended) {
            executions = executions.wrapping_sub(*ended);
            if executions == 0 {
                break;
            }
            report(self.address.wrapping_add(u64::from(*offset)), executions);
        }
        self.ended.clear();
    }
}

impl Counter {
    pub(crate) fn new(report: Executions) -> Self {
        Self { report, blocks: Vec::new(), current: None }
    }

    /// The execution of a block, whose instructions have these offsets, begins after `retired`
    /// instructions, and that of another one has ended.
    pub(crate) fn begin(
        &mut self,
        index: usize,
        address: u64,
        offsets: impl Iterator<Item = u16>,
        retired: u64,
    ) {
        self.end(retired);
        if self.blocks.len() <= index {
            self.blocks.resize_with(index.saturating_add(1), Counts::default);
        }
        let Some(counts) = self.blocks.get_mut(index) else { return };
        if counts.address != address || counts.ended.is_empty() {
            counts.report(&mut self.report);
            counts.address = address;
            counts.offsets.clear();
            counts.offsets.extend(offsets);
            counts.ended.resize(counts.offsets.len().saturating_add(1), 0);
        }
        self.current = Some((index, retired));
    }

    /// The execution of a block has ended after `retired` instructions.
    fn end(&mut self, retired: u64) {
        let Some((index, before)) = self.current.take() else { return };
        let completed = usize::try_from(retired.wrapping_sub(before)).unwrap_or(usize::MAX);
        let counts = self.blocks.get_mut(index).and_then(|counts| counts.ended.get_mut(completed));
        if let Some(count) = counts {
            *count = count.wrapping_add(1);
        }
    }

    /// Reports a block, which is about to be replaced.
    pub(crate) fn report(&mut self, index: usize, retired: u64) {
        self.end(retired);
        if let Some(counts) = self.blocks.get_mut(index) {
            counts.report(&mut self.report);
        }
    }

    /// Reports all blocks.
    pub(crate) fn report_all(&mut self, retired: u64) {
        self.end(retired);
        for counts in &mut self.blocks {
            counts.report(&mut self.report);
        }
    }
}
