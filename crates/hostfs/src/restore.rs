//! Saves the files of a guest, and opens them again.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nerite_hypercall::errno::ENOENT;
use nerite_saved::bytes::Bytes;
use nerite_saved::{RestoreError, SaveError, check_version, refuse, require_same};
use rustix::fs::{OFlags, SeekFrom};

use crate::attributes;
use crate::directory::Listing;
use crate::errno::to_guest;
use crate::flags::Flags;
use crate::names::{Created, Names, Node};
use crate::open::{Open, Origin};
use crate::state::{
    AccessState, FilesState, Identity, NameState, NodeState, OnChanged, OpenState, OriginState,
    TemporaryState,
};
use crate::temporary::{OpenTemp, TempFile};
use crate::{GuestPath, HostFs};

/// Version of [`FilesState`].
const VERSION: u32 = 1;
const PART: &str = "guest's files";

/// An open file that is not as it was.
#[derive(Debug, thiserror::Error)]
enum Changed {
    #[error("{path} was open and cannot be opened again")]
    Gone { path: String, source: std::io::Error },
    #[error("{path} was open and has been replaced or changed since")]
    Different { path: String },
}

/// Temporary files, each once.
#[derive(Debug, Default)]
struct TemporaryFiles(Vec<Arc<TempFile>>);

impl TemporaryFiles {
    /// Number of a file.
    fn index(&mut self, file: &Arc<TempFile>) -> usize {
        let known = self.0.iter().position(|other| Arc::ptr_eq(other, file));
        known.unwrap_or_else(|| {
            self.0.push(file.clone());
            self.0.len().saturating_sub(1)
        })
    }
}

impl HostFs {
    /// Open files, temporary files and names that the guest has created. No call of the guest may
    /// be under way.
    ///
    /// # Errors
    /// Fails if the host does.
    pub fn save(&self) -> Result<FilesState, SaveError> {
        let host = |errno| SaveError::host(PART)(std::io::Error::from_raw_os_error(errno));
        let mut temporary = TemporaryFiles::default();
        let names = self.names();
        let (first_inode, next_inode) = names.numbers();
        let created = names.created().map(|Created { inode, parent, name, node }| {
            let node = match node {
                Node::Temporary(file) => NodeState::Temporary { file: temporary.index(&file) },
                Node::Directory { mode } => NodeState::Directory { mode },
                // The guest creates no others.
                Node::Image(_) | Node::MountPoint(_) => NodeState::Directory { mode: 0 },
            };
            NameState { inode, parent, name: name.to_vec(), node }
        });
        let created = created.collect();
        drop(names);
        let open = self.table.all().into_iter();
        let open = open.map(|(fd, open)| Ok((fd, open.save(&mut temporary)?)));
        let open = open.collect::<Result<_, i32>>().map_err(host)?;
        let temporary =
            temporary.0.iter().map(|file| file.save()).collect::<Result<_, _>>().map_err(host)?;
        let bytes_written = self.written.used();
        Ok(FilesState {
            version: VERSION,
            bytes_written,
            first_inode,
            next_inode,
            temporary,
            names: created,
            open,
        })
    }

    /// Puts the guest's files into a saved state. Files of the host are opened below the mounts of
    /// this guest, and must be those that were open.
    ///
    /// # Errors
    /// Fails if the state is not one of a guest with these mounts and this image, exceeds its
    /// limits, or a file has changed and `on_changed` refuses that.
    pub fn restore(&self, saved: &FilesState, on_changed: OnChanged) -> Result<(), RestoreError> {
        check_version(PART, saved.version, VERSION)?;
        let host = |errno| RestoreError::failed(PART)(std::io::Error::from_raw_os_error(errno));
        refuse(PART, "number of bytes written", !self.written.set_used(saved.bytes_written))?;
        // What was there before gives its room back first.
        refuse(PART, "open file", !self.table.replace([]))?;
        {
            let mut names = self.names();
            require_same(PART, "mounts or image", names.numbers().0 == saved.first_inode)?;
            refuse(PART, "next inode number", !names.start_again(saved.next_inode))?;
        }
        let temporary = |saved: &TemporaryState| {
            let file = self.temporary.create(saved.mode).map_err(host)?;
            refuse(PART, "temporary file", !file.fill(saved).map_err(host)?)?;
            Ok(Arc::new(file))
        };
        // Each has a name or is open: a state does not make more descriptors than the limits allow.
        let most = self.names().limit().saturating_add(self.table.limit());
        refuse(PART, "number of temporary files", saved.temporary.len() > most)?;
        let temporary =
            saved.temporary.iter().map(temporary).collect::<Result<Vec<_>, RestoreError>>()?;
        restore_names(&mut self.names(), &saved.names, &temporary)?;
        let open = saved
            .open
            .iter()
            .map(|(fd, open)| Ok((*fd, self.reopen(open, &temporary, on_changed)?)));
        let open = open.collect::<Result<Vec<_>, RestoreError>>()?;
        refuse(PART, "number of an open file", !self.table.replace(open))
    }

    fn reopen(
        &self,
        saved: &OpenState,
        temporary: &[Arc<TempFile>],
        on_changed: OnChanged,
    ) -> Result<Open, RestoreError> {
        match saved {
            OpenState::Regular { origin, .. }
            | OpenState::Special { origin }
            | OpenState::HostDirectory { origin, .. } => self.find_again(saved, origin, on_changed),
            OpenState::Temporary { file, inode, position, access } => {
                let file = temporary.get(*file).ok_or(bad("temporary file"))?;
                refuse(PART, "inode number", *inode >= self.names().numbers().1)?;
                let position = check_position(*position)?;
                Ok(Open::Temporary {
                    inode: *inode,
                    file: OpenTemp::restored(file.clone(), position, *access),
                })
            }
            OpenState::Image { inode, position } => {
                match self.names().found(*inode).map(|found| found.node) {
                    Ok(Node::Image(image)) => {
                        let position = AtomicU64::new(check_position(*position)?);
                        Ok(Open::Image { inode: *inode, image, position })
                    }
                    _ => Err(bad("image file")),
                }
            }
            OpenState::Directory { path, cursor } => {
                let found = self
                    .names()
                    .get(parse(path)?.as_bytes(), true)
                    .map_err(|_| bad("open directory"))?;
                let attributes = found.attributes().map_err(|_| bad("open directory"))?;
                let cursor = cursor.as_ref().map(|Bytes(name)| name.clone());
                refuse(
                    PART,
                    "position in a directory",
                    cursor.as_ref().is_some_and(|name| name.len() > crate::NAME_MAX),
                )?;
                Ok(Open::Directory {
                    path: path.clone(),
                    attributes,
                    listing: Listing::after(cursor),
                })
            }
            OpenState::Lost => Ok(Open::Lost),
        }
    }

    /// Opens a file of the host again.
    fn find_again(
        &self,
        saved: &OpenState,
        origin: &OriginState,
        on_changed: OnChanged,
    ) -> Result<Open, RestoreError> {
        let path = parse(&origin.path)?;
        let name = || String::from_utf8_lossy(path.as_bytes()).into_owned();
        let flags = flags(origin.access, matches!(saved, OpenState::HostDirectory { .. }))?;
        let found = match self.open_again(&path, flags) {
            Ok(open) if !open.is(saved) => Err(Changed::Different { path: name() }),
            opened => opened.and_then(|open| open.go_to(saved).map(|()| open)).map_err(|errno| {
                Changed::Gone { path: name(), source: std::io::Error::from_raw_os_error(errno) }
            }),
        };
        match (found, on_changed) {
            (Err(changed), OnChanged::Eio) => {
                log::warn!("{changed}; the guest gets EIO");
                Ok(Open::Lost)
            }
            (found, _) => found.map_err(RestoreError::failed(PART)),
        }
    }

    fn open_again(&self, path: &GuestPath, flags: Flags) -> Result<Open, i32> {
        let (point, rest) = self.mount(path).ok_or(ENOENT)?;
        let opened = point.open_file(rest, flags.directory, flags, 0, self.reopener.as_ref())?;
        Ok(Open::of_host(opened, path.as_bytes(), flags))
    }
}

impl Open {
    fn save(&self, temporary: &mut TemporaryFiles) -> Result<OpenState, i32> {
        Ok(match self {
            Self::Regular { file, origin } => OpenState::Regular {
                origin: origin.save(file.as_fd(), true)?,
                position: rustix::fs::seek(file, SeekFrom::Current(0)).map_err(to_guest)?,
            },
            Self::Special { file, origin } => {
                OpenState::Special { origin: origin.save(file.as_fd(), false)? }
            }
            Self::HostDirectory { directory, listing, origin } => OpenState::HostDirectory {
                origin: origin.save(directory.as_fd(), false)?,
                position: listing.position(directory)?,
            },
            Self::Temporary { inode, file } => {
                let (position, access) = file.save();
                OpenState::Temporary {
                    file: temporary.index(file.node()),
                    inode: *inode,
                    position,
                    access,
                }
            }
            Self::Image { inode, position, .. } => {
                OpenState::Image { inode: *inode, position: position.load(Ordering::Acquire) }
            }
            Self::Directory { path, listing, .. } => {
                OpenState::Directory { path: path.clone(), cursor: listing.last().map(Bytes) }
            }
            Self::Lost => OpenState::Lost,
        })
    }

    /// `true` if it is the file of the host that was saved, unchanged.
    fn is(&self, saved: &OpenState) -> bool {
        let is = |file: BorrowedFd<'_>, origin: &OriginState, whole| {
            identity(file, whole).is_ok_and(|identity| identity == origin.identity)
        };
        match (self, saved) {
            (Self::Regular { file, .. }, OpenState::Regular { origin, .. }) => {
                is(file.as_fd(), origin, true)
            }
            (Self::Special { file, .. }, OpenState::Special { origin }) => {
                is(file.as_fd(), origin, false)
            }
            (Self::HostDirectory { directory, .. }, OpenState::HostDirectory { origin, .. }) => {
                is(directory.as_fd(), origin, false)
            }
            _ => false,
        }
    }

    /// Moves it to the saved position.
    fn go_to(&self, saved: &OpenState) -> Result<(), i32> {
        let (file, position) = match (self, saved) {
            (Self::Regular { file, .. }, OpenState::Regular { position, .. })
            | (
                Self::HostDirectory { directory: file, .. },
                OpenState::HostDirectory { position, .. },
            ) => (file, *position),
            _ => return Ok(()),
        };
        rustix::fs::seek(file, SeekFrom::Start(position)).map(drop).map_err(to_guest)
    }
}

impl Origin {
    fn save(&self, file: BorrowedFd<'_>, whole: bool) -> Result<OriginState, i32> {
        let Flags { access, append, .. } = self.flags;
        let access =
            AccessState { read: access != OFlags::WRONLY, write: self.flags.writes(), append };
        Ok(OriginState { path: self.path.to_vec(), access, identity: identity(file, whole)? })
    }
}

/// Identity of a file; its version, too, if it is `whole`.
fn identity(file: BorrowedFd<'_>, whole: bool) -> Result<Identity, i32> {
    let found = attributes::of_host(&rustix::fs::fstat(file).map_err(to_guest)?);
    let identity =
        Identity { device: found.st_dev, inode: found.st_ino, size: 0, seconds: 0, nanoseconds: 0 };
    if !whole {
        return Ok(identity);
    }
    let (seconds, nanoseconds) = (found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
    Ok(Identity { size: found.st_size, seconds, nanoseconds, ..identity })
}

/// Creates the guest's names again.
fn restore_names(
    names: &mut Names,
    saved: &[NameState],
    temporary: &[Arc<TempFile>],
) -> Result<(), RestoreError> {
    for NameState { inode, parent, name, node } in saved {
        let node = match *node {
            NodeState::Directory { mode } => Node::Directory { mode },
            NodeState::Temporary { file } => {
                Node::Temporary(temporary.get(file).ok_or(bad("temporary file"))?.clone())
            }
        };
        let is_created = names.create_again(Created { inode: *inode, parent: *parent, name, node });
        refuse(PART, "name", !is_created)?;
    }
    Ok(())
}

/// Flags that open a file with these rights, and change nothing.
fn flags(access: AccessState, directory: bool) -> Result<Flags, RestoreError> {
    let AccessState { read, write, append } = access;
    let access = match (read, write) {
        (true, true) => OFlags::RDWR,
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (false, false) => return Err(bad("rights of an open file")),
    };
    Ok(Flags { access, create: false, exclusive: false, truncate: false, append, directory })
}

/// A path as [`GuestPath`] has it.
fn parse(path: &[u8]) -> Result<GuestPath, RestoreError> {
    let raw = if path.is_empty() { b"/" } else { path };
    let parsed = GuestPath::parse(raw).ok().filter(|parsed| parsed.as_bytes() == path);
    parsed.ok_or(bad("path of an open file"))
}

/// A position that the host's kernel has, too.
fn check_position(position: u64) -> Result<u64, RestoreError> {
    refuse(PART, "position", i64::try_from(position).is_err())?;
    Ok(position)
}

const fn bad(field: &'static str) -> RestoreError {
    RestoreError::Field { part: PART, field }
}
