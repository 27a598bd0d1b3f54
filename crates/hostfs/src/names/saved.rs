//! The names that the guest has created, on their way into a snapshot and out of one.

use std::collections::BTreeMap;

use super::{Inode, Names, Node};
use crate::path;

/// A name that the guest has created.
#[derive(Debug)]
pub(crate) struct Created<'a> {
    pub(crate) inode: u64,
    pub(crate) parent: u64,
    pub(crate) name: &'a [u8],
    pub(crate) node: Node,
}

impl Names {
    /// Number of names that the guest may have created at a time.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// The first inode number of names that the guest creates, and the next one.
    pub(crate) const fn numbers(&self) -> (u64, u64) {
        (self.first_created, self.next_inode)
    }

    /// Names that the guest has created, in the order of their inode numbers.
    pub(crate) fn created(&self) -> impl Iterator<Item = Created<'_>> {
        let names = self.inodes.values().flat_map(|directory| &directory.children);
        let names = names.filter(|(_, number)| **number >= self.first_created);
        let names: BTreeMap<u64, &[u8]> = names.map(|(name, number)| (*number, &**name)).collect();
        names.into_iter().filter_map(|(number, name)| {
            let Inode { parent, node, .. } = self.inodes.get(&number)?;
            Some(Created { inode: number, parent: *parent, name, node: node.clone() })
        })
    }

    /// Removes all names that the guest has created. `next_inode` is the number of the next one;
    /// returns `false` if it cannot be.
    pub(crate) fn start_again(&mut self, next_inode: u64) -> bool {
        let first = self.first_created;
        self.inodes.retain(|number, _| *number < first);
        for inode in self.inodes.values_mut() {
            inode.children.retain(|_, number| *number < first);
        }
        (self.room, self.next_inode) = (self.limit, next_inode.max(first));
        next_inode >= first
    }

    /// Creates a name that a guest has created before, after all names of smaller numbers. Returns
    /// `false` if it cannot have.
    pub(crate) fn create_again(&mut self, created: Created<'_>) -> bool {
        let Created { inode, parent, name, node } = created;
        let is_name = !matches!(name, b"" | b"." | b"..")
            && name.len() <= path::NAME_MAX
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        let is_next = inode >= self.first_created
            && inode < self.next_inode
            && self.inodes.last_key_value().is_none_or(|(last, _)| *last < inode);
        let directory = self.inodes.get_mut(&parent);
        let directory = directory.filter(|parent| matches!(parent.node, Node::Directory { .. }));
        let (Some(directory), Some(room), true) =
            (directory, self.room.checked_sub(1), is_name && is_next)
        else {
            return false;
        };
        if directory.children.contains_key(name) {
            return false;
        }
        directory.children.insert(name.into(), inode);
        self.room = room;
        self.inodes.insert(inode, Inode { parent, node, children: BTreeMap::new() });
        true
    }
}
