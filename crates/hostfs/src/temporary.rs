//! Files that the guest creates where nothing is mounted.
//!
//! They are memory of the host's kernel (`memfd_create`) without a name: each exists only as long
//! as this process has a descriptor of it, so nothing is left behind however the process ends.
//! Nothing has to be opened by path to make or to open one, so a process that is not allowed to
//! open anything any more can still have them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_hypercall::errno::{EBADF, EEXIST, EINVAL, EIO, ENOSPC, ENOTDIR, EOVERFLOW};
use nerite_hypercall::v2::FileAttr;
use rustix::fs::{MemfdFlags, OFlags, SeekFrom};
use rustix::io::Errno;
use vm_memory::VolatileSlice;

use crate::attributes;
use crate::errno::to_guest;
use crate::flags::Flags;
use crate::limits::Budget;
use crate::state::{AccessState, Extent, TemporaryState};
use crate::transfer::{read, write};

/// Limit of the bytes in temporary files.
#[derive(Debug)]
pub(crate) struct TempStore {
    room: Arc<Budget>,
}

impl TempStore {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { room: Arc::new(Budget::new(bytes)) }
    }

    /// Makes an empty file.
    pub(crate) fn create(&self, mode: u32) -> Result<TempFile, i32> {
        let file =
            rustix::fs::memfd_create("nerite-guest", MemfdFlags::CLOEXEC).map_err(to_guest)?;
        Ok(TempFile { file, mode: mode & 0o777, room: self.room.clone(), state: Mutex::default() })
    }
}

/// A file without a name on the host.
#[derive(Debug)]
pub(crate) struct TempFile {
    file: OwnedFd,
    mode: u32,
    room: Arc<Budget>,
    /// Held while the file is accessed, because only then is known which byte a write starts at.
    /// The host's kernel has a lock of its own for that; and an access to memory waits for no other
    /// process.
    state: Mutex<State>,
}

/// Size in bytes of the pieces in which contents are read and written.
const CHUNK: usize = 64 << 10;
/// A position that no file has: the descriptor stands anywhere.
const ANYWHERE: u64 = u64::MAX;

#[derive(Debug, Default)]
struct State {
    /// The file's size, which is how much of the room it takes.
    size: u64,
    /// Position of the host's descriptor, which all users of the file share.
    at: u64,
}

impl TempFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the host's descriptor where it has to be. One access after another finds it there.
    fn go_to(&self, state: &mut State, position: u64) -> Result<(), i32> {
        if state.at != position {
            state.at = rustix::fs::seek(&self.file, SeekFrom::Start(position)).map_err(to_guest)?;
        }
        Ok(())
    }

    pub(crate) fn attributes(&self, inode: u64) -> Result<FileAttr, i32> {
        let own = attributes::of_host(&rustix::fs::fstat(&self.file).map_err(to_guest)?);
        let mut attributes = attributes::of_file(inode, self.mode, 0);
        attributes.st_size = own.st_size;
        attributes.st_blksize = own.st_blksize;
        attributes.st_blocks = own.st_blocks;
        (attributes.st_atim, attributes.st_mtim, attributes.st_ctim) =
            (own.st_atim, own.st_mtim, own.st_ctim);
        Ok(attributes)
    }

    /// Permission bits, size and contents without holes.
    pub(crate) fn save(&self) -> Result<TemporaryState, i32> {
        let mut state = self.state();
        state.at = ANYWHERE;
        let mut extents = Vec::new();
        let mut end = 0;
        // A file that ends with a hole has no more data.
        while end < state.size
            && let Some(offset) = self.seek(SeekFrom::Data(end))?
        {
            end = self.seek(SeekFrom::Hole(offset))?.unwrap_or(state.size);
            self.seek(SeekFrom::Start(offset))?;
            let length = usize::try_from(end.saturating_sub(offset)).map_err(|_| EOVERFLOW)?;
            let mut bytes = vec![0; length];
            let mut rest = bytes.as_mut_slice();
            while !rest.is_empty() {
                match read(self.file.as_fd(), &mut VolatileSlice::from(&mut *rest))? {
                    0 => return Err(EIO),
                    length => rest = rest.get_mut(length..).unwrap_or_default(),
                }
            }
            extents.push(Extent { offset, bytes });
        }
        Ok(TemporaryState { mode: self.mode, size: state.size, extents })
    }

    /// Gives an empty file its saved contents. Returns `false` if they do not fit.
    pub(crate) fn fill(&self, saved: &TemporaryState) -> Result<bool, i32> {
        let mut state = self.state();
        let granted = self.room.take(saved.size);
        state.size = granted;
        state.at = ANYWHERE;
        if granted != saved.size {
            return Ok(false);
        }
        rustix::fs::ftruncate(&self.file, saved.size).map_err(to_guest)?;
        for Extent { offset, bytes } in &saved.extents {
            if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > saved.size) {
                return Ok(false);
            }
            self.seek(SeekFrom::Start(*offset))?;
            for piece in bytes.chunks(CHUNK) {
                let mut piece = piece.to_vec();
                let mut rest = piece.as_mut_slice();
                while !rest.is_empty() {
                    let length = write(self.file.as_fd(), &VolatileSlice::from(&mut *rest))?;
                    rest = rest.get_mut(length..).unwrap_or_default();
                }
            }
        }
        Ok(true)
    }

    /// Moves the host's descriptor; `None` if there is no data from there on.
    fn seek(&self, to: SeekFrom) -> Result<Option<u64>, i32> {
        match rustix::fs::seek(&self.file, to) {
            Ok(position) => Ok(Some(position)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(to_guest(error)),
        }
    }

    /// Opens the file with a position and rights of its own.
    pub(crate) fn open(self: &Arc<Self>, flags: Flags) -> Result<OpenTemp, i32> {
        if flags.exclusive {
            return Err(EEXIST);
        }
        if flags.directory {
            return Err(ENOTDIR);
        }
        if flags.truncate {
            let mut state = self.state();
            rustix::fs::ftruncate(&self.file, 0).map_err(to_guest)?;
            self.room.give_back(std::mem::take(&mut state.size));
        }
        let (readable, writable) = (flags.access != OFlags::WRONLY, flags.writes());
        Ok(OpenTemp {
            node: self.clone(),
            position: AtomicU64::new(0),
            readable,
            writable,
            append: flags.append,
        })
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.room.give_back(self.state().size);
    }
}

/// An open temporary file.
#[derive(Debug)]
pub(crate) struct OpenTemp {
    node: Arc<TempFile>,
    /// Changed only while the file's state is locked.
    position: AtomicU64,
    readable: bool,
    writable: bool,
    append: bool,
}

impl OpenTemp {
    /// The file.
    pub(crate) fn node(&self) -> &Arc<TempFile> {
        &self.node
    }

    /// Position and rights.
    pub(crate) fn save(&self) -> (u64, AccessState) {
        let access = AccessState { read: self.readable, write: self.writable, append: self.append };
        (self.position.load(Ordering::Relaxed), access)
    }

    /// A descriptor of `node` with this position and these rights.
    pub(crate) fn restored(node: Arc<TempFile>, position: u64, access: AccessState) -> Self {
        let AccessState { read: readable, write: writable, append } = access;
        Self { node, position: AtomicU64::new(position), readable, writable, append }
    }

    pub(crate) fn read(&self, slice: &mut VolatileSlice<'_>) -> Result<usize, i32> {
        if !self.readable {
            return Err(EBADF);
        }
        let mut state = self.node.state();
        let start = self.position.load(Ordering::Relaxed);
        if start >= state.size || slice.is_empty() {
            return Ok(0);
        }
        self.node.go_to(&mut state, start)?;
        let length = read(self.node.file.as_fd(), slice)?;
        state.at = start.saturating_add(length as u64);
        self.position.store(state.at, Ordering::Relaxed);
        Ok(length)
    }

    /// Writes as much as there is room for.
    pub(crate) fn write(&self, slice: &VolatileSlice<'_>) -> Result<usize, i32> {
        if !self.writable {
            return Err(EBADF);
        }
        if slice.is_empty() {
            return Ok(0);
        }
        let mut state = self.node.state();
        let size = state.size;
        let start = if self.append { size } else { self.position.load(Ordering::Relaxed) };
        let end = start.saturating_add(slice.len() as u64);
        let growth = end.saturating_sub(size);
        let granted = self.node.room.take(growth);
        let last = if granted == growth { end } else { size.saturating_add(granted) };
        let length = usize::try_from(last.saturating_sub(start)).unwrap_or(0).min(slice.len());
        let result = match slice.subslice(0, length) {
            Ok(part) if !part.is_empty() => self
                .node
                .go_to(&mut state, start)
                .and_then(|()| write(self.node.file.as_fd(), &part)),
            _ => Err(ENOSPC),
        };
        let written = *result.as_ref().unwrap_or(&0) as u64;
        if written != 0 {
            state.at = start.saturating_add(written);
            self.position.store(state.at, Ordering::Relaxed);
            state.size = state.at.max(size);
        }
        let used = state.size.saturating_sub(size);
        self.node.room.give_back(granted.saturating_sub(used));
        result
    }

    pub(crate) fn seek(&self, to: SeekFrom) -> Result<u64, i32> {
        let state = self.node.state();
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(offset) => (self.position.load(Ordering::Relaxed), offset),
            SeekFrom::End(offset) => (state.size, offset),
            _ => return Err(EINVAL),
        };
        let overflow = if offset < 0 { EINVAL } else { EOVERFLOW };
        let position = base.checked_add_signed(offset).ok_or(overflow)?;
        // The host's kernel has no position beyond the largest number with a sign.
        i64::try_from(position).map_err(|_| EINVAL)?;
        self.position.store(position, Ordering::Relaxed);
        Ok(position)
    }

    pub(crate) fn attributes(&self, inode: u64) -> Result<FileAttr, i32> {
        self.node.attributes(inode)
    }
}

#[cfg(test)]
mod tests {
    use nerite_hypercall::file::{O_APPEND, O_CREAT, O_RDONLY, O_RDWR, O_WRONLY};

    use super::*;

    fn open(file: &Arc<TempFile>, flags: i32) -> OpenTemp {
        file.open(Flags::new(flags).unwrap()).unwrap()
    }

    /// The host's kernel frees an inode without a name with its last descriptor, also of a process
    /// that is killed.
    #[test]
    fn files_have_no_name_on_the_host() {
        let store = TempStore::new(100);
        let file = Arc::new(store.create(0o4640).unwrap());
        // A memory file has a link count of 0 or 1 (depending on the kernel), and no directory that
        // it is in.
        let name = std::fs::read_link(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&file.file)
        ));
        assert_eq!(name.unwrap().to_str(), Some("/memfd:nerite-guest (deleted)"));
        let open = open(&file, O_CREAT | O_RDWR);
        let (mut from, mut to) = (*b"abc", [0; 4]);
        assert_eq!(open.write(&VolatileSlice::from(&mut from[..])), Ok(3));
        assert_eq!(open.seek(SeekFrom::Start(1)), Ok(1));
        assert_eq!(open.read(&mut VolatileSlice::from(&mut to[..])), Ok(2));
        assert_eq!(to, *b"bc\0\0");
        let attributes = open.attributes(7).unwrap();
        assert_eq!(
            (attributes.st_ino, attributes.st_mode, attributes.st_nlink, attributes.st_size),
            (7, 0o100_640, 1, 3)
        );
        assert_eq!(store.room.take(u64::MAX), 97);
        drop((open, file));
        assert_eq!(store.room.take(u64::MAX), 3);
    }

    #[test]
    fn each_open_file_has_a_position_and_rights_of_its_own() {
        let file = Arc::new(TempStore::new(100).create(0).unwrap());
        let [reader, writer, appender] =
            [O_RDONLY, O_WRONLY, O_WRONLY | O_APPEND].map(|flags| open(&file, flags));
        let (mut from, mut to) = (*b"abcd", [0; 2]);
        let mut write =
            |file: &OpenTemp, count| file.write(&VolatileSlice::from(&mut from[..count]));
        let mut read = |file: &OpenTemp| {
            let length = file.read(&mut VolatileSlice::from(&mut to[..]))?;
            Ok(String::from_utf8(to[..length].to_vec()).unwrap())
        };
        assert_eq!(
            (write(&writer, 4), write(&appender, 2), write(&reader, 1)),
            (Ok(4), Ok(2), Err(EBADF))
        );
        assert_eq!((read(&reader), read(&writer)), (Ok("ab".to_owned()), Err(EBADF)));
        assert_eq!(write(&writer, 1), Ok(1));
        assert_eq!(
            (read(&reader), read(&reader), read(&reader)),
            (Ok("cd".into()), Ok("ab".into()), Ok(String::new()))
        );
        assert_eq!(reader.seek(SeekFrom::End(-1)), Ok(5));
        assert_eq!(reader.seek(SeekFrom::Current(-6)), Err(EINVAL));
        assert_eq!(reader.seek(SeekFrom::Current(i64::MAX)), Err(EINVAL));
        assert_eq!(read(&reader), Ok("b".into()));
        assert_eq!(reader.seek(SeekFrom::Start(50)), Ok(50));
        assert_eq!(read(&reader), Ok(String::new()));
    }
}
