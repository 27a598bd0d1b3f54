//! Vectored reads and writes between a place in a file and guest memory. All `unsafe` of this crate
//! is here.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nerite_memory::GuestRam;
use nerite_virtio::Segment;

/// The most pieces that the kernel takes at once (`UIO_MAXIOV`). More is done by another call.
const MAX_PIECES: usize = 1024;

/// The host memory of `segments`. The pointers are good for as long as `ram` lives.
fn vectors(ram: &GuestRam, segments: &[Segment]) -> io::Result<Vec<libc::iovec>> {
    let mut vectors = Vec::with_capacity(segments.len());
    for segment in segments {
        let slices = ram.slices(segment.address, segment.length.into());
        for slice in slices.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))? {
            if vectors.len() == MAX_PIECES {
                return Ok(vectors);
            }
            let iov_base = slice.ptr_guard_mut().as_ptr().cast();
            vectors.push(libc::iovec { iov_base, iov_len: slice.len() });
        }
    }
    Ok(vectors)
}

/// Count and place as the calls want them.
fn arguments(vectors: &[libc::iovec], offset: u64) -> io::Result<(i32, i64)> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    Ok((i32::try_from(vectors.len()).map_err(invalid)?, i64::try_from(offset).map_err(invalid)?))
}

fn result(done: isize) -> io::Result<u64> {
    u64::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Reads from byte `offset` of `file` into guest memory, in one call. Returns how many bytes.
///
/// # Errors
/// As preadv(2); `InvalidInput` if memory is not RAM.
pub(crate) fn read_at(
    file: impl AsFd,
    ram: &GuestRam,
    to: &[Segment],
    offset: u64,
) -> io::Result<u64> {
    let vectors = vectors(ram, to)?;
    let (count, offset) = arguments(&vectors, offset)?;
    // SAFETY: `vectors` holds `count` entries. Each is guest RAM, which `ram` keeps mapped for the
    // whole call and to which there are no Rust references.
    let read =
        result(unsafe { libc::preadv(file.as_fd().as_raw_fd(), vectors.as_ptr(), count, offset) });
    for segment in to {
        ram.written(segment.address, segment.length.into());
    }
    read
}

/// Writes guest memory from byte `offset` of `file` on, in one call. Returns how many bytes.
///
/// # Errors
/// As pwritev(2); `InvalidInput` if memory is not RAM.
pub(crate) fn write_at(
    file: impl AsFd,
    ram: &GuestRam,
    from: &[Segment],
    offset: u64,
) -> io::Result<u64> {
    let vectors = vectors(ram, from)?;
    let (count, offset) = arguments(&vectors, offset)?;
    // SAFETY: `vectors` holds `count` entries. Each is guest RAM, which `ram` keeps mapped for the
    // whole call. The kernel only reads it, and copes with a guest that changes its memory
    // meanwhile.
    result(unsafe { libc::pwritev(file.as_fd().as_raw_fd(), vectors.as_ptr(), count, offset) })
}
