//! Every kind of bad input ends with the exit code of its band and one line that names the path and
//! the reason.

#![cfg(test)]

mod common;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use common::image::{self, Elf};
use common::{Folder, copy_program, finish, open_to_all};
use nerite_testkit::skip;

const USAGE: u8 = 240;
const CONFIG_FILE: u8 = 241;
const IMAGE: u8 = 242;
const HOST: u8 = 243;

/// Runs and inspects a bad image, which must give the same error.
#[track_caller]
fn bad_image(contents: &[u8], parts: &[&str]) {
    let folder = Folder::new();
    let path = folder.file("bad", contents);
    let parts = [&[path.as_str()], parts].concat();
    folder.run(&["run", &path]).is_error(IMAGE, &parts);
    folder.run(&["inspect", &path]).is_error(IMAGE, &parts);
}

#[track_caller]
fn bad_elf(change: impl FnOnce(&mut Elf), parts: &[&str]) {
    let mut elf = Elf::new(&image::exit(0));
    change(&mut elf);
    bad_image(&elf.build(), parts);
}

#[test]
fn the_image_made_here_is_good_unless_broken() {
    let folder = Folder::new();
    let good = folder.file("good", image::elf(&image::exit(0)));
    let done = folder.run(&["inspect", &good]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    let packed = image::tar(&[
        ("hermit.toml", image::HERMIT_TOML.as_bytes()),
        ("kernel", &image::elf(&[0xf4])),
    ]);
    let good = folder.file("good.tar.gz", image::gzip(&packed));
    let done = folder.run(&["inspect", &good]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
}

#[test]
fn missing_image() {
    let folder = Folder::new();
    for action in ["run", "inspect"] {
        folder.run(&[action, "no/such/image"]).is_error(IMAGE, &["no/such/image", "No such file"]);
    }
}

#[test]
fn things_that_are_no_files() {
    let folder = Folder::new();
    for path in ["/", "/dev/null", "/dev/zero"] {
        folder.run(&["run", path]).is_error(IMAGE, &[path, "not a regular file"]);
    }
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    folder.run(&["run", pipe.to_str().unwrap()]).is_error(IMAGE, &["pipe", "not a regular file"]);
}

#[test]
fn an_odd_path_stays_on_one_line() {
    let folder = Folder::new();
    folder.run(&["run", "a\nb\x1b[31m"]).is_error(IMAGE, &["b", "No such file"]);
}

#[test]
fn empty_image() {
    bad_image(b"", &["empty"]);
}

#[test]
fn truncated_elf() {
    let file = image::elf(&image::exit(0));
    bad_image(&file[..10], &["truncated"]);
    bad_image(&file[..100], &["truncated"]);
    bad_image(&file[..file.len() - 1], &["truncated"]);
}

#[test]
fn not_an_elf_file() {
    bad_image(b"#!/bin/sh\necho hello\n", &["not an image", "script"]);
    bad_image(b"hello, world", &["not an image"]);
    bad_image(&[0; 4096], &["not an image"]);
}

#[test]
fn wrong_architecture() {
    bad_elf(|elf| elf.machine = 183, &["AARCH64", "only x86-64"]);
    bad_elf(|elf| elf.class = 1, &["32-bit"]);
}

#[test]
fn not_an_executable() {
    bad_elf(|elf| elf.file_type = 1, &["not an executable"]);
}

#[test]
fn dynamically_linked() {
    bad_elf(|elf| elf.needed = true, &["dynamically linked", "libc.so.6"]);
}

#[test]
fn program_of_this_host() {
    let folder = Folder::new();
    folder.run(&["run", "/bin/sh"]).is_error(IMAGE, &["/bin/sh", "x86_64-unknown-hermit"]);
}

#[test]
fn too_large() {
    bad_elf(|elf| elf.loads[0].1 = 1 << 45, &["bytes of memory"]);
    let folder = Folder::new();
    let path = folder.file("large", image::elf(&image::exit(0)));
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(3 << 30).unwrap();
    folder.run(&["run", &path]).is_error(IMAGE, &[&path, "too large"]);
}

#[test]
fn note_missing_or_unknown() {
    bad_elf(|elf| elf.entry_version = None, &["no Hermit entry version note"]);
    bad_elf(|elf| elf.entry_version = Some(3), &["entry version 3"]);
    bad_elf(|elf| elf.interface = Some(99), &["interface version 99"]);
}

#[test]
fn bad_segments() {
    bad_elf(|elf| elf.loads.clear(), &["no loadable segment"]);
    bad_elf(|elf| elf.loads.push((0x2000, 0x1000, 0, 0x10)), &["overlap"]);
    bad_elf(|elf| elf.loads[0].1 = 8, &["segment"]);
    bad_elf(|elf| elf.loads[0].0 = u64::MAX - 0xfff, &["segment"]);
    bad_elf(|elf| elf.entry = 0x10_0000, &["entry point 0x100000"]);
}

#[test]
fn kernel_larger_than_the_memory() {
    let folder = Folder::new();
    let mut elf = Elf::new(&image::exit(0));
    elf.loads[0].1 = 512 << 20;
    let path = folder.file("large", elf.build());
    let done = folder.run(&["run", "-m", "64M", &path]);
    done.is_error(USAGE, &["--memory", &path]);
}

#[test]
fn fixed_image_outside_of_the_memory() {
    let folder = Folder::new();
    let mut elf = Elf::new(&image::exit(0));
    elf.file_type = 2;
    elf.loads[0].0 = 1 << 30;
    elf.entry += 1 << 30;
    let path = folder.file("far", elf.build());
    folder.run(&["run", "-m", "64M", &path]).is_error(USAGE, &["--memory", &path]);
}

#[test]
fn malformed_archives() {
    bad_image(&image::gzip(b""), &["archive"]);
    bad_image(&image::gzip(&[0x55; 2048]), &["tar"]);
    let packed = image::gzip(&image::tar(&[("hermit.toml", image::HERMIT_TOML.as_bytes())]));
    bad_image(&packed[..packed.len() / 2], &["gzip"]);
    bad_image(&packed, &["\"kernel\""]);
    bad_image(&image::gzip(&image::tar(&[("kernel", b"x")])), &["no hermit.toml"]);
    bad_image(&image::tar(&[("kernel", b"x")]), &["not compressed"]);
    let packed =
        image::tar(&[("hermit.toml", image::HERMIT_TOML.as_bytes()), ("kernel", b"not ELF")]);
    bad_image(&image::gzip(&packed), &["\"kernel\"", "not an image"]);
}

#[test]
fn gzip_bomb() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![0; 1 << 20];
    for _ in 0..1100 {
        encoder.write_all(&block).unwrap();
    }
    let folder = Folder::new();
    let path = folder.file("bomb", encoder.finish().unwrap());
    folder.run(&["run", &path]).is_error(IMAGE, &[&path, "decompressed"]);
}

#[test]
fn malformed_hermit_toml() {
    for (toml, parts) in [
        ("version = \"1\"\nkernel = ", &["hermit.toml", "line 2"][..]),
        ("version = \"9\"\nkernel = \"kernel\"\n[input]\n", &["hermit.toml"]),
        ("kernel = 1", &["hermit.toml"]),
        ("version = \"1\"\n", &["hermit.toml"]),
        ("\u{1b}[31m", &["hermit.toml"]),
    ] {
        let packed =
            image::tar(&[("hermit.toml", toml.as_bytes()), ("kernel", &image::elf(&[0xf4]))]);
        bad_image(&image::gzip(&packed), parts);
    }
}

#[test]
fn what_the_image_requires_wins_over_too_little() {
    let folder = Folder::new();
    let toml = image::HERMIT_TOML
        .replace("[requirements]", "[requirements]\nmemory = \"128 MiB\"\ncpus = 2");
    let packed = image::tar(&[("hermit.toml", toml.as_bytes()), ("kernel", &image::elf(&[0xf4]))]);
    let path = folder.file("image.tar.gz", image::gzip(&packed));
    folder.run(&["run", "-m", "64M", &path]).is_error(USAGE, &["--memory 128M", &path]);
    folder.run(&["run", "-c", "1", &path]).is_error(USAGE, &["--cpus 2", &path]);
}

#[test]
fn memory_that_no_host_has() {
    let folder = Folder::new();
    let path = folder.file("image", image::elf(&image::exit(0)));
    for size in ["8388608T", "100000T"] {
        let done = folder.run(&["run", "-m", size, &path]);
        // Beyond what the processor can address, or beyond what the system gives.
        let band = if done.code == i32::from(USAGE) { USAGE } else { HOST };
        done.is_error(band, &["memory"]);
    }
}

#[test]
#[ignore = "needs a KVM"]
fn memory_that_kvm_cannot_take_in_one_piece() {
    let folder = Folder::new();
    let path = folder.file("image", image::elf(&image::exit(0)));
    let done = folder.run(&["run", "-m", "60000G", &path]);
    // Unless the processor's addresses or the system's limits end before.
    let band = if done.code == i32::from(USAGE) { USAGE } else { HOST };
    done.is_error(band, &["of guest memory", "pass less to --memory"]);
    assert!(!done.stderr.contains("KVM_SET_USER_MEMORY_REGION failed"), "{done:?}");
}

#[test]
fn more_huge_pages_than_are_reserved() {
    let folder = Folder::new();
    let path = folder.file("image", image::elf(&image::exit(0)));
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|free| free.trim() != "0") {
        return skip("this host has reserved huge pages");
    }
    folder.run(&["run", "--hugepages", &path]).is_error(HOST, &["huge pages", "vm.nr_hugepages"]);
}

#[test]
fn output_file_that_cannot_be_made() {
    let folder = Folder::new();
    let path = folder.file("image", image::elf(&image::exit(0)));
    folder
        .run(&["run", "-o", "no/such/folder/out", &path])
        .is_error(HOST, &["no/such/folder/out", "No such file"]);
}

/// A shell opens the descriptor, as a parent would a tap.
#[test]
fn a_descriptor_that_is_no_tap() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    for (open, reason) in [("7</dev/null", "it is no tap"), ("7<&-", "it is not open")] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$0\" \"$@\" {open}"), env!("CARGO_BIN_EXE_vmm")]);
        let done =
            finish(command.args(["run", "--net", "fd=7", &image]).env("HOME", "/nonexistent"));
        let begins = format!("vmm: error: descriptor 7 is not a tap that a card can use: {reason}");
        done.is_error(USAGE, &[&begins, "; --net fd=7 takes a tap"]);
    }
}

#[test]
fn malformed_configuration_file() {
    let folder = Folder::new();
    let path = folder.file("image", image::elf(&image::exit(0)));
    for (text, parts) in [
        ("[memory]\nsize = ", &["bad.toml:2:"][..]),
        ("[memory]\nsiez = '64M'", &["bad.toml:2:1", "unknown field `siez`"]),
        ("[memory]\nsize = '63M'", &["bad.toml:2:8", "multiple of 2 MiB"]),
        ("[cpu]\naffinity = [9999999]", &["bad.toml:2:", "9999999"]),
        ("[memory]\nhugepages = true\nthp = true", &["bad.toml", "exclude"]),
    ] {
        let bad = folder.file("bad.toml", text);
        folder.run(&["run", "--config", &bad, &path]).is_error(CONFIG_FILE, parts);
    }
    folder
        .run(&["run", "--config", "no.toml", &path])
        .is_error(CONFIG_FILE, &["no.toml", "No such file"]);
}

#[test]
fn a_file_that_is_two_disks() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let disk = folder.file("disk", [0; 4096]);
    let done = folder.run(&["run", "--disk", &disk, "--disk", &format!("{disk},ro"), &image]);
    done.is_error(USAGE, &[&format!("vmm: error: the disk {disk} is given twice"), "`,ro`"]);
}

/// Runs `vmm` in a folder that all may enter, as a user without rights; `None` without root.
fn as_nobody(folder: &Folder, words: &[&str]) -> Option<common::Done> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let vmm = folder.path("vmm");
    copy_program(&vmm);
    open_to_all(&folder.path(""));
    // Becoming another user from root drops all groups, too.
    let mut command = Command::new(&vmm);
    command.args(words).uid(65534).gid(65534);
    Some(finish(command.env("HOME", "/nonexistent").current_dir("/")))
}

#[test]
fn a_mount_without_permission_is_not_an_old_kernel() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let closed = folder.path("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mount = format!("{}:/x", closed.display());
    match as_nobody(&folder, &["run", "--mount", &mount, &image]) {
        Some(done) => {
            done.is_error(USAGE, &[&mount.replace(":/x", ": cannot open: Permission denied")]);
            assert!(!done.stderr.contains("Linux 5.6"), "{done:?}");
        }
        None => skip("needs root"),
    }
}

/// `vmm` as another user, who may not open `/dev/kvm`.
#[test]
fn no_permission_for_kvm() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let mode = std::fs::metadata("/dev/kvm").map_or(0o666, |data| data.permissions().mode());
    if !rustix::process::geteuid().is_root() || mode & 0o006 != 0 {
        return skip("needs root, and a /dev/kvm that not all may open");
    }
    let done = as_nobody(&folder, &["run", "--accel", "kvm", &image]).unwrap();
    let way = if mode & 0o060 == 0o060 { "group" } else { "run as root" };
    done.is_error(HOST, &["no permission to open /dev/kvm", way]);
}

/// `vmm` in a mount namespace of its own, where `/dev` is empty.
#[test]
fn no_kvm() {
    let folder = Folder::new();
    let image = folder.file("image", image::elf(&image::exit(0)));
    let hide = "mount -t tmpfs none /dev 2>/dev/null || exit 99; exec \"$@\"";
    let run = |options: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", hide, "sh", env!("CARGO_BIN_EXE_vmm"), "run"]);
        finish(command.args(options).arg(&image).current_dir("/").env("HOME", "/nonexistent"))
    };
    let done = run(&["--accel", "kvm"]);
    if done.code == 99 || done.stderr.starts_with("unshare:") {
        return skip("hiding /dev takes root");
    }
    done.is_error(HOST, &["/dev/kvm does not exist", "kvm_intel or kvm_amd"]);
    // Without the option, the guest runs all the same, and the reason is reported.
    let done = run(&[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stderr.contains("a processor in software: /dev/kvm does not exist"), "{done:?}");
}

/// On a host whose KVM only emulates, ordinary guests run on it with the help of software alone;
/// without, the message says so.
#[test]
fn emulating_kvm() {
    let folder = Folder::new();
    if folder.run(&["probe"]).stdout != "emulating\n" {
        return skip("needs a KVM that only emulates");
    }
    let code = [&image::SSE[..], &image::exit(0)].concat();
    let image = folder.file("image", image::elf(&code));
    let alone = ["run", "--accel", "kvm", "--on-unemulated", "crash", &image];
    folder.run(&alone).is_error(HOST, &["only emulates", "0f 57 c0"]);
    let done = folder.run(&["run", "--accel", "kvm", &image]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    let done = folder.run(&["run", &image]);
    assert_eq!((done.code, done.stderr.lines().count()), (0, 1), "{done:?}");
    assert!(done.stderr.contains("a processor in software: a KVM that only emulates"), "{done:?}");
}
