//! Makes the calls that hostile bytes stand for. Used by the property tests and, with more
//! patience, by the targets in `fuzz/`: whatever the bytes, each call has an answer that Hermit
//! knows, limits hold, and nothing outside changes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use nerite_hostfs::{Access, GuestPath, HostFs, ImageFile, Limits, Mount, NAME_MAX, PATH_MAX};
use nerite_hypercall::errno;
use vm_memory::VolatileSlice;

/// Names that lead somewhere, and some that do not.
const NAMES: [&[u8]; 12] = [
    b"..",
    b".",
    b"",
    b"data",
    b"image",
    b"link",
    b"out",
    b"a",
    b"b",
    b"read-only",
    b"tmp",
    b"\xff",
];
const LIMITS: Limits = Limits {
    open_files: 8,
    bytes_written: 100_000,
    temporary_bytes: 10_000,
    temporary_entries: 10,
};

/// Normalises any bytes as a path.
pub(crate) fn path(bytes: &[u8]) {
    let path = match GuestPath::parse(bytes) {
        Ok(path) => path,
        Err(number) => return assert!(errno::name(number).is_some()),
    };
    let normal = path.as_bytes();
    assert!(bytes.len() <= PATH_MAX && normal.len() <= bytes.len() + 1 && !normal.contains(&0));
    assert!(normal.is_empty() || normal.starts_with(b"/"));
    for name in normal.split(|&byte| byte == b'/').skip(1) {
        assert!(!matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX);
    }
    assert_eq!(path.below(normal), Some(&b""[..]));
    assert_eq!(path.below(b""), Some(normal));
}

/// Takes numbers from the front of some bytes; 0 at their end.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        let shift = self.byte() % 64;
        (u64::from(self.byte()) << 8 | u64::from(self.byte())).rotate_left(shift.into())
    }

    /// Mostly a descriptor that may be open.
    fn descriptor(&mut self) -> i32 {
        match self.byte() {
            255 => self.number().cast_signed() as i32,
            byte => i32::from(byte % 12),
        }
    }

    fn path(&mut self) -> Vec<u8> {
        let names = self.byte() % 6;
        let mut path = Vec::new();
        for _ in 0..=names {
            path.push(b'/');
            path.extend(NAMES[usize::from(self.byte()) % NAMES.len()]);
        }
        path
    }
}

fn prepare(folder: &Path) -> HostFs {
    let (inside, out) = (folder.join("inside"), folder.join("out"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("a"), "untouched").unwrap();
    std::os::unix::fs::symlink("../out", inside.join("out")).unwrap();
    std::os::unix::fs::symlink("a", inside.join("link")).unwrap();
    let mount =
        |host: &Path, guest: &str, access| Mount { host: host.into(), guest: guest.into(), access };
    let image =
        ImageFile { path: b"image/a".to_vec(), data: Arc::new(b"image".to_vec()), mode: 0o755 };
    let mounts = [
        mount(&inside, "/data", Access::ReadWrite),
        mount(&out, "/data/out/b", Access::ReadOnly),
        mount(&out.join("a"), "/read-only/a", Access::ReadOnly),
    ];
    HostFs::new(&mounts, &[image], LIMITS).unwrap()
}

/// Makes the calls, at most 200 of them. Gives how many succeeded.
pub(crate) fn calls(bytes: &[u8]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let files = prepare(folder.path());
    let mut source = Source(bytes);
    let mut open = BTreeSet::new();
    let (mut written, mut succeeded) = (0, 0);
    for _ in 0..200 {
        if source.0.is_empty() {
            break;
        }
        let result = call(&files, &mut source, &mut open, &mut written);
        match result {
            Ok(()) => succeeded += 1,
            Err(number) => assert!(errno::name(number).is_some(), "{number}"),
        }
    }
    assert!(written <= LIMITS.bytes_written);
    let out = folder.path().join("out");
    assert_eq!(std::fs::read(out.join("a")).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    succeeded
}

fn call(
    files: &HostFs,
    source: &mut Source<'_>,
    open: &mut BTreeSet<i32>,
    written: &mut u64,
) -> Result<(), i32> {
    match source.byte() % 10 {
        0 => {
            let (path, flags) = (source.path(), source.number().cast_signed() as i32);
            let fd = files.open(&path, flags & 0o203_303, flags.cast_unsigned())?;
            assert!((3..11).contains(&fd) && open.insert(fd), "{fd}");
        }
        1 => {
            let fd = source.descriptor();
            files.close(fd)?;
            assert!(open.remove(&fd), "{fd}");
        }
        2 => {
            let mut memory = vec![0; usize::from(source.byte()) * 20];
            let length = files.read(source.descriptor(), [VolatileSlice::from(&mut memory[..])])?;
            assert!(length <= memory.len() as u64);
        }
        3 => {
            let mut memory = vec![7; usize::from(source.byte()) * 20];
            *written += files.write(source.descriptor(), [VolatileSlice::from(&mut memory[..])])?;
        }
        4 => {
            let (fd, offset) = (source.descriptor(), source.number().cast_signed());
            let position = files.seek(fd, offset, i32::from(source.byte() % 5) - 1)?;
            assert!(i64::try_from(position).is_ok());
        }
        5 => files.unlink(&source.path())?,
        6 => files.make_directory(&source.path())?,
        7 => drop(files.stat(&source.path(), source.byte().is_multiple_of(2))?),
        8 => drop(files.fstat(source.descriptor())?),
        _ => {
            let (fd, limit) = (source.descriptor(), source.number());
            assert!(files.read_directory(fd, limit)?.len() as u64 <= limit);
        }
    }
    Ok(())
}
