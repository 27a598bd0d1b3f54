//! The loop.

use std::sync::atomic::Ordering;

use crate::block::Block;
use crate::core::{Core, Run, Stop};
use crate::cpu::Cpu;
use crate::exception;
use crate::exit::{Entry, Exit};
use crate::op::{Op, STACK};
use crate::registers::RIP;

impl Cpu {
    /// Executes up to `budget` instructions, or until something needs the caller. `entry` answers
    /// the last exit.
    ///
    /// A repeated string instruction counts as one, and one that faults not at all. But parts of a
    /// long repeated instruction and faults use the budget up, so that a guest of nothing else
    /// comes to its end: [`Exit::Budget`] may come early, and [`Cpu::instructions`] tells how many
    /// were completed.
    pub fn run(&mut self, entry: Entry, budget: u64) -> Exit {
        self.advance(entry, budget);
        *self.exit()
    }

    /// The last exit.
    #[must_use]
    pub fn exit(&self) -> &Exit {
        &self.core.exit
    }

    /// As [`Self::run`], for a caller that looks at parts of [`Self::exit`]: a copy of it as a
    /// whole, right after it was written in parts, takes as long as many instructions.
    pub fn advance(&mut self, entry: Entry, budget: u64) {
        let core = &mut *self.core;
        if core.is_shut_down {
            core.exit = Exit::Shutdown;
            return;
        }
        core.accesses.answer(entry);
        core.end = core.retired.saturating_add(budget);
        loop {
            let blocks = match self.cache.counter {
                None => self.blocks::<false>(),
                Some(_) => self.blocks::<true>(),
            };
            match blocks {
                Err(Stop::Exit) => {}
                Err(Stop::Shutdown) => self.core.exit = Exit::Shutdown,
                _ => continue,
            }
            self.core.collect();
            return;
        }
    }

    /// Executes blocks as long as each leads to the next one. An error is an exit. Executions are
    /// counted if `COUNTS`.
    fn blocks<const COUNTS: bool>(&mut self) -> Run {
        let core = &mut *self.core;
        // Before a kick, which the next run finds: who asked for one instruction hears that it was
        // executed.
        if core.retired >= core.end {
            core.exit = Exit::Budget;
            return Err(Stop::Exit);
        }
        if self.kick.load(Ordering::Relaxed)
            && core.accesses.is_empty()
            && self.kick.swap(false, Ordering::Acquire)
        {
            core.exit = Exit::Kicked;
            return Err(Stop::Exit);
        }
        if core.attention
            && let Some(step) = core.attend()?
        {
            let index = match self.cache.find(core) {
                Ok(index) => index,
                Err(stop) => return core.stopped(stop),
            };
            let Some(block) = self.cache.blocks.get(index) else { return Ok(()) };
            if COUNTS && let Some(counter) = &mut self.cache.counter {
                counter.begin(index, core.linear_rip(), block.offsets(), core.retired);
            }
            core.begin(block);
            let ops = block.ops.get(..1).unwrap_or_default();
            let outcome = execute(core, ops);
            if outcome.is_none() {
                core.next(&block.ops, 1);
            }
            // An instruction that faults is followed by no trap.
            let has_trap = !matches!(outcome, Some((Stop::Fault, _)));
            // HLT is an exit and complete.
            let is_halt = matches!(outcome, Some((Stop::JumpExit, _)));
            let result = core.outcome(outcome);
            let is_complete = is_halt || !matches!(result, Err(Stop::Exit | Stop::Shutdown));
            if is_complete && !core.events.alone {
                core.settle(step, has_trap);
            }
            return result;
        }
        let mut index = match self.cache.find(core) {
            Ok(index) => index,
            Err(stop) => return core.stopped(stop),
        };
        if !core.accesses.is_empty() {
            let block = self.cache.blocks.get(index);
            let Some(block) = block else { return Ok(()) };
            if COUNTS && let Some(counter) = &mut self.cache.counter {
                counter.begin(index, core.linear_rip(), block.offsets(), core.retired);
            }
            // The access may have led to an interrupt, which comes before the next instruction.
            let is_single = self.kick.load(Ordering::Relaxed);
            core.resume(block, is_single)?;
            if core.attention || core.retired >= core.end || self.kick.load(Ordering::Relaxed) {
                return Ok(());
            }
            index = match self.cache.find(core) {
                Ok(index) => index,
                Err(stop) => return core.stopped(stop),
            };
        }
        loop {
            let Some(block) = self.cache.blocks.get(index) else { return Ok(()) };
            if COUNTS && let Some(counter) = &mut self.cache.counter {
                counter.begin(index, core.linear_rip(), block.offsets(), core.retired);
            }
            core.begin(block);
            let room = core.end.wrapping_sub(core.retired);
            if room < u64::from(block.count) {
                let count = usize::try_from(room).unwrap_or(0);
                let outcome = execute(core, block.ops.get(..count).unwrap_or_default());
                if outcome.is_none() {
                    core.next(&block.ops, count);
                }
                return core.outcome(outcome);
            }
            let outcome = execute(core, &block.ops);
            if outcome.is_some() {
                return core.outcome(outcome);
            }
            core.retired = core.retired.wrapping_add(u64::from(block.count));
            if core.attention || core.retired >= core.end || self.kick.load(Ordering::Relaxed) {
                return Ok(());
            }
            let link = block.links.get(core.link & 1).copied().unwrap_or_default();
            if link.rip == core.rip && link.epoch == core.epoch {
                let next = link.index as usize;
                if self.cache.blocks.get(next).is_some_and(Block::is_fresh) {
                    index = next;
                    continue;
                }
            }
            let from = index;
            index = match self.cache.find(core) {
                Ok(index) => index,
                Err(stop) => return core.stopped(stop),
            };
            self.cache.link(core, from, index);
        }
    }
}

/// Executes instructions, up to one that stops.
#[inline(always)]
fn execute<'a>(core: &mut Core, ops: &'a [Op]) -> Option<(Stop, &'a Op)> {
    for op in ops {
        if let Err(stop) = (op.run)(core, op) {
            return Some((stop, op));
        }
    }
    None
}

impl Core {
    /// Begins with a block at RIP.
    #[inline(always)]
    fn begin(&mut self, block: &Block) {
        self.set_r(RIP, self.rip);
        // Reading MXCSR takes as long as several instructions, and most runs that end with an
        // access of a device have no use for it.
        if block.has_vectors & !self.has_flags {
            self.vector.begin();
            self.has_flags = true;
        }
    }

    /// Executes a block, or no more than one instruction. The first one has begun: its accesses of
    /// devices have been answered.
    #[inline(never)]
    fn resume(&mut self, block: &Block, is_single: bool) -> Run {
        self.begin(block);
        let room = if is_single { 1 } else { self.end.wrapping_sub(self.retired) };
        let is_whole = room >= u64::from(block.count);
        let count = usize::try_from(room).unwrap_or(usize::MAX);
        let ops = if is_whole { &*block.ops } else { block.ops.get(..count).unwrap_or_default() };
        let (first, rest) = ops.split_at_checked(1).unwrap_or_default();
        let mut outcome = execute(self, first);
        if outcome.is_none() {
            self.accesses.clear();
            outcome = execute(self, rest);
        }
        match outcome {
            None if is_whole => self.retired = self.retired.wrapping_add(u64::from(block.count)),
            None => self.next(&block.ops, count),
            Some(_) => return self.outcome(outcome),
        }
        Ok(())
    }

    /// Continues after the first `count` instructions of a block, none of which was a branch,
    /// unless it was all of them.
    fn next(&mut self, ops: &[Op], count: usize) {
        self.retired = self.retired.wrapping_add(count as u64);
        if let Some(op) = ops.get(count) {
            let rip = self.r(RIP).wrapping_add(u64::from(op.start));
            self.rip = if self.is_64() { rip } else { rip & 0xffff_ffff };
        }
    }

    /// Handles what an instruction stopped with. An error is an exit.
    fn outcome(&mut self, outcome: Option<(Stop, &Op)>) -> Run {
        let Some((stop, op)) = outcome else { return Ok(()) };
        let completes = matches!(stop, Stop::Jump | Stop::JumpExit);
        let done = u64::from(op.position).wrapping_add(u64::from(completes));
        self.retired = self.retired.wrapping_add(done);
        if !completes {
            self.rip = self.rip_of(op);
        }
        if stop == Stop::Fault && self.fault.is_non_canonical && op.flags & STACK != 0 {
            self.fault.vector = exception::SS;
        }
        self.stopped(stop)
    }

    /// Takes one from the budget for what is no complete instruction.
    fn use_budget(&mut self) {
        self.end = self.end.saturating_sub(1).max(self.retired);
    }

    /// Handles a stop at RIP. An error is an exit.
    fn stopped(&mut self, stop: Stop) -> Run {
        match stop {
            Stop::Fault => {
                self.accesses.clear();
                self.use_budget();
                self.deliver_fault()
            }
            Stop::Again => {
                self.accesses.clear();
                self.use_budget();
                Ok(())
            }
            Stop::Jump => {
                self.accesses.clear();
                Ok(())
            }
            Stop::Alone => {
                self.accesses.rewind();
                self.events.alone = true;
                self.attention = true;
                Ok(())
            }
            Stop::JumpExit => {
                self.attention = true;
                self.accesses.clear();
                Err(Stop::Exit)
            }
            Stop::Exit | Stop::Shutdown => Err(stop),
        }
    }
}
