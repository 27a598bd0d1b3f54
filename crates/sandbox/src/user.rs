//! Becoming another user.

use std::io;

use crate::{Error, User};

/// Leaves all groups, then the group, then the user: each step needs the privilege that the last
/// one gives up.
pub(crate) fn become_user(user: User) -> Result<(), Error> {
    let User { uid, gid } = user;
    let check = |result: libc::c_int| {
        if result == 0 {
            return Ok(());
        }
        Err(Error::User { uid, gid, source: io::Error::last_os_error() })
    };
    // SAFETY: with a length of 0 the list is not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: it takes numbers alone. The C library makes all threads follow.
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    // SAFETY: as above.
    check(unsafe { libc::setresuid(uid, uid, uid) })
}
