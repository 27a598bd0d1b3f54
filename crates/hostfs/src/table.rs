//! The guest's descriptors.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nerite_hypercall::STDERR;
use nerite_hypercall::errno::{EBADF, EMFILE};

use crate::open::Open;

/// The first number after the standard streams.
const FIRST: i32 = STDERR + 1;

/// Numbers for open files; the lowest that is free is the next.
///
/// The lock is held only to look up and to change the table. Each user of a file holds a reference
/// to it, so it can be closed at any time and is dropped by its last user.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Mutex<Vec<Option<Arc<Open>>>>,
    limit: usize,
}

impl Table {
    pub(crate) fn new(limit: usize) -> Self {
        Self { slots: Mutex::default(), limit }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Option<Arc<Open>>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `true` if no file is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots().iter().all(Option::is_none)
    }

    /// Fails early where [`Self::insert`] would, before a file is created for nothing.
    pub(crate) fn has_room(&self) -> Result<(), i32> {
        let slots = self.slots();
        if slots.len() < self.limit || slots.iter().any(Option::is_none) {
            Ok(())
        } else {
            Err(EMFILE)
        }
    }

    pub(crate) fn insert(&self, open: Open) -> Result<i32, i32> {
        let open = Arc::new(open);
        let mut slots = self.slots();
        let index = match slots.iter().position(Option::is_none) {
            Some(index) => index,
            None if slots.len() < self.limit => {
                slots.push(None);
                slots.len().saturating_sub(1)
            }
            None => return Err(EMFILE),
        };
        let fd =
            i32::try_from(index).ok().and_then(|index| index.checked_add(FIRST)).ok_or(EMFILE)?;
        if let Some(slot) = slots.get_mut(index) {
            *slot = Some(open);
        }
        Ok(fd)
    }

    /// Maximum number of open files.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// All open files with their numbers.
    pub(crate) fn all(&self) -> Vec<(i32, Arc<Open>)> {
        let slots = self.slots();
        (FIRST..).zip(slots.iter()).filter_map(|(fd, slot)| Some((fd, slot.clone()?))).collect()
    }

    /// Replaces all open files. Returns `false` if a number cannot be.
    pub(crate) fn replace(&self, files: impl IntoIterator<Item = (i32, Open)>) -> bool {
        let mut new = Vec::new();
        for (fd, open) in files {
            let index = Self::index(fd).unwrap_or(usize::MAX);
            // In ascending order.
            if index < new.len() || index >= self.limit {
                return false;
            }
            new.resize_with(index, || None);
            new.push(Some(Arc::new(open)));
        }
        // The old ones are closed without the lock.
        let old = std::mem::replace(&mut *self.slots(), new);
        drop(old);
        true
    }

    fn index(fd: i32) -> Result<usize, i32> {
        fd.checked_sub(FIRST).and_then(|index| usize::try_from(index).ok()).ok_or(EBADF)
    }

    pub(crate) fn get(&self, fd: i32) -> Result<Arc<Open>, i32> {
        let index = Self::index(fd)?;
        self.slots().get(index).cloned().flatten().ok_or(EBADF)
    }

    /// Frees the number. The host's descriptor is closed by the caller's drop, without the lock.
    pub(crate) fn remove(&self, fd: i32) -> Result<Arc<Open>, i32> {
        let index = Self::index(fd)?;
        self.slots().get_mut(index).and_then(Option::take).ok_or(EBADF)
    }
}
