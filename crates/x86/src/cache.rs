//! Decoded blocks that are kept, and the ways to them.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::block::{Block, LONGEST, Link, Source};
use crate::code::Chunk;
use crate::core::{Core, Run};
use crate::count::Counter;
use crate::decode;
use crate::registers::CS;

/// Blocks, and their instructions, that are kept at most.
const BLOCKS: usize = 1 << 15;
const OPS: usize = 1 << 18;
/// Entries of the table of addresses of code.
const JUMPS: usize = 4096;

/// A hash for addresses.
#[derive(Debug, Clone, Copy, Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// A way to a block from anywhere.
#[derive(Debug, Clone, Copy, Default)]
struct Jump {
    linear: u64,
    epoch: u32,
    index: u32,
    key: u16,
}

/// Decoded blocks by guest-physical address and mode.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) blocks: Vec<Block>,
    places: HashMap<u64, u32, BuildHasherDefault<AddressHasher>>,
    /// All, or none before the first block: many processors wait for their first instruction.
    jumps: Box<[Jump]>,
    ops: usize,
    /// Counts executions, if that is asked for.
    pub(crate) counter: Option<Box<Counter>>,
}

impl Cache {
    /// Finds the block at RIP, or decodes it.
    pub(crate) fn find(&mut self, core: &mut Core) -> Run<usize> {
        let linear = core.linear_rip();
        let slot = (linear ^ linear >> 12) as usize & (JUMPS - 1);
        if let Some(jump) = self.jumps.get(slot)
            && jump.linear == linear
            && jump.epoch == core.epoch
            && jump.key == core.key
            && self.blocks.get(jump.index as usize).is_some_and(Block::is_fresh)
        {
            return Ok(jump.index as usize);
        }
        let index = self.find_slow(core, linear)?;
        if self.jumps.is_empty() {
            self.jumps = vec![Jump::default(); JUMPS].into_boxed_slice();
        }
        let can_be_linked = self.blocks.get(index).is_some_and(Block::can_be_linked);
        if let Some(jump) = self.jumps.get_mut(slot)
            && can_be_linked
            && index != 0
        {
            *jump = Jump {
                linear,
                epoch: core.epoch,
                index: u32::try_from(index).unwrap_or(0),
                key: core.key,
            };
        }
        Ok(index)
    }

    #[cold]
    #[inline(never)]
    fn find_slow(&mut self, core: &mut Core, linear: u64) -> Run<usize> {
        let limit = u64::from(core.segment(CS).limit);
        if !core.is_64() && core.rip > limit {
            return core.protection_fault(0);
        }
        // Bytes before the end of the code segment.
        let room =
            if core.is_64() { u64::MAX } else { limit.wrapping_sub(core.rip).wrapping_add(1) };
        let address = core.fetch_address(linear)?;
        // Addresses have 52 bits.
        let place = address | u64::from(core.key) << 52;
        if let Some(index) = self.places.get(&place).map(|index| *index as usize)
            && let Some(block) = self.blocks.get_mut(index)
        {
            if block.is_fresh() && block.length <= room && is_current(block, core, linear)? {
                return Ok(index);
            }
            let new = decode::block(core, linear, address, room)?;
            if room < new.length.saturating_add(15) {
                return Ok(self.put_scratch(core, new));
            }
            if let Some(counter) = &mut self.counter {
                counter.report(index, core.retired);
            }
            // Links to it stay: they mean this place.
            self.ops = self.ops.saturating_sub(block.ops.len()).saturating_add(new.ops.len());
            *block = new;
            return Ok(index);
        }
        let new = decode::block(core, linear, address, room)?;
        if room < new.length.saturating_add(15) {
            return Ok(self.put_scratch(core, new));
        }
        if self.blocks.len() >= BLOCKS || self.ops.saturating_add(new.ops.len()) > OPS {
            self.clear(core);
        }
        self.put_scratch_if_empty();
        let index = self.blocks.len();
        self.ops = self.ops.saturating_add(new.ops.len());
        self.places.insert(place, u32::try_from(index).unwrap_or(0));
        self.blocks.push(new);
        Ok(index)
    }

    /// Makes a way from a block to the one at RIP.
    pub(crate) fn link(&mut self, core: &Core, from: usize, to: usize) {
        let can_be_linked =
            to != 0 && from != 0 && self.blocks.get(to).is_some_and(Block::can_be_linked);
        if can_be_linked
            && let Some(block) = self.blocks.get_mut(from)
            && let Some(link) = block.links.get_mut(core.link & 1)
        {
            *link =
                Link { rip: core.rip, epoch: core.epoch, index: u32::try_from(to).unwrap_or(0) };
        }
    }

    /// Keeps a block that is used once, because the code segment ends near it. It has index 0.
    fn put_scratch(&mut self, core: &Core, block: Block) -> usize {
        match self.blocks.first_mut() {
            Some(first) => {
                if let Some(counter) = &mut self.counter {
                    counter.report(0, core.retired);
                }
                *first = block;
            }
            None => self.blocks.push(block),
        }
        0
    }

    fn put_scratch_if_empty(&mut self) {
        if self.blocks.is_empty() {
            let source = Source { chunk: Arc::new(Chunk::default()), address: 0, generation: 1 };
            self.blocks.push(Block {
                ops: Box::new([]),
                count: 0,
                has_vectors: false,
                length: 0,
                source,
                second: None,
                links: [Link::default(); 2],
                bytes: Box::new([]),
            });
        }
    }

    /// Reports the executions that are counted.
    pub(crate) fn report(&mut self, retired: u64) {
        if let Some(counter) = &mut self.counter {
            counter.report_all(retired);
        }
    }

    /// Drops all blocks.
    pub(crate) fn clear(&mut self, core: &mut Core) {
        self.report(core.retired);
        self.blocks.clear();
        self.places.clear();
        self.ops = 0;
        core.epoch = core.epoch.wrapping_add(1);
    }
}

/// Compares a block with memory where it is in doubt: when it is used the second time (another
/// processor may have been writing the code while it was decoded), and each time if it is in two
/// pages.
fn is_current(block: &mut Block, core: &mut Core, linear: u64) -> Run<bool> {
    if let Some(second) = &block.second {
        let next = core.fetch_address(core.wrap((linear & !0xfff).wrapping_add(0x1000)))?;
        if next != second.address || !second.is_fresh() {
            return Ok(false);
        }
    }
    let bytes = std::mem::take(&mut block.bytes);
    if bytes.is_empty() {
        return Ok(true);
    }
    let mut now = [0; LONGEST * 15];
    let first =
        usize::try_from(0x1000_u64.saturating_sub(linear & 0xfff)).unwrap_or(0).min(bytes.len());
    let (head, tail) = bytes.split_at_checked(first).unwrap_or_default();
    let same_head = decode::read(core, block.source.address, head.len(), &mut now) == head;
    let second = block.second.as_ref().map_or(0, |second| second.address);
    Ok(same_head && (tail.is_empty() || decode::read(core, second, tail.len(), &mut now) == tail))
}
