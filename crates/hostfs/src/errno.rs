//! From the host's error numbers to the guest's.

use nerite_hypercall::errno as guest;
use rustix::io::Errno;

/// Translates by name; what Hermit has no name for is `EIO`.
pub(crate) fn to_guest(error: Errno) -> i32 {
    match error {
        Errno::PERM => guest::EPERM,
        Errno::NOENT => guest::ENOENT,
        Errno::INTR => guest::EINTR,
        Errno::NXIO => guest::ENXIO,
        Errno::BADF => guest::EBADF,
        Errno::AGAIN => guest::EAGAIN,
        Errno::NOMEM => guest::ENOMEM,
        Errno::ACCESS => guest::EACCES,
        Errno::FAULT => guest::EFAULT,
        Errno::BUSY | Errno::TXTBSY => guest::EBUSY,
        Errno::EXIST => guest::EEXIST,
        Errno::XDEV => guest::EXDEV,
        Errno::NODEV => guest::ENODEV,
        Errno::NOTDIR => guest::ENOTDIR,
        Errno::ISDIR => guest::EISDIR,
        Errno::INVAL => guest::EINVAL,
        Errno::NFILE => guest::ENFILE,
        Errno::MFILE => guest::EMFILE,
        Errno::NOTTY => guest::ENOTTY,
        Errno::FBIG => guest::EFBIG,
        Errno::NOSPC | Errno::DQUOT => guest::ENOSPC,
        Errno::SPIPE => guest::ESPIPE,
        Errno::ROFS => guest::EROFS,
        Errno::MLINK => guest::EMLINK,
        Errno::PIPE => guest::EPIPE,
        Errno::RANGE => guest::ERANGE,
        Errno::NAMETOOLONG => guest::ENAMETOOLONG,
        Errno::NOSYS => guest::ENOSYS,
        Errno::NOTEMPTY => guest::ENOTEMPTY,
        Errno::LOOP => guest::ELOOP,
        Errno::OVERFLOW => guest::EOVERFLOW,
        _ => guest::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_translated_number_has_a_name() {
        for number in 1..200 {
            let translated = to_guest(Errno::from_raw_os_error(number));
            assert!(guest::name(translated).is_some(), "host {number} became {translated}");
        }
        assert_eq!(to_guest(Errno::NOENT), guest::ENOENT);
        assert_eq!(to_guest(Errno::DQUOT), guest::ENOSPC);
        assert_eq!(to_guest(Errno::STALE), guest::EIO);
    }
}
