//! The worst image of each kind: none takes more than 64 MiB beyond the guest's memory and its own
//! bytes, packed and unpacked, nor has more than 1 MiB written to the log, nor keeps `vmm` from
//! ending.
//!
//! They need no KVM: what is measured comes before the first instruction.

#![cfg(test)]
#![allow(clippy::print_stdout, reason = "processes talk to each other, and figures are shown")]

mod common;
#[path = "../../crates/image/tests/common/mod.rs"]
mod layout;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::Folder;
use common::image::{self, tar_entry};

/// Memory in KiB besides the guest's and the image's.
const MEMORY: u64 = 64 << 10;
/// Bytes on standard error.
const LOG: usize = 1 << 20;
/// Processor time that is plenty for what is linear, in a debug build on a slow machine.
const PROCESSOR_TIME: Duration = Duration::from_secs(20);

/// Memory (peak, KiB), processor time, exit code and standard error of a run.
struct Cost {
    memory: u64,
    time: Duration,
    code: i32,
    stderr: Vec<u8>,
}

/// Set in the process that measures: the words for `vmm`, one a line.
const WORDS: &str = "NERITE_TEST_WORDS";

/// Runs `vmm` on an image and measures it: in a process between, because the peak of a process
/// counts that of the one that started it, and this one holds images.
fn cost(folder: &Folder, words: &[&str]) -> Cost {
    let log = folder.path("stderr");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "measure", "--ignored", "--nocapture"]).env(WORDS, words.join("\n"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap());
    let output = common::wait_for(command.spawn().unwrap(), Duration::from_secs(300));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let numbers = stdout.lines().find_map(|line| line.split_once("cost: ")).unwrap().1;
    let numbers: Vec<u64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
    let [memory, time, code] = numbers[..] else { panic!("{stdout}") };
    let code = i32::try_from(code).unwrap();
    Cost { memory, time: Duration::from_micros(time), code, stderr: std::fs::read(log).unwrap() }
}

/// Not a test: the process that measures.
#[test]
#[ignore = "the other tests start it"]
#[expect(clippy::zombie_processes, reason = "it is waited for by wait4")]
fn measure() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let folder = Folder::new();
    let mut command = folder.vmm(&words.split('\n').collect::<Vec<_>>());
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: zeros are a value of this structure of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of the call's types; nothing else waits for this
    // child.
    assert_eq!(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }, pid);
    let code = common::code(std::process::ExitStatus::from_raw(status));
    println!(
        "\ncost: {} {} {code}",
        usage.ru_maxrss,
        usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec
    );
}

/// Checks that this archive costs no more than it may, also when it is inspected. Gives what `vmm
/// run` said.
#[track_caller]
fn check(name: &str, archive: &[u8]) -> String {
    let folder = Folder::new();
    let packed = image::gzip(archive);
    let own = (packed.len() + archive.len()) as u64 >> 10;
    let path = folder.file("image", packed);
    check_at(name, &folder, &path, own)
}

/// The same for an image in a layout with these layers, the first of which is the application's. It
/// is unpacked twice at a time: as layers, or as the archive that a machine boots from.
#[track_caller]
fn check_layout(name: &str, layers: &[Vec<u8>]) -> String {
    let app = layout::tar(&[("app", &image::elf(&image::exit(0)))]);
    let layers: Vec<_> =
        [&app].into_iter().chain(layers).map(|tar| (layout::GZIP, tar.clone())).collect();
    let mut builder = layout::Builder::new();
    let image = builder.image(&serde_json::json!({"Cmd": ["/app"]}), &layers);
    let files = builder.index(&[image]);
    let unpacked: usize = layers.iter().map(|(_, tar)| tar.len()).sum();
    let packed: usize = files.values().map(Vec::len).sum();
    let folder = Folder::new();
    for (path, bytes) in &files {
        folder.file(&format!("layout/{path}"), bytes);
    }
    let path = format!("oci:{}", folder.path("layout").display());
    let said = check_at(name, &folder, &path, (packed + 2 * unpacked) as u64 >> 10);
    assert!(!said.contains("cannot be read"), "{said}");
    said
}

#[track_caller]
fn check_at(name: &str, folder: &Folder, path: &str, own: u64) -> String {
    let run = ["run", "--time-limit=1s", "-m", "16M", path];
    let mut said = String::new();
    for words in [&["inspect", path][..], &run] {
        let Cost { memory, time, code, stderr } = cost(folder, words);
        let guest = if words[0] == "run" { 16 << 10 } else { 0 };
        let more = memory.saturating_sub(own + guest);
        println!(
            "{name}, {}: {more} KiB, {time:?}, exit {code}, {} bytes of log",
            words[0],
            stderr.len()
        );
        assert!(more < MEMORY, "{name}, {}: {more} KiB more than the image's {own}", words[0]);
        assert!(stderr.len() < LOG, "{name}: {} bytes of log", stderr.len());
        assert!(time < PROCESSOR_TIME, "{name}: {time:?} of processor time");
        said = String::from_utf8(stderr).unwrap();
        assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "not escaped: {said}");
    }
    said
}

/// An archive with a kernel that ends at once, and what `add` adds.
fn archive(toml: &str, add: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut archive = Vec::new();
    tar_entry(&mut archive, b'0', b"hermit.toml", toml.as_bytes());
    tar_entry(&mut archive, b'0', b"kernel", &image::elf(&image::exit(0)));
    add(&mut archive);
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// A name of `length` bytes that ends with a number; the rest is ESC.
fn escapes(number: usize, length: usize) -> Vec<u8> {
    [&vec![0x1b; length - 8][..], format!("{number:08}").as_bytes()].concat()
}

fn long_entry(archive: &mut Vec<u8>, kind: u8, name: &[u8]) {
    tar_entry(archive, b'L', b"././@LongLink", name);
    tar_entry(archive, kind, b"x", b"");
}

#[test]
fn links_with_long_names() {
    let said = check(
        "long links",
        &archive(image::HERMIT_TOML, |archive| {
            (0..1000).for_each(|number| long_entry(archive, b'2', &escapes(number, 65_005)));
        }),
    );
    assert!(said.contains("a name of 65005 bytes, at most 4095"), "{said}");
    let said = check(
        "links that fit",
        &archive(image::HERMIT_TOML, |archive| {
            (0..2000).for_each(|number| long_entry(archive, b'2', &escapes(number, 4090)));
        }),
    );
    assert!(
        said.contains("2000 in all") && said.lines().count() < 5 && said.len() < 10_000,
        "{said}"
    );
}

#[test]
fn many_links_and_special_files() {
    let said = check(
        "many links",
        &archive(image::HERMIT_TOML, |archive| {
            for number in 0..65_000 {
                tar_entry(archive, b"234"[number % 3], &escapes(number, 99), b"");
            }
        }),
    );
    assert!(
        said.contains("65000 in all") && said.lines().count() < 5 && said.len() < 10_000,
        "{said}"
    );
}

#[test]
fn many_variables_and_arguments() {
    let toml = |key: &str, value: &dyn Fn(usize) -> String| {
        let mut list = String::new();
        for number in 0.. {
            let value = value(number);
            if list.len() + value.len() > (256 << 10) - 200 {
                break;
            }
            list.push_str(&value);
        }
        let start = "version = \"1\"\nkernel = \"kernel\"\n[input]\n";
        let others: String = ["kernel_args", "app_args"]
            .into_iter()
            .filter(|other| *other != key)
            .map(|other| format!("{other} = []\n"))
            .collect();
        archive(&format!("{start}{others}{key} = [{list}]\n"), |_| ())
    };
    check("variables", &toml("env_vars", &|number| format!("'{number:x}=',")));
    check("variables of one name", &toml("env_vars", &|_| "'A=',".to_owned()));
    let said = check("malformed variables", &toml("env_vars", &|_| "'',".to_owned()));
    assert!(said.lines().count() < 5 && said.len() < 10_000, "{said}");
    check("arguments", &toml("app_args", &|_| "'',".to_owned()));
    check(
        "kernel arguments",
        &toml("kernel_args", &|_| "'\u{1b}',".to_owned().replace('\u{1b}', "\\u")),
    );
}

#[test]
fn many_directories() {
    check(
        "directories with a file each",
        &archive(image::HERMIT_TOML, |archive| {
            for number in 0..65_500 {
                tar_entry(archive, b'0', format!("{number}/f").as_bytes(), b"");
            }
        }),
    );
    check(
        "directories that fit",
        &archive(image::HERMIT_TOML, |archive| {
            for number in 0..36_000 {
                tar_entry(archive, b'0', format!("{number}/f").as_bytes(), b"");
            }
        }),
    );
    check(
        "files in one directory",
        &archive(image::HERMIT_TOML, |archive| {
            for number in 0..65_500 {
                tar_entry(archive, b'0', format!("d/{number}").as_bytes(), b"");
            }
        }),
    );
    check(
        "deep directories",
        &archive(image::HERMIT_TOML, |archive| {
            for number in 0..2000 {
                long_entry(archive, b'0', format!("{}{number}/f", "d/".repeat(2000)).as_bytes());
            }
        }),
    );
}

/// Layers of entries whose names are made of numbers; the data of files is `size` zeros.
fn numbered(kind: u8, count: usize, size: usize, name: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let data = vec![0; size];
    let mut tar = Vec::new();
    for number in 0..count {
        let name = name(number);
        if name.len() > 100 {
            tar_entry(&mut tar, b'L', b"././@LongLink", &name);
            tar_entry(&mut tar, kind, b"x", &data);
        } else {
            tar_entry(&mut tar, kind, &name, &data);
        }
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

#[test]
fn layers_of_containers() {
    let short = |number: usize| format!("d/{number}").into_bytes();
    check_layout("zeros", &[numbered(b'0', 1, 100 << 20, short)]);
    check_layout("files", &[numbered(b'0', 60_000, 0, short)]);
    check_layout("special files", &[numbered(b'3', 60_000, 0, short)]);
    let white = |number: usize| format!("d/.wh.{number}").into_bytes();
    let half = |kind, name: &dyn Fn(usize) -> Vec<u8>| numbered(kind, 30_000, 0, name);
    check_layout("whiteouts", &[half(b'0', &short), half(b'0', &white)]);
    let deep = |number: usize| format!("{number}/{}", "d/".repeat(100)).into_bytes();
    let said = check_layout("directories that are not listed", &[half(b'0', &deep)]);
    assert!(said.contains("than the limits allow"), "{said}");
    let long = |number: usize| [&b"d/"[..], &escapes(number, 250)].concat();
    check_layout("names", &[half(b'0', &long)]);
    let opaque = |_| b"d/.wh..wh..opq".to_vec();
    check_layout("opaque directories", &[half(b'0', &short), half(b'0', &opaque)]);
}
