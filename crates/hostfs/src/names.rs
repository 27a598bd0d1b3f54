//! The names that are not below a directory mount: mount points and the directories above them, the
//! image's files, and what the guest creates.

mod saved;

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::ops::Bound;
use std::sync::Arc;

use nerite_hypercall::errno::{EEXIST, EISDIR, ENOENT, ENOSPC, ENOTDIR, EROFS};
use nerite_hypercall::v2::{FileAttr, file_type};

pub(crate) use self::saved::Created;
use crate::attributes;
use crate::directory::Entry;
use crate::image::Image;
use crate::path;
use crate::temporary::TempFile;

/// Mode of directories that were not created by the guest.
const DIRECTORY_MODE: u32 = 0o755;

/// Memory in bytes for the names that mounts and an image bring along. An image with 65 536 files
/// in ordinary folders fits.
const FIXED_BYTES: usize = 24 << 20;
/// Memory in bytes that a name takes besides its own bytes: more for a directory with one file,
/// less for a file.
const NAME_OVERHEAD: usize = 320;

/// Number of entries of a directory that are looked up at a time.
const PAGE: usize = 64;

/// Bytes of directory paths that [`Names::outermost`] gives. A kernel's device tree has 16 KiB.
const MAX_OUTERMOST: usize = 64 << 10;

/// Inode number of the root.
const ROOT: u64 = 1;

/// The file of a name.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Directory {
        mode: u32,
    },
    Image(Arc<Image>),
    Temporary(Arc<TempFile>),
    /// Only listed: what is opened there is found by its mount. One of [`file_type`].
    MountPoint(u8),
}

impl Node {
    /// `true` if there can be names below it.
    const fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. } | Self::MountPoint(file_type::DIRECTORY))
    }

    /// The type in a directory entry.
    const fn kind(&self) -> u8 {
        match self {
            Self::Directory { .. } => file_type::DIRECTORY,
            Self::Image(_) | Self::Temporary(_) => file_type::REGULAR_FILE,
            Self::MountPoint(kind) => *kind,
        }
    }
}

/// A node and its inode number.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) inode: u64,
    pub(crate) node: Node,
}

/// All names as a tree: the work for a path is in proportion to its length, whatever else there is.
#[derive(Debug)]
pub(crate) struct Names {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// First inode number of names that the guest creates.
    first_created: u64,
    /// Number of names that the guest may still create.
    room: usize,
    /// Number of names that the guest may have created.
    limit: usize,
    /// Memory that names of mounts and of an image may still take.
    fixed_room: usize,
}

#[derive(Debug)]
struct Inode {
    parent: u64,
    node: Node,
    children: BTreeMap<Box<[u8]>, u64>,
}

/// Names and inode numbers of what is in a directory.
type Children<'a> = Iter<'a, Box<[u8]>, u64>;

/// The end of a walk.
enum Walk<'a> {
    /// The whole path exists.
    Whole(u64),
    /// This directory is the last of the path that exists; the rest has a slash before each name.
    Part(u64, &'a [u8]),
    /// There is a file on the way.
    File,
}

impl Names {
    /// Only the root. The guest may create `room` names.
    pub(crate) fn new(room: usize) -> Self {
        let node = Node::Directory { mode: DIRECTORY_MODE };
        let root = Inode { parent: ROOT, node, children: BTreeMap::new() };
        let next_inode = ROOT.saturating_add(1);
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next_inode,
            first_created: next_inode,
            room,
            limit: room,
            fixed_room: FIXED_BYTES,
        }
    }

    /// `true` if there is a name that the guest has created.
    pub(crate) const fn has_temporary(&self) -> bool {
        self.room != self.limit
    }

    /// Follows a path from the root as far as it exists.
    fn walk<'a>(&self, path: &'a [u8]) -> Walk<'a> {
        let (mut at, mut rest) = (ROOT, path);
        while let Some((name, below)) = path::first(rest) {
            let Some(inode) = self.inodes.get(&at) else { return Walk::Part(ROOT, path) };
            if !inode.node.is_directory() {
                return Walk::File;
            }
            match inode.children.get(name) {
                Some(child) => (at, rest) = (*child, below),
                None => return Walk::Part(at, rest),
            }
        }
        Walk::Whole(at)
    }

    /// Adds a name to a directory. Returns its inode number.
    fn put(&mut self, parent: u64, name: &[u8], node: Node) -> u64 {
        let number = self.next_inode;
        self.next_inode = number.saturating_add(1);
        if let Some(directory) = self.inodes.get_mut(&parent) {
            directory.children.insert(name.into(), number);
        }
        self.inodes.insert(number, Inode { parent, node, children: BTreeMap::new() });
        number
    }

    /// Adds the names of `rest` below a directory: the last one is `node`, the others are
    /// directories.
    fn put_all(&mut self, mut parent: u64, mut rest: &[u8], node: Node) -> u64 {
        while let Some((name, below)) = path::first(rest) {
            if below.is_empty() {
                return self.put(parent, name, node);
            }
            parent = self.put(parent, name, Node::Directory { mode: DIRECTORY_MODE });
            rest = below;
        }
        parent
    }

    /// Adds a name that the guest cannot change, and the directories above it.
    ///
    /// A later name takes the place of an earlier one; nothing takes the place of a directory.
    pub(crate) fn add_fixed(&mut self, path: &[u8], node: Node) -> Result<(), &'static str> {
        match self.walk(path) {
            Walk::File => Err("another file has the name of a directory above it"),
            Walk::Whole(number) => {
                let Some(inode) = self.inodes.get_mut(&number) else { return Ok(()) };
                let is_mount = matches!(node, Node::MountPoint(file_type::DIRECTORY));
                if matches!(inode.node, Node::Directory { .. }) && !is_mount {
                    return Err("a directory has the same name");
                }
                inode.node = node;
                Ok(())
            }
            Walk::Part(parent, rest) => {
                let count = rest.iter().filter(|&&byte| byte == b'/').count();
                let size = count.saturating_mul(NAME_OVERHEAD).saturating_add(rest.len());
                self.fixed_room = self
                    .fixed_room
                    .checked_sub(size)
                    .ok_or("the names are too many and too long")?;
                self.put_all(parent, rest, node);
                self.first_created = self.next_inode;
                Ok(())
            }
        }
    }

    pub(crate) fn found(&self, inode: u64) -> Result<Found, i32> {
        let node = self.inodes.get(&inode).map(|inode| inode.node.clone());
        node.map(|node| Found { inode, node }).ok_or(ENOENT)
    }

    /// The file of a path.
    pub(crate) fn get(&self, path: &[u8], must_be_directory: bool) -> Result<Found, i32> {
        match self.walk(path) {
            Walk::File => Err(ENOTDIR),
            Walk::Part(..) => Err(ENOENT),
            Walk::Whole(inode) => {
                let found = self.found(inode)?;
                if must_be_directory && !found.node.is_directory() {
                    Err(ENOTDIR)
                } else {
                    Ok(found)
                }
            }
        }
    }

    /// The directory at a path, if there is one.
    pub(crate) fn directory(&self, path: &[u8]) -> Option<Found> {
        self.get(path, true).ok().filter(|found| matches!(found.node, Node::Directory { .. }))
    }

    /// Creates a name, and the directories above it that are missing: the Hermit kernel has
    /// directories of its own, such as the points where it mounts, and does not tell of them.
    pub(crate) fn create(&mut self, path: &[u8], node: Node) -> Result<Found, i32> {
        match self.walk(path) {
            Walk::Whole(_) => Err(EEXIST),
            Walk::File => Err(ENOTDIR),
            Walk::Part(parent, rest) => {
                let needed = rest.iter().filter(|&&byte| byte == b'/').count();
                self.room = self.room.checked_sub(needed).ok_or(ENOSPC)?;
                let inode = self.put_all(parent, rest, node);
                self.found(inode)
            }
        }
    }

    /// Removes a file that the guest created. It lives on in the descriptors that are open.
    pub(crate) fn remove(&mut self, path: &[u8], must_be_directory: bool) -> Result<Found, i32> {
        let found = self.get(path, must_be_directory)?;
        match found.node {
            Node::Directory { .. } | Node::MountPoint(_) => Err(EISDIR),
            Node::Image(_) => Err(EROFS),
            Node::Temporary(_) => {
                let removed = self.inodes.remove(&found.inode).ok_or(ENOENT)?;
                let name = path::split(path).map_or(path, |(_, name)| name);
                if let Some(parent) = self.inodes.get_mut(&removed.parent) {
                    parent.children.remove(name);
                }
                self.room = self.room.saturating_add(1);
                Ok(found)
            }
        }
    }

    /// Some of the entries of a directory that come after the one of this name.
    pub(crate) fn page(&self, path: &[u8], after: Option<&[u8]>) -> Vec<Entry> {
        let Walk::Whole(number) = self.walk(path) else { return Vec::new() };
        let Some(directory) = self.inodes.get(&number) else { return Vec::new() };
        let dots = Entry::dots(number, directory.parent);
        let (given, after) = match after {
            None => (0, Bound::Unbounded),
            Some(b".") => (1, Bound::Unbounded),
            Some(b"..") => (2, Bound::Unbounded),
            Some(name) => (2, Bound::Excluded(name)),
        };
        let children = directory.children.range::<[u8], _>((after, Bound::Unbounded));
        let children = children.filter_map(|(name, inode)| {
            let kind = self.inodes.get(inode)?.node.kind();
            Some(Entry { inode: *inode, kind, name: name.to_vec() })
        });
        dots.into_iter().skip(given).chain(children.take(PAGE)).collect()
    }

    /// The directories with something in them besides directories, without the root, and none below
    /// another one: at most 64 KiB of paths, the shortest first.
    ///
    /// One walk over the tree that stops where there is enough.
    pub(crate) fn outermost(&self) -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut room = MAX_OUTERMOST;
        let mut path = Vec::new();
        // Children that are still to be visited, and the length of their directory's path, from the
        // root down.
        let mut levels: Vec<(Children<'_>, usize)> = Vec::new();
        levels.extend(self.inodes.get(&ROOT).map(|root| (root.children.iter(), 0)));
        while let Some((children, length)) = levels.last_mut() {
            path.truncate(*length);
            let Some((name, number)) = children.next() else {
                levels.pop();
                continue;
            };
            let Some(inode) = self.inodes.get(number).filter(|inode| inode.node.is_directory())
            else {
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(name);
            if matches!(inode.node, Node::MountPoint(_)) || self.has_file(inode) {
                room = match room.checked_sub(path.len()) {
                    Some(room) => room,
                    None => break,
                };
                found.push(path.clone());
            } else {
                levels.push((inode.children.iter(), path.len()));
            }
        }
        found.sort_by_key(Vec::len);
        found
    }

    /// `true` if there is something besides directories in this one.
    fn has_file(&self, directory: &Inode) -> bool {
        let is_file =
            |number| self.inodes.get(number).is_some_and(|inode| !inode.node.is_directory());
        directory.children.values().any(is_file)
    }
}

impl Found {
    /// The metadata.
    pub(crate) fn attributes(&self) -> Result<FileAttr, i32> {
        match &self.node {
            Node::Directory { mode } => Ok(attributes::of_directory(self.inode, *mode)),
            Node::MountPoint(_) => Ok(attributes::of_directory(self.inode, DIRECTORY_MODE)),
            Node::Image(image) => Ok(image.attributes(self.inode)),
            Node::Temporary(file) => file.attributes(self.inode),
        }
    }
}

#[cfg(test)]
#[path = "names_test.rs"]
mod tests;
