use std::ffi::OsStr;

use nerite_machine::config::{Access, Output};

use super::*;

fn settings(text: &str) -> Settings {
    let loaded = parse(Path::new("x.toml"), text).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    loaded.settings
}

fn error(text: &str) -> String {
    parse(Path::new("dir/x.toml"), text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_says_nothing() {
    assert_eq!(settings(""), Settings::default());
    assert_eq!(settings("# only a comment\n[memory]\n[cpu]\n[guest]\n[uhyve]\n"), Settings::default());
}

#[test]
fn every_key_of_our_own() {
    let settings = settings(
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
    assert_eq!(
        settings,
        Settings {
            memory: Some(MemorySize::new(3 << 29).unwrap()),
            aslr: Some(false),
            thp: Some(true),
            ksm: Some(false),
            hugepages: Some(true),
            cpus: "2".parse().ok(),
            affinity: Some(Affinity::new(vec![0, 1]).unwrap()),
            cpu_pm: Some(true),
            pit: Some(true),
            env: vec![EnvSetting::set("A", "b c"), EnvSetting::Host],
            kernel_args: vec!["-ip".to_owned(), "10.0.5.3".to_owned()],
            app_args: vec!["x".to_owned(), String::new()],
            output: Some(OutputSetting(Output::File("out.txt".into()))),
            max_output_rate: NonZeroU64::new(1 << 20),
            max_log_lines: Some(5),
            ..Settings::default()
        }
    );
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
    let settings = loaded.settings;
    assert_eq!(settings.memory.map(MemorySize::bytes), Some(100 << 20));
    assert_eq!(settings.aslr, Some(false));
    assert_eq!(
        (settings.thp, settings.ksm, settings.pit, settings.cpu_pm),
        (Some(true), Some(true), Some(true), Some(true))
    );
    assert_eq!(settings.cpus.map(CpuCount::get), Some(4));
    assert_eq!(settings.affinity.map(Affinity::into_cpus), Some(vec![1, 2, 3, 4]));
    assert_eq!(settings.env, [EnvSetting::set("foo", "bar")]);
    assert_eq!(settings.output, Some(OutputSetting(Output::File("test.txt".into()))));
    assert_eq!(settings.mounts.iter().map(|mount| mount.guest.as_str()).collect::<Vec<_>>(), ["/bar"]);
    assert_eq!(settings.network, ["tap=tap10".parse().unwrap()]);
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
    assert!(loaded.warnings.iter().all(|line| line.starts_with("uhyve.toml: `")), "{:?}", loaded.warnings);
}

#[test]
fn files_of_the_host() {
    let text = "[files]\nmounts = ['./site:/www', 'data:/data:rw']\nmax_open_files = 10\n\
                max_written = '1G'\nmax_temporary = 4096\n[uhyve]\nfile_mapping = ['x:/x']";
    let settings = settings(text);
    let mounts: Vec<_> = settings
        .mounts
        .iter()
        .map(|mount| (mount.guest.as_str(), mount.access == Access::ReadWrite))
        .collect();
    assert_eq!(mounts, [("/x", true), ("/www", false), ("/data", true)]);
    assert_eq!(settings.max_open_files.map(FileCount::get), Some(10));
    assert_eq!((settings.max_written, settings.max_temporary), (Some(1 << 30), Some(4096)));
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
    assert_eq!(settings("[uhyve]\nstats = false"), Settings::default());
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
        ("[memory]\nsize = \"64M\"\nmemory_size = \"64M\"", ["x.toml: ", "`size`", "`memory_size`"]),
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
        let message = load(&file).unwrap_err().to_string();
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
    let cards = parse(Path::new("n.toml"), text).unwrap().settings.network;
    let cards: Vec<_> = cards.iter().map(ToString::to_string).collect();
    assert_eq!(cards, ["tap=tap0,vhost=on", "user,hostfwd=tcp:8080:80"]);
    let error = parse(Path::new("n.toml"), "[net]\ncards = ['tap0']\n").unwrap_err().to_string();
    assert!(error.contains("tap=NAME"), "{error}");
}

#[test]
fn a_file_says_what_a_crash_does_and_what_processors_there_are() {
    let observe = |text: &str| parse(Path::new("x.toml"), text).unwrap().observe;
    assert_eq!(observe("[cpu]\ncount = 1\n"), FileObserve::default());
    let all = observe("[cpu]\nmsr = \"report\"\nirqchip = \"user\"\n[guest]\non_crash = \"dump:core\"\n");
    let expected = FileObserve {
        on_crash: Some(CrashAction::Dump(Some("core".into()))),
        msr: Some(MsrPolicy::Report),
        irqchip: Some(Irqchip::User),
    };
    assert_eq!(all, expected);
    for (text, why) in [
        ("[cpu]\nmsr = \"x\"\n", "dir/x.toml:2:7: write `fault`, `ignore` or `report`"),
        ("[cpu]\nirqchip = \"split\"\n", "dir/x.toml:2:11: write `kernel` or `user`"),
        ("[guest]\non_crash = \"core\"\n", "dir/x.toml:2:12: write `report`, `dump`"),
    ] {
        assert!(error(text).contains(why), "{}", error(text));
    }
}
