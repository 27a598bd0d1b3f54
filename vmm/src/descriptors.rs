//! Descriptors that the parent process left open. A guest's `vmm` has no use for them, but an
//! attacker who takes it over has.

use std::io;

use libc::{c_int, c_uint};

/// Closes all descriptors but the standard ones and `keep`. To be called before anything else is
/// opened that is to stay open.
///
/// # Errors
///
/// If neither close_range(2) nor `/proc/self/fd` is there.
pub fn close_inherited(keep: &[c_int]) -> io::Result<()> {
    let mut keep: Vec<c_uint> = keep.iter().filter_map(|fd| c_uint::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut first: c_uint = 3;
    for kept in keep.into_iter().filter(|kept| *kept >= 3) {
        if let Some(last) = kept.checked_sub(1).filter(|last| *last >= first) {
            close_range(first, last)?;
        }
        first = kept.saturating_add(1);
    }
    close_range(first, c_uint::MAX)
}

fn close_range(first: c_uint, last: c_uint) -> io::Result<()> {
    // SAFETY: the callers own none of these descriptors; what has come from the parent nothing here
    // refers to.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error);
    }
    // Linux before 5.9. The list is complete before the first is closed, and so is not open itself
    // any more.
    let listed: Vec<c_int> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in listed {
        if c_uint::try_from(fd).is_ok_and(|number| (first..=last).contains(&number)) {
            // SAFETY: as above. One that is closed already, as that of the list, is an error
            // without consequences.
            unsafe { libc::close(fd) };
        }
    }
    Ok(())
}
