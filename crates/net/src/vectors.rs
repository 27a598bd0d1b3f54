//! Vectored reads and writes between a descriptor and guest memory.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nerite_memory::GuestRam;
use nerite_virtio::Segment;

/// The most pieces that the kernel takes at once (`UIO_MAXIOV`).
const MAX_PIECES: usize = 1024;

/// Pieces of memory for one call. Host pointers do not outlive it.
struct Vectors {
    pieces: Vec<libc::iovec>,
}

impl Vectors {
    fn with_room_for(count: usize) -> Self {
        Self { pieces: Vec::with_capacity(count) }
    }

    /// Adds guest memory, without its first `skip` bytes.
    fn add_guest(&mut self, ram: &GuestRam, segments: &[Segment], skip: u64) -> io::Result<()> {
        let mut skip = skip;
        for segment in segments {
            let now = skip.min(segment.length.into());
            skip = skip.saturating_sub(now);
            let length = u64::from(segment.length).saturating_sub(now);
            let slices = ram.slices(segment.address.saturating_add(now), length);
            for slice in
                slices.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
            {
                if !slice.is_empty() {
                    let start = slice.ptr_guard_mut().as_ptr().cast();
                    self.pieces.push(libc::iovec { iov_base: start, iov_len: slice.len() });
                }
            }
        }
        Ok(())
    }

    fn count(&self) -> io::Result<i32> {
        let count = self.pieces.len();
        i32::try_from(count).ok().filter(|_| count <= MAX_PIECES).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a frame in more than 1024 pieces")
        })
    }
}

fn result(done: isize) -> io::Result<usize> {
    usize::try_from(done).map_err(|_| io::Error::last_os_error())
}

/// Writes `prefix`, then the guest memory in `segments` without its first `skip` bytes, to `fd`, in
/// one call. Returns how many bytes went out.
///
/// # Errors
/// As writev(2); `InvalidInput` if memory is not RAM.
pub(crate) fn write(
    fd: impl AsFd,
    prefix: &[u8],
    ram: &GuestRam,
    segments: &[Segment],
    skip: u64,
) -> io::Result<usize> {
    let mut vectors = Vectors::with_room_for(segments.len().saturating_add(1));
    if !prefix.is_empty() {
        let iov_base = prefix.as_ptr().cast_mut().cast();
        vectors.pieces.push(libc::iovec { iov_base, iov_len: prefix.len() });
    }
    vectors.add_guest(ram, segments, skip)?;
    let count = vectors.count()?;
    // SAFETY: `pieces` holds `count` entries. Each is `prefix`, which the caller lends, or guest
    // RAM, which `ram` keeps mapped for the whole call. The kernel only reads them, and it copes
    // with a guest that changes its memory meanwhile.
    result(unsafe { libc::writev(fd.as_fd().as_raw_fd(), vectors.pieces.as_ptr(), count) })
}

/// Reads from `fd` into the guest memory in `segments`, and what does not fit there into `spill`,
/// in one call. Returns how many bytes came in.
///
/// # Errors
/// As readv(2); `InvalidInput` if memory is not RAM.
pub(crate) fn read(
    fd: impl AsFd,
    ram: &GuestRam,
    segments: &[Segment],
    spill: &mut [u8],
) -> io::Result<usize> {
    let mut vectors = Vectors::with_room_for(segments.len().saturating_add(1));
    vectors.add_guest(ram, segments, 0)?;
    vectors.pieces.push(libc::iovec { iov_base: spill.as_mut_ptr().cast(), iov_len: spill.len() });
    let count = vectors.count()?;
    // SAFETY: `pieces` holds `count` entries. Each is guest RAM, which `ram` keeps mapped for the
    // whole call and to which there are no Rust references, or `spill`, which the caller lends
    // exclusively.
    let read =
        result(unsafe { libc::readv(fd.as_fd().as_raw_fd(), vectors.pieces.as_ptr(), count) })?;
    let mut rest = read;
    for segment in segments {
        let length = usize::try_from(segment.length).unwrap_or(usize::MAX).min(rest);
        if length == 0 {
            break;
        }
        ram.written(segment.address, u64::try_from(length).unwrap_or(u64::MAX));
        rest = rest.saturating_sub(length);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use nerite_virtio::fake::{RAM, ram};

    use super::*;

    fn segment(address: u64, length: u32) -> Segment {
        Segment { address, length }
    }

    #[test]
    fn guest_memory_goes_out_after_a_prefix_and_without_its_start() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let ram = ram(1 << 20);
        ram.write(RAM, b"0123456789").unwrap();
        let segments = [segment(RAM, 3), segment(RAM + 5, 5)];
        assert_eq!(write(&theirs, b"ab", &ram, &segments, 4).unwrap(), 6);
        let mut got = [0; 6];
        ours.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ab6789");
        assert!(write(&theirs, b"", &ram, &[segment(0, 4)], 0).is_err());
        assert!(write(&theirs, b"", &ram, &[segment(RAM, 1); 1025], 0).is_err());
    }

    #[test]
    fn what_comes_in_fills_guest_memory_and_then_the_spill() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let ram = ram(1 << 20);
        ours.write_all(b"abcdefgh").unwrap();
        let mut spill = [0; 4];
        let segments = [segment(RAM, 2), segment(RAM + 16, 3)];
        assert_eq!(read(&theirs, &ram, &segments, &mut spill).unwrap(), 8);
        assert_eq!(ram.read_cstr(RAM, 8).unwrap(), b"ab");
        assert_eq!(ram.read_cstr(RAM + 16, 8).unwrap(), b"cde");
        assert_eq!(&spill, b"fgh\0");
    }
}
