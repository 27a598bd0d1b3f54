//! The command line as a user meets it: help, mistakes, and which of several settings wins.

#![cfg(test)]

mod common;

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use common::image::{self, Elf};
use common::{Done, Folder, code, finish, wait};

/// The sample configuration of the peer, with the values it ships and its commented-out keys turned
/// on.
const UHYVE_TOML: &str = "\
[uhyve]
output = 'test.txt'
stats = true
tempdir = '/tmp'
file_isolation = 'strict'
gdb_port = 1

[memory]
memory_size = '100MiB'
no_aslr = true
thp = true
ksm = true

[cpu]
cpu_count = 1
affinity = [0]
pit = true

[guest]
env_vars = ['foo=bar']
";

#[test]
fn help_tells_options_aliases_environment_and_exit_codes() {
    let folder = Folder::new();
    let run = folder.run(&["run", "--help"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    for part in [
        "Usage: vmm run [OPTIONS] <IMAGE> [--] [ARGS]...",
        "-m, --memory <SIZE>",
        "[env: HERMIT_MEMORY_SIZE]",
        "-c, --cpus <N>",
        "[env: HERMIT_CPU_COUNT]",
        "-e, --env <NAME=VALUE|host>",
        "-o, --output <FILE|none|->",
        "-k, --kernel-arg <ARG>",
        "-a, --affinity <CPUS>",
        "--config <FILE>",
        "[env: HERMIT_CONFIG]",
        "--no-aslr[=<BOOL>]",
        "--thp[=<BOOL>]",
        "--ksm[=<BOOL>]",
        "--hugepages[=<BOOL>]",
        "--cpu-pm[=<BOOL>]",
        "--pit[=<BOOL>]",
        "-v, --verbose...",
        "RUST_LOG",
        "  240    wrong command line or environment",
        "  241    wrong configuration file",
        "  242    wrong image",
        "  243    the host cannot do it",
        "  244    the guest crashed",
        "  128+n  ended by signal n",
    ] {
        assert!(run.stdout.contains(part), "{part} is missing: {}", run.stdout);
    }
    let all = folder.run(&["--help"]);
    assert_eq!(all.code, 0);
    assert!(all.stdout.contains("Exit codes") && all.stdout.contains("inspect"), "{all:?}");
    assert!(!all.stdout.contains("probe"), "{all:?}");
    let version = folder.run(&["--version"]);
    assert_eq!((version.code, version.stdout), (0, format!("vmm {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn mistakes_are_told_and_end_with_240() {
    let folder = Folder::new();
    for (words, part) in [
        (&["run"][..], "<IMAGE>"),
        (&["rnu", "x"], "'rnu'"),
        (&["run", "--bogus", "x"], "'--bogus'"),
        (&["inspect"], "<IMAGE>"),
        (&["inspect", "a", "b"], "'b'"),
        (&["run", "-m"], "--memory <SIZE>"),
        (&["run", "-m", "64Mbit", "x"], "unknown unit `Mbit`"),
        (&["run", "-m", "1M", "x"], "16 MiB"),
        (&["run", "-m", "512MB", "x"], "488MiB"),
        (&["run", "-c", "17", "x"], "1 to 16"),
        (&["run", "-a", "3-1", "x"], "backwards"),
        (&["run", "-e", "FOO", "x"], "NAME=VALUE"),
        (&["run", "--thp=maybe", "x"], "maybe"),
        (&["run", "-o", "", "x"], "empty"),
        (&["run", ""], "empty"),
        (&["run", "-a", "0,0", "-c", "3", "x"], "2 host CPUs for 3 vCPUs"),
        (&["run", "-a", "8000", "x"], "host CPU 8000"),
        (&["run", "--hugepages", "--ksm", "x"], "exclude"),
        (&["run", "-k", "--", "x"], "`--`"),
    ] {
        let done = folder.run(words);
        assert_eq!(done.code, 240, "{words:?}: {done:?}");
        assert!(
            done.stderr.starts_with("vmm: error: ") && done.stderr.contains(part),
            "{words:?}: {done:?}"
        );
        assert_eq!(done.stdout, "", "{words:?}");
        done.is_orderly();
    }
    let nothing = folder.run(&[]);
    assert_eq!(nothing.code, 240);
    assert!(nothing.stderr.contains("Usage: vmm"), "{nothing:?}");
}

#[test]
fn words_that_are_not_text_are_refused_by_name() {
    let folder = Folder::new();
    let bad = OsStr::from_bytes(b"\xff");
    let done = finish(folder.vmm(&["run", "image", "a"]).arg(bad));
    done.is_error(240, &["\\xFF", "not UTF-8"]);
    let done = finish(folder.vmm(&["run"]).arg(bad));
    done.is_error(242, &["No such file"]);
    let done = finish(folder.vmm(&["run", "image"]).env("HERMIT_CPU_COUNT", bad));
    done.is_error(240, &["HERMIT_CPU_COUNT", "not UTF-8"]);
}

#[test]
fn mistakes_in_the_environment_are_named() {
    let folder = Folder::new();
    for (name, value, reason) in [
        ("HERMIT_MEMORY_SIZE", "lots", "not a size"),
        ("HERMIT_MEMORY_SIZE", "1M", "16 MiB"),
        ("HERMIT_CPU_COUNT", "many", "1 to 16"),
    ] {
        let done = finish(folder.vmm(&["run", "image"]).env(name, value));
        done.is_error(240, &[name, value, reason]);
    }
    let done = finish(folder.vmm(&["run", "image"]).env("HERMIT_CONFIG", "no.toml"));
    done.is_error(241, &["no.toml", "No such file"]);
}

/// A kernel that takes 480 MiB, and an observer of the memory size that works without KVM: the
/// error that says it is too little.
struct Sized {
    folder: Folder,
    image: String,
}

impl Sized {
    fn new() -> Self {
        let folder = Folder::new();
        let mut elf = Elf::new(&image::exit(0));
        elf.loads[0].1 = 480 << 20;
        let image = folder.file("image", elf.build());
        Self { folder, image }
    }

    /// The memory size that wins, in MiB.
    #[track_caller]
    fn memory(&self, words: &[&str], variables: &[(&str, &str)]) -> String {
        let mut command = self.folder.vmm(&[&["run"], words, &[&self.image]].concat());
        for (name, value) in variables {
            // Those that name a file or folder name one in the test's folder.
            let value =
                if name.contains("CONFIG") { self.folder.path(value) } else { value.into() };
            command.env(name, value);
        }
        let done = finish(&mut command);
        assert_eq!(done.code, 240, "{done:?}");
        let size = done.stderr.split_whitespace().find(|word| word.parse::<u32>().is_ok());
        size.unwrap_or_else(|| panic!("{done:?}")).to_owned()
    }
}

#[test]
fn command_line_then_environment_then_file_then_default() {
    let sized = Sized::new();
    assert_eq!(sized.memory(&[], &[]), "64");
    sized.folder.file("nerite.toml", "[memory]\nsize = '16M'");
    assert_eq!(sized.memory(&[], &[]), "16");
    let environment = [("HERMIT_MEMORY_SIZE", "18M")];
    assert_eq!(sized.memory(&[], &environment), "18");
    assert_eq!(sized.memory(&["-m", "20M"], &environment), "20");
    assert_eq!(sized.memory(&["--memory-size", "22MiB"], &environment), "22");
}

#[test]
fn the_files_in_their_order() {
    let sized = Sized::new();
    let file =
        |name: &str, size: u32| sized.folder.file(name, format!("[memory]\nsize = '{size}M'"));
    file("home/.config/nerite/nerite.toml", 18);
    assert_eq!(sized.memory(&[], &[]), "18");
    file("xdg/nerite/nerite.toml", 20);
    let xdg = ("XDG_CONFIG_HOME", "xdg");
    assert_eq!(sized.memory(&[], &[xdg]), "20");
    file("nerite.toml", 22);
    assert_eq!(sized.memory(&[], &[xdg]), "22");
    file("env.toml", 24);
    let named = ("HERMIT_CONFIG", "env.toml");
    assert_eq!(sized.memory(&[], &[xdg, named]), "24");
    let option = file("option.toml", 26);
    assert_eq!(sized.memory(&["--config", &option], &[xdg, named]), "26");
    assert_eq!(sized.memory(&["--config", "/dev/null"], &[xdg, named]), "64");
}

/// The peer's file is read when it is named, and never found by itself.
#[test]
fn the_peers_file_loads_with_warnings() {
    let folder = Folder::new();
    let path = folder.file("uhyve.toml", UHYVE_TOML);
    let done = folder.run(&["run", "--config", &path, "no-image"]);
    assert_eq!(done.code, 242, "{done:?}");
    let lines: Vec<_> = done.stderr.lines().collect();
    assert_eq!(lines.len(), 5, "{done:?}");
    for (line, key) in lines.iter().zip(["stats", "tempdir", "file_isolation", "gdb_port"]) {
        let start = format!("vmm: warning: {path}: `{key}` in [uhyve] has no effect: ");
        assert!(line.starts_with(&start), "{line}");
    }
    assert!(lines[4].contains("no-image"));
    let done = folder.run(&["run", "no-image"]);
    done.is_error(242, &["no-image"]);
}

#[test]
fn an_unreadable_home_is_no_obstacle() {
    let folder = Folder::new();
    let copy = folder.path("vmm");
    common::copy_program(&copy);
    common::open_to_all(&folder.path(""));
    if !rustix::process::geteuid().is_root() {
        return nerite_testkit::skip("needs root, to become another user");
    }
    let secret = folder.path("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command = std::process::Command::new(&copy);
    command.args(["run", "no-image"]).uid(65534).gid(65534);
    let done = finish(command.env("HOME", &secret).current_dir("/"));
    assert_eq!(done.code, 242, "{done:?}");
    assert!(
        done.stderr.starts_with("vmm: warning: continuing without a configuration file"),
        "{done:?}"
    );
}

#[test]
fn inspect_prints_and_a_reader_may_leave() {
    let folder = Folder::new();
    let files: Vec<_> = (0..5000).map(|number| format!("file{number:090}")).collect();
    let kernel = image::elf(&image::exit(0));
    let mut entries =
        vec![("hermit.toml", image::HERMIT_TOML.as_bytes()), ("kernel", kernel.as_slice())];
    entries.extend(files.iter().map(|name| (name.as_str(), &b"x"[..])));
    let path = folder.file("image.tar.gz", image::gzip(&image::tar(&entries)));
    let done = folder.run(&["inspect", &path]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(
        done.stdout.contains("hermit.toml") && done.stdout.contains(&files[4999]),
        "{}",
        done.stdout
    );

    // More than a pipe holds: it waits, and has long been confined.
    let mut child = folder
        .vmm(&["inspect", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    for field in ["NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapPrm:\t0000000000000000\n"] {
        assert!(status.contains(field), "{field} {status}");
    }
    child.kill().unwrap();
    wait(child);

    // More than a pipe holds, and without a reader.
    let mut child = folder
        .vmm(&["inspect", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = wait(child);
    assert_eq!((code(output.status), output.stderr.as_slice()), (141, &b""[..]));
}

#[test]
fn standard_output_that_is_full_is_an_error_of_the_host() {
    let folder = Folder::new();
    let path = folder.file("image", image::elf(&image::exit(0)));
    for words in [&["inspect", &path][..], &["--help"], &["run", "--help"], &["--version"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = folder.vmm(words).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = wait(child);
        let done = Done {
            code: code(output.status),
            stdout: String::new(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        done.is_error(243, &["standard output", "No space left"]);
    }
}

#[test]
fn probe_says_one_word() {
    let done = Folder::new().run(&["probe"]);
    assert_eq!(done.code, 0);
    assert!(["hardware\n", "emulating\n", "none\n"].contains(&done.stdout.as_str()), "{done:?}");
    assert!(done.stderr.contains("KVM"), "{done:?}");
}

/// A file that lies beside the image may be its author's: it gives the guest nothing of the host,
/// and takes no protection away.
#[test]
fn a_file_found_by_itself_does_not_widen_a_guests_reach() {
    let folder = Folder::new();
    folder.file("image", "no image");
    folder.file("nerite.toml", "[files]\nmounts = ['/:/host:rw']\n[sandbox]\nlevel = 'off'");
    let done = folder.run(&["run", "image"]);
    done.is_error(241, &["nerite.toml", "`mounts`", "found by itself", "--config nerite.toml"]);
    // Named, it is the user's.
    for named in [
        &["run", "--config", "nerite.toml", "image"][..],
        &["run", "--config", "./nerite.toml", "image"],
    ] {
        folder.run(named).is_error(242, &["image"]);
    }
    let mut command = folder.vmm(&["run", "image"]);
    common::finish(command.env("HERMIT_CONFIG", "nerite.toml")).is_error(242, &["image"]);
    // So is one in the user's own folder.
    std::fs::remove_file(folder.path("nerite.toml")).unwrap();
    folder.file("home/.config/nerite/nerite.toml", "[sandbox]\nlevel = 'off'");
    folder.run(&["run", "image"]).is_error(242, &["image"]);
}

#[test]
fn a_socket_for_clients_is_of_one_guest_and_one_process() {
    let folder = Folder::new();
    let refused = folder.run(&["clones", "saved", "--listen", "pool", "--vsock", "cid=3,socket=v"]);
    assert!(refused.stderr.contains("--vsock cannot be shared by several guests"), "{refused:?}");
    let wrong = folder.run(&["run", "--vsock", "cid=2,socket=v", "image"]);
    assert!(wrong.stderr.contains("`2` is no context identifier of a guest"), "{wrong:?}");
    // A file of another kind is not replaced.
    std::fs::write(folder.path("v"), "mine").unwrap();
    std::fs::write(folder.path("image"), "").unwrap();
    let taken = folder.run(&["run", "--vsock", "cid=3,socket=v", "image"]);
    assert!(taken.stderr.contains("v: there is something else than a socket"), "{taken:?}");
    assert_eq!((taken.code, std::fs::read(folder.path("v")).unwrap()), (240, b"mine".to_vec()));
}
