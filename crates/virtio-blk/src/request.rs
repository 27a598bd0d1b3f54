//! One request (virtio 1.2, 5.2.6): a header, data, and a byte for the answer.

use std::io;

use nerite_memory::GuestRam;
use nerite_virtio::{Chain, Segment, pieces};

use crate::config::{MAX_DISCARD_SECTORS, MAX_REQUEST, MAX_ZERO_SECTORS, feature};
use crate::counters::Counters;
use crate::disk::{Disk, Range, SECTOR};
use crate::spec::MAX_SERIAL;

/// Kinds of requests.
mod kind {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// Answers.
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// Bytes of a header: kind, priority, first sector.
const HEADER: u64 = 16;
/// Bytes that say what to discard or zero: first sector, how many, flags.
const DISCARD: u64 = 16;
/// A flag of zeroing: the sectors may be given back.
const UNMAP: u32 = 1;
/// How many errors are told of before it is enough.
const LOUD_ERRORS: u64 = 16;

/// A request that no driver may make, and that has no room for an answer. The device needs a reset.
#[derive(Debug, thiserror::Error)]
#[error("a request with {readable} bytes to read and {writable} to write: 16 and 1 are the least")]
pub(crate) struct Malformed {
    readable: u64,
    writable: u64,
}

/// Why a request is answered with an error.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// There is no such request, or it was not agreed on.
    #[error("a request of a kind that is not offered")]
    Unsupported,
    /// The driver asks for what it must not.
    #[error("a request that is not allowed: {0}")]
    NotAllowed(&'static str),
    /// The host cannot.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// What serves a disk's requests.
pub(crate) struct Server<'a> {
    pub(crate) disk: &'a mut dyn Disk,
    pub(crate) ram: &'a GuestRam,
    pub(crate) features: u64,
    pub(crate) serial: &'a [u8; MAX_SERIAL],
    pub(crate) counters: &'a Counters,
}

impl Server<'_> {
    /// Does what `chain` asks for, and answers. Returns how many bytes were written to the guest.
    pub(crate) fn serve(&mut self, chain: &Chain) -> Result<u32, Malformed> {
        let (readable, writable) = (chain.readable_bytes(), chain.writable_bytes());
        let Some(room) = writable.checked_sub(1).filter(|_| readable >= HEADER) else {
            return Err(Malformed { readable, writable });
        };
        let mut header = [0; 16];
        chain.copy_out(self.ram, 0, &mut header);
        let [k0, k1, k2, k3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let data = readable.saturating_sub(HEADER);
        let done = match kind {
            kind::IN => self.read(chain, sector, room),
            kind::OUT => self.write(chain, sector, data),
            other => {
                self.counters.other();
                match other {
                    kind::FLUSH => self.disk.flush().map(|()| 0).map_err(Failure::Host),
                    kind::GET_ID => self.identify(chain, room),
                    kind::DISCARD if self.agreed(feature::DISCARD) => self.discard(chain, data),
                    kind::WRITE_ZEROES if self.agreed(feature::WRITE_ZEROES) => self.zero(chain, data),
                    _ => Err(Failure::Unsupported),
                }
            }
        };
        let (status, written) = match done {
            Ok(written) => (OK, written),
            Err(failure) => (self.failed(kind, sector, &failure), 0),
        };
        // The answer comes last: a driver may look at it before the ring.
        chain.copy_in(self.ram, room, &[status]);
        // What a driver gets is at most 128 MiB and its answer.
        Ok(u32::try_from(written).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn agreed(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn failed(&self, kind: u32, sector: u64, failure: &Failure) -> u8 {
        let before = self.counters.error();
        if before < LOUD_ERRORS {
            let more = if before.saturating_add(1) == LOUD_ERRORS { "; no more of these" } else { "" };
            log::warn!("a disk's request (kind {kind}, sector {sector}) failed: {failure}{more}");
        }
        if matches!(failure, Failure::Unsupported) { UNSUPPORTED } else { IO_ERROR }
    }

    /// The place of `length` bytes of data.
    fn range(&self, sector: u64, length: u64) -> Result<Range, Failure> {
        if length == 0 || !length.is_multiple_of(SECTOR) {
            return Err(Failure::NotAllowed("no whole sectors"));
        }
        if length > MAX_REQUEST {
            return Err(Failure::NotAllowed("more than was offered"));
        }
        Range::of_sectors(sector, length / SECTOR, self.disk.sectors())
            .ok_or(Failure::NotAllowed("sectors beyond the end of the disk"))
    }

    fn read(&mut self, chain: &Chain, sector: u64, room: u64) -> Result<u64, Failure> {
        self.counters.read();
        let range = self.range(sector, room)?;
        let (disk, ram) = (&mut self.disk, self.ram);
        transfer(chain.writable(), 0, range, |pieces, offset| disk.read(ram, pieces, offset))?;
        self.counters.read_bytes(room);
        Ok(room)
    }

    fn write(&mut self, chain: &Chain, sector: u64, data: u64) -> Result<u64, Failure> {
        self.counters.write();
        self.check_writable()?;
        let range = self.range(sector, data)?;
        let (disk, ram) = (&mut self.disk, self.ram);
        transfer(chain.readable(), HEADER, range, |pieces, offset| disk.write(ram, pieces, offset))?;
        self.counters.written_bytes(data);
        self.settle()
    }

    /// A driver that cannot flush relies on what is done being done (5.2.6.2).
    fn settle(&mut self) -> Result<u64, Failure> {
        if !self.agreed(feature::FLUSH) {
            self.disk.flush()?;
        }
        Ok(0)
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.disk.is_read_only() {
            return Err(Failure::NotAllowed("the disk is read-only"));
        }
        Ok(())
    }

    fn identify(&self, chain: &Chain, room: u64) -> Result<u64, Failure> {
        let length = usize::try_from(room).unwrap_or(usize::MAX).min(MAX_SERIAL);
        let serial = self.serial.get(..length).filter(|serial| !serial.is_empty());
        let serial = serial.ok_or(Failure::NotAllowed("no room for the serial number"))?;
        Ok(chain.copy_in(self.ram, 0, serial) as u64)
    }

    /// What to discard or zero: one piece, and its flags.
    fn piece(&self, chain: &Chain, data: u64, most: u32) -> Result<(Range, u32), Failure> {
        self.check_writable()?;
        if data != DISCARD {
            return Err(Failure::NotAllowed("not one piece of the disk"));
        }
        let mut bytes = [0; 16];
        chain.copy_out(self.ram, HEADER, &mut bytes);
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        if count > most {
            return Err(Failure::NotAllowed("more than was offered"));
        }
        let range = Range::of_sectors(sector, count.into(), self.disk.sectors());
        let range = range.ok_or(Failure::NotAllowed("sectors beyond the end of the disk"))?;
        Ok((range, u32::from_le_bytes([f0, f1, f2, f3])))
    }

    fn discard(&mut self, chain: &Chain, data: u64) -> Result<u64, Failure> {
        let (range, flags) = self.piece(chain, data, MAX_DISCARD_SECTORS)?;
        if flags != 0 {
            return Err(Failure::Unsupported);
        }
        self.disk.discard(range)?;
        Ok(0)
    }

    fn zero(&mut self, chain: &Chain, data: u64) -> Result<u64, Failure> {
        let (range, flags) = self.piece(chain, data, MAX_ZERO_SECTORS)?;
        if flags & !UNMAP != 0 {
            return Err(Failure::Unsupported);
        }
        self.disk.zero(range, flags & UNMAP != 0)?;
        self.settle()
    }
}

/// Moves the whole of `range` between the disk and the guest's memory in `segments`, without its first `skip` bytes.
fn transfer(
    segments: &[Segment],
    skip: u64,
    range: Range,
    mut step: impl FnMut(&[Segment], u64) -> io::Result<u64>,
) -> Result<(), Failure> {
    let mut done = 0_u64;
    while done < range.length {
        let left = range.length.saturating_sub(done);
        let now: Vec<_> = pieces(segments, skip.saturating_add(done), left).collect();
        match step(&now, range.offset.saturating_add(done)) {
            // The file has become shorter.
            Ok(0) => return Err(Failure::Host(io::ErrorKind::UnexpectedEof.into())),
            Ok(moved) => done = done.saturating_add(moved),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Host(error)),
        }
    }
    Ok(())
}
