use std::ffi::OsStr;

use nerite_machine::config::{Access, Irqchip, MsrPolicy, Output};

use super::*;
use crate::affinity::Affinity;
use crate::options::value::{Bytes, Rate};
use crate::options::{CpuCount, CrashAction, EnvSetting, FileCount, OutputSetting};
use crate::size::MemorySize;

fn options(text: &str) -> Options {
    let loaded = parse(Path::new("x.toml"), text).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    loaded.options
}

fn error(text: &str) -> String {
    parse(Path::new("dir/x.toml"), text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(options(""), Options::default());
    assert_eq!(
        options("# only a comment\n[memory]\n[cpu]\n[guest]\n[uhyve]\n"),
        Options::default()
    );
}

#[test]
fn every_key_of_our_own() {
    let found = options(
        r#"
        [memory]
        size = "1.5G"
        aslr = false
        thp = true
        ksm = false
        hugepages = true
        [cpu]
        count = 2
        affinity = "0-1"
        cpu_pm = true
        pit = true
        [guest]
        env = ["A=b c", "host"]
        kernel_args = ["-ip", "10.0.5.3"]
        args = ["x", ""]
        output = "out.txt"
        max_output_rate = "1M"
        max_log_lines = 5
        "#,
    );
    let mut expected = Options::default();
    expected.memory.size = Some(MemorySize::new(3 << 29).unwrap());
    expected.memory.no_aslr = Some(true);
    expected.memory.thp = Some(true);
    expected.memory.ksm = Some(false);
    expected.memory.hugepages = Some(true);
    expected.cpu.count = "2".parse().ok();
    expected.cpu.affinity = Some(Affinity::new(vec![0, 1]).unwrap());
    expected.cpu.cpu_pm = Some(true);
    expected.cpu.pit = Some(true);
    expected.guest.env = vec![EnvSetting::set("A", "b c"), EnvSetting::Host];
    expected.guest.kernel_args = vec!["-ip".to_owned(), "10.0.5.3".to_owned()];
    expected.guest.args = vec!["x".to_owned(), String::new()];
    expected.guest.output = Some(OutputSetting(Output::File("out.txt".into())));
    expected.guest.max_output_rate = "1M".parse::<Rate>().ok();
    expected.guest.max_log_lines = Some(5);
    assert_eq!(found, expected);
}

#[test]
fn every_key_of_the_peer() {
    let loaded = parse(
        Path::new("uhyve.toml"),
        r#"
        [uhyve]
        output = 'test.txt'
        stats = true
        tempdir = '/tmp/'
        hermit_image_mode = 'internal'
        file_isolation = 'strict'
        io_mode = 'direct'
        gdb_port = 1
        file_mapping = ['foo:bar']
        config = "/x"
        net = "tap:tap10"
        trace_dir = "t"
        [memory]
        memory_size = '100MiB'
        no_aslr = true
        thp = true
        ksm = true
        [cpu]
        cpu_count = 4
        cpu_pm = true
        affinity = [1, 2, 3, 4]
        pit = true
        [guest]
        env_vars = ['foo=bar']
        "#,
    )
    .unwrap();
    let Options { memory, cpu, guest, files, net, .. } = loaded.options;
    assert_eq!(memory.size.map(MemorySize::bytes), Some(100 << 20));
    assert_eq!((memory.no_aslr, memory.thp, memory.ksm), (Some(true), Some(true), Some(true)));
    assert_eq!((cpu.pit, cpu.cpu_pm), (Some(true), Some(true)));
    assert_eq!(cpu.count.map(CpuCount::get), Some(4));
    assert_eq!(cpu.affinity.map(Affinity::into_cpus), Some(vec![1, 2, 3, 4]));
    assert_eq!(guest.env, [EnvSetting::set("foo", "bar")]);
    assert_eq!(guest.output, Some(OutputSetting(Output::File("test.txt".into()))));
    assert_eq!(files.mounts.iter().map(|mount| mount.guest.as_str()).collect::<Vec<_>>(), ["/bar"]);
    assert_eq!(net.cards, ["tap=tap10".parse().unwrap()]);
    let warned: Vec<_> = loaded.warnings.iter().filter_map(|line| line.split('`').nth(1)).collect();
    let expected = [
        "stats",
        "tempdir",
        "hermit_image_mode",
        "file_isolation",
        "io_mode",
        "gdb_port",
        "config",
        "trace_dir",
    ];
    assert_eq!(warned, expected);
    assert!(
        loaded.warnings.iter().all(|line| line.starts_with("uhyve.toml: `")),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn files_of_the_host() {
    let text = "[files]\nmounts = ['./site:/www', 'data:/data:rw']\nmax_open_files = 10\n\
                max_written = '1G'\nmax_temporary = 4096\n[uhyve]\nfile_mapping = ['x:/x']";
    let files = options(text).files;
    let mounts: Vec<_> =
        files.mounts.iter().map(|mount| (mount.guest.as_str(), mount.access)).collect();
    let expected =
        [("/x", Access::ReadWriteName), ("/www", Access::ReadOnly), ("/data", Access::ReadWrite)];
    assert_eq!(mounts, expected);
    assert_eq!(files.max_open_files.map(FileCount::get), Some(10));
    assert_eq!((files.max_written, files.max_temporary), (Some(Bytes(1 << 30)), Some(Bytes(4096))));
    for (bad, part) in [
        ("mounts = ['x']", "guest path is missing"),
        ("mounts = 'x:/y'", "sequence"),
        ("max_open_files = 0", "1 to"),
        ("max_written = -1", "negative"),
        ("max_temporary = 'x'", "not a size"),
        ("[guest]\nmax_output_rate = 0", "at least one byte"),
    ] {
        let error = parse(Path::new("x"), &format!("[files]\n{bad}")).unwrap_err().to_string();
        assert!(error.contains(part), "{bad}: {error}");
    }
}

#[test]
fn what_is_switched_off_needs_no_warning() {
    assert_eq!(options("[uhyve]\nstats = false"), Options::default());
}

#[test]
fn unknown_keys_are_named_with_their_place() {
    let message = error("[memory]\nthp = true\nsiez = \"64M\"\n");
    assert!(message.starts_with("dir/x.toml:3:1: unknown field `siez`, expected"), "{message}");
    for (text, key) in [
        ("memroy = 1", "memroy"),
        ("[memory]\nthpp = true", "thpp"),
        ("[cpu]\ncpus = 1", "cpus"),
        ("[guest]\nkernel = 'x'", "kernel"),
        ("[uhyve]\nx = 'x'", "x"),
        ("[console]\n", "console"),
    ] {
        let message = error(text);
        assert!(message.contains(&format!("unknown field `{key}`")), "{text}: {message}");
    }
}

#[test]
fn bad_values_name_key_line_and_reason() {
    for (text, parts) in [
        ("[memory]\nsize = \"1M\"", ["x.toml:2:8", "too little", "16 MiB"]),
        ("[memory]\nsize = \"17M\"", [":2:8", "multiple of 2 MiB", "size ="]),
        ("[memory]\nsize = -4", [":2:8", "negative", "size ="]),
        ("[memory]\nsize = true", [":2:8", "number or a text", "size = true"]),
        ("[memory]\nthp = \"yes\"", [":2:7", "boolean", "thp = "]),
        ("[cpu]\ncount = 0", [":2:9", "1 to 16", "count = 0"]),
        ("[cpu]\ncount = \"2\"", [":2:9", "string", "count = "]),
        ("[cpu]\naffinity = \"2-0\"", [":2:12", "backwards", "affinity ="]),
        ("[cpu]\naffinity = [-1]", [":2:", "affinity", "-1"]),
        ("[cpu]\naffinity = []", [":2:12", "empty", "affinity ="]),
        ("[cpu]\naffinity = 3", [":2:12", "list of host CPUs", "affinity ="]),
        ("[guest]\nenv = [\"A\"]", [":2:7", "NAME=VALUE", "env ="]),
        ("[guest]\nargs = [\"a\\u0000b\"]", [":2:8", "zero byte", "args ="]),
        ("[guest]\noutput = \"\"", [":2:10", "empty", "output ="]),
        (
            "[memory]\nsize = \"64M\"\nmemory_size = \"64M\"",
            [":1:1", "duplicate field `size`", "[memory]"],
        ),
        ("[memory]\nthp = true\nthp = true", [":3:1", "duplicate key", "thp"]),
        ("[memory\n", [":1:", "[memory", ""]),
        ("[memory]\nthp\n", [":2:", "thp", ""]),
        ("[memory]\naslr = true\nno_aslr = true", ["x.toml: ", "`aslr`", "`no_aslr`"]),
        ("[guest]\noutput = \"a\"\n[uhyve]\noutput = \"a\"", ["[guest]", "[uhyve]", "`output`"]),
    ] {
        let message = error(text);
        assert!(!message.contains('\n'), "{text}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{text}: {message}");
    }
}

#[test]
fn columns_count_characters() {
    let message = error("guest = { args = [\"äöü\"], bogus = 1 }");
    assert!(message.starts_with("dir/x.toml:1:27: unknown field `bogus`"), "{message}");
}

#[test]
fn long_lines_are_cut_short() {
    let message = error(&format!("[memory]\nsize = \"{}\"", "ä".repeat(500)));
    assert!(message.contains("...`"), "{message}");
}

#[test]
fn unusable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("binary"), b"a = 1\n\xff\xfe").unwrap();
    std::fs::write(path("large"), vec![b'#'; 2 << 20]).unwrap();
    for (file, reason) in [
        (path("missing"), "No such file"),
        (folder.path().to_owned(), "Is a directory"),
        (path("binary"), "byte 6 is not UTF-8"),
        (path("large"), "larger than"),
        (PathBuf::from("/dev/zero"), "larger than"),
    ] {
        let message = crate::error::one_line(&load(&file).unwrap_err());
        assert!(message.contains(reason) && message.contains(file.to_str().unwrap()), "{message}");
    }
    assert_eq!(load(Path::new("/dev/null")).unwrap(), Loaded::default());
}

#[test]
fn files_are_looked_for_here_then_in_the_xdg_folder() {
    let search = |xdg: Option<&str>, home: Option<&str>| {
        search_path(xdg.map(OsStr::new), home.map(OsStr::new))
            .into_iter()
            .map(|path| path.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(search(Some("/x"), Some("/h")), ["nerite.toml", "/x/nerite/nerite.toml"]);
    assert_eq!(search(None, Some("/h")), ["nerite.toml", "/h/.config/nerite/nerite.toml"]);
    assert_eq!(search(Some(""), Some("/h")), ["nerite.toml", "/h/.config/nerite/nerite.toml"]);
    assert_eq!(search(Some("rel"), None), ["nerite.toml"]);
}

#[test]
fn network_cards() {
    let text = "[net]\ncards = ['tap=tap0,vhost=on', 'user,hostfwd=tcp:8080:80']\n";
    let cards = parse(Path::new("n.toml"), text).unwrap().options.net.cards;
    let cards: Vec<_> = cards.iter().map(ToString::to_string).collect();
    assert_eq!(cards, ["tap=tap0,vhost=on", "user,hostfwd=tcp:8080:80"]);
    let error = parse(Path::new("n.toml"), "[net]\ncards = ['tap0']\n").unwrap_err().to_string();
    assert!(error.contains("tap=NAME"), "{error}");
}

#[test]
fn a_file_says_what_a_crash_does_and_what_processors_there_are() {
    let found =
        options("[cpu]\nmsr = \"report\"\nirqchip = \"user\"\n[guest]\non_crash = \"dump:core\"\n");
    assert_eq!((found.cpu.msr, found.cpu.irqchip), (Some(MsrPolicy::Report), Some(Irqchip::User)));
    assert_eq!(found.guest.on_crash, Some(CrashAction::Dump(Some("core".into()))));
    for (text, why) in [
        ("[cpu]\nmsr = \"x\"\n", "dir/x.toml:2:7: write `fault`, `ignore` or `report`"),
        ("[cpu]\nirqchip = \"split\"\n", "dir/x.toml:2:11: write `kernel` or `user`"),
        ("[cpu]\nclock = \"sun\"\n", "dir/x.toml:2:9: write `host` or `virtual`"),
        ("[guest]\non_crash = \"core\"\n", "dir/x.toml:2:12: write `report`, `dump`"),
    ] {
        assert!(error(text).contains(why), "{}", error(text));
    }
}

#[test]
fn what_widens_a_guests_reach_is_recognised() {
    let key = |text: &str| parse(Path::new("nerite.toml"), text).unwrap().options.widening_key();
    for (text, part) in [
        ("[files]\nmounts = ['/:/host:rw']", "mounts"),
        ("[files]\nmounts = ['a:/a:ro']", "mounts"),
        ("[uhyve]\nfile_mapping = ['/:/host']", "file_mapping"),
        ("[net]\ncards = ['user,host=on']", "cards"),
        ("[net]\ncards = ['fd=3']", "cards"),
        ("[uhyve]\nnet = 'tap=tap0'", "net"),
        ("[devices]\ndisks = ['/dev/sda']", "disks"),
        ("[devices]\nvsock = 'cid=3,socket=v'", "vsock"),
        ("[boot]\ninitrd = ['/etc/shadow']", "initrd"),
        ("[guest]\noutput = '/home/u/.bashrc'", "output"),
        ("[uhyve]\noutput = 'file'", "output"),
        ("[guest]\nenv = ['A=b', 'host']", "host"),
        ("[guest]\nenv_vars = ['host']", "host"),
        ("[guest]\non_crash = 'dump:/home/u/file'", "on_crash"),
        ("[guest]\non_crash = 'dump'", "on_crash"),
        ("[guest]\non_crash = 'gdb:0.0.0.0:1'", "on_crash"),
        ("[sandbox]\nlevel = 'off'", "sandbox"),
        ("[sandbox]\nseccomp = 'off'", "sandbox"),
        ("[sandbox]\nseccomp = 'log'", "sandbox"),
        ("[sandbox]\nuser = '0:0'", "sandbox"),
        ("[sandbox]\nchroot = '/'", "sandbox"),
    ] {
        assert!(key(text).is_some_and(|key| key.contains(part)), "{text}: {:?}", key(text));
    }
    for text in [
        "",
        "[memory]\nsize = '1G'\nthp = true",
        "[cpu]\ncount = 4",
        "[guest]\nenv = ['A=b']\nargs = ['x']\noutput = 'none'\non_crash = 'report'",
        "[files]\nmax_open_files = 10",
        "[devices]\nrng = true",
        "[sandbox]\nlevel = 'strict'\nseccomp = 'on'",
    ] {
        assert_eq!(key(text), None, "{text}");
    }
}
