//! The names that are not below a directory mount: mount points and the directories above them, the image's files, and
//! what the guest creates.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use nerite_hypercall::errno::{EEXIST, EISDIR, ENOENT, ENOSPC, ENOTDIR, EROFS};
use nerite_hypercall::v2::{FileAttr, file_type};

use crate::attributes;
use crate::directory::{Cursor, Entry};
use crate::image::Image;
use crate::path;
use crate::temporary::TempFile;

/// The mode of directories that nobody created.
const DIRECTORY_MODE: u32 = 0o755;

/// Bytes of all names, each with those above it, that mounts and an image may have together. An image of many deep names
/// would take a multiple of its size.
const FIXED_BYTES: usize = 64 << 20;
/// What a name takes besides its bytes, roughly.
const NAME_OVERHEAD: usize = 128;

/// How many entries of a directory are looked up at a time.
const PAGE: usize = 64;

/// What a name stands for.
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

/// A node and its inode number.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) inode: u64,
    pub(crate) node: Node,
}

/// All names, each with its full path as the key.
#[derive(Debug)]
pub(crate) struct Names {
    /// Keys have a slash before each name, so the root is empty.
    nodes: BTreeMap<Vec<u8>, Found>,
    next_inode: u64,
    /// How many more the guest may create.
    room: usize,
    /// Bytes of names an image may still bring along.
    fixed_room: usize,
}

impl Names {
    /// Only the root. The guest may create `room` names.
    pub(crate) fn new(room: usize) -> Self {
        let mut names = Self { nodes: BTreeMap::new(), next_inode: 1, room, fixed_room: FIXED_BYTES };
        names.put(b"", Node::Directory { mode: DIRECTORY_MODE });
        names
    }

    fn put(&mut self, path: &[u8], node: Node) {
        let inode = self.next_inode;
        self.next_inode = inode.saturating_add(1);
        self.nodes.insert(path.to_vec(), Found { inode, node });
    }

    /// Adds a name that the guest cannot change, and the directories above it.
    ///
    /// A later name takes the place of an earlier one; nothing takes the place of a directory.
    pub(crate) fn add_fixed(&mut self, path: &[u8], node: Node) -> Result<(), &'static str> {
        for parent in path::ancestors(path) {
            match self.nodes.get(parent).map(|found| &found.node) {
                None => self.put_fixed(parent, Node::Directory { mode: DIRECTORY_MODE })?,
                Some(Node::Directory { .. } | Node::MountPoint(file_type::DIRECTORY)) => {}
                Some(_) => return Err("another file has the name of a directory above it"),
            }
        }
        match self.nodes.get(path).map(|found| &found.node) {
            Some(Node::Directory { .. }) if !matches!(node, Node::MountPoint(file_type::DIRECTORY)) => {
                Err("a directory has the same name")
            }
            _ => self.put_fixed(path, node),
        }
    }

    fn put_fixed(&mut self, path: &[u8], node: Node) -> Result<(), &'static str> {
        let size = path.len().saturating_add(NAME_OVERHEAD);
        self.fixed_room =
            self.fixed_room.checked_sub(size).ok_or("the names are too many and too long (64 MiB in all)")?;
        self.put(path, node);
        Ok(())
    }

    /// What a path stands for.
    pub(crate) fn get(&self, path: &[u8], must_be_directory: bool) -> Result<Found, i32> {
        let found = match self.nodes.get(path) {
            Some(found) => found,
            None => return Err(self.why_missing(path)),
        };
        match found.node {
            Node::Directory { .. } | Node::MountPoint(file_type::DIRECTORY) => Ok(found.clone()),
            _ if must_be_directory => Err(ENOTDIR),
            _ => Ok(found.clone()),
        }
    }

    /// The directory at a path, if there is one.
    pub(crate) fn directory(&self, path: &[u8]) -> Option<Found> {
        self.nodes.get(path).filter(|found| matches!(found.node, Node::Directory { .. })).cloned()
    }

    /// A file on the way is another error than nothing there.
    fn why_missing(&self, path: &[u8]) -> i32 {
        let is_file = |found: &Found| matches!(found.node, Node::Image(_) | Node::Temporary(_));
        if path::ancestors(path).any(|parent| self.nodes.get(parent).is_some_and(is_file)) {
            ENOTDIR
        } else {
            ENOENT
        }
    }

    /// Creates a name, and the directories above it that are missing: the Hermit kernel has directories of its own, such
    /// as the points where it mounts, and does not tell of them.
    pub(crate) fn create(&mut self, path: &[u8], node: Node) -> Result<Found, i32> {
        if self.nodes.contains_key(path) {
            return Err(EEXIST);
        }
        if self.why_missing(path) == ENOTDIR {
            return Err(ENOTDIR);
        }
        let missing: Vec<_> =
            path::ancestors(path).filter(|parent| !self.nodes.contains_key(*parent)).collect();
        let needed = missing.len().saturating_add(1);
        self.room = self.room.checked_sub(needed).ok_or(ENOSPC)?;
        for parent in missing {
            self.put(parent, Node::Directory { mode: DIRECTORY_MODE });
        }
        self.put(path, node);
        self.get(path, false)
    }

    /// Removes a file that the guest created. It lives on in the descriptors that are open.
    pub(crate) fn remove(&mut self, path: &[u8], must_be_directory: bool) -> Result<Found, i32> {
        match self.get(path, must_be_directory)?.node {
            Node::Directory { .. } | Node::MountPoint(_) => Err(EISDIR),
            Node::Image(_) => Err(EROFS),
            Node::Temporary(_) => {
                self.room = self.room.saturating_add(1);
                self.nodes.remove(path).ok_or(ENOENT)
            }
        }
    }

    /// Some of what is in a directory, from a place on.
    pub(crate) fn page(&self, path: &[u8], cursor: &mut Cursor) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut next = cursor.take().unwrap_or_else(|| {
            let inode = |path: &[u8]| self.nodes.get(path).map_or(1, |found| found.inode);
            let parent = path::split(path).map_or(path, |(parent, _)| parent);
            entries.extend(Entry::dots(inode(path), inode(parent)));
            [path, b"/"].concat()
        });
        while entries.len() < PAGE
            && let Some((child, found)) =
                self.nodes.range::<[u8], _>((Bound::Included(next.as_slice()), Bound::Unbounded)).next()
        {
            let Some(name) = child.strip_prefix(path).and_then(|rest| rest.strip_prefix(b"/")) else { break };
            next = if let Some(slash) = name.iter().position(|&byte| byte == b'/') {
                // Below a child. All that is has the slash there; the next byte value is '0'.
                [path, b"/", name.get(..slash).unwrap_or_default(), b"0"].concat()
            } else {
                let kind = match found.node {
                    Node::Directory { .. } => file_type::DIRECTORY,
                    Node::Image(_) | Node::Temporary(_) => file_type::REGULAR_FILE,
                    Node::MountPoint(kind) => kind,
                };
                entries.push(Entry { inode: found.inode, kind, name: name.to_vec() });
                [child, &b"\0"[..]].concat()
            };
        }
        *cursor = Some(next);
        entries
    }

    /// The directories with something in them besides directories, without the root, and none below another one.
    pub(crate) fn outermost(&self) -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut candidates: Vec<&[u8]> = self
            .nodes
            .iter()
            .filter_map(|(path, found)| match found.node {
                Node::Directory { .. } => None,
                Node::MountPoint(file_type::DIRECTORY) => Some(path.as_slice()),
                _ => path::split(path).map(|(parent, _)| parent),
            })
            .filter(|path| !path.is_empty())
            .collect();
        candidates.sort_unstable_by_key(|path| path.len());
        for path in candidates {
            let is_below = |above: &Vec<u8>| {
                path.strip_prefix(above.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
            };
            if !found.iter().any(is_below) {
                found.push(path.to_vec());
            }
        }
        found
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
