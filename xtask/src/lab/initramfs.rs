//! The lab's root file system: a cpio archive ("newc") built from files of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Script of the lab's first process. Everything it needs is busybox and what stands beside it.
///
/// The first lines make the root file system one that can be left: programs that confine themselves
/// change their root, which the kernel does not allow on its very first file system.
const INIT: &str = r#"#!/bin/busybox sh
if [ "$1" != moved ]; then
    /bin/busybox mkdir -p /newroot
    /bin/busybox mount --bind / /newroot
    cd /newroot
    /bin/busybox mount --move . /
    exec /bin/busybox chroot . /init moved
fi
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
[ -d /tmp/. ] || mkdir -p /tmp
chmod 1777 /tmp
for module in $(cat /lab/modules); do
    insmod /lab/$module.ko || echo "lab: module $module does not load"
done
hostname lab
ip link set lo up
. /lab/network
stty -F /dev/ttyS1 raw -echo
/lab/xtask agent </dev/ttyS1 >/dev/ttyS1
echo "lab: the agent ended with status $?"
poweroff -f
"#;

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// The files of a lab, by the path they have there.
#[derive(Default)]
pub(crate) struct Files {
    entries: BTreeMap<PathBuf, (u32, Content)>,
}

impl Files {
    /// The files every lab has: the first process and the folders it mounts on.
    pub(crate) fn new() -> Self {
        let mut files = Self::default();
        files.entries.insert("/init".into(), (0o755, Content::Bytes(INIT.into())));
        files
    }

    /// Puts a text file at `guest`.
    pub(crate) fn add_text(&mut self, guest: impl Into<PathBuf>, text: impl Into<Vec<u8>>) {
        self.entries.insert(guest.into(), (0o644, Content::Bytes(text.into())));
    }

    /// Puts the host's file (or folder with all in it) at `guest`; a program brings its shared
    /// libraries.
    pub(crate) fn add(&mut self, host: &Path, guest: &Path) -> Result<()> {
        let guest = normal(guest)?;
        if self.entries.contains_key(&guest) {
            return Ok(());
        }
        let meta = fs::metadata(host)
            .with_context(|| format!("cannot add {} to the lab", host.display()))?;
        if meta.is_dir() {
            for entry in fs::read_dir(host)? {
                let entry = entry?;
                self.add(&entry.path(), &guest.join(entry.file_name()))?;
            }
            return Ok(());
        }
        ensure!(
            meta.is_file(),
            "cannot add {} to the lab: it is not a regular file",
            host.display()
        );
        self.entries
            .insert(guest, (meta.permissions().mode() & 0o7777, Content::File(host.to_owned())));
        for library in shared_libraries(host)? {
            self.add(&library, &library)?;
        }
        Ok(())
    }

    /// Writes the archive to `path`.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file =
            fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut cpio = Cpio { to: BufWriter::new(file), inode: 0 };
        let mut folders: BTreeSet<PathBuf> =
            ["/dev", "/proc", "/sys", "/tmp", "/root", "/etc", "/bin", "/run", "/var"]
                .map(PathBuf::from)
                .into();
        for path in self.entries.keys() {
            folders.extend(
                path.ancestors().skip(1).filter(|p| p.parent().is_some()).map(Path::to_owned),
            );
        }
        for folder in &folders {
            cpio.entry(folder, 0o040_755, (0, 0), &[])?;
        }
        cpio.entry(Path::new("/dev/console"), 0o020_600, (5, 1), &[])?;
        for (path, (mode, content)) in &self.entries {
            let read;
            let bytes = match content {
                Content::Bytes(bytes) => bytes,
                Content::File(host) => {
                    read = fs::read(host)
                        .with_context(|| format!("cannot read {}", host.display()))?;
                    &read
                }
            };
            cpio.entry(path, 0o100_000 | mode, (0, 0), bytes)?;
        }
        cpio.entry(Path::new("/TRAILER!!!"), 0, (0, 0), &[])?;
        cpio.to.flush().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// An absolute path without `.` and `..`, so that one file has one name.
pub(crate) fn normal(path: &Path) -> Result<PathBuf> {
    let mut out = PathBuf::from("/");
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    Ok(out)
}

/// Writer of the "newc" format:
/// <https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html>.
struct Cpio<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), bytes: &[u8]) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        let Ok(size) = u32::try_from(bytes.len()) else {
            bail!(
                "{} is too large for the lab: {} bytes, and the archive takes 4 GiB",
                path.display(),
                bytes.len()
            );
        };
        self.inode += 1;
        let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
        let name_size = u32::try_from(name.len() + 1)?;
        // inode, mode, uid, gid, links, mtime, size, device (major, minor), rdev (major, minor),
        // name size, check
        let fields =
            [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = b"070701".to_vec();
        for field in fields {
            write!(header, "{field:08x}")?;
        }
        header.extend_from_slice(name);
        header.push(0);
        self.padded(&header)?;
        self.padded(bytes)?;
        Ok(())
    }

    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        let pad = bytes.len().next_multiple_of(4) - bytes.len();
        self.to.write_all(&[0; 3][..pad])
    }
}

/// The shared libraries a program needs, as `ldd` names them; none for what is not a dynamically
/// linked program.
fn shared_libraries(path: &Path) -> Result<Vec<PathBuf>> {
    if !has_interpreter(path)? {
        return Ok(Vec::new());
    }
    let output =
        Command::new("ldd").arg(path).output().context("cannot run ldd (package libc-bin)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && !text.contains("not found"),
        "{} has libraries that are not there:\n{text}{}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(libraries_in(&text))
}

/// Every absolute path in the output of `ldd`, whose lines read `name => /path (address)` or `/path
/// (address)`.
fn libraries_in(ldd: &str) -> Vec<PathBuf> {
    let words =
        ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(PathBuf::from).collect()
}

/// Returns `true` for an ELF program that names an interpreter (`PT_INTERP`), which is to say a
/// dynamic linker.
fn has_interpreter(path: &Path) -> Result<bool> {
    use io::Read as _;
    let mut head = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(4096)
        .read_to_end(&mut head)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(names_interpreter(&head).unwrap_or(false))
}

/// Looks through the program headers of a little-endian ELF64 file (System V ABI, chapters 4 and
/// 5).
fn names_interpreter(head: &[u8]) -> Option<bool> {
    const PT_INTERP: [u8; 4] = 3_u32.to_le_bytes();
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return Some(false);
    }
    let half =
        |at: usize| Some(usize::from(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?])));
    let table = usize::try_from(u64::from_le_bytes(head.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(54)?, half(56)?);
    let entries = head.get(table..)?.chunks(size.max(4)).take(count);
    Some(entries.into_iter().any(|entry| entry.get(..4) == Some(&PT_INTERP)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busybox_unpacks_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new();
        files.add_text("/deep/er/a", "hello");
        files.add_text("/b", "");
        let archive = dir.path().join("a.cpio");
        files.write(&archive).unwrap();
        let bytes = fs::read(&archive).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&bytes);
        let order = ["\0deep", "deep/er\0", "\0b\0", "deep/er/a\0"]
            .map(|name| text.find(&name[1..]).unwrap());
        assert!(order[0] <= order[1] && order[1] < order[3], "folders come before what is in them");
        assert!(text.contains("TRAILER!!!"));
    }

    #[test]
    fn a_program_brings_its_libraries() {
        let mut files = Files::new();
        files.add(&std::env::current_exe().unwrap(), Path::new("/bin/x")).unwrap();
        assert!(files.entries.keys().any(|path| path.to_string_lossy().contains("libc.so")));
        assert!(files.entries.keys().any(|path| path.to_string_lossy().contains("ld-linux")));
    }

    #[test]
    fn ldd_lines_are_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let found = libraries_in(text);
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
    }

    #[test]
    fn what_is_no_program_has_no_libraries() {
        assert_eq!(names_interpreter(b""), None);
        assert_eq!(names_interpreter(b"#!/bin/sh\n"), Some(false));
        assert_eq!(names_interpreter(b"\x7fELF\x02\x01"), None);
    }

    #[test]
    fn one_file_has_one_name() {
        assert_eq!(normal(Path::new("/a/./b/../c")).unwrap(), Path::new("/a/c"));
        assert_eq!(normal(Path::new("/../..")).unwrap(), Path::new("/"));
    }
}
