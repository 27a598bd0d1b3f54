//! Effects of a guest's file calls on the host, however the run ends.

#![cfg(test)]

mod common;

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};

use common::image::{self, SPIN};
use common::{Folder, code, wait, without_host_warnings};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, Signal, kill_process};

/// Flags of `open`.
const O_CREAT_RDWR: u32 = 0o102;
/// Offset of a guest's data, after its code.
const DATA: usize = 0x400;

/// A guest that makes hypercalls of interface v2 with parameter blocks of its own.
#[derive(Default)]
struct Guest {
    code: Vec<u8>,
    data: Vec<u8>,
}

impl Guest {
    /// Places data, and gives its offset.
    fn place(&mut self, bytes: &[u8]) -> usize {
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let at = self.data.len();
        self.data.extend(bytes);
        at
    }

    /// An instruction with a RIP-relative operand in the data.
    fn with_address(&mut self, instruction: [u8; 3], target: usize) {
        self.code.extend(instruction);
        let next = self.code.len() + 4;
        self.code.extend(u32::try_from(DATA + target - next).unwrap().to_le_bytes());
    }

    /// A call whose block has an address of other data in it.
    fn call(&mut self, port: u16, block: &[u8], pointer: usize, target: &[u8]) {
        let target = self.place(target);
        let block = self.place(block);
        self.with_address([0x48, 0x8d, 0x05], target); // lea rax, target
        self.with_address([0x48, 0x89, 0x05], block + pointer); // mov [block + pointer], rax
        self.with_address([0x48, 0x8d, 0x3d], block); // lea rdi, block
        self.code.extend([0x66, 0xba]); // mov dx, port
        self.code.extend(port.to_le_bytes());
        self.code.push(0xef); // out dx, eax
    }

    fn open(&mut self, path: &str, flags: u32) {
        let block = [&[0; 8][..], &flags.to_le_bytes(), &0o600_u32.to_le_bytes(), &[0; 4]].concat();
        self.call(0x1110, &block, 0, format!("{path}\0").as_bytes());
    }

    /// Reads (port 0x1130) or writes (port 0x1100) as many bytes as `data` has.
    fn transfer(&mut self, port: u16, fd: u32, data: &[u8]) {
        let block =
            [&(data.len() as u64).to_le_bytes()[..], &[0; 16], &u64::from(fd).to_le_bytes()]
                .concat();
        self.call(port, &block, 16, data);
    }

    /// The image: after its calls, the guest prints a line and does something last.
    fn build(mut self, last: impl FnOnce(&mut Self)) -> Vec<u8> {
        self.code.extend(image::print("up\n"));
        last(&mut self);
        self.code.extend(SPIN);
        assert!(self.code.len() <= DATA);
        self.code.resize(DATA, 0);
        image::elf(&[self.code, self.data].concat())
    }
}

/// Starts a run, and waits until the guest's calls are made.
fn start(folder: &Folder, options: &[&str], image: &[u8]) -> Child {
    let image = folder.file("image", image);
    let mut command = folder.vmm(&[&["run"], options, &[&image]].concat());
    command.env("TMPDIR", folder.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"up\n");
    child
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
#[ignore = "needs a KVM"]
fn only_what_is_mounted_has_changed_even_when_killed() {
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = Folder::new();
        for name in ["data", "read-only", "tmp"] {
            std::fs::create_dir(folder.path(name)).unwrap();
        }
        folder.file("data/old", "old");
        folder.file("read-only/old", "old");
        let mut guest = Guest::default();
        guest.open("/data/new", O_CREAT_RDWR);
        guest.transfer(0x1100, 3, b"hello");
        // Nothing is mounted there.
        guest.open("/else/where", O_CREAT_RDWR);
        guest.transfer(0x1100, 4, b"temporary");
        guest.open("/data/../data/../../tmp/x", O_CREAT_RDWR);
        guest.transfer(0x1100, 5, b"temporary");
        // These fail.
        guest.open("/read-only/new", O_CREAT_RDWR);
        guest.open("/read-only/old", O_CREAT_RDWR);
        guest.transfer(0x1100, 6, b"nowhere");
        let mounts =
            [folder.path("data"), folder.path("read-only")].map(|path| path.display().to_string());
        let (data, read_only) =
            (format!("{}:/data:rw", mounts[0]), format!("{}:/read-only", mounts[1]));
        let options = ["--mount", &data, "--mount", &read_only];
        let child = start(&folder, &options, &guest.build(|_| ()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = wait(child);
        if signal == Signal::TERM {
            let said = without_host_warnings(str::from_utf8(&output.stderr).unwrap());
            assert_eq!((code(output.status), said.as_str()), (143, ""), "{output:?}");
        }
        assert_eq!(std::fs::read(folder.path("data/new")).unwrap(), b"hello");
        assert_eq!(std::fs::read(folder.path("data/old")).unwrap(), b"old");
        assert_eq!(std::fs::read(folder.path("read-only/old")).unwrap(), b"old");
        assert_eq!(names(&folder.path("data")), ["new", "old"]);
        assert_eq!(names(&folder.path("read-only")), ["old"]);
        assert_eq!(names(&folder.path("tmp")), [""; 0]);
        assert_eq!(names(&folder.path("")), ["data", "image", "read-only", "tmp"]);
    }
}

#[test]
#[ignore = "needs a KVM"]
fn a_guest_that_waits_for_a_pipe_can_be_stopped() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // A writer, so that the guest has to wait.
    let _writer = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let mut guest = Guest::default();
    guest.open("/x/pipe", 0);
    let image = guest.build(|guest| guest.transfer(0x1130, 3, &[0; 8]));
    let child = start(&folder, &["--mount", &format!("{}:/x/pipe", pipe.display())], &image);
    std::thread::sleep(std::time::Duration::from_millis(100));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(code(wait(child).status), 143);
}

#[test]
#[ignore = "needs a KVM"]
fn the_limits_of_the_command_line_are_the_guests() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("data")).unwrap();
    let mut guest = Guest::default();
    guest.open("/data/a", O_CREAT_RDWR);
    guest.transfer(0x1100, 3, b"0123456789");
    guest.open("/data/b", O_CREAT_RDWR);
    let data = format!("{}:/data", folder.path("data").display());
    let options = ["--file-mapping", &data, "--max-written", "4", "--max-open-files", "1"];
    let child = start(&folder, &options, &guest.build(|_| ()));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(code(wait(child).status), 143);
    assert_eq!(std::fs::read(folder.path("data/a")).unwrap(), b"0123");
    assert_eq!(names(&folder.path("data")), ["a"]);
}

#[test]
#[ignore = "needs a KVM"]
fn mounts_that_cannot_be_are_told() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let here = folder.path("").display().to_string();
    for (mounts, parts) in [
        (vec![format!("{here}/none:/a")], ["none", "must exist", ""]),
        (vec![format!("{here}:/a"), format!("{here}:/b/../a")], ["two mounts", "/b/../a", ""]),
        (
            vec![format!("{image}:/")],
            ["image", "guest path \"/\"", "a directory has the same name"],
        ),
    ] {
        let options: Vec<_> = mounts.iter().flat_map(|mount| ["--mount", mount.as_str()]).collect();
        folder.run(&[&["run"][..], &options, &[&image]].concat()).is_error(240, &parts);
    }
}
