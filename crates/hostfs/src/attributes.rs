//! A file's metadata as the guest sees it.

use nerite_hypercall::v2::{FileAttr, Timespec, file_type as dirent};
use rustix::fs::{FileType, Stat};

/// The preferred size of an access to a file that is not the host's, in bytes.
const BLOCK: i64 = 4096;
/// The type bits of a mode (POSIX `<sys/stat.h>`).
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;

/// Of a host file.
pub(crate) fn of_host(stat: &Stat) -> FileAttr {
    // The types of these fields differ between the architectures' ABIs.
    #[allow(clippy::useless_conversion, reason = "the fields' types depend on the architecture")]
    fn signed<T: TryInto<i64>>(value: T) -> i64 {
        value.try_into().unwrap_or(i64::MAX)
    }
    fn unsigned<T: TryInto<u64>>(value: T) -> u64 {
        value.try_into().unwrap_or(u64::MAX)
    }
    fn time<S: TryInto<i64>, N: TryInto<i32>>(seconds: S, nanoseconds: N) -> Timespec {
        Timespec {
            tv_sec: seconds.try_into().unwrap_or(0),
            tv_nsec: nanoseconds.try_into().unwrap_or(0),
            reserved: 0,
        }
    }
    FileAttr {
        st_dev: unsigned(stat.st_dev),
        st_ino: unsigned(stat.st_ino),
        st_nlink: unsigned(stat.st_nlink),
        st_mode: stat.st_mode,
        st_uid: stat.st_uid,
        st_gid: stat.st_gid,
        reserved: 0,
        st_rdev: unsigned(stat.st_rdev),
        st_size: signed(stat.st_size),
        st_blksize: signed(stat.st_blksize),
        st_blocks: signed(stat.st_blocks),
        st_atim: time(stat.st_atime, stat.st_atime_nsec),
        st_mtim: time(stat.st_mtime, stat.st_mtime_nsec),
        st_ctim: time(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// Of a file that is not the host's.
pub(crate) fn of_file(inode: u64, mode: u32, size: u64) -> FileAttr {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    FileAttr {
        st_ino: inode,
        st_nlink: 1,
        st_mode: S_IFREG | mode & 0o777,
        st_size: size,
        st_blksize: BLOCK,
        st_blocks: size.cast_unsigned().div_ceil(512).cast_signed(),
        ..FileAttr::default()
    }
}

/// Of a directory that is not the host's.
pub(crate) fn of_directory(inode: u64, mode: u32) -> FileAttr {
    FileAttr {
        st_ino: inode,
        st_nlink: 2,
        st_mode: S_IFDIR | mode & 0o777,
        st_blksize: BLOCK,
        ..FileAttr::default()
    }
}

/// The type in a directory entry.
pub(crate) const fn dirent_type(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => dirent::REGULAR_FILE,
        FileType::Directory => dirent::DIRECTORY,
        FileType::Symlink => dirent::SYMBOLIC_LINK,
        FileType::Fifo => dirent::FIFO,
        FileType::Socket => dirent::SOCKET,
        FileType::CharacterDevice => dirent::CHARACTER_DEVICE,
        FileType::BlockDevice => dirent::BLOCK_DEVICE,
        _ => dirent::UNKNOWN,
    }
}
