//! Calls as a guest makes them, on real files.

use std::path::Path;

use nerite_hypercall::errno::*;
use nerite_hypercall::file::*;
use tempfile::TempDir;
use vm_memory::VolatileSlice;

use super::*;
use crate::Access;

mod confinement;
mod directories;
mod hostile;
mod limits;
mod named;
mod regular;
mod special;
mod state;
mod temporary;

pub(super) fn mount(host: impl AsRef<Path>, guest: &str, access: Access) -> Mount {
    Mount { host: host.as_ref().to_owned(), guest: guest.to_owned(), access }
}

/// A folder mounted on `/data`.
pub(super) fn data(access: Access) -> (TempDir, HostFs) {
    let folder = tempfile::tempdir().unwrap();
    let files = HostFs::new(&[mount(&folder, "/data", access)], &[], Limits::default()).unwrap();
    (folder, files)
}

pub(super) fn nothing() -> HostFs {
    HostFs::new(&[], &[], Limits::default()).unwrap()
}

pub(super) fn read(files: &HostFs, fd: i32, length: usize) -> Result<Vec<u8>, i32> {
    let mut memory = vec![0; length];
    let done = files.read(fd, [VolatileSlice::from(&mut memory[..])])?;
    memory.truncate(usize::try_from(done).unwrap());
    Ok(memory)
}

pub(super) fn write(files: &HostFs, fd: i32, bytes: &[u8]) -> Result<u64, i32> {
    let mut memory = bytes.to_vec();
    files.write(fd, [VolatileSlice::from(&mut memory[..])])
}

/// Opens, reads everything, closes.
pub(super) fn contents(files: &HostFs, path: &str) -> Result<Vec<u8>, i32> {
    let fd = files.open(path.as_bytes(), O_RDONLY, 0)?;
    let bytes = read(files, fd, 1 << 16);
    files.close(fd).unwrap();
    bytes
}

pub(super) fn create(files: &HostFs, path: &str, bytes: &[u8]) -> Result<(), i32> {
    let fd = files.open(path.as_bytes(), O_WRONLY | O_CREAT | O_TRUNC, 0o644)?;
    let written = write(files, fd, bytes);
    files.close(fd).unwrap();
    assert_eq!(written?, bytes.len() as u64);
    Ok(())
}

/// The names and types in a directory, read with buffers of `size` bytes.
pub(super) fn list(files: &HostFs, path: &str, size: u64) -> Result<Vec<(Vec<u8>, u8)>, i32> {
    let fd = files.open(path.as_bytes(), O_RDONLY | O_DIRECTORY, 0)?;
    let mut entries = Vec::new();
    loop {
        let listing = files.read_directory(fd, size)?;
        assert!(listing.len() as u64 <= size);
        if listing.is_empty() {
            break;
        }
        let mut rest = &listing[..];
        while !rest.is_empty() {
            let length = usize::from(u16::from_le_bytes([rest[16], rest[17]]));
            assert!(length.is_multiple_of(8) && length >= 24);
            let name = &rest[19..length];
            let end = name.iter().position(|&byte| byte == 0).unwrap();
            assert!(name[end..].iter().all(|&byte| byte == 0));
            entries.push((name[..end].to_vec(), rest[18]));
            rest = &rest[length..];
        }
    }
    files.close(fd).unwrap();
    entries.sort();
    Ok(entries)
}
