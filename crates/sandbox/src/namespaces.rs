//! A file system with nothing in it, and no view of the host's other resources, for those who may
//! have them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, OpenTreeFlags, UnmountFlags, mount, mount_change,
    mount_move, open_tree, unmount,
};
use rustix::thread::{CapabilitySet, UnshareFlags};

use crate::capabilities::is_missing;
use crate::{Error, Level, Missing, Policy};

/// A directory that every system has. An empty file system is put there for a moment, in a mount
/// namespace of our own.
const PLACE: &str = "/proc";

/// Leaves the host's namespaces and root directory, if the process may.
///
/// Descriptors that are open stay what they are: a mounted directory is still reached through its
/// own.
pub(crate) fn enter(policy: &Policy, missing: &mut Vec<Missing>) -> Result<(), Error> {
    let mut own = policy.level != Level::Off;
    let mut separated =
        if own { leave_host(policy.level).map_err(io::Error::from) } else { Ok(()) };
    if let Err(error) = &separated
        && is_missing(error, CapabilitySet::SYS_ADMIN)?
    {
        (own, separated) = (false, Ok(()));
    }
    if let Some(directory) = &policy.chroot {
        change_root(directory)
            .map_err(|source| Error::Chroot { path: directory.clone(), source })?;
    }
    let emptied = match separated {
        Ok(()) if own && policy.chroot.is_none() => empty_root().map_err(io::Error::from),
        other => other,
    };
    if let Err(error) = emptied {
        missing.push(Missing::Namespaces(error));
    }
    Ok(())
}

/// A directory of sockets, as a mount of its own if the process may mount: `..` does not lead out
/// of it, and it stays when the host's mounts are left.
pub(crate) fn separate(
    policy: &Policy,
    folder: BorrowedFd<'_>,
    missing: &mut Vec<Missing>,
) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let failed = Error::host("opening the directory of sockets");
    if policy.level != Level::Off {
        match open_tree(folder, "", flags).map_err(io::Error::from) {
            Ok(own) => return Ok(own),
            Err(error) if is_missing(&error, CapabilitySet::SYS_ADMIN)? => {}
            Err(error) => missing.push(Missing::Namespaces(error)),
        }
    }
    rustix::io::fcntl_dupfd_cloexec(folder, 0).map_err(failed)
}

/// Mounts; and at [`Level::Strict`] System V IPC and the host's name, which no system call that is
/// left could reach anyway. (The same goes for processes, in all levels. Sockets that network cards
/// open are to be the host's.)
fn leave_host(level: Level) -> Result<(), Errno> {
    let mut flags = UnshareFlags::NEWNS;
    flags.set(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS, level == Level::Strict);
    // SAFETY: none of these flags separates the calling thread's descriptors from those of others.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    // What is mounted here from now on is not to appear on the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

fn change_root(directory: &Path) -> io::Result<()> {
    rustix::process::chroot(directory)?;
    Ok(rustix::process::chdir("/")?)
}

/// Puts an empty, read-only file system in the place of the root directory, and unmounts the old
/// one (pivot_root(2)).
fn empty_root() -> Result<(), Errno> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("none", PLACE, "tmpfs", flags, None)?;
    rustix::process::chdir(PLACE)?;
    match rustix::process::pivot_root(".", ".") {
        // The old root then lies over the new one, at the same place.
        Ok(()) => unmount(".", UnmountFlags::DETACH)?,
        // The first root of a system, in its memory, cannot be unmounted: it is covered
        // (switch_root(8)).
        Err(Errno::INVAL) => {
            mount_move(".", "/")?;
            rustix::process::chroot(".")?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
