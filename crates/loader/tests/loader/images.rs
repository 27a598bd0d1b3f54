//! Whole images: files, archives, symbols, and what `inspect` shows.

use std::fs;

use nerite_loader::{EntryKind, Error, Format, Image, Kernel, Limits};
use nerite_log_budget::Causes;
use tar::{Builder, EntryType, Header};

use crate::exercise::gzip;
use nerite_loader::testing::{CODE, Elf, Symbol};

const CONFIG: &str = "version = '1'\nkernel = '/bin/app'\n[input]\nkernel_args = ['-ip', '10.0.5.3']\napp_args = ['a b']\nenv_vars = ['A=1']\n[requirements]\nmemory = '32 MiB'\ncpus = 2\n";

/// A tar archive of regular files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, data) in files {
        add(&mut builder, name, data);
    }
    builder.into_inner().unwrap()
}

/// Adds a file, whatever its name.
fn add(builder: &mut Builder<Vec<u8>>, name: &str, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    builder.append(&header, data).unwrap();
}

fn parse(tar: &[u8]) -> Result<Image, Error> {
    Image::parse(gzip(tar), &Limits::default())
}

fn error(files: &[(&str, &[u8])]) -> String {
    Causes(&parse(&tar(files)).unwrap_err()).to_string()
}

#[test]
fn archive() {
    let kernel = Elf::hermit().build();
    let image = parse(&tar(&[
        ("hermit.toml", CONFIG.as_bytes()),
        ("./bin/app", &kernel),
        ("data/file", b"contents"),
    ]))
    .unwrap();
    assert_eq!(image.format(), Format::Archive);
    assert_eq!(
        image.kernel().segments(),
        Kernel::parse(kernel, &Limits::default()).unwrap().segments()
    );
    let config = image.config().unwrap();
    assert_eq!((config.memory, config.cpus), (Some(32 << 20), Some(2)));
    let archive = image.archive().unwrap();
    let entry = archive.get(b"/data/file").unwrap();
    assert_eq!((archive.data(entry), entry.mode, entry.size()), (&b"contents"[..], 0o644, 8));
    assert!(archive.get(b"data").is_none());
    assert!(image.kernel().symbols().lookup(CODE).is_some());
}

#[test]
fn names_match_with_and_without_a_leading_slash() {
    let kernel = Elf::hermit().build();
    for in_config in ["bin/app", "/bin/app", "./bin/app", "//bin/app"] {
        for in_tar in ["bin/app", "/bin/app", "./bin/app", "./././/bin/app"] {
            let config = CONFIG.replace("/bin/app", in_config);
            let files = tar(&[("/hermit.toml", config.as_bytes()), (in_tar, &kernel)]);
            assert!(parse(&files).is_ok(), "{in_config} {in_tar}");
        }
    }
}

#[test]
fn the_latest_entry_wins() {
    let kernel = Elf::hermit().build();
    let files = tar(&[
        ("bin/app", b"old"),
        ("hermit.toml", b"old"),
        ("./hermit.toml", CONFIG.as_bytes()),
        ("/bin/app", &kernel),
    ]);
    assert_eq!(parse(&files).unwrap().archive().unwrap().entries().len(), 4);
}

#[test]
fn bad_archives() {
    let kernel = Elf::hermit().build();
    let config = ("hermit.toml", CONFIG.as_bytes());
    assert_eq!(error(&[]), "the archive has no hermit.toml; it is no Hermit image");
    assert_eq!(
        error(&[("bin/app", &kernel)]),
        "the archive has no hermit.toml; it is no Hermit image"
    );
    assert_eq!(
        error(&[config]),
        "hermit.toml names the kernel \"/bin/app\", which the archive does not have"
    );
    assert_eq!(
        error(&[("hermit.toml", b"version = '9'")]),
        "hermit.toml, line 1: unknown variant `9`, expected `1`"
    );
    let prefix = "kernel \"/bin/app\" of the archive: ";
    assert_eq!(
        error(&[config, ("bin/app", b"")]),
        format!("{prefix}the file is empty; was the build interrupted?")
    );
    assert!(
        error(&[config, ("bin/app", b"#!/bin/sh")])
            .starts_with(&format!("{prefix}not an image: a script"))
    );
    assert!(
        error(&[config, ("bin/app", &kernel[..50])])
            .starts_with(&format!("{prefix}truncated ELF file"))
    );

    let limits = Limits { max_entries: 2, ..Limits::default() };
    let three = gzip(&tar(&[("a", b""), ("b", b""), ("c", b"")]));
    let text = Image::parse(three, &limits).unwrap_err().to_string();
    assert_eq!(text, "the archive has more than 2 entries, which is the limit");
}

#[test]
fn damaged_archives() {
    let kernel = Elf::hermit().build();
    let whole = tar(&[("hermit.toml", CONFIG.as_bytes()), ("bin/app", &kernel)]);
    // Without the two empty blocks at the end, as some tools leave it.
    assert!(parse(&whole[..whole.len() - 1024]).is_ok());
    let text = |bytes: &[u8]| parse(bytes).unwrap_err().to_string();
    assert_eq!(
        text(&whole[..whole.len() - 2048]),
        "malformed tar archive, entry 1: the data ends early"
    );
    assert!(text(&whole[..1500]).starts_with("malformed tar archive, entry 1: "));
    let mut sum = whole.clone();
    sum[1024] ^= 1;
    assert!(text(&sum).starts_with("malformed tar archive, entry 1: "), "{}", text(&sum));
    let mut size = whole.clone();
    size[124..135].copy_from_slice(b"77777777777");
    assert!(text(&size).starts_with("malformed tar archive, entry 0: "), "{}", text(&size));

    let packed = gzip(&whole);
    let image = |bytes: &[u8]| {
        let error = Image::parse(bytes.to_vec(), &Limits::default()).unwrap_err();
        Causes(&error).to_string()
    };
    assert!(
        image(&packed[..packed.len() - 3])
            .starts_with("malformed gzip data (copy or build the image again): ")
    );
    let mut flipped = packed;
    flipped[2000] ^= 0x10;
    assert!(
        image(&flipped).starts_with("malformed gzip data (copy or build the image again): "),
        "{}",
        image(&flipped)
    );
    assert!(
        image(&[0x1f, 0x8b, 8])
            .starts_with("malformed gzip data (copy or build the image again): ")
    );
    assert!(image(&whole).contains("a tar archive that is not compressed (use gzip)"));
}

#[test]
fn gzip_bomb() {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 100_000);
    let limits = Limits { max_decompressed: 1 << 20, ..Limits::default() };
    let text = Image::parse(bomb.clone(), &limits).unwrap_err().to_string();
    assert_eq!(
        text,
        "the archive has more than 1048576 bytes when decompressed, which is the limit"
    );
    // All of it is one empty archive.
    assert!(matches!(Image::parse(bomb, &Limits::default()), Err(Error::NoConfig)));
}

#[test]
fn links_and_odd_names_are_listed_but_not_followed() {
    let kernel = Elf::hermit().build();
    let mut builder = Builder::new(Vec::new());
    add(&mut builder, "hermit.toml", CONFIG.as_bytes());
    add(&mut builder, "real", &kernel);
    add(&mut builder, "../../etc/passwd", b"x");
    add(&mut builder, "/abs\x1b[2J", b"x");
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "bin/app", "../real").unwrap();
    let files = builder.into_inner().unwrap();
    let text = Causes(&parse(&files).unwrap_err()).to_string();
    assert_eq!(text, "\"bin/app\" in the archive is a symbolic link, it must be a regular file");

    // The same with more at the end.
    let mut builder = Builder::new(files[..files.len() - 1024].to_vec());
    add(&mut builder, "bin/app", &kernel);
    let long = "long/".repeat(60);
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    builder.append_data(&mut header, &long, &b""[..]).unwrap();
    let image = parse(&builder.into_inner().unwrap()).unwrap();
    let entries = image.archive().unwrap().entries();
    assert_eq!(entries[4].target.as_deref(), Some(&b"../real"[..]));
    assert_eq!((entries[4].kind, entries[6].kind), (EntryKind::Symlink, EntryKind::Directory));
    assert!(entries[2].has_parent_component() && !entries[2].is_absolute());
    assert!(entries[3].is_absolute() && !entries[3].has_parent_component());
    assert_eq!(entries[6].relative_name(), long.trim_end_matches('/').as_bytes());

    let shown = image.inspect().to_string();
    assert!(shown.contains("../../etc/passwd (name with ..)"), "{shown}");
    assert!(shown.contains("/abs\\u{1b}[2J (absolute name)"), "{shown}");
    assert!(shown.contains("bin/app -> ../real (a symbolic link)"), "{shown}");
}

#[test]
fn inspect_shows_everything() {
    let config = CONFIG.replace("'A=1'", "'A=1', 'host'");
    let image =
        parse(&tar(&[("hermit.toml", config.as_bytes()), ("bin/app", &Elf::hermit().build())]))
            .unwrap();
    let shown = image.inspect().to_string();
    let expected = [
        "kernel version:   0.13.2",
        "hypercalls:       v2 (interface version 2)",
        "address:          relocatable",
        "entry:            0x10000",
        "memory:           0x1346d (77.1 KiB)",
        "segments:         0x00000000 +0x440 r-- from 0x0 +0x440 align 0x1000",
        "                  0x00010000 +0x123 r-x from 0x440 +0x123 align 0x8",
        "TLS:              0x000111a8 +0x48, 0x20 initialised, align 0x10",
        "relocations:      7: 3 relative, 2 64-bit, 2 GLOB_DAT (2 against undefined weak symbols)",
        "symbols:          2 functions",
        "kernel file:      /bin/app",
        "kernel arguments: -ip",
        "                  10.0.5.3",
        "arguments:        a b",
        "environment:      A=1",
        "                  host (no effect: not NAME=value)",
        "needs memory:     32.0 MiB",
        "needs vCPUs:      2",
    ];
    let lines: Vec<&str> = shown.lines().collect();
    for line in expected {
        assert!(lines.contains(&line), "{line} is not in\n{shown}");
    }
    assert!(lines[0].starts_with("format:           gzip'd tar, "));

    let fixed = Image::parse(Elf::fixed(0x80_0000).build(), &Limits::default()).unwrap();
    assert!(fixed.inspect().to_string().contains("\naddress:          fixed, 0x800000\n"));
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image\n");
    let read =
        || Image::read(&path, &Limits::default()).map_err(|error| Causes(&error).to_string());
    let name = path.to_str().unwrap().replace('\n', "\\n");
    assert_eq!(
        read().unwrap_err(),
        format!("{name}: cannot read the image: No such file or directory (os error 2)")
    );
    fs::write(&path, Elf::hermit().build()).unwrap();
    assert_eq!(read().unwrap().format(), Format::Elf);
    let limits = Limits { max_file: 1000, ..Limits::default() };
    let large = Causes(&Image::read(&path, &limits).unwrap_err()).to_string();
    assert!(
        large.contains(": too large for an image: ") && large.ends_with("the limit is 1000"),
        "{large}"
    );
    let text = Causes(&Image::read(folder.path(), &limits).unwrap_err()).to_string();
    assert!(text.ends_with(": not a regular file; give the path of an image"));
    assert!(
        Causes(&Image::read("/dev/zero", &limits).unwrap_err())
            .to_string()
            .contains("not a regular file")
    );
}

#[test]
fn symbols() {
    let mut elf = Elf::hermit();
    let symbol = |name, info, value, size| Symbol { name, info, section: 1, value, size };
    elf.symbols.extend([
        symbol(b"local_label", 0, CODE + 0x24, 0),
        symbol(b"data", 1, CODE + 0x60, 8),
        symbol(b"alias", 0x02, CODE, 0),
        symbol(b"evil\x1b[2J", 0x12, CODE + 0x80, 4),
        symbol(b"outside", 0x12, CODE + 0x10_0000, 4),
        Symbol { name: b"undefined", info: 0x12, section: 0, value: CODE + 0x90, size: 4 },
    ]);
    let image = Image::parse(elf.build(), &Limits::default()).unwrap();
    let at =
        |address| image.kernel().symbols().lookup(address).map(|location| location.to_string());
    assert_eq!(at(0), None);
    assert_eq!(at(CODE - 1), None);
    // A function rather than a label, although it comes later.
    assert_eq!(at(CODE + 0x1f).as_deref(), Some("alias+0x1f"));
    assert_eq!(at(CODE + 0x20).as_deref(), Some("hermit::main+0x0"));
    assert_eq!(at(CODE + 0x3f).as_deref(), Some("hermit::main+0x1f"));
    assert_eq!(at(CODE + 0x40), None);
    assert_eq!(at(CODE + 0x81).as_deref(), Some("evil\\u{1b}[2J+0x1"));
    assert_eq!(at(CODE + 0x10_0000), None);
    assert_eq!(at(u64::MAX), None);
    assert_eq!(image.kernel().symbols().len(), 3);
    let of = |name| image.kernel().symbols().address_of(name);
    assert_eq!([of("hermit::main"), of("main"), of("data")], [Some(CODE + 0x20), None, None]);

    let fixed = Image::parse(Elf::fixed(0x80_0000).build(), &Limits::default()).unwrap();
    let location = fixed.kernel().symbols().lookup(0x80_0000 + CODE + 0x21).unwrap();
    assert_eq!((location.name.as_str(), location.offset), ("hermit::main", 1));
}

#[test]
fn monstrous_symbols_are_cut() {
    let mut name = b"_ZN".to_vec();
    name.extend(b"9aaaaaaaaa".repeat(2000));
    name.push(b'E');
    let mut elf = Elf::hermit();
    elf.symbols.push(Symbol {
        name: name.leak(),
        info: 0x12,
        section: 1,
        value: CODE + 0x60,
        size: 4,
    });
    let image = Image::parse(elf.build(), &Limits::default()).unwrap();
    let location = image.kernel().symbols().lookup(CODE + 0x60).unwrap();
    assert!(location.name.chars().count() <= 257, "{}", location.name.len());
}
