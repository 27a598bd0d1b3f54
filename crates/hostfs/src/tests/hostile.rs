//! Many at once, and anything at all.

use std::collections::BTreeSet;

use nerite_memory::{Backing, GuestRam, Region};
use proptest::prelude::*;

use super::*;

/// Bytes that tell which file and how far into it.
fn pattern(file: usize, offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length)
        .map(|at| u8::try_from((file * 31 + at * 7 + at / 251) % 256).unwrap())
        .collect()
}

/// 64 readers and writers on 100 files, in the memory of one guest.
#[test]
fn sixty_four_at_once() {
    const FILES: usize = 100;
    const SIZE: usize = 20_000;
    let (folder, files) = data(Access::ReadWrite);
    let outside = tempfile::tempdir().unwrap();
    for file in 0..FILES {
        std::fs::write(folder.path().join(format!("in-{file}")), pattern(file, 0, SIZE)).unwrap();
    }
    let ram = GuestRam::new(&[Region { start: 0, size: 8 << 20 }], &Backing::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..64_usize {
            let (files, ram) = (&files, &ram);
            scope.spawn(move || {
                let address = thread as u64 * 0x1_0000;
                for file in (0..FILES).filter(|file| file % 16 == thread % 16) {
                    let input =
                        files.open(format!("/data/in-{file}").as_bytes(), O_RDONLY, 0).unwrap();
                    let name = format!("/data/out-{file}-{thread}");
                    let output = files.open(name.as_bytes(), O_CREAT | O_RDWR, 0o600).unwrap();
                    loop {
                        let pieces = ram.slices(address, 777).unwrap();
                        let length = files.read(input, pieces).unwrap();
                        if length == 0 {
                            break;
                        }
                        let pieces = ram.slices(address, length).unwrap();
                        assert_eq!(files.write(output, pieces), Ok(length));
                    }
                    files.close(input).unwrap();
                    files.close(output).unwrap();
                }
            });
        }
    });
    let mut count = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let file: usize = name.split('-').nth(1).unwrap().parse().unwrap();
        assert_eq!(std::fs::read(entry.path()).unwrap(), pattern(file, 0, SIZE), "{name}");
        count += 1;
    }
    assert_eq!(count, FILES * 5);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Opening, reading and closing the same numbers from several threads: each call has an answer,
/// none mixes up files.
#[test]
fn descriptors_reused_under_load() {
    let (folder, files) = data(Access::ReadWrite);
    for (name, byte) in [("a", b'a'), ("b", b'b')] {
        std::fs::write(folder.path().join(name), [byte; 4096]).unwrap();
    }
    std::thread::scope(|scope| {
        for thread in 0..4_i32 {
            let files = &files;
            scope.spawn(move || {
                for round in 0..2000 {
                    let name = if (round + thread) % 2 == 0 { "/data/a" } else { "/data/b" };
                    if let Ok(fd) = files.open(name.as_bytes(), O_RDONLY, 0) {
                        match read(files, fd, 4096) {
                            Ok(bytes) => assert!(bytes.iter().all(|byte| *byte == bytes[0])),
                            Err(errno) => assert_eq!(errno, EBADF),
                        }
                        let _: Result<(), i32> = files.close(3 + (fd - 3 + round) % 4);
                    }
                }
            });
        }
    });
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]", 1 => Just("..".to_owned()), 1 => Just(".".to_owned()), 1 => Just(String::new()),
        2 => Just("data".to_owned()), 1 => Just("image".to_owned()), 1 => Just("link".to_owned()),
        1 => Just("out".to_owned()),
    ]
}

#[derive(Debug, Clone)]
enum Call {
    Open(String, i32, u32),
    Close(i32),
    Read(i32, usize),
    Write(i32, usize),
    Seek(i32, i64, i32),
    Unlink(String),
    Mkdir(String),
    Stat(String, bool),
    Fstat(i32),
    Getdents(i32, u64),
}

fn call() -> impl Strategy<Value = Call> {
    let path = || {
        proptest::collection::vec(component(), 1..6)
            .prop_map(|names| format!("/{}", names.join("/")))
    };
    let fd = || prop_oneof![8 => 2..12, 1 => any::<i32>()];
    prop_oneof![
        4 => (path(), any::<i32>(), any::<u32>()).prop_map(|(path, flags, mode)| Call::Open(path, flags & 0o203_303, mode)),
        1 => fd().prop_map(Call::Close),
        1 => (fd(), 0..5000_usize).prop_map(|(fd, length)| Call::Read(fd, length)),
        2 => (fd(), 0..5000_usize).prop_map(|(fd, length)| Call::Write(fd, length)),
        1 => (fd(), prop_oneof![-10_i64..10_000, any::<i64>()], -1..4).prop_map(|(fd, to, whence)| Call::Seek(fd, to, whence)),
        1 => path().prop_map(Call::Unlink),
        1 => path().prop_map(Call::Mkdir),
        1 => (path(), any::<bool>()).prop_map(|(path, follow)| Call::Stat(path, follow)),
        1 => fd().prop_map(Call::Fstat),
        1 => (fd(), prop_oneof![0..200_u64, any::<u64>()]).prop_map(|(fd, length)| Call::Getdents(fd, length)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a guest calls, every answer is one Hermit knows, limits hold, and nothing outside
    /// changes.
    #[test]
    fn any_calls(calls in proptest::collection::vec(call(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        let (inside, out) = (folder.path().join("inside"), folder.path().join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&out).unwrap();
        std::fs::write(out.join("a"), "untouched").unwrap();
        std::os::unix::fs::symlink("../out", inside.join("out")).unwrap();
        std::os::unix::fs::symlink("a", inside.join("link")).unwrap();
        let image = ImageFile { path: b"image/a".to_vec(), data: Arc::new(b"image".to_vec()), mode: 0o755 };
        let limits = Limits { open_files: 8, bytes_written: 100_000, temporary_bytes: 10_000, temporary_entries: 10 };
        let mounts = [mount(&inside, "/data", Access::ReadWrite), mount(&out, "/data/out/b", Access::ReadOnly)];
        let files = HostFs::new(&mounts, &[image], limits).unwrap();
        let mut open = BTreeSet::new();
        for call in calls {
            let result = match call.clone() {
                Call::Open(path, flags, mode) => files.open(path.as_bytes(), flags, mode).map(|fd| {
                    assert!((3..11).contains(&fd) && open.insert(fd));
                }),
                Call::Close(fd) => files.close(fd).map(|()| assert!(open.remove(&fd))),
                Call::Read(fd, length) => read(&files, fd, length).map(drop),
                Call::Write(fd, length) => write(&files, fd, &vec![7; length]).map(drop),
                Call::Seek(fd, to, whence) => files.seek(fd, to, whence).map(drop),
                Call::Unlink(path) => files.unlink(path.as_bytes()),
                Call::Mkdir(path) => files.make_directory(path.as_bytes()),
                Call::Stat(path, follow) => files.stat(path.as_bytes(), follow).map(drop),
                Call::Fstat(fd) => files.fstat(fd).map(drop),
                Call::Getdents(fd, length) => files.read_directory(fd, length).map(|listing| {
                    assert!(listing.len() as u64 <= length);
                }),
            };
            if let Err(errno) = result {
                prop_assert!(nerite_hypercall::errno::name(errno).is_some(), "{:?}: {}", call, errno);
            }
        }
        prop_assert_eq!(std::fs::read(out.join("a")).unwrap(), b"untouched");
        prop_assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
        prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
