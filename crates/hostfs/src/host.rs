//! Files of the host, opened beneath a mount and nowhere else.
//!
//! A directory is held as an `O_PATH` descriptor, and the host's kernel walks each path from there
//! with `RESOLVE_BENEATH`: `..`, links and renames meanwhile cannot lead out, whatever they are and
//! whenever they happen. A single file is held as a descriptor of that very file, or as a name in a
//! directory, which is opened without following a link.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nerite_hypercall::errno::{EACCES, EBUSY, EEXIST, EISDIR, ENOENT, ENOTDIR, EROFS};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::errno::to_guest;
use crate::flags::Flags;
use crate::mount::Access;
use crate::named::Name;
use crate::path;
use crate::reach::{MountedPath, Needs};
use crate::{Error, Mount};

/// Number of attempts for a walk that renames elsewhere on the host disturb.
const WALK_ATTEMPTS: u32 = 128;

/// `/proc/self/fd`, held open: what turns a descriptor of a file into another one with its own
/// position and rights.
#[derive(Debug)]
pub(crate) struct Reopener(OwnedFd);

impl Reopener {
    pub(crate) fn new() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/fd", flags, Mode::empty()).map(Self)
    }

    pub(crate) fn open(&self, file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, i32> {
        let name = file.as_raw_fd().to_string();
        retry(|| rustix::fs::openat(&self.0, name.as_str(), flags, Mode::empty())).map_err(to_guest)
    }
}

/// Everything that is mounted, opened.
///
/// What is done with it later opens nothing outside of it, so a process can give up its rights to
/// all other files in between; [`Mounts::paths`] says which it has to keep.
#[derive(Debug, Default)]
pub struct Mounts {
    pub(crate) points: Vec<MountPoint>,
    /// There if a single file is mounted.
    pub(crate) reopener: Option<Reopener>,
}

impl Mounts {
    /// Opens the host side of each mount.
    ///
    /// # Errors
    /// If a mount's host side cannot be opened or its guest side is no path, two have the same, or
    /// the host lacks `openat2` or `/proc`.
    pub fn open(mounts: &[Mount]) -> Result<Self, Error> {
        let mut opened = Self::default();
        for mount in mounts {
            let point = MountPoint::open(mount)?;
            if opened.points.iter().any(|other| other.guest == point.guest) {
                return Err(Error::Duplicate { guest: mount.guest.clone() });
            }
            if !point.is_directory() && opened.reopener.is_none() {
                let failed = |source: Errno| Error::NoProc {
                    path: mount.host.clone(),
                    source: source.into(),
                };
                opened.reopener = Some(Reopener::new().map_err(failed)?);
            }
            opened.points.push(point);
        }
        Ok(opened)
    }

    /// Everything that is mounted.
    pub fn paths(&self) -> impl Iterator<Item = MountedPath<'_>> {
        self.points.iter().flat_map(MountPoint::paths)
    }
}

/// A mount, opened.
#[derive(Debug)]
pub(crate) struct MountPoint {
    /// The guest's path, with a slash before each name.
    pub(crate) guest: Vec<u8>,
    /// The host's path, for messages.
    pub(crate) path: PathBuf,
    access: Access,
    /// The file or directory, or the directory that `name` is in.
    host: OwnedFd,
    kind: FileType,
    name: Option<Name>,
}

/// A file or directory that was opened for the guest.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Reading and writing never waits for long.
    Regular(OwnedFd),
    Directory(OwnedFd),
    /// A pipe or device, not blocking.
    Special(OwnedFd),
}

impl MountPoint {
    /// Opens the host side, and checks that the host can confine what is opened beneath it.
    fn open(mount: &Mount) -> Result<Self, Error> {
        let guest = mount.guest_path()?.as_bytes().to_vec();
        let path = &mount.host;
        let opening = |source: Errno| Error::Open { path: path.clone(), source: source.into() };
        if mount.access == Access::ReadWriteName
            && let Some((host, name)) = Name::find(path).map_err(opening)?
        {
            let kind = FileType::RegularFile;
            let (path, access) = (path.clone(), mount.access);
            return Ok(Self { guest, path, access, host, kind, name: Some(name) });
        }
        let host = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(opening)?;
        let kind = file_type(&rustix::fs::fstat(&host).map_err(opening)?);
        if kind == FileType::Directory {
            beneath(host.as_fd(), Path::new("."), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .map_err(|source| match source {
                    // Without the system call, or where a container forbids it.
                    Errno::NOSYS | Errno::PERM | Errno::INVAL => {
                        Error::NoOpenat2 { path: path.clone(), source: source.into() }
                    }
                    source => opening(source),
                })?;
        }
        Ok(Self { guest, path: path.clone(), access: mount.access, host, kind, name: None })
    }

    /// The mounted file or directory, and the directory in which a mounted name is.
    fn paths(&self) -> impl Iterator<Item = MountedPath<'_>> {
        let (file, needs) = match &self.name {
            None if self.access == Access::ReadOnly => (Some(&self.host), Needs::Read),
            None => (Some(&self.host), Needs::Write),
            Some(name) => (name.file.as_ref(), Needs::Write),
        };
        let file = file.map(|file| MountedPath {
            file: file.as_fd(),
            needs,
            is_directory: self.is_directory(),
        });
        let directory = self.name.as_ref().map(|name| MountedPath {
            file: self.host.as_fd(),
            needs: if name.file.is_some() { Needs::RemoveFiles } else { Needs::MakeFiles },
            is_directory: true,
        });
        file.into_iter().chain(directory)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(crate) const fn kind(&self) -> FileType {
        self.kind
    }

    /// Opens what is at `rest` below the mount point: empty, or starting with a slash.
    pub(crate) fn open_file(
        &self,
        rest: &[u8],
        directory: bool,
        flags: Flags,
        mode: u32,
        reopener: Option<&Reopener>,
    ) -> Result<Opened, i32> {
        if self.is_directory() {
            return self.open_beneath(&relative(rest, directory), flags, mode);
        }
        self.must_be_file(rest, directory || flags.directory)?;
        if let Some(name) = &self.name {
            return match self.open_beneath(name.name.as_bytes(), flags, mode) {
                // The host put it there.
                Ok(Opened::Directory(_)) => Err(EISDIR),
                opened => opened,
            };
        }
        if flags.exclusive {
            return Err(EEXIST);
        }
        if flags.changes() && self.access == Access::ReadOnly {
            return Err(EROFS);
        }
        let reopener = reopener.ok_or(nerite_hypercall::errno::ENOSYS)?;
        let file = reopener.open(self.host.as_fd(), flags.existing())?;
        if self.kind == FileType::RegularFile {
            regular(file, flags)
        } else {
            Ok(Opened::Special(file))
        }
    }

    fn open_beneath(&self, rest: &[u8], mut flags: Flags, mode: u32) -> Result<Opened, i32> {
        let creation = self.must_allow_creation();
        if !flags.exclusive || creation.is_err() {
            // Merely opening a device can do something, so what it is must be known before.
            match self.look(rest, true) {
                Ok(found) => {
                    let kind = file_type(&found);
                    if flags.exclusive {
                        return Err(EEXIST);
                    }
                    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
                        return Err(EACCES);
                    }
                    if flags.changes() && self.access == Access::ReadOnly {
                        return Err(if kind == FileType::Directory { EISDIR } else { EROFS });
                    }
                }
                Err(ENOENT) if flags.create => creation?,
                Err(errno) => return Err(errno),
            }
        }
        if creation.is_err() {
            flags.create = false;
        }
        let mode = if flags.create { Mode::from_raw_mode(mode & 0o777) } else { Mode::empty() };
        let file = self.walk(rest, flags.creating(), mode)?;
        match file_type(&rustix::fs::fstat(&file).map_err(to_guest)?) {
            FileType::RegularFile => regular(file, flags),
            FileType::Directory => Ok(Opened::Directory(file)),
            // The host put it there just now.
            _ => Err(EACCES),
        }
    }

    pub(crate) fn stat(&self, rest: &[u8], directory: bool, follow: bool) -> Result<Stat, i32> {
        if self.is_directory() {
            return self.look(&relative(rest, directory), follow);
        }
        self.must_be_file(rest, directory)?;
        match &self.name {
            Some(name) => self.look(name.name.as_bytes(), false),
            None => rustix::fs::fstat(&self.host).map_err(to_guest),
        }
    }

    pub(crate) fn unlink(&self, rest: &[u8], directory: bool) -> Result<(), i32> {
        if let Some(name) = &self.name {
            self.must_be_file(rest, directory)?;
            return rustix::fs::unlinkat(&self.host, &name.name, AtFlags::empty())
                .map_err(to_guest);
        }
        let (parent, name) = self.parent(rest, directory, EBUSY)?;
        // Of a directory's name the host says EISDIR, with a slash after it ENOTDIR.
        if directory {
            return match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) if file_type(&found) == FileType::Directory => Err(EISDIR),
                Ok(_) => Err(ENOTDIR),
                Err(error) => Err(to_guest(error)),
            };
        }
        rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(to_guest)
    }

    pub(crate) fn make_directory(&self, rest: &[u8], mode: u32) -> Result<(), i32> {
        match self.parent(rest, false, EEXIST) {
            Ok((parent, name)) => {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode & 0o777))
                    .map_err(to_guest)
            }
            // What exists is EEXIST also where nothing can be created.
            Err(EROFS) if self.stat(rest, false, false).is_ok() => Err(EEXIST),
            Err(errno) => Err(errno),
        }
    }

    /// The opened directory that `rest` is in, and the name there. A single name cannot lead out of
    /// a directory. `own` is the answer for the mount point itself.
    fn parent<'a>(
        &self,
        rest: &'a [u8],
        directory: bool,
        own: i32,
    ) -> Result<(OwnedFd, &'a [u8]), i32> {
        if !self.is_directory() {
            self.must_be_file(rest, directory)?;
        }
        let (parent, name) = path::split(rest).ok_or(own)?;
        self.must_be_writable()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((self.walk(&relative(parent, true), flags, Mode::empty())?, name))
    }

    fn look(&self, rest: &[u8], follow: bool) -> Result<Stat, i32> {
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follow);
        let found = self.walk(rest, flags, Mode::empty())?;
        rustix::fs::fstat(found).map_err(to_guest)
    }

    fn walk(&self, rest: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, i32> {
        let path = Path::new(OsStr::from_bytes(rest));
        let opened = match self.name {
            // A single name leads out of its directory only by a link.
            Some(_) => {
                retry(|| rustix::fs::openat(&self.host, path, flags | OFlags::NOFOLLOW, mode))
            }
            None => beneath(self.host.as_fd(), path, flags, mode),
        };
        opened.map_err(to_guest)
    }

    const fn must_be_file(&self, rest: &[u8], directory: bool) -> Result<(), i32> {
        if rest.is_empty() && !directory { Ok(()) } else { Err(ENOTDIR) }
    }

    fn must_be_writable(&self) -> Result<(), i32> {
        if self.access == Access::ReadOnly { Err(EROFS) } else { Ok(()) }
    }

    /// Of a file that was there, a sandbox allows no other one in its place.
    fn must_allow_creation(&self) -> Result<(), i32> {
        match &self.name {
            Some(Name { file: Some(_), .. }) => Err(EACCES),
            _ => self.must_be_writable(),
        }
    }
}

/// Opens a path that the host's kernel keeps inside of `directory`.
fn beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut attempts = 0;
    loop {
        match retry(|| rustix::fs::openat2(directory, path, flags, mode, resolve)) {
            // The kernel cannot tell whether a `..` stayed inside while something was renamed.
            Err(Errno::AGAIN) if attempts < WALK_ATTEMPTS => {
                attempts = attempts.saturating_add(1);
                std::thread::yield_now();
            }
            result => return result,
        }
    }
}

/// A path below a mount as the host takes it: relative, with a slash at the end if it must be a
/// directory.
fn relative(rest: &[u8], directory: bool) -> Vec<u8> {
    let mut path = rest.strip_prefix(b"/").unwrap_or(rest).to_vec();
    if path.is_empty() {
        path.push(b'.');
    } else if directory {
        path.push(b'/');
    }
    path
}

/// Takes the flag away that was only for opening.
fn regular(file: OwnedFd, flags: Flags) -> Result<Opened, i32> {
    let keep = if flags.append { OFlags::APPEND } else { OFlags::empty() };
    rustix::fs::fcntl_setfl(&file, keep).map_err(to_guest)?;
    Ok(Opened::Regular(file))
}

pub(crate) const fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Calls again what a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}
