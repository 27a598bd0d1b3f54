//! Ports, sizes, alignments and field offsets equal those of `uhyve-interface`, field by field.

#![cfg(test)]

use std::mem::{align_of, offset_of, size_of};

use nerite_hypercall::{errno, file, v1, v2};
use uhyve_interface::{v1 as u1, v2 as u2};

/// Asserts equal size and alignment of `ours` and `theirs`, and the same offset and size of every
/// field.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty, { $($our:ident = $their:ident),* $(,)? }) => {{
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), "size of {}", stringify!($ours));
        assert_eq!(align_of::<$ours>(), align_of::<$theirs>(), "alignment of {}", stringify!($ours));
        $(
            assert_eq!(
                offset_of!($ours, $our), offset_of!($theirs, $their),
                "offset of {}::{}", stringify!($ours), stringify!($our),
            );
            assert_eq!(
                field_size(|block: $ours| block.$our),
                field_size(|block: $theirs| block.$their),
                "size of {}::{}", stringify!($ours), stringify!($our),
            );
        )*
    }};
    ($ours:ty, $theirs:ty, [ $($field:ident),* $(,)? ]) => {
        same_layout!($ours, $theirs, { $($field = $field),* })
    };
}

/// The size of the field that `_project` would return; the closure is never called.
fn field_size<S, F>(_project: impl Fn(S) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn version_1_blocks() {
    same_layout!(v1::CmdsizeParams, u1::parameters::CmdsizeParams, [argc, argsz, envc, envsz]);
    same_layout!(v1::CmdvalParams, u1::parameters::CmdvalParams, [argv, envp]);
    same_layout!(v1::ExitParams, u1::parameters::ExitParams, [arg]);
    same_layout!(v1::UnlinkParams, u1::parameters::UnlinkParams, [name, ret]);
    same_layout!(v1::WriteParams, u1::parameters::WriteParams, [fd, buf, len]);
    same_layout!(v1::ReadParams, u1::parameters::ReadParams, [fd, buf, len, ret]);
    same_layout!(v1::CloseParams, u1::parameters::CloseParams, [fd, ret]);
    same_layout!(v1::OpenParams, u1::parameters::OpenParams, [name, flags, mode, ret]);
    same_layout!(v1::LseekParams, u1::parameters::LseekParams, [fd, offset, whence]);
    same_layout!(v1::SerialWriteBufferParams, u1::parameters::SerialWriteBufferParams, [buf, len]);
}

#[test]
fn version_2_blocks() {
    use u2::parameters as p;
    same_layout!(v2::UnlinkParams, p::UnlinkParams, [name, ret]);
    same_layout!(v2::CloseParams, p::CloseParams, [fd, ret]);
    same_layout!(v2::OpenParams, p::OpenParams, [name, flags, mode, ret]);
    same_layout!(v2::WriteParams, p::WriteParams, [len, ret, buf, fd]);
    same_layout!(v2::ReadParams, p::ReadParams, [len, ret, buf, fd]);
    same_layout!(v2::LseekParams, p::LseekParams, [offset, whence, fd]);
    same_layout!(v2::SerialWriteBufferParams, p::SerialWriteBufferParams, [len, buf]);
    same_layout!(v2::SerialReadBufferParams, p::SerialReadBufferParams, [maxlen, len, buf]);
    same_layout!(v2::GetdentsParams, p::GetdentParams, [fd, buf, len, ret]);
    same_layout!(v2::MkdirParams, p::MkdirParams, [path, len, ret]);
    same_layout!(v2::StatParams, p::StatParams, [name, kind, attr, ret]);
    same_layout!(v2::FstatParams, p::FstatParams, [fd, attr, ret]);
    same_layout!(v2::Timespec, p::Timespec, [tv_sec, tv_nsec]);
    same_layout!(
        v2::FileAttr,
        p::FileAttr,
        [
            st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, st_rdev, st_size, st_blksize,
            st_blocks, st_atim, st_mtim, st_ctim,
        ]
    );
    same_layout!(v2::GetdentsResult, p::GetdentResult, []);
    same_layout!(v2::StatusResult, p::MkdirResult, []);
    same_layout!(v2::StatusResult, p::StatResult, []);
}

#[test]
fn directory_entry_header_ends_where_the_name_starts() {
    use u2::parameters::Dirent64;
    assert_eq!(offset_of!(v2::DirentHeader, ino), offset_of!(Dirent64, d_ino));
    assert_eq!(offset_of!(v2::DirentHeader, off), offset_of!(Dirent64, d_off));
    assert_eq!(offset_of!(v2::DirentHeader, reclen), offset_of!(Dirent64, d_reclen));
    assert_eq!(offset_of!(v2::DirentHeader, kind), offset_of!(Dirent64, d_type));
    assert_eq!(size_of::<v2::DirentHeader>(), offset_of!(Dirent64, d_name));
    assert_eq!(v2::DIRENT_ALIGN, align_of::<Dirent64>());
}

/// Hands the bytes of one of our results to `uhyve-interface`, as memory shared with a guest does.
fn as_theirs<Ours: zerocopy::IntoBytes + Copy, Theirs: Copy>(ours: Ours) -> Theirs {
    assert_eq!(
        (size_of::<Ours>(), align_of::<Ours>()),
        (size_of::<Theirs>(), align_of::<Theirs>())
    );
    // SAFETY: the sizes are equal, every byte of `ours` is initialised (`IntoBytes`), and the
    // callers below pass only tags that the other enum has.
    unsafe { std::mem::transmute_copy(&ours) }
}

#[test]
fn results_mean_the_same() {
    use u2::parameters::{GetdentResult, MkdirResult, StatResult};
    let success = as_theirs(v2::GetdentsResult::success(0x1_2345_6789));
    assert!(matches!(success, GetdentResult::Success(0x1_2345_6789)));
    assert!(matches!(as_theirs(v2::GetdentsResult::default()), GetdentResult::None));
    assert!(matches!(as_theirs(v2::GetdentsResult::end()), GetdentResult::EndOfDirectory));
    assert!(matches!(as_theirs(v2::GetdentsResult::error(20)), GetdentResult::Error(20)));
    assert_eq!(v2::GetdentsResult::error(20).errno(), Some(20));
    assert_eq!(v2::GetdentsResult::success(20).errno(), None);

    assert!(matches!(as_theirs(v2::StatusResult::default()), MkdirResult::None));
    assert!(matches!(as_theirs(v2::StatusResult::success()), MkdirResult::Success));
    assert!(matches!(as_theirs(v2::StatusResult::error(17)), MkdirResult::Error(17)));
    assert!(matches!(as_theirs(v2::StatusResult::default()), StatResult::None));
    assert!(matches!(as_theirs(v2::StatusResult::success()), StatResult::Success));
    assert!(matches!(as_theirs(v2::StatusResult::error(2)), StatResult::Error(2)));
    assert_eq!(v2::StatusResult::error(2).errno(), Some(2));
    assert_eq!(v2::StatusResult::success().errno(), None);
}

/// `uhyve-interface`'s name of a call, which differs from ours for two of version 1.
fn their_name_v1(call: v1::Call) -> String {
    match call {
        v1::Call::SerialWriteByte => "Uart".into(),
        v1::Call::SerialWriteBuffer => "SerialBufferWrite".into(),
        v1::Call::NetWrite => "Netwrite".into(),
        v1::Call::NetRead => "Netread".into(),
        v1::Call::NetStat => "Netstat".into(),
        other => other.name().into(),
    }
}

#[test]
fn every_port_is_the_same_call() {
    let (mut seen1, mut seen2) = (0, 0);
    for port in 0..=u16::MAX {
        let ours = v1::Call::from_port(port);
        let theirs = u1::HypercallAddress::try_from(port).ok();
        assert_eq!(ours.map(their_name_v1), theirs.map(|t| format!("{t:?}")), "v1 port {port:#x}");
        seen1 += usize::from(ours.is_some());

        let ours = v2::Call::from_port(port);
        let theirs = u2::HypercallAddress::try_from(u64::from(port)).ok();
        assert_eq!(
            ours.map(|c| c.name().to_owned()),
            theirs.map(|t| format!("{t:?}")),
            "v2 port {port:#x}"
        );
        seen2 += usize::from(ours.is_some());
    }
    assert_eq!((seen1, seen2), (v1::Call::ALL.len(), v2::Call::ALL.len()));
    for call in v1::Call::ALL {
        assert_eq!(v1::Call::from_port(call.port()), Some(call));
    }
    for call in v2::Call::ALL {
        assert_eq!(v2::Call::from_port(call.port()), Some(call));
    }
}

#[test]
fn constants() {
    use uhyve_interface::v1::parameters as p;
    assert_eq!(nerite_hypercall::UHYVE_INTERFACE_VERSION, uhyve_interface::UHYVE_INTERFACE_VERSION);
    assert_eq!(v1::MAX_ARGC_ENVC, u1::MAX_ARGC_ENVC);
    assert_eq!(
        (nerite_hypercall::SERIAL_PORT_V1, nerite_hypercall::SERIAL_PORT_V2),
        (0x800, 0x1030)
    );
    let ours = [
        file::O_RDONLY,
        file::O_WRONLY,
        file::O_RDWR,
        file::O_CREAT,
        file::O_EXCL,
        file::O_TRUNC,
        file::O_APPEND,
        file::O_DIRECTORY,
        file::ALLOWED_OPEN_FLAGS,
        file::SEEK_SET,
        file::SEEK_CUR,
        file::SEEK_END,
        errno::EBADF,
        errno::EEXIST,
        errno::EFAULT,
        errno::EINVAL,
        errno::EIO,
        errno::EISDIR,
        errno::ENOENT,
        errno::EOVERFLOW,
        errno::EPERM,
        errno::EROFS,
    ];
    let theirs = [
        p::O_RDONLY,
        p::O_WRONLY,
        p::O_RDWR,
        p::O_CREAT,
        p::O_EXCL,
        p::O_TRUNC,
        p::O_APPEND,
        p::O_DIRECTORY,
        p::ALLOWED_OPEN_FLAGS,
        p::SEEK_SET,
        p::SEEK_CUR,
        p::SEEK_END,
        p::EBADF,
        p::EEXIST,
        p::EFAULT,
        p::EINVAL,
        p::EIO,
        p::EISDIR,
        p::ENOENT,
        p::EOVERFLOW,
        p::EPERM,
        p::EROFS,
    ];
    assert_eq!(ours, theirs);
    let kinds = [
        (v2::file_type::UNKNOWN, p2::FileType::Unknown),
        (v2::file_type::FIFO, p2::FileType::Fifo),
        (v2::file_type::CHARACTER_DEVICE, p2::FileType::CharacterDevice),
        (v2::file_type::DIRECTORY, p2::FileType::Directory),
        (v2::file_type::BLOCK_DEVICE, p2::FileType::BlockDevice),
        (v2::file_type::REGULAR_FILE, p2::FileType::RegularFile),
        (v2::file_type::SYMBOLIC_LINK, p2::FileType::SymbolicLink),
        (v2::file_type::SOCKET, p2::FileType::Socket),
        (v2::file_type::WHITEOUT, p2::FileType::Whiteout),
    ];
    for (ours, theirs) in kinds {
        assert_eq!(ours, u8::from(theirs));
    }
    assert_eq!(v2::STAT_FOLLOW, u32::from(p2::StatKind::Stat));
    assert_eq!(v2::STAT_NO_FOLLOW, u32::from(p2::StatKind::LStat));
    assert_eq!(errno::name(errno::EBADF), Some("EBADF"));
    assert_eq!(errno::name(0), None);
}

use u2::parameters as p2;

#[test]
fn parameter_sizes() {
    assert_eq!(v1::Call::Cmdsize.param_size(), 4 + 512 + 4 + 512);
    assert_eq!(v1::Call::SerialWriteByte.param_size(), 0);
    assert_eq!(v1::Call::FileWrite.param_size(), 20);
    assert_eq!(v2::Call::FileWrite.param_size(), 32);
    assert_eq!(v2::Call::Exit.param_size(), 0);
    assert_eq!(v2::Call::Getdents.param_size(), 40);
}
