//! Decoded code: blocks of instructions that are executed one after the other.

use std::sync::Arc;

use crate::code::Chunk;
use crate::op::Op;

/// Instructions of a block at most.
pub(crate) const LONGEST: usize = 32;
/// A way from one block to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Link {
    /// RIP of the next block.
    pub(crate) rip: u64,
    /// [`Core::epoch`] when the way was found, or 0.
    pub(crate) epoch: u32,
    pub(crate) index: u32,
}

/// Code of one page and a generation of it.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) address: u64,
    pub(crate) generation: u32,
}

impl Source {
    #[inline(always)]
    pub(crate) fn is_fresh(&self) -> bool {
        self.chunk.generation(self.address) == self.generation
    }
}

/// Instructions that are executed one after the other. Of 128 bytes: its address is computed from
/// its number for each one that is executed.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) ops: Box<[Op]>,
    /// Instructions of the guest among them.
    pub(crate) count: u32,
    /// There are vector instructions among them.
    pub(crate) has_vectors: bool,
    /// Length in bytes.
    pub(crate) length: u64,
    pub(crate) source: Source,
    /// The second page of a block whose only instruction is in two.
    pub(crate) second: Option<Source>,
    pub(crate) links: [Link; 2],
    /// The bytes, until they have been compared with memory a second time.
    pub(crate) bytes: Box<[u8]>,
}

const _: () = assert!(size_of::<Block>() == 128);

impl Block {
    #[inline(always)]
    pub(crate) fn is_fresh(&self) -> bool {
        self.source.is_fresh()
    }

    /// Offsets of the guest's instructions.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = u16> {
        self.ops.iter().take(self.count as usize).map(|op| op.start)
    }

    /// `true` if other blocks may lead here without a look at the page tables.
    #[inline(always)]
    pub(crate) fn can_be_linked(&self) -> bool {
        self.second.is_none() && self.bytes.is_empty()
    }
}
