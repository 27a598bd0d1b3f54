//! From bytes to blocks.

mod forms;
mod operands;
mod select;
mod select_data;
mod select_system;

use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction};

use crate::access::page_offset;
use crate::block::{Block, LONGEST, Link, Source};
use crate::core::{Core, Mode, Run};
use crate::op::{BRANCH, Op, VECTOR};
use crate::ops;

/// Length of the longest instruction (Intel SDM vol. 2, 2.3.11).
const LONGEST_INSTRUCTION: usize = 15;

/// Copies code from RAM, as much as there is of it.
pub(crate) fn read<'a>(
    core: &mut Core,
    address: u64,
    len: usize,
    buffer: &'a mut [u8],
) -> &'a [u8] {
    let Some(part) = buffer.get_mut(..len) else { return &[] };
    match core.physical.page(address).and_then(|page| page.read(page_offset(address), part)) {
        Some(()) => part,
        None => &[],
    }
}

/// Marks code as decoded, in the shared record and in this processor's TLB.
fn mark(core: &mut Core, address: u64, len: usize) -> Source {
    let chunk = core.code.chunk(address);
    let first = address & 0xfff;
    let last = first.wrapping_add(len as u64).wrapping_sub(1).min(0xfff);
    let (generation, is_new) = chunk.mark(address, first, last);
    let page = address & !0xfff;
    if core.protected.len() > 1 << 16 {
        core.protected.clear();
    }
    if core.protected.insert(page) || is_new {
        core.tlb.protect(page);
    }
    Source { chunk, address, generation }
}

/// Decodes the block at a linear and guest-physical address. No more than `room` bytes belong to
/// it.
pub(crate) fn block(core: &mut Core, linear: u64, address: u64, room: u64) -> Run<Block> {
    let mut buffer = [0; LONGEST * LONGEST_INSTRUCTION];
    let in_page = 0x1000_usize.wrapping_sub(page_offset(address));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let first = in_page.min(room).min(LONGEST * LONGEST_INSTRUCTION);
    if core.physical.page(address).is_none() {
        core.report_unsupported(0xffff_0003, "code outside of RAM");
        return core.undefined();
    }
    let source = mark(core, address, first);
    let bytes = read(core, address, first, &mut buffer);
    let mut ops = instructions(core, bytes);
    let mut second = None;
    let mut kept: Box<[u8]> = Box::new([]);
    if ops.is_empty() && first < LONGEST_INSTRUCTION && room > in_page {
        // The instruction extends into the next page.
        let next = core.fetch_address(core.wrap((linear & !0xfff).wrapping_add(0x1000)))?;
        let more = LONGEST_INSTRUCTION.wrapping_sub(first).min(room.wrapping_sub(in_page));
        second = Some(mark(core, next, more));
        let mut rest = [0; LONGEST_INSTRUCTION];
        let rest = read(core, next, more, &mut rest);
        let whole: Vec<u8> = bytes.iter().chain(rest).copied().collect();
        ops = instructions(core, &whole);
        ops.truncate(1);
    } else if let Some(last) = ops.last() {
        kept = bytes.get(..usize::from(last.end)).unwrap_or_default().into();
    }
    if ops.is_empty() {
        // Longer than the code segment.
        return core.protection_fault(0);
    }
    let length = ops.last().map_or(0, |op| usize::from(op.end));
    // No more than `LONGEST`.
    let count = u32::try_from(ops.len()).unwrap_or(0);
    let has_vectors = ops.iter().any(|op| op.flags & VECTOR != 0);
    if ops.last().is_none_or(|op| op.flags & BRANCH == 0) {
        let mut end = Op::new(ops::branch::end);
        end.start = u16::try_from(length).unwrap_or(u16::MAX);
        end.end = end.start;
        end.imm = if core.mode == Mode::Bits64 { u64::MAX } else { 0xffff_ffff };
        ops.push(end);
    }
    Ok(Block {
        ops: ops.into(),
        count,
        has_vectors,
        length: length as u64,
        source,
        second,
        links: [Link::default(); 2],
        bytes: kept,
    })
}

/// Decodes instructions up to the first one that ends a block.
fn instructions(core: &mut Core, bytes: &[u8]) -> Vec<Op> {
    let bits = match core.mode {
        Mode::Bits16 => 16,
        Mode::Bits32 => 32,
        Mode::Bits64 => 64,
    };
    let mut decoder = Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE);
    let mut ops = Vec::new();
    let mut instruction = Instruction::default();
    while ops.len() < LONGEST && decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut instruction);
        let is_short = decoder.last_error() == DecoderError::NoMoreBytes;
        if is_short && bytes.len().wrapping_sub(start) < LONGEST_INSTRUCTION {
            break;
        }
        let is_too_long = instruction.is_invalid() && instruction.len() >= LONGEST_INSTRUCTION;
        let mut op = if is_short || is_too_long {
            Op::new(ops::system::too_long)
        } else {
            let bytes = bytes.get(start..decoder.position()).unwrap_or_default();
            select::op(core, &instruction, bytes)
        };
        op.start = u16::try_from(start).unwrap_or(u16::MAX);
        op.end = u16::try_from(decoder.position()).unwrap_or(u16::MAX);
        op.position = u8::try_from(ops.len()).unwrap_or(u8::MAX);
        if instruction.is_ip_rel_memory_operand() {
            // The address that was computed for a block at 0 is relative to the block.
            op.disp = instruction.memory_displacement64();
        }
        let ends = is_short || ends_block(&instruction);
        ops.push(op);
        if ends {
            break;
        }
    }
    ops
}

/// `true` if the instruction is the last one of a block: it jumps, or the next one may be another
/// one than it was when the block was decoded.
fn ends_block(instruction: &Instruction) -> bool {
    instruction.flow_control() != FlowControl::Next
}
