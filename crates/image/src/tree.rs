//! [`Tree`]: the names of a root file system that is made of layers.

use std::cell::Cell;
use std::collections::BTreeMap;

use nerite_loader::{Entry, EntryKind, Limits};

use crate::LayerError;
use crate::text::short;

/// Most directories in each other, and most steps of a path with links.
const MAX_DEPTH: usize = 128;
const MAX_STEPS: usize = 256;
/// Bytes of all paths that are looked up on the way, in the life of a tree. Long names and links to
/// them could take minutes otherwise; as many files as are allowed take some 100 MiB.
const MAX_WORK: usize = 512 << 20;
/// Beginning of the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// Name of a whiteout of everything else in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A regular file of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InLayer {
    /// Index of the layer.
    pub(crate) layer: usize,
    /// Index of the entry in it.
    pub(crate) entry: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Node {
    Directory,
    File(InLayer),
    Link(Vec<u8>),
}

/// Names of a root file system, without leading slashes. The directories of each name are there.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Number and bytes of the names that have been added in all.
    count: usize,
    bytes: usize,
    /// Work of looking up paths so far.
    work: Cell<usize>,
}

/// The components of a path that does not lead out of its root.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut all = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("its path has `..`"),
            part if part.len() > 255 => return Err("a name in it has more than 255 bytes"),
            part if part.contains(&0) => return Err("its path has a NUL character"),
            part => all.push(part),
        }
    }
    if all.len() > MAX_DEPTH { Err("it is more than 128 directories deep") } else { Ok(all) }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

impl Tree {
    /// Puts a layer upon those before it.
    pub(crate) fn apply(
        &mut self,
        layer: usize,
        entries: &[Entry],
        limits: &Limits,
    ) -> Result<(), LayerError> {
        let failed = |entry: &Entry, reason| LayerError::Entry {
            name: short(&String::from_utf8_lossy(&entry.name)),
            reason,
        };
        // Whiteouts are of what lower layers have, wherever in the layer they stand.
        for entry in entries {
            self.white_out(&entry.name).map_err(|reason| failed(entry, reason))?;
        }
        for (index, entry) in entries.iter().enumerate() {
            let place = InLayer { layer, entry: index };
            self.add(place, entry, limits).map_err(|reason| failed(entry, reason))?;
        }
        Ok(())
    }

    fn white_out(&mut self, name: &[u8]) -> Result<(), &'static str> {
        let parts = components(name)?;
        let Some((last, parents)) = parts.split_last() else { return Ok(()) };
        let Some(hidden) = last.strip_prefix(WHITEOUT) else { return Ok(()) };
        let directory = self.resolve(&parents.join(&b'/'), true)?;
        if *last == OPAQUE {
            self.remove_below(&directory);
        } else if matches!(hidden, b"" | b"." | b"..") {
            return Err("a whiteout of nothing");
        } else if !hidden.starts_with(WHITEOUT) {
            self.remove(&join(&directory, hidden));
        }
        Ok(())
    }

    fn add(&mut self, place: InLayer, entry: &Entry, limits: &Limits) -> Result<(), &'static str> {
        let parts = components(&entry.name)?;
        let Some((last, parents)) = parts.split_last() else { return Ok(()) };
        // Whiteouts, and what some tools keep beside them.
        if parts.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Ok(());
        }
        let directory = self.resolve(&parents.join(&b'/'), true)?;
        self.make_directories(&directory, limits)?;
        let path = join(&directory, last);
        let target = entry.target.as_deref().unwrap_or_default();
        let node = match entry.kind {
            EntryKind::Directory => {
                if matches!(self.nodes.get(&path), Some(Node::Directory)) {
                    return Ok(());
                }
                Node::Directory
            }
            EntryKind::File => Node::File(place),
            EntryKind::Symlink if target.is_empty() || target.contains(&0) => {
                return Err("a link to nothing");
            }
            EntryKind::Symlink => Node::Link(target.to_vec()),
            EntryKind::HardLink => {
                let target = self.resolve(&components(target)?.join(&b'/'), false)?;
                if target == path {
                    return Ok(());
                }
                match self.nodes.get(&target) {
                    Some(node @ (Node::File(_) | Node::Link(_))) => node.clone(),
                    _ => return Err("a hard link to what is no file"),
                }
            }
            // Devices and pipes: a guest has none.
            _ => {
                self.remove(&path);
                return Ok(());
            }
        };
        self.remove(&path);
        self.insert(path, node, limits)
    }

    fn make_directories(&mut self, path: &[u8], limits: &Limits) -> Result<(), &'static str> {
        if path.is_empty() || self.is_directory(path) {
            return Ok(());
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let ends: Vec<usize> = ends.chain([path.len()]).collect();
        for end in ends {
            let directory = path.get(..end).unwrap_or_default();
            match self.nodes.get(directory) {
                Some(Node::Directory) => {}
                Some(_) => return Err("its directory is none"),
                None => {
                    let name = directory.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
                    // Names of entries have been looked at; a link can lead to any.
                    if name.starts_with(WHITEOUT) {
                        return Err("it leads to a directory with the name of a whiteout");
                    }
                    self.insert(directory.to_vec(), Node::Directory, limits)?;
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, path: Vec<u8>, node: Node, limits: &Limits) -> Result<(), &'static str> {
        let target = if let Node::Link(target) = &node { target.len() } else { 0 };
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(path.len()).saturating_add(target);
        if self.count > limits.max_entries || self.bytes > limits.max_names {
            return Err("more files, or longer names, than the limits allow");
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) {
        if let Some(Node::Directory) = self.nodes.remove(path) {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, directory: &[u8]) {
        if directory.is_empty() {
            self.nodes.clear();
            return;
        }
        let start = [directory, b"/"].concat();
        let below = self.nodes.range(start.clone()..);
        let below = below.map(|(path, _)| path).take_while(|path| path.starts_with(&start));
        let below: Vec<Vec<u8>> = below.cloned().collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// The path without links that `path` leads to, which need not exist. Links lead to no place
    /// outside; the last one is followed if `follow` says so.
    pub(crate) fn resolve(&self, path: &[u8], follow: bool) -> Result<Vec<u8>, &'static str> {
        let mut done: Vec<u8> = Vec::new();
        let parts = |path: &[u8]| -> Vec<Vec<u8>> {
            let parts = path.split(|&byte| byte == b'/').rev();
            parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
        };
        let mut todo = parts(path);
        let mut steps = 0_usize;
        while let Some(part) = todo.pop() {
            steps = steps.saturating_add(1);
            if steps > MAX_STEPS {
                return Err("too many links or directories on the way");
            }
            if part == b".." {
                let parent = done.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                done.truncate(parent);
                continue;
            }
            let next = join(&done, &part);
            // Beside the path itself, a step costs something.
            let work = self.work.get().saturating_add(next.len()).saturating_add(64);
            self.work.set(work);
            if work > MAX_WORK {
                return Err("too many links or directories on the way");
            }
            match self.nodes.get(&next) {
                Some(Node::Link(target)) if follow || !todo.is_empty() => {
                    if target.starts_with(b"/") {
                        done.clear();
                    }
                    todo.extend(parts(target));
                    if todo.len() > MAX_STEPS {
                        return Err("too many links or directories on the way");
                    }
                }
                Some(Node::File(_)) if !todo.is_empty() => return Err("its directory is none"),
                _ => done = next,
            }
        }
        Ok(done)
    }

    /// The file that a path leads to.
    pub(crate) fn file(&self, path: &[u8]) -> Option<(Vec<u8>, InLayer)> {
        let path = self.resolve(path, true).ok()?;
        match self.nodes.get(&path) {
            Some(Node::File(place)) => Some((path, *place)),
            _ => None,
        }
    }

    /// `true` if there is a directory of this name.
    pub(crate) fn is_directory(&self, path: &[u8]) -> bool {
        matches!(self.nodes.get(path), Some(Node::Directory))
    }

    /// All names in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_slice(), node))
    }
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
