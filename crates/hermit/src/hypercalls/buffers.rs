//! The pieces of guest memory that a call's buffer consists of.

use nerite_arch::paging::{self, Root};
use nerite_hypercall::errno::EFAULT;
use nerite_memory::{AccessError, GuestRam};
use vm_memory::VolatileSlice;

/// Bytes that are moved between guest memory and the host at a time.
pub(crate) const CHUNK: usize = 64 << 10;

/// A vCPU's buffer on the way between guest memory and the host. It grows a few times at most, as
/// most guests write lines.
#[derive(Debug, Default)]
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// Size that fits a line.
    const SMALL: usize = 4 << 10;

    /// The first `length` bytes, or as many as there can be.
    pub(crate) fn first(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(CHUNK);
        if length > self.0.len() {
            self.0 = vec![0; if length > Self::SMALL { CHUNK } else { Self::SMALL }];
        }
        self.0.get_mut(..length).unwrap_or_default()
    }
}

/// Place of a buffer: the meaning of its address differs between the interface versions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffer {
    /// Guest-physical and contiguous (v2, and v1's serial buffer).
    Physical { address: u64, length: u64 },
    /// Guest-virtual, through these page tables (v1's file calls). Without tables it is nowhere.
    Virtual { root: Option<Root>, address: u64, length: u64 },
}

impl Buffer {
    /// The length the guest gave.
    pub(crate) const fn length(&self) -> u64 {
        match self {
            Self::Physical { length, .. } | Self::Virtual { length, .. } => *length,
        }
    }

    /// The part of the buffer from `offset` on, at most `length` bytes of it.
    fn part(&self, offset: u64, length: u64) -> Option<Self> {
        let length = length.min(self.length().checked_sub(offset)?);
        Some(match *self {
            Self::Physical { address, .. } => {
                Self::Physical { address: address.checked_add(offset)?, length }
            }
            Self::Virtual { root, address, .. } => {
                Self::Virtual { root, address: address.checked_add(offset)?, length }
            }
        })
    }

    /// `true` if all of it lies in RAM. What is checked is limited to the size of RAM: no longer
    /// buffer can be right.
    pub(crate) fn check(&self, ram: &GuestRam) -> Result<(), i32> {
        if self.length() > ram.size() {
            return Err(EFAULT);
        }
        self.for_each_piece(ram, |address, length| ram.check(address, length))
    }

    /// Copies the buffer's bytes from `offset` on into `to`, as many as fit. Returns how many.
    pub(crate) fn read(&self, ram: &GuestRam, offset: u64, to: &mut [u8]) -> Result<usize, i32> {
        let part = self.part(offset, to.len() as u64).ok_or(EFAULT)?;
        let mut done = 0_usize;
        part.for_each_piece(ram, |address, length| {
            let (start, end) = piece(done, address, length)?;
            let to = to.get_mut(start..end).ok_or(AccessError { addr: address, len: length })?;
            done = end;
            ram.read(address, to)
        })?;
        Ok(done)
    }

    /// Copies `from` to the buffer's beginning. It must not be longer than the buffer.
    pub(crate) fn write(&self, ram: &GuestRam, from: &[u8]) -> Result<(), i32> {
        let part = self.part(0, from.len() as u64).ok_or(EFAULT)?;
        let mut done = 0_usize;
        part.for_each_piece(ram, |address, length| {
            let (start, end) = piece(done, address, length)?;
            let from = from.get(start..end).ok_or(AccessError { addr: address, len: length })?;
            done = end;
            ram.write(address, from)
        })
    }

    /// The host memory behind the buffer, in order, one piece for each stretch that is contiguous
    /// for the guest.
    ///
    /// The pieces end early where page tables, which can change at any time, lead out of RAM: check
    /// first.
    pub(crate) fn pieces<'a>(
        &self,
        ram: &'a GuestRam,
    ) -> impl Iterator<Item = VolatileSlice<'a>> + use<'a> {
        let (physical, pages) = match *self {
            Self::Physical { address, length } => (Some((address, length)), None),
            Self::Virtual { root, address, length } => {
                let read = |entry| ram.read_obj::<u64>(entry).ok();
                (
                    None,
                    root.map(|root| {
                        paging::chunks(root, address, length, read).map_while(Result::ok)
                    }),
                )
            }
        };
        let mut pages = pages.into_iter().flatten().peekable();
        let joined = std::iter::from_fn(move || {
            let (address, mut length) = pages.next()?;
            let follows =
                |&(next, _): &(u64, u64), length| address.checked_add(length) == Some(next);
            while let Some((_, more)) = pages.next_if(|page| follows(page, length)) {
                length = length.saturating_add(more);
            }
            Some((address, length))
        });
        let ranges = physical.into_iter().chain(joined);
        ranges.map_while(|(address, length)| ram.slices(address, length).ok()).flatten()
    }

    /// Reports that the first `length` bytes of [`Self::pieces`] were written, in host memory.
    pub(crate) fn written(&self, ram: &GuestRam, length: u64) {
        let Some(part) = self.part(0, length) else { return };
        // Where the page tables lead out of RAM by now, nothing was written.
        let _ = part.for_each_piece(ram, |address, length| {
            ram.written(address, length);
            Ok(())
        });
    }

    /// Calls `visit` with each contiguous guest-physical piece: address and length.
    fn for_each_piece(
        &self,
        ram: &GuestRam,
        mut visit: impl FnMut(u64, u64) -> Result<(), AccessError>,
    ) -> Result<(), i32> {
        match *self {
            Self::Physical { address, length } => visit(address, length).map_err(|_| EFAULT),
            Self::Virtual { root, address, length } => {
                let read = |entry| ram.read_obj::<u64>(entry).ok();
                for piece in paging::chunks(root.ok_or(EFAULT)?, address, length, read) {
                    let (address, length) = piece.map_err(|_| EFAULT)?;
                    visit(address, length).map_err(|_| EFAULT)?;
                }
                Ok(())
            }
        }
    }
}

fn piece(done: usize, address: u64, length: u64) -> Result<(usize, usize), AccessError> {
    let end = usize::try_from(length).ok().and_then(|length| done.checked_add(length));
    end.map(|end| (done, end)).ok_or(AccessError { addr: address, len: length })
}

#[cfg(test)]
mod tests {
    use nerite_memory::{Backing, Region};

    use super::*;

    const MIB: u64 = 1 << 20;
    const WRITABLE_PRESENT: u64 = 3;

    /// Four MiB at 0 and two more at 5 GiB, with page tables from 0x1000 on that map pages as
    /// `pages` says.
    fn guest(pages: &[(u64, u64)]) -> GuestRam {
        let regions =
            [Region { start: 0, size: 4 * MIB }, Region { start: 5 << 30, size: 2 * MIB }];
        let ram = GuestRam::new(&regions, &Backing::default()).unwrap();
        for (table, next) in [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000)] {
            ram.write_obj(table, &(next | WRITABLE_PRESENT)).unwrap();
        }
        for (page, physical) in pages {
            ram.write_obj(0x4000 + page * 8, &(physical | WRITABLE_PRESENT)).unwrap();
        }
        ram
    }

    /// Offset in its region and length of each piece.
    fn pieces(ram: &GuestRam, buffer: Buffer) -> Vec<(u64, usize)> {
        let guest_address = |host: usize| {
            let mut mappings = ram.mappings();
            let found = mappings
                .find(|mapping| (host.wrapping_sub(mapping.host.addr()) as u64) < mapping.size);
            found.map(|mapping| mapping.guest + (host - mapping.host.addr()) as u64).unwrap()
        };
        let pieces = buffer.pieces(ram);
        pieces
            .map(|piece| (guest_address(piece.ptr_guard().as_ptr().addr()), piece.len()))
            .collect()
    }

    #[test]
    fn a_megabyte_in_one_place_is_one_piece() {
        let ram = guest(&[]);
        let buffer = Buffer::Physical { address: 0x1234, length: MIB };
        assert_eq!(pieces(&ram, buffer), [(0x1234, 1 << 20)]);
        // As are pages that follow one another.
        let pages: Vec<_> = (0..256).map(|page| (page, MIB + page * 4096)).collect();
        let ram = guest(&pages);
        let buffer =
            Buffer::Virtual { root: Some(Root::from(0x1000)), address: 5, length: MIB - 5 };
        assert_eq!(buffer.check(&ram), Ok(()));
        assert_eq!(pieces(&ram, buffer), [(MIB + 5, (1 << 20) - 5)]);
    }

    #[test]
    fn scattered_pages_are_pieces_in_order() {
        let high = 5 << 30;
        let ram = guest(&[(0, 0x9000), (1, 0xa000), (2, 0x8000), (3, high)]);
        let buffer =
            Buffer::Virtual { root: Some(Root::from(0x1000)), address: 0xff0, length: 0x2020 };
        assert_eq!(pieces(&ram, buffer), [(0x9ff0, 0x1010), (0x8000, 0x1000), (high, 0x10)]);
    }

    #[test]
    fn pieces_end_where_memory_does() {
        let ram = guest(&[(0, 0x9000), (1, 4 * MIB), (2, 0x8000)]);
        let buffer = Buffer::Virtual { root: Some(Root::from(0x1000)), address: 0, length: 0x3000 };
        assert_eq!(buffer.check(&ram), Err(EFAULT));
        // What is behind a hole must not move into its place.
        assert_eq!(pieces(&ram, buffer), [(0x9000, 0x1000)]);
        for (address, length) in
            [(4 * MIB - 1, 2), (u64::MAX, 2), (0, u64::MAX), (3 * MIB, 5 << 30)]
        {
            let buffer = Buffer::Physical { address, length };
            assert_eq!(buffer.check(&ram), Err(EFAULT));
            assert_eq!(pieces(&ram, buffer), []);
        }
        assert_eq!(Buffer::Physical { address: u64::MAX, length: 0 }.check(&ram), Ok(()));
    }
}
