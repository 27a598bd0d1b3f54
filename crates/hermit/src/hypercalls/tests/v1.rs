use std::io::Write as _;

use nerite_hypercall::errno::{EBADF, EFAULT, ENAMETOOLONG, ENOENT};
use nerite_hypercall::file::{O_CREAT, O_RDWR, SEEK_SET};
use nerite_hypercall::v1::{
    Call, CloseParams, CmdsizeParams, CmdvalParams, ExitParams, LseekParams, OpenParams,
    ReadParams, SerialWriteBufferParams, UnlinkParams, WriteParams,
};
use zerocopy::FromZeros as _;

use crate::hypercalls::buffers::CHUNK;
use crate::hypercalls::{CommandLine, Next};
use crate::testing::{Guest, HIGH, PARAMS, RAM_END, Setup};
use nerite_testkit::log::{line_of, lines_of};
use nerite_testkit::tables;

/// A guest whose pages 16 and 17 are scattered: the first comes after the second in memory. Page 18
/// leads out of RAM.
fn paged() -> Guest {
    let mut guest = Guest::new();
    guest.vcpu.special_regs = tables::map(&guest.ram, &[(16, 0x9000), (17, 0x8000), (18, RAM_END)]);
    guest
}

#[test]
fn exit_codes_arrive_as_they_are() {
    let mut guest = Guest::new();
    for code in [0, 42, 255, 256, -1, i32::MAX, i32::MIN] {
        guest.ram.write_obj(RAM_END - 4, &ExitParams { arg: code }).unwrap();
        let next = guest.v1_at(Call::Exit, RAM_END - 4);
        assert!(matches!(next, Next::Exit(given) if given == code), "{code}: {next:?}");
    }
}

#[test]
fn parameters_that_are_not_all_in_ram_are_told_and_change_nothing() {
    let mut guest = Guest::new();
    for call in Call::ALL.into_iter().filter(|call| call.param_size() > 0) {
        let first_bad = RAM_END - call.param_size() as u64 + 1;
        for address in [first_bad, RAM_END, u64::from(u32::MAX)] {
            let before = guest.bytes(RAM_END - 0x1000, 0x1000);
            let line = line_of(|| assert!(matches!(guest.v1_at(call, address), Next::Resume)));
            assert!(
                line.contains(call.name()) && line.contains(&format!("{address:#x}")),
                "{line}"
            );
            assert!(guest.bytes(RAM_END - 0x1000, 0x1000) == before, "{call:?} wrote");
        }
    }
}

#[test]
fn one_byte_is_al() {
    let mut guest = Guest::new();
    for eax in [0xffff_ff41, 0x0000_0142, u64::from(b'\n')] {
        assert!(matches!(guest.v1_at(Call::SerialWriteByte, eax), Next::Resume));
    }
    assert_eq!(guest.arrived(), b"AB\n");
}

#[test]
fn a_serial_buffer_is_physical_and_may_be_large() {
    let mut guest = Guest::new();
    let text: Vec<u8> = (b'a'..=b'w').cycle().take(CHUNK * 2 + 7).collect();
    guest.ram.write(0x10_0000, &text).unwrap();
    // More than the other end has room for: it is read meanwhile.
    let mut screen = guest.screen.try_clone().unwrap();
    screen.set_nonblocking(false).unwrap();
    let expected = text.len();
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected];
        std::io::Read::read_exact(&mut screen, &mut got).unwrap();
        got
    });
    let params = SerialWriteBufferParams { buf: 0x10_0000, len: text.len() as u64 };
    guest.v1(Call::SerialWriteBuffer, params);
    assert!(reader.join().unwrap() == text);
}

#[test]
fn a_serial_buffer_over_the_end_of_ram_is_not_written_at_all() {
    let mut guest = Guest::new();
    guest.ram.write(RAM_END - 4, b"tail").unwrap();
    for (buf, len) in
        [(RAM_END - 4, 5), (RAM_END, 1), (u64::MAX - 1, 2), (0, u64::MAX), (0, RAM_END + 1)]
    {
        let line = line_of(|| {
            guest.v1(Call::SerialWriteBuffer, SerialWriteBufferParams { buf, len });
        });
        assert!(line.contains("SerialWriteBuffer failed with EFAULT"), "{line}");
    }
    guest.v1(Call::SerialWriteBuffer, SerialWriteBufferParams { buf: u64::MAX, len: 0 });
    assert_eq!(guest.shown(), b"");
    guest.v1(Call::SerialWriteBuffer, SerialWriteBufferParams { buf: RAM_END - 4, len: 4 });
    assert_eq!(guest.shown(), b"tail");
}

#[test]
fn file_writes_go_through_the_callers_page_tables() {
    let mut guest = paged();
    guest.ram.write(0x9ffd, b"one").unwrap();
    guest.ram.write(0x8000, b"two").unwrap();
    for fd in [1, 2] {
        guest.v1(Call::FileWrite, WriteParams { fd, buf: 0x1_0ffd, len: 6 });
        assert_eq!(guest.shown(), b"onetwo");
    }
    // The tables of the moment count.
    let other = tables::map(&guest.ram, &[(16, HIGH), (17, 0x9000)]);
    guest.vcpu.special_regs = other;
    guest.ram.write(HIGH + 0xffd, b"2^33").unwrap();
    guest.v1(Call::FileWrite, WriteParams { fd: 1, buf: 0x1_0ffd, len: 3 });
    assert_eq!(guest.shown(), b"2^3");
}

#[test]
fn five_levels_of_page_tables_are_honoured() {
    let mut guest = paged();
    guest.ram.write(0x9000, b"five").unwrap();
    // A table above the four: its last entry is the upper half's.
    guest.ram.write_obj(0xa000 + 511 * 8, &(tables::ROOT | 3)).unwrap();
    guest.vcpu.special_regs.cr3 = 0xa000;
    guest.vcpu.special_regs.cr4 |= 1 << 12;
    guest.v1(Call::FileWrite, WriteParams { fd: 1, buf: 0xffff_0000_0001_0000, len: 4 });
    assert_eq!(guest.shown(), b"five");
    let line = line_of(|| {
        guest.v1(Call::FileWrite, WriteParams { fd: 1, buf: 0x1_0000, len: 4 });
    });
    assert!(line.contains("EFAULT"), "{line}");
}

#[test]
fn outside_of_64_bit_mode_no_virtual_address_is_any_good() {
    let mut guest = paged();
    guest.vcpu.special_regs.cr0 = 0x6000_0010;
    let line = line_of(|| {
        guest.v1(Call::FileWrite, WriteParams { fd: 1, buf: 0x1_0000, len: 4 });
    });
    assert!(line.contains("EFAULT"), "{line}");
    let ret = guest.v1(Call::FileRead, ReadParams { fd: 0, buf: 0x1_0000, len: 1, ret: 0 }).ret;
    assert_eq!(ret, i64::from(-EFAULT));
}

#[test]
fn a_write_that_fails_can_only_be_told_to_the_log() {
    let mut guest = paged();
    let mut failing = |fd, buf, len| {
        line_of(|| {
            guest.v1(Call::FileWrite, WriteParams { fd, buf, len });
        })
    };
    // Into nothing, out of RAM, over the end of what is mapped, not canonical, too long.
    let bad = [
        (0x3_0000, 1),
        (0x1_2000, 1),
        (0x1_1fff, 2),
        (1 << 47, 1),
        (u64::MAX, 2),
        (0x1_0000, u64::MAX),
    ];
    for (buf, len) in bad {
        let line = failing(1, buf, len);
        assert!(line.contains("FileWrite failed with EFAULT"), "{line}");
    }
    for fd in [0, 3, -1, i32::MAX, i32::MIN] {
        let line = failing(fd, 0x1_0000, 1);
        assert!(line.contains("FileWrite failed with EBADF"), "{fd}: {line}");
    }
    assert_eq!(guest.shown(), b"");
}

#[test]
fn standard_input_is_read_through_the_callers_page_tables() {
    let mut guest = paged();
    guest.keyboard.as_mut().unwrap().write_all(b"hello").unwrap();
    let read = |fd, buf, len| ReadParams { fd, buf, len, ret: -99 };
    let ret = guest.v1(Call::FileRead, read(0, 0x1_0ffe, 0x100)).ret;
    assert_eq!(ret, 5);
    assert_eq!((guest.bytes(0x9ffe, 2), guest.bytes(0x8000, 3)), (b"he".to_vec(), b"llo".to_vec()));
    // No byte is asked for: none is waited for.
    let ret = guest.v1(Call::FileRead, read(0, 0x1_0000, 0)).ret;
    assert_eq!(ret, 0);
    guest.keyboard = None;
    let ret = guest.v1(Call::FileRead, read(0, 0x1_0000, 1)).ret;
    assert_eq!(ret, 0);
}

#[test]
fn a_read_into_nothing_loses_no_input() {
    let mut guest = paged();
    guest.keyboard.as_mut().unwrap().write_all(b"kept").unwrap();
    let read = |fd, buf, len| ReadParams { fd, buf, len, ret: 0 };
    for (buf, len) in [(0x3_0000, 1), (0x1_1ffe, 4), (0x8000_0000_0000, 1), (0x1_0000, u64::MAX)] {
        let ret = guest.v1(Call::FileRead, read(0, buf, len)).ret;
        assert_eq!(ret, i64::from(-EFAULT), "{buf:#x}");
    }
    for fd in [1, 2, 3, -1] {
        let ret = guest.v1(Call::FileRead, read(fd, 0x1_0000, 1)).ret;
        assert_eq!(ret, i64::from(-EBADF), "{fd}");
    }
    let ret = guest.v1(Call::FileRead, read(0, 0x1_0000, 4)).ret;
    assert_eq!((ret, guest.bytes(0x9000, 4)), (4, b"kept".to_vec()));
}

#[test]
fn paths_are_physical_and_checked() {
    let mut guest = Guest::new();
    guest.ram.write(0x6000, b"/not/there\0").unwrap();
    guest.ram.write(RAM_END - 3, b"/no").unwrap();
    guest.ram.write(0x10_0000, &[b'/'; 0x10_0000]).unwrap();
    for (name, errno) in
        [(0x6000, ENOENT), (RAM_END - 3, EFAULT), (RAM_END, EFAULT), (0x10_0000, ENAMETOOLONG)]
    {
        let open = guest.v1(Call::FileOpen, OpenParams { name, flags: 0, mode: 0, ret: 7 });
        assert_eq!({ open.ret }, -errno, "{name:#x}");
        let unlink = guest.v1(Call::FileUnlink, UnlinkParams { name, ret: 7 });
        assert_eq!({ unlink.ret }, -errno, "{name:#x}");
    }
}

#[test]
fn a_file_lives_from_open_to_close() {
    let mut guest = paged();
    guest.ram.write(0x6000, b"/file\0").unwrap();
    guest.ram.write(0x9000, b"contents").unwrap();
    let open = OpenParams { name: 0x6000, flags: O_CREAT | O_RDWR, mode: 0o600, ret: -1 };
    let fd = guest.v1(Call::FileOpen, open).ret;
    assert_eq!(fd, 3);
    guest.v1(Call::FileWrite, WriteParams { fd, buf: 0x1_0000, len: 8 });
    let position =
        guest.v1(Call::FileLseek, LseekParams { fd, offset: 3, whence: SEEK_SET }).offset;
    assert_eq!(position, 3);
    let ret = guest.v1(Call::FileRead, ReadParams { fd, buf: 0x1_1000, len: 100, ret: -1 }).ret;
    assert_eq!((ret, guest.bytes(0x8000, 5)), (5, b"tents".to_vec()));
    assert_eq!({ guest.v1(Call::FileClose, CloseParams { fd, ret: 9 }).ret }, 0);
    assert_eq!({ guest.v1(Call::FileClose, CloseParams { fd, ret: 9 }).ret }, -EBADF);
    assert_eq!({ guest.v1(Call::FileUnlink, UnlinkParams { name: 0x6000, ret: 9 }).ret }, 0);
    assert_eq!({ guest.v1(Call::FileUnlink, UnlinkParams { name: 0x6000, ret: 9 }).ret }, -ENOENT);
}

#[test]
fn standard_streams_are_not_closed_and_have_no_position() {
    let mut guest = paged();
    for fd in 0..3 {
        assert_eq!({ guest.v1(Call::FileClose, CloseParams { fd, ret: 9 }).ret }, 0);
        let position =
            guest.v1(Call::FileLseek, LseekParams { fd, offset: 5, whence: SEEK_SET }).offset;
        assert_eq!(position, -1);
    }
    guest.ram.write(0x9000, b"open").unwrap();
    guest.v1(Call::FileWrite, WriteParams { fd: 1, buf: 0x1_0000, len: 4 });
    assert_eq!(guest.shown(), b"open");
    for fd in [3, -1] {
        assert_eq!({ guest.v1(Call::FileClose, CloseParams { fd, ret: 9 }).ret }, -EBADF);
        let position =
            guest.v1(Call::FileLseek, LseekParams { fd, offset: 0, whence: SEEK_SET }).offset;
        assert_eq!(position, -1);
    }
}

/// A guest with arguments and environment, and tables for them at 0x6000 and 0x7000.
fn with_command_line(arguments: &[&str], environment: &[(&str, &str)]) -> Guest {
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let environment: Vec<_> = environment.iter().map(pair).collect();
    let command_line = CommandLine::new("path", &arguments, &environment, true).unwrap();
    Guest::with(Setup { command_line, ..Setup::default() })
}

#[test]
fn arguments_and_environment_arrive_exactly() {
    let mut guest = with_command_line(&["", "two words", "ünï"], &[("K", "a=b"), ("EMPTY", "")]);
    let sizes = guest.v1(Call::Cmdsize, CmdsizeParams::new_zeroed());
    let (argsz, envsz) = (sizes.argsz, sizes.envsz);
    assert_eq!(({ sizes.argc }, &argsz[..5]), (4, &[5, 1, 10, 6, 0][..]));
    assert_eq!(({ sizes.envc }, &envsz[..3]), (2, &[6, 7, 0][..]));
    let (argv, envp) = (0x6000, 0x7000);
    let buffer = |table: u64, n: usize| table + 0x10_0000 + n as u64 * 0x100;
    for (table, sizes) in [(argv, &argsz[..4]), (envp, &envsz[..2])] {
        for n in 0..sizes.len() {
            guest.ram.write_obj(table + 8 * n as u64, &buffer(table, n)).unwrap();
            guest.ram.write(buffer(table, n), &[0xee; 0x100]).unwrap();
        }
    }
    guest.v1(Call::Cmdval, CmdvalParams { argv, envp });
    let expected: [(u64, &[&str]); 2] =
        [(argv, &["path\0", "\0", "two words\0", "ünï\0"]), (envp, &["K=a=b\0", "EMPTY=\0"])];
    for (table, strings) in expected {
        for (n, string) in strings.iter().enumerate() {
            let mut bytes = string.as_bytes().to_vec();
            bytes.push(0xee);
            assert_eq!(guest.bytes(buffer(table, n), bytes.len()), bytes, "{string:?}");
        }
    }
}

#[test]
fn tables_and_buffers_of_strings_are_checked() {
    let mut guest = with_command_line(&["argument"], &[("K", "V")]);
    let good = 0x6000;
    for n in 0..2 {
        guest.ram.write_obj(good + 8 * n, &0x10_0000_u64).unwrap();
    }
    // The second entry of the table at the end of RAM is outside; the table at 0x7000 points
    // outside.
    guest.ram.write_obj(RAM_END - 8, &0x10_0000_u64).unwrap();
    guest.ram.write_obj(0x7000, &(RAM_END - 2)).unwrap();
    for argv in [RAM_END - 8, RAM_END, u64::MAX, u64::MAX - 7, 0x7000] {
        let line = line_of(|| {
            guest.v1(Call::Cmdval, CmdvalParams { argv, envp: good });
        });
        assert!(line.contains("Cmdval"), "{line}");
    }
    assert_eq!(guest.bytes(RAM_END - 2, 2), [0, 0]);
    let line = line_of(|| {
        guest.v1(Call::Cmdval, CmdvalParams { argv: good, envp: RAM_END });
    });
    assert!(line.contains("Cmdval"), "{line}");
}

#[test]
fn calls_of_the_past_do_nothing() {
    let mut guest = Guest::new();
    for call in [Call::NetWrite, Call::NetRead, Call::NetStat] {
        let line = line_of(|| assert!(matches!(guest.v1_at(call, PARAMS), Next::Resume)));
        assert!(line.contains(call.name()) && line.contains("not provided"), "{line}");
    }
}

#[test]
fn a_guest_cannot_flood_the_log() {
    let mut guest = Guest::new();
    let ((), lines) = lines_of(|| {
        for _ in 0..1000 {
            guest.v1_at(Call::FileOpen, u64::from(u32::MAX));
        }
    });
    assert_eq!(lines.len(), 65);
    assert!(lines[64].contains("not logged"), "{}", lines[64]);
}

#[test]
fn the_environment_of_old_kernels_ends_after_its_variables() {
    for variables in [0_u64, 3, 20] {
        let pairs: Vec<_> = (0..variables).map(|n| (format!("K{n}"), String::new())).collect();
        let command_line = CommandLine::new("path", &[], &pairs, false).unwrap();
        let mut guest = Guest::with(Setup { command_line, ..Setup::default() });
        // The buffers are at 0x9000 of guest-physical memory, and at page 16 for the application.
        guest.vcpu.special_regs = tables::map(&guest.ram, &[(16, 0x9000)]);
        let count = u64::try_from(guest.v1(Call::Cmdsize, CmdsizeParams::new_zeroed()).envc);
        let count = count.unwrap();
        // The application's table comes first; after each there is what was freed before.
        let (own, envp, argv) = (0x7000, 0x7200, 0x6000);
        guest.ram.write(own, &[0xee; 0x400]).unwrap();
        guest.ram.write_obj(argv, &0x8000_u64).unwrap();
        for n in 0..count {
            guest.ram.write_obj(own + 8 * n, &(0x1_0000 + n * 0x10)).unwrap();
            guest.ram.write_obj(envp + 8 * n, &(0x9000 + n * 0x10)).unwrap();
        }
        let others = guest.bytes(envp, 0x200);
        guest.v1(Call::Cmdval, CmdvalParams { argv, envp });
        for n in 0..variables {
            assert_eq!(guest.ram.read_obj::<u64>(own + 8 * n).unwrap(), 0x1_0000 + n * 0x10);
        }
        assert_eq!(guest.ram.read_obj::<u64>(own + 8 * variables).unwrap(), 0, "{variables}");
        assert!(guest.bytes(envp, 0x200) == others, "{variables}");
        // Without such a table nothing is written.
        guest.ram.write_obj(own + 8 * variables, &0xee_u64).unwrap();
        guest.ram.write_obj(own + 8 * (count - 1), &0x2_0000_u64).unwrap();
        let before = guest.bytes(own, 0x200);
        guest.v1(Call::Cmdval, CmdvalParams { argv, envp });
        assert!(guest.bytes(own, 0x200) == before, "{variables}");
    }
}
