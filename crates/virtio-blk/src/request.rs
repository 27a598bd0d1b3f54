//! One request (virtio 1.2, 5.2.6): a header, data, and a byte for the answer.

use std::io;

use nerite_memory::GuestRam;
use nerite_virtio::{Chain, LogBudget, Segment, pieces};

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
/// The most bytes that are moved at once. Between two of these a request can be given up.
pub(crate) const CHUNK: u64 = 256 << 10;

/// A request that no driver may make, and that has no room for an answer. The device needs a reset.
#[derive(Debug, thiserror::Error)]
#[error("a request with {readable} bytes to read and {writable} to write: 16 and 1 are the least")]
pub(crate) struct Malformed {
    readable: u64,
    writable: u64,
}

/// Reason for an answer that is an error, or for none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no such request, or it was not agreed on.
    #[error("a request of a kind that is not offered")]
    Unsupported,
    /// The driver asks for what it must not.
    #[error("a request that is not allowed: {0}")]
    NotAllowed(&'static str),
    /// The host cannot.
    #[error(transparent)]
    Host(#[from] io::Error),
    /// The driver has reset the device meanwhile, or taken its memory away for a while.
    #[error("given up")]
    GivenUp,
}

/// Properties of the device as its driver sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) features: u64,
    pub(crate) sectors: u64,
    pub(crate) is_read_only: bool,
}

/// Work that a request asks for. Its data is in the request's chain.
#[derive(Debug, Clone, Copy)]
enum Task {
    Read(Range),
    Write(Range),
    Flush,
    Identify,
    Discard(Range),
    Zero { range: Range, may_discard: bool },
}

/// A request of the driver.
#[derive(Debug)]
pub(crate) struct Request {
    kind: u32,
    sector: u64,
    /// Bytes that the driver gets in front of the answer.
    room: u64,
    task: Result<Task, Failure>,
    /// A driver that cannot flush relies on what is done being done (5.2.6.2).
    flushes: bool,
}

impl Request {
    /// Reads what `chain` asks for.
    pub(crate) fn read(chain: &Chain, ram: &GuestRam, terms: Terms) -> Result<Self, Malformed> {
        let (readable, writable) = (chain.readable_bytes(), chain.writable_bytes());
        let Some(room) = writable.checked_sub(1).filter(|_| readable >= HEADER) else {
            return Err(Malformed { readable, writable });
        };
        let mut header = [0; 16];
        chain.copy_out(ram, 0, &mut header);
        let [k0, k1, k2, k3, _, _, _, _, s0, s1, s2, s3, s4, s5, s6, s7] = header;
        let kind = u32::from_le_bytes([k0, k1, k2, k3]);
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let data = readable.saturating_sub(HEADER);
        let task = match kind {
            kind::IN => terms.range(sector, room).map(Task::Read),
            kind::OUT => terms.writable().and_then(|()| terms.range(sector, data)).map(Task::Write),
            kind::FLUSH => Ok(Task::Flush),
            kind::GET_ID if room == 0 => Err(Failure::NotAllowed("no room for the serial number")),
            kind::GET_ID => Ok(Task::Identify),
            kind::DISCARD if terms.agreed(feature::DISCARD) => terms.discard(chain, ram, data),
            kind::WRITE_ZEROES if terms.agreed(feature::WRITE_ZEROES) => {
                terms.zero(chain, ram, data)
            }
            _ => Err(Failure::Unsupported),
        };
        Ok(Self { kind, sector, room, task, flushes: !terms.agreed(feature::FLUSH) })
    }

    /// `true` if data goes between the disk and guest memory.
    pub(crate) fn moves_data(&self) -> bool {
        matches!(self.task, Ok(Task::Read(_) | Task::Write(_)))
    }

    /// Moves the data of `chain`, for as long as `goes_on` returns `true`: that is asked before
    /// each [`CHUNK`].
    pub(crate) fn move_data(
        &self,
        disk: &mut dyn Disk,
        ram: &GuestRam,
        chain: &Chain,
        goes_on: impl Fn() -> bool,
    ) -> Result<(), Failure> {
        match self.task {
            Ok(Task::Read(range)) => {
                transfer(chain.writable(), 0, range, goes_on, |pieces, offset| {
                    disk.read(ram, pieces, offset)
                })
            }
            Ok(Task::Write(range)) => {
                transfer(chain.readable(), HEADER, range, goes_on, |pieces, offset| {
                    disk.write(ram, pieces, offset)
                })
            }
            _ => Ok(()),
        }
    }

    /// Does what is to be done on the disk alone, when all data has been moved. It does not touch
    /// guest memory.
    pub(crate) fn commit(&self, disk: &mut dyn Disk) -> Result<(), Failure> {
        match self.task {
            Ok(Task::Flush) => disk.flush()?,
            Ok(Task::Discard(range)) => disk.discard(range)?,
            Ok(Task::Zero { range, may_discard }) => {
                disk.zero(range, may_discard)?;
                if self.flushes {
                    disk.flush()?;
                }
            }
            Ok(Task::Write(_)) if self.flushes => disk.flush()?,
            _ => {}
        }
        Ok(())
    }

    /// Counts and answers the request, which ended with `result`. Returns how many bytes were
    /// written to the guest, from the first one on (2.7.8.2).
    pub(crate) fn answer(
        self,
        result: Result<(), Failure>,
        chain: &Chain,
        ram: &GuestRam,
        serial: &[u8; MAX_SERIAL],
        counters: &Counters,
        log: &LogBudget,
    ) -> u32 {
        match self.kind {
            kind::IN => counters.read(),
            kind::OUT => counters.write(),
            _ => counters.other(),
        }
        let (status, written) = match self.task.and_then(|task| result.map(|()| task)) {
            Ok(Task::Read(range)) => {
                counters.read_bytes(range.length);
                (OK, range.length)
            }
            Ok(Task::Write(range)) => {
                counters.written_bytes(range.length);
                (OK, 0)
            }
            Ok(Task::Identify) => {
                let length = usize::try_from(self.room).unwrap_or(usize::MAX).min(MAX_SERIAL);
                (OK, chain.copy_in(ram, 0, serial.get(..length).unwrap_or_default()) as u64)
            }
            Ok(_) => (OK, 0),
            Err(failure) => {
                counters.error();
                let Self { kind, sector, .. } = self;
                log.warn(format_args!(
                    "a disk's request (kind {kind}, sector {sector}) failed: {failure}"
                ));
                let is_unsupported = matches!(failure, Failure::Unsupported);
                (if is_unsupported { UNSUPPORTED } else { IO_ERROR }, 0)
            }
        };
        // The answer comes last: a driver may look at it before the ring.
        chain.copy_in(ram, self.room, &[status]);
        let written = if written == self.room { written.saturating_add(1) } else { written };
        // What a driver gets is at most 128 MiB and its answer.
        u32::try_from(written).unwrap_or(u32::MAX)
    }
}

impl Terms {
    fn agreed(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    fn writable(&self) -> Result<(), Failure> {
        if self.is_read_only { Err(Failure::NotAllowed("the disk is read-only")) } else { Ok(()) }
    }

    /// The place of `length` bytes of data.
    fn range(&self, sector: u64, length: u64) -> Result<Range, Failure> {
        if length == 0 || !length.is_multiple_of(SECTOR) {
            return Err(Failure::NotAllowed("no whole sectors"));
        }
        if length > MAX_REQUEST {
            return Err(Failure::NotAllowed("more than was offered"));
        }
        Range::of_sectors(sector, length / SECTOR, self.sectors)
            .ok_or(Failure::NotAllowed("sectors beyond the end of the disk"))
    }

    fn discard(&self, chain: &Chain, ram: &GuestRam, data: u64) -> Result<Task, Failure> {
        self.piece(chain, ram, data, 0, MAX_DISCARD_SECTORS).map(|(range, _)| Task::Discard(range))
    }

    fn zero(&self, chain: &Chain, ram: &GuestRam, data: u64) -> Result<Task, Failure> {
        let (range, flags) = self.piece(chain, ram, data, UNMAP, MAX_ZERO_SECTORS)?;
        Ok(Task::Zero { range, may_discard: flags & UNMAP != 0 })
    }

    /// The sectors to discard or zero: one piece of at most `most` sectors, and its flags, some of
    /// `known`.
    fn piece(
        &self,
        chain: &Chain,
        ram: &GuestRam,
        data: u64,
        known: u32,
        most: u32,
    ) -> Result<(Range, u32), Failure> {
        if data != DISCARD {
            return Err(Failure::NotAllowed("not one piece of the disk"));
        }
        let mut bytes = [0; 16];
        chain.copy_out(ram, HEADER, &mut bytes);
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        // Whatever else is wrong with it (5.2.6.2).
        if flags & !known != 0 {
            return Err(Failure::Unsupported);
        }
        self.writable()?;
        if count > most {
            return Err(Failure::NotAllowed("more than was offered"));
        }
        let range = Range::of_sectors(sector, count.into(), self.sectors);
        Ok((range.ok_or(Failure::NotAllowed("sectors beyond the end of the disk"))?, flags))
    }
}

/// Moves the whole of `range` between the disk and the guest's memory in `segments`, without its
/// first `skip` bytes.
fn transfer(
    segments: &[Segment],
    skip: u64,
    range: Range,
    goes_on: impl Fn() -> bool,
    mut step: impl FnMut(&[Segment], u64) -> io::Result<u64>,
) -> Result<(), Failure> {
    let mut done = 0_u64;
    while done < range.length {
        if !goes_on() {
            return Err(Failure::GivenUp);
        }
        let now = range.length.saturating_sub(done).min(CHUNK);
        let now: Vec<_> = pieces(segments, skip.saturating_add(done), now).collect();
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
