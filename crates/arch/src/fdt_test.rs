use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Splits a command line as a kernel does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    options: Vec<String>,
    env: BTreeMap<String, String>,
    args: Vec<String>,
}

/// Reads a command line in the way of Hermit kernel 0.13: split like a shell, `--` starts the
/// application's arguments, `env=K=V` sets a variable, the rest are options.
fn parse(bootargs: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut words = shlex::Shlex::new(bootargs);
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.args.extend(&mut words);
        } else if let Some((key, value)) =
            word.strip_prefix("env=").and_then(|variable| variable.split_once('='))
        {
            parsed.env.insert(key.to_owned(), value.to_owned());
        } else {
            parsed.options.push(word);
        }
    }
    assert!(!words.had_error, "unbalanced quotes in {bootargs:?}");
    parsed
}

/// The command line as the kernel finds it in the device tree.
fn bootargs_of(blob: &[u8]) -> String {
    let fdt = fdt::Fdt::new(blob).unwrap();
    fdt.chosen().bootargs().unwrap().to_owned()
}

#[test]
fn the_kernel_finds_memory_platform_and_tsc() {
    let regions = [(0, 0xc000_0000), (0x1_0000_0000, 0x4000_0000)];
    let mut builder = Builder::new().cpus(12).tsc_khz(2_400_000);
    for (start, size) in regions {
        builder = builder.memory(start, size);
    }
    let blob = builder.finish().unwrap();
    let fdt = fdt::Fdt::new(&blob).unwrap();
    assert!(fdt.root().compatible().all().any(|name| name == "hermit,uhyve"));
    let found: Vec<_> = fdt
        .find_all_nodes("/memory")
        .flat_map(|node| node.reg().unwrap())
        .map(|region| (region.starting_address as u64, region.size.unwrap() as u64))
        .collect();
    assert_eq!(found, regions);
    let khz = fdt.find_node("/hermit,tsc").unwrap().property("khz").unwrap();
    assert_eq!(khz.as_usize(), Some(2_400_000));
    let cpus = fdt.find_node("/cpus").unwrap();
    let names: Vec<_> = cpus.children().map(|node| node.name).collect();
    assert_eq!(names.len(), 12);
    assert_eq!((names[1], names[11]), ("cpu@1", "cpu@b"));
    assert_eq!(fdt.total_size(), blob.len());
    assert_eq!(fdt.chosen().bootargs(), Some(""));
    assert_eq!(fdt.memory_reservations().count(), 0);
}

#[test]
fn image_files_are_announced_and_reserved() {
    let blob = Builder::new().memory(0, 1 << 30).initrd(0x12_3000, 0x4567).finish().unwrap();
    let fdt = fdt::Fdt::new(&blob).unwrap();
    let chosen = fdt.find_node("/chosen").unwrap();
    let value = |name| chosen.property(name).unwrap().as_usize().unwrap();
    assert_eq!((value("linux,initrd-start"), value("linux,initrd-end")), (0x12_3000, 0x12_7567));
    let reserved: Vec<_> =
        fdt.memory_reservations().map(|range| (range.address() as usize, range.size())).collect();
    assert_eq!(reserved, [(0x12_3000, 0x4567)]);
    assert!(Builder::new().initrd(0x1000, 0).finish().is_err(), "an empty range");
    assert!(Builder::new().initrd(u64::MAX, 2).finish().is_err(), "a range that wraps");
}

#[test]
fn mounts_are_a_list_of_strings() {
    let blob = Builder::new().mounts(["/data", "/my files"]).finish().unwrap();
    let fdt = fdt::Fdt::new(&blob).unwrap();
    let mounts = fdt.find_node("/uhyve,mounts").unwrap().property("mounts").unwrap();
    assert_eq!(mounts.value, b"/data\0/my files\0");
    let error = Builder::new().mounts(["/a\0b"]).finish().unwrap_err();
    assert!(error.to_string().contains("mount path"), "{error}");
}

#[test]
fn absent_things_have_no_node() {
    let blob = Builder::new().memory(0, 1 << 30).finish().unwrap();
    let fdt = fdt::Fdt::new(&blob).unwrap();
    for path in ["/cpus", "/hermit,tsc", "/uhyve,mounts"] {
        assert!(fdt.find_node(path).is_none(), "{path}");
    }
    assert!(fdt.find_node("/chosen").unwrap().property("linux,initrd-start").is_none());
}

#[test]
fn command_lines_read_well() {
    let builder =
        Builder::new().kernel_args(["-ip", "10.0.5.3"]).env("A", "b").app_args(["x", "y z"]);
    assert_eq!(builder.bootargs().unwrap(), "-ip 10.0.5.3 'env=A=b' -- x 'y z'");
    assert_eq!(Builder::new().bootargs().unwrap(), "");
    assert_eq!(Builder::new().app_args([""]).bootargs().unwrap(), "-- ''");
    assert_eq!(Builder::new().kernel_args(["a b"]).bootargs().unwrap(), "'a b'");
}

#[test]
fn hostile_words_arrive_exactly() {
    let words = [
        "",
        " ",
        "'",
        "\"",
        "\\",
        "'\"'\"'",
        "a\nb",
        "\n",
        "\\\n",
        "#no comment",
        "--",
        "-ip",
        "env=X=y",
        "$HOME `ls` $(ls)",
        "grün ✓ 日本",
        "\u{7f}\u{1}\t\r",
        "^a^b",
        "!!",
        "a=b",
        "virtio_mmio.device=4K@0",
        "^",
        "'^",
        "^'\\",
    ];
    let mut builder = Builder::new().app_args(words);
    for (index, word) in words.iter().enumerate() {
        builder = builder.env(format!("V{index}"), *word);
    }
    let parsed = parse(&bootargs_of(&builder.finish().unwrap()));
    assert_eq!(parsed.args, words);
    assert_eq!(parsed.options, [""; 0]);
    for (index, word) in words.iter().enumerate() {
        assert_eq!(parsed.env[&format!("V{index}")], *word);
    }
}

#[test]
fn what_cannot_be_handed_over_is_an_error() {
    let nul = "a\0b";
    let cases = [
        (Builder::new().app_args([nul]), "argument"),
        (Builder::new().kernel_args([nul]), "kernel argument"),
        (Builder::new().env("A", nul), "environment variable"),
        (Builder::new().env(nul, "a"), "environment variable"),
        (Builder::new().kernel_args(["-ip", "--"]), "`--`"),
        (Builder::new().env("", "a"), "must not be empty"),
        (Builder::new().env("A=B", "a"), "must not hold `=`"),
    ];
    for (builder, text) in cases {
        let error = builder.finish().unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(builder.bootargs(), Err(error.clone()));
        assert_eq!(builder.size_bound(), Err(error));
    }
}

/// Text of any kind but with a liking for what shells treat specially; no NUL.
fn text() -> impl Strategy<Value = String> {
    let special = proptest::sample::select(&[
        '\'', '"', '\\', ' ', '\n', '\t', '\r', '#', '$', '`', '=', '-', '!', '^', 'a', '*', 'é',
        '😀',
    ]);
    let any_char = any::<char>().prop_filter("no NUL", |&letter| letter != '\0');
    let letter = prop_oneof![4 => special, 1 => any_char];
    proptest::collection::vec(letter, 0..12).prop_map(String::from_iter)
}

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(text(), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn splitting_gives_every_string_back(
        options in words(),
        env in proptest::collection::btree_map("[^=\0]{1,8}", text(), 0..5),
        args in words(),
    ) {
        let options: Vec<_> =
            options.into_iter().filter(|word| word != "--" && !word.starts_with("env=")).collect();
        let mut builder = Builder::new().kernel_args(&options).app_args(&args);
        for (name, value) in &env {
            builder = builder.env(name, value);
        }
        let parsed = parse(&bootargs_of(&builder.finish().unwrap()));
        prop_assert_eq!(parsed, Parsed { options, env, args });
    }

    #[test]
    fn the_size_bound_holds_wherever_memory_is(
        regions in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..3),
        initrd in proptest::option::of((0..u64::MAX / 2, 1..u64::MAX / 2)),
        args in words(),
        cpus in 0_u32..20,
    ) {
        let bound = Builder::new().cpus(cpus).app_args(&args).tsc_khz(1);
        let mut builder = bound.clone();
        for (start, size) in regions {
            builder = builder.memory(start, size);
        }
        if let Some((start, size)) = initrd {
            builder = builder.initrd(start, size);
        }
        let size = builder.finish().unwrap().len() as u64;
        prop_assert!(size <= bound.size_bound().unwrap());
        prop_assert!(size <= builder.size_bound().unwrap());
    }
}
