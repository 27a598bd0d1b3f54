//! Giving up root's privileges, piece by piece (capabilities(7)).

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::{Error, Level, Missing};

/// `SECBIT_*` of `<linux/securebits.h>`: being user 0 gives nothing, changing users changes
/// nothing, no ambient capability can be raised; each with its lock.
const SECURE_BITS: libc::c_ulong = 0b1110_1111;

/// Returns `true` if an operation failed because the process lacks `capability`. Checked only after
/// a failure: with the capability, another reason is the cause.
pub(crate) fn is_missing(error: &io::Error, capability: CapabilitySet) -> Result<bool, Error> {
    if error.raw_os_error() != Some(libc::EPERM) {
        return Ok(false);
    }
    let held = capabilities(None).map_err(Error::host("reading capabilities"))?.effective;
    Ok(!held.contains(capability))
}

/// Sees to it that starting a program brings nothing back. Has to come while there still are
/// capabilities.
///
/// The bounding set, which decides what starting a program can bring, is emptied only at
/// [`Level::Strict`]: a system call for each of the 41 capabilities. At [`Level::Normal`] the
/// secure bits, no new privileges and the filters, which know no `execve`, see to it that it has
/// nothing to decide.
pub(crate) fn renounce(level: Level, missing: &mut Vec<Missing>) -> Result<(), Error> {
    let emptied = if level == Level::Strict { empty_bounding_set() } else { Ok(()) };
    if let Err(error) = emptied.and_then(|()| secure_bits())
        && !is_missing(&error, CapabilitySet::SETPCAP)?
    {
        missing.push(Missing::Capabilities(error));
    }
    Ok(())
}

/// Leaves none: not effective, permitted, inheritable or ambient.
pub(crate) fn drop_all() -> Result<(), Error> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // The kernel takes from the ambient set what is not permitted and inheritable.
    set_capabilities(None, none).map_err(Error::host("giving up capabilities"))
}

fn secure_bits() -> io::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, SECURE_BITS)
}

fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..=63 {
        match prctl(libc::PR_CAPBSET_DROP, capability) {
            // Beyond the last one this kernel knows.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 => break,
            other => other?,
        }
    }
    Ok(())
}

fn prctl(operation: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: both operations used here take a number, and neither reads or writes memory of this
    // process.
    let result = unsafe { libc::prctl(operation, argument, zero, zero, zero) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
