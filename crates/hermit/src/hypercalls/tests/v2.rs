use std::io::Write as _;
use std::time::Instant;

use nerite_hypercall::errno::{EBADF, EFAULT, EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR, ESPIPE};
use nerite_hypercall::file::{O_CREAT, O_RDWR, SEEK_CUR};
use nerite_hypercall::v2::{
    Call, CloseParams, FileAttr, FstatParams, GetdentsParams, GetdentsResult, LseekParams,
    MkdirParams, OpenParams, ReadParams, SERIAL_END, STAT_FOLLOW, SerialReadBufferParams,
    SerialWriteBufferParams, StatParams, StatusResult, UnlinkParams, WriteParams,
};

use crate::hypercalls::Next;
use crate::testing::{Guest, HIGH, MIB, RAM_END, Setup};
use nerite_testkit::log::line_of;

/// The end of all RAM.
const HIGH_END: u64 = HIGH + 2 * MIB;
/// Ranges that are not all in RAM: over an end, behind one, across the gap, over the end of all
/// addresses, endless.
const OUTSIDE: [(u64, u64); 6] = [
    (RAM_END - 1, 2),
    (RAM_END, 1),
    (RAM_END - 8, HIGH),
    (HIGH_END - 3, 4),
    (u64::MAX - 1, 3),
    (0, u64::MAX),
];

#[test]
fn exit_codes_are_the_low_half_of_rdi() {
    let mut guest = Guest::new();
    for (rdi, code) in
        [(0, 0), (256, 256), (u64::MAX, -1), (0xdead_0000_002a, 42), (0x8000_0000, i32::MIN)]
    {
        let next = guest.v2_at(Call::Exit, rdi);
        assert!(matches!(next, Next::Exit(given) if given == code), "{rdi:#x}: {next:?}");
    }
}

#[test]
fn parameters_that_are_not_all_in_ram_are_told_and_change_nothing() {
    for call in Call::ALL.into_iter().filter(|call| call.param_size() > 0) {
        let mut guest = Guest::new();
        for end in [RAM_END, HIGH_END] {
            let before = guest.bytes(end - 0x1000, 0x1000);
            for address in [end - call.param_size() as u64 + 1, end, u64::MAX - 3] {
                let line = line_of(|| assert!(matches!(guest.v2_at(call, address), Next::Resume)));
                assert!(
                    line.contains(call.name()) && line.contains(&format!("{address:#x}")),
                    "{line}"
                );
            }
            assert!(guest.bytes(end - 0x1000, 0x1000) == before, "{call:?} wrote");
        }
    }
}

#[test]
fn bytes_and_buffers_come_out_in_order() {
    let mut guest = Guest::new();
    guest.v2_at(Call::SerialWriteByte, u64::MAX - 0xff + u64::from(b'a'));
    assert_eq!(guest.arrived(), b"", "a byte waits for its line");
    guest.ram.write(HIGH_END - 2, b"bc").unwrap();
    guest.v2(Call::SerialWriteBuffer, SerialWriteBufferParams { buf: HIGH_END - 2, len: 2 });
    assert_eq!(guest.arrived(), b"abc", "a buffer is seen at once");
}

#[test]
fn output_that_is_not_all_in_ram_is_not_written_at_all() {
    let mut guest = Guest::new();
    for (buf, len) in OUTSIDE {
        let line = line_of(|| {
            guest.v2(Call::SerialWriteBuffer, SerialWriteBufferParams { buf, len });
        });
        assert!(line.contains("SerialWriteBuffer failed with EFAULT"), "{line}");
        for fd in [1, 2, 3] {
            let write = WriteParams { fd, buf, len, ..WriteParams::default() };
            assert_eq!(guest.v2(Call::FileWrite, write).ret, i64::from(-EFAULT), "{buf:#x}");
        }
    }
    assert_eq!(guest.shown(), b"");
}

#[test]
fn input_is_taken_only_when_it_can_be_delivered() {
    let mut guest = Guest::new();
    guest.keyboard.as_mut().unwrap().write_all(b"kept").unwrap();
    for (buf, len) in OUTSIDE {
        let read = ReadParams { fd: 0, buf, len, ..ReadParams::default() };
        assert_eq!(guest.v2(Call::FileRead, read).ret, i64::from(-EFAULT), "{buf:#x}");
        let line = line_of(|| {
            let read = SerialReadBufferParams { maxlen: len, len: 77, buf };
            let read = guest.v2(Call::SerialReadBuffer, read);
            assert_eq!(read.len, 0);
        });
        assert!(line.contains("SerialReadBuffer failed with EFAULT"), "{line}");
    }
    assert_eq!(guest.calls().read_serial_byte().unwrap(), u32::from(b'k'));
    let read = SerialReadBufferParams { maxlen: 1, len: 0, buf: HIGH_END - 1 };
    let length = guest.v2(Call::SerialReadBuffer, read).len;
    assert_eq!((length, guest.bytes(HIGH_END - 1, 1)), (1, b"e".to_vec()));
    let read = ReadParams { fd: 0, buf: 0x6000, len: 100, ..ReadParams::default() };
    let ret = guest.v2(Call::FileRead, read).ret;
    assert_eq!((ret, guest.bytes(0x6000, 3)), (2, b"pt\0".to_vec()));
}

#[test]
fn the_end_of_the_input_is_no_error() {
    let mut guest = Guest::new();
    guest.keyboard = None;
    assert_eq!(guest.calls().read_serial_byte().unwrap(), SERIAL_END);
    let read = SerialReadBufferParams { maxlen: 10, len: 77, buf: 0x6000 };
    assert_eq!(guest.v2(Call::SerialReadBuffer, read).len, 0);
    let read = ReadParams { fd: 0, buf: 0x6000, len: 10, ret: 77, reserved: 0 };
    assert_eq!(guest.v2(Call::FileRead, read).ret, 0);
}

#[test]
fn a_prompt_is_seen_before_its_answer_is_waited_for() {
    let mut guest = Guest::new();
    guest.v2_at(Call::SerialWriteByte, u64::from(b'?'));
    guest.keyboard = None;
    guest.calls().read_serial_byte().unwrap();
    assert_eq!(guest.arrived(), b"?");
}

#[test]
fn every_call_on_the_standard_streams() {
    let mut guest = Guest::new();
    let (buf, attr) = (0x6000, 0x7000);
    guest.ram.write(buf, b"data").unwrap();
    for fd in 0..3 {
        let write = WriteParams { fd, buf, len: 4, ..WriteParams::default() };
        let written = guest.v2(Call::FileWrite, write).ret;
        assert_eq!(written, if fd == 0 { i64::from(-EBADF) } else { 4 });
        assert_eq!(guest.shown(), if fd == 0 { &b""[..] } else { b"data" });
        if fd != 0 {
            let read = ReadParams { fd, buf, len: 4, ..ReadParams::default() };
            assert_eq!(guest.v2(Call::FileRead, read).ret, i64::from(-EBADF));
        }
        let seek = LseekParams { fd, offset: 1, whence: 0 };
        assert_eq!(guest.v2(Call::FileLseek, seek).offset, i64::from(-ESPIPE));
        let entries = GetdentsParams { fd, buf, len: 100, ..GetdentsParams::default() };
        assert_eq!(guest.v2(Call::Getdents, entries).ret.errno(), Some(ENOTDIR));
        let stat = FstatParams { fd, attr, ..FstatParams::default() };
        assert_eq!(guest.v2(Call::FileFstat, stat).ret, StatusResult::success());
        let attributes = guest.ram.read_obj::<FileAttr>(attr).unwrap();
        assert_eq!((attributes.st_mode, attributes.st_ino, attributes.st_size), (0o020_666, 0, 0));
        assert_eq!({ guest.v2(Call::FileClose, CloseParams { fd, ret: 9 }).ret }, 0);
    }
}

#[test]
fn descriptors_that_are_not_open_are_refused_by_every_call() {
    let mut guest = Guest::new();
    for fd in [3, 1000, -1, i32::MAX, i32::MIN] {
        let (buf, len) = (0x6000, 4);
        let write = WriteParams { fd, buf, len, ..WriteParams::default() };
        assert_eq!(guest.v2(Call::FileWrite, write).ret, i64::from(-EBADF));
        let read = ReadParams { fd, buf, len, ..ReadParams::default() };
        assert_eq!(guest.v2(Call::FileRead, read).ret, i64::from(-EBADF));
        let seek = LseekParams { fd, offset: 1, whence: 0 };
        assert_eq!(guest.v2(Call::FileLseek, seek).offset, i64::from(-EBADF));
        let entries = GetdentsParams { fd, buf, len, ..GetdentsParams::default() };
        assert_eq!(guest.v2(Call::Getdents, entries).ret.errno(), Some(EBADF));
        let stat = FstatParams { fd, attr: buf, ..FstatParams::default() };
        assert_eq!(guest.v2(Call::FileFstat, stat).ret.errno(), Some(EBADF));
        assert_eq!({ guest.v2(Call::FileClose, CloseParams { fd, ret: 9 }).ret }, -EBADF);
    }
}

#[test]
fn paths_are_checked_by_every_call() {
    let mut guest = Guest::new();
    guest.ram.write(0x6000, b"/not/there\0").unwrap();
    guest.ram.write(HIGH_END - 3, b"/no").unwrap();
    guest.ram.write(0x10_0000, &[b'/'; 0x10_0000]).unwrap();
    let paths =
        [(0x6000, ENOENT), (HIGH_END - 3, EFAULT), (RAM_END, EFAULT), (0x10_0000, ENAMETOOLONG)];
    for (name, errno) in paths {
        let open = guest.v2(Call::FileOpen, OpenParams { name, flags: 0, mode: 0, ret: 7 });
        assert_eq!({ open.ret }, -errno);
        assert_eq!({ guest.v2(Call::FileUnlink, UnlinkParams { name, ret: 7 }).ret }, -errno);
        let stat = StatParams { name, kind: STAT_FOLLOW, attr: 0x7000, ..StatParams::default() };
        assert_eq!(guest.v2(Call::FileStat, stat).ret.errno(), Some(errno));
        if errno != ENOENT {
            let mkdir = MkdirParams { path: name, ..MkdirParams::default() };
            assert_eq!(guest.v2(Call::Mkdir, mkdir).ret.errno(), Some(errno));
        }
    }
    let stat = StatParams { name: 0x6000, kind: 2, attr: 0x7000, ..StatParams::default() };
    assert_eq!(guest.v2(Call::FileStat, stat).ret.errno(), Some(EINVAL));
}

#[test]
fn a_result_that_cannot_be_delivered_is_an_error() {
    let mut guest = Guest::new();
    guest.ram.write(0x6000, b"/\0").unwrap();
    let attr = HIGH_END - size_of::<FileAttr>() as u64;
    for (attr, expected) in [(attr, None), (attr + 1, Some(EFAULT)), (u64::MAX, Some(EFAULT))] {
        let stat = FstatParams { fd: 1, attr, ..FstatParams::default() };
        assert_eq!(guest.v2(Call::FileFstat, stat).ret.errno(), expected);
        let stat = StatParams { name: 0x6000, attr, ..StatParams::default() };
        assert_eq!(guest.v2(Call::FileStat, stat).ret.errno(), expected);
    }
}

#[test]
fn files_and_directories() {
    let mut guest = Guest::new();
    guest.ram.write(0x6000, b"/folder\0").unwrap();
    guest.ram.write(0x6100, b"/folder/file\0").unwrap();
    guest.ram.write(HIGH, b"contents").unwrap();
    let mkdir = MkdirParams { path: 0x6000, ..MkdirParams::default() };
    assert_eq!(guest.v2(Call::Mkdir, mkdir).ret, StatusResult::success());
    let open = OpenParams { name: 0x6100, flags: O_CREAT | O_RDWR, mode: 0o600, ret: -1 };
    let fd = guest.v2(Call::FileOpen, open).ret;
    let write = WriteParams { fd, buf: HIGH, len: 8, ..WriteParams::default() };
    assert_eq!(guest.v2(Call::FileWrite, write).ret, 8);
    let seek = LseekParams { fd, offset: -5, whence: SEEK_CUR.cast_unsigned() };
    assert_eq!(guest.v2(Call::FileLseek, seek).offset, 3);
    let seek = LseekParams { fd, offset: 0, whence: u32::MAX };
    assert_eq!(guest.v2(Call::FileLseek, seek).offset, i64::from(-EINVAL));
    let read = ReadParams { fd, buf: 0x8000, len: 100, ..ReadParams::default() };
    let ret = guest.v2(Call::FileRead, read).ret;
    assert_eq!((ret, guest.bytes(0x8000, 5)), (5, b"tents".to_vec()));

    let open = OpenParams { name: 0x6000, flags: 0, mode: 0, ret: -1 };
    let folder = guest.v2(Call::FileOpen, open).ret;
    let entries =
        |buf| GetdentsParams { fd: folder, buf, len: 0x1000, ..GetdentsParams::default() };
    // Entries are not lost to a bad buffer.
    assert_eq!(guest.v2(Call::Getdents, entries(HIGH_END - 1)).ret.errno(), Some(EFAULT));
    let ret = guest.v2(Call::Getdents, entries(0x8000)).ret;
    assert_eq!(ret.tag, GetdentsResult::SUCCESS);
    let listed = guest.bytes(0x8000, usize::try_from(ret.value).unwrap());
    assert!(listed.windows(5).any(|name| name == b"file\0"), "{listed:?}");
    assert_eq!(guest.v2(Call::Getdents, entries(0x8000)).ret, GetdentsResult::end());
}

#[test]
fn reserved_calls_do_nothing() {
    let mut guest = Guest::new();
    for call in [Call::SharedMemOpen, Call::SharedMemClose, Call::SerialReadByte] {
        let line = line_of(|| assert!(matches!(guest.v2_at(call, 0x5000), Next::Resume)));
        assert!(line.contains(call.name()) && line.contains("not provided"), "{line}");
    }
}

#[test]
fn a_closed_console_is_the_hosts_failure() {
    let mut guest = Guest::new();
    let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
    guest.screen = other;
    let next = guest.v2_at(Call::SerialWriteByte, u64::from(b'\n'));
    assert!(
        matches!(&next, Next::Host(error) if error.kind() == std::io::ErrorKind::BrokenPipe),
        "{next:?}"
    );
    let params = 0x5000;
    let write = SerialWriteBufferParams { buf: 0x6000, len: 1 };
    guest.ram.write_obj(params, &write).unwrap();
    assert!(matches!(guest.v2_at(Call::SerialWriteBuffer, params), Next::Host(_)));
}

#[test]
fn a_stop_ends_whatever_waits() {
    let guest = Guest::with(Setup { bytes_per_second: Some(1), ..Setup::default() });
    let write = SerialWriteBufferParams { buf: 0x10_0000, len: MIB };
    guest.ram.write_obj(0x5000, &write).unwrap();
    let read = SerialReadBufferParams { maxlen: 1, len: 0, buf: 0x6000 };
    guest.ram.write_obj(0x5100, &read).unwrap();
    let read = ReadParams { fd: 0, buf: 0x6000, len: 1, ..ReadParams::default() };
    guest.ram.write_obj(0x5200, &read).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let calls = &guest.shared.calls;
        let waiting = [
            (Call::SerialReadBuffer, 0x5100),
            (Call::FileRead, 0x5200),
            (Call::SerialWriteBuffer, 0x5000),
        ]
        .map(|(call, params)| {
            (call, scope.spawn(move || calls.v2(call, params, &mut Default::default())))
        });
        let byte = scope.spawn(|| calls.read_serial_byte());
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(waiting.iter().all(|(_, call)| !call.is_finished()), "the calls wait");
        guest.stop();
        for (call, thread) in waiting {
            let next = thread.join().unwrap();
            assert!(matches!(next, Next::Stopped), "{call:?}: {next:?}");
        }
        assert!(matches!(byte.join().unwrap(), Err(Next::Stopped)));
    });
    assert!(start.elapsed().as_secs() < 60, "a megabyte at a byte a second was not waited for");
}
