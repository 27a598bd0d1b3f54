//! Descriptor chains of split virtqueues (virtio 1.2, 2.7.5), taken strictly.

use nerite_memory::GuestRam;

/// A descriptor is followed by the one it names (2.7.5).
const NEXT: u16 = 1;
/// The device writes the buffer; otherwise it reads it.
const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
const INDIRECT: u16 = 4;
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// A piece of guest memory, in RAM from the first byte to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes, not zero.
    pub length: u32,
}

/// A chain that no driver may offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A descriptor's number is not in its table (2.7.5).
    #[error("descriptor {index} is not in a table of {size}")]
    Index {
        /// The number.
        index: u16,
        /// Number of descriptors in the table.
        size: u32,
    },
    /// More descriptors than there may be in the ring or in an indirect table, as when a chain ends
    /// in itself (2.7.5.2).
    #[error("a chain of more than {0} descriptors")]
    TooLong(u16),
    /// A buffer is not in RAM.
    #[error("the buffer of {length} bytes at {address:#x} is not in RAM")]
    OutsideRam {
        /// Address that the driver gave.
        address: u64,
        /// Its length in bytes.
        length: u32,
    },
    /// A buffer for the device to read follows one for it to write (2.7.4.2).
    #[error("a buffer to read follows one to write")]
    Order,
    /// An indirect table although that was not negotiated, in an indirect table, or with a
    /// successor (2.7.5.3.1).
    #[error("an indirect table where none may be")]
    Indirect,
    /// An indirect table that is empty or does not hold whole descriptors (2.7.5.3.2).
    #[error("an indirect table of {0} bytes")]
    IndirectLength(u32),
}

/// One request of the driver: buffers to read, then buffers to write.
///
/// The pieces lie in a vector that is used again for the next chain. Buffers of no bytes are left
/// out.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    segments: Vec<Segment>,
    /// Number of `segments` that are for the device to read.
    readable: usize,
    readable_bytes: u64,
    writable_bytes: u64,
    head: u16,
}

/// The descriptor table of a queue, and what its chains may be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ring {
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// The number of its entries, which is also the longest chain without an indirect table.
    pub size: u16,
    /// The most descriptors of an indirect table that a chain uses; `None` if indirect tables were
    /// not negotiated.
    pub max_indirect: Option<u16>,
}

/// Table in which descriptors are looked up.
#[derive(Clone, Copy)]
struct Table {
    address: u64,
    size: u32,
}

struct Descriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Chain {
    /// An empty chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Segments that the device reads.
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.readable).unwrap_or_default()
    }

    /// Segments that the device writes.
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.readable..).unwrap_or_default()
    }

    /// The number of bytes that the device can read. At most the number of descriptors times 4 GiB.
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// Number of bytes that the device can write.
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// The number of the first descriptor, under which the chain is given back.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Copies what the device can read, from byte `offset` on, to `to`. Returns how many bytes
    /// there were.
    pub fn copy_out(&self, ram: &GuestRam, offset: u64, to: &mut [u8]) -> usize {
        let mut rest = &mut *to;
        let mut done = 0_usize;
        for piece in pieces(self.readable(), offset, rest.len() as u64) {
            let Some((now, later)) = rest.split_at_mut_checked(piece.length as usize) else {
                break;
            };
            // It was in RAM when the chain was taken, and RAM does not shrink.
            if ram.read(piece.address, now).is_err() {
                break;
            }
            done = done.saturating_add(now.len());
            rest = later;
        }
        done
    }

    /// Copies `from` to where the device can write, from byte `offset` on. Returns how many bytes
    /// had room.
    pub fn copy_in(&self, ram: &GuestRam, offset: u64, from: &[u8]) -> usize {
        let mut rest = from;
        for piece in pieces(self.writable(), offset, rest.len() as u64) {
            let Some((now, later)) = rest.split_at_checked(piece.length as usize) else { break };
            // It was in RAM when the chain was taken, and RAM does not shrink.
            if ram.write(piece.address, now).is_err() {
                break;
            }
            rest = later;
        }
        from.len().saturating_sub(rest.len())
    }

    /// Takes the chain that starts with descriptor `head` of `ring`.
    ///
    /// Each descriptor is read once: no more of the ring than it has, and no more of an indirect
    /// table than [`Ring::max_indirect`].
    ///
    /// # Errors
    /// If it is malformed. What is taken by then is to be ignored.
    pub fn take(&mut self, ram: &GuestRam, ring: &Ring, head: u16) -> Result<(), ChainError> {
        self.segments.clear();
        (self.readable, self.readable_bytes, self.writable_bytes) = (0, 0, 0);
        self.head = head;
        let table = Table { address: ring.descriptors, size: ring.size.into() };
        match self.walk(ram, &table, head, ring.size)? {
            None => Ok(()),
            Some(descriptor) => {
                let most = ring.max_indirect.ok_or(ChainError::Indirect)?;
                // An indirect table in an indirect table is none (2.7.5.3.1).
                match self.walk(ram, &Table::indirect(&descriptor)?, 0, most)? {
                    None => Ok(()),
                    Some(_) => Err(ChainError::Indirect),
                }
            }
        }
    }

    /// Takes the descriptors of `table` from number `next` on, at most `most` of them. Returns the
    /// one that ends them by pointing to an indirect table, if it does.
    fn walk(
        &mut self,
        ram: &GuestRam,
        table: &Table,
        mut next: u16,
        most: u16,
    ) -> Result<Option<Descriptor>, ChainError> {
        for _ in 0..most {
            let descriptor = table.read(ram, next)?;
            if descriptor.flags & INDIRECT != 0 {
                // Not followed by another descriptor.
                let is_last = descriptor.flags & NEXT == 0;
                return if is_last { Ok(Some(descriptor)) } else { Err(ChainError::Indirect) };
            }
            self.add(ram, &descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(None);
            }
            next = descriptor.next;
        }
        Err(ChainError::TooLong(most))
    }

    fn add(&mut self, ram: &GuestRam, descriptor: &Descriptor) -> Result<(), ChainError> {
        let Descriptor { address, length, flags, .. } = *descriptor;
        if ram.check(address, length.into()).is_err() {
            return Err(ChainError::OutsideRam { address, length });
        }
        let is_writable = flags & WRITE != 0;
        if !is_writable && self.writable_bytes > 0 {
            return Err(ChainError::Order);
        }
        if length == 0 {
            return Ok(());
        }
        self.segments.push(Segment { address, length });
        if is_writable {
            self.writable_bytes = self.writable_bytes.saturating_add(length.into());
        } else {
            self.readable = self.segments.len();
            self.readable_bytes = self.readable_bytes.saturating_add(length.into());
        }
        Ok(())
    }
}

/// Parts of `segments` that hold `length` bytes from byte `offset` on, in order; fewer if the
/// segments end before.
pub fn pieces(
    segments: &[Segment],
    offset: u64,
    length: u64,
) -> impl Iterator<Item = Segment> + '_ {
    let (mut skip, mut left) = (offset, length);
    segments.iter().filter_map(move |segment| {
        let skipped = u32::try_from(skip).unwrap_or(u32::MAX).min(segment.length);
        skip = skip.saturating_sub(skipped.into());
        let rest = segment.length.saturating_sub(skipped);
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(rest);
        left = left.saturating_sub(length.into());
        let address = segment.address.saturating_add(skipped.into());
        (length > 0).then_some(Segment { address, length })
    })
}

impl Table {
    /// The table that `descriptor` points to. The flag that says whether the device writes it is
    /// ignored (2.7.5.3.2).
    fn indirect(descriptor: &Descriptor) -> Result<Self, ChainError> {
        let Descriptor { address, length, .. } = *descriptor;
        let size = u64::from(length) / DESCRIPTOR;
        if size == 0 || !u64::from(length).is_multiple_of(DESCRIPTOR) {
            return Err(ChainError::IndirectLength(length));
        }
        let size = u32::try_from(size).map_err(|_| ChainError::IndirectLength(length))?;
        Ok(Self { address, size })
    }

    fn read(&self, ram: &GuestRam, index: u16) -> Result<Descriptor, ChainError> {
        if u32::from(index) >= self.size {
            return Err(ChainError::Index { index, size: self.size });
        }
        let length = 16;
        let offset = u64::from(index).saturating_mul(DESCRIPTOR);
        let address = self.address.saturating_add(offset);
        let mut bytes = [0; 16];
        ram.read(address, &mut bytes).map_err(|_| ChainError::OutsideRam { address, length })?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = bytes;
        Ok(Descriptor {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: u64, length: u32) -> Segment {
        Segment { address, length }
    }

    #[test]
    fn pieces_are_cut_at_both_ends() {
        let segments = [segment(100, 10), segment(200, 1), segment(300, 10)];
        let cut = |offset, length| pieces(&segments, offset, length).collect::<Vec<_>>();
        assert_eq!(cut(0, 21), segments);
        assert_eq!(cut(0, u64::MAX), segments);
        assert_eq!(cut(9, 3), [segment(109, 1), segment(200, 1), segment(300, 1)]);
        assert_eq!(cut(10, 1), [segment(200, 1)]);
        assert_eq!(cut(20, 5), [segment(309, 1)]);
        assert_eq!(cut(21, 5), []);
        assert_eq!(cut(u64::MAX, u64::MAX), []);
        assert_eq!(cut(3, 0), []);
    }

    #[cfg(feature = "fake")]
    #[test]
    fn bytes_are_gathered_and_scattered() {
        use crate::fake::{RAM, ram};
        let ram = ram(1 << 20);
        ram.write(RAM, b"abcdef").unwrap();
        let segments =
            vec![segment(RAM, 2), segment(RAM + 3, 3), segment(RAM + 16, 2), segment(RAM + 32, 2)];
        let chain = Chain { segments, readable: 2, readable_bytes: 5, writable_bytes: 4, head: 0 };
        let mut got = [0; 8];
        assert_eq!(chain.copy_out(&ram, 1, &mut got), 4);
        assert_eq!(&got[..4], b"bdef");
        assert_eq!(chain.copy_in(&ram, 1, b"xyzu"), 3);
        assert_eq!(ram.read_cstr(RAM + 17, 9).unwrap(), b"x");
        assert_eq!(ram.read_cstr(RAM + 32, 9).unwrap(), b"yz");
    }
}
