//! Layouts that are as they should be, and those that are not.

#![cfg(test)]

mod common;
mod guest;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Builder, Files, GZIP, INDEX, MANIFEST, TAR, on, simple, tagged, tar};
use guest::{app, contents, elf, error, guest, guest_of};
use nerite_image::{Kind, Layout, Reference};
use nerite_log_budget::Causes;
use serde_json::{Value, json};

#[test]
fn a_layout_gives_application_arguments_environment_and_files() {
    let config = json!({
        "Entrypoint": ["app", "-x"], "Cmd": ["a b", "\"é\""], "Env": ["PATH=/bin:/opt", "A=b=c"],
        "WorkingDir": "/opt", "User": "1000", "Labels": {"x": "y"},
    });
    let entries: &[(&str, &[u8])] = &[
        ("opt/app", &elf()),
        ("opt/data", b"1"),
        ("opt/same", b"->data"),
        ("opt/out", b"->../etc/passwd"),
        ("etc/passwd", b"2"),
        ("dev/null", b"3"),
        ("proc/1/x", b"4"),
        ("sys/y", b"5"),
        ("top", b"6"),
    ];
    let image = guest(simple(&config, entries)).unwrap();
    let config = image.config().unwrap();
    assert_eq!(config.app_args, ["-x", "a b", "\"é\""]);
    assert_eq!(config.env_vars, ["PATH=/bin:/opt", "A=b=c"]);
    assert_eq!((config.kernel.as_str(), config.memory, config.cpus), ("opt/app", None, None));
    let expected = [("etc/passwd", "2"), ("opt/data", "1"), ("opt/same", "=opt/data")];
    assert_eq!(contents(&image), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
}

#[test]
fn directories_archives_and_maps_are_alike() {
    let files = simple(&json!({"Cmd": ["/app", "1"]}), &[("app", &elf()), ("d/f", b"x")]);
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    for (path, bytes) in &files {
        let path = layout.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let archive = folder.path().join("layout.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all(".", &layout).unwrap();
    builder.finish().unwrap();
    let expected = contents(&guest(files).unwrap());
    assert_eq!(expected, [("d/f".to_owned(), "x".to_owned())]);
    let open = |kind, path: &Path| {
        let reference = Reference { kind, path: path.to_owned(), tag: None };
        Layout::open(&reference).map_err(|error| Causes(&error).to_string())
    };
    for (kind, path) in [(Kind::Directory, &layout), (Kind::Archive, &archive)] {
        let image = guest_of(&mut open(kind, path).unwrap(), None, &["new"]).unwrap();
        assert_eq!(contents(&image), expected);
        assert_eq!(image.config().unwrap().app_args, ["new"]);
    }
    // The other kind, or nothing at all.
    assert!(open(Kind::Archive, &layout).unwrap_err().contains("not a regular file"));
    assert!(open(Kind::Directory, &archive).unwrap_err().contains("Not a directory"));
    assert!(open(Kind::Directory, Path::new("/none")).unwrap_err().contains("No such file"));
    let compressed = folder.path().join("layout.tar.gz");
    fs::write(&compressed, common::gzip(&fs::read(&archive).unwrap())).unwrap();
    let mut opened = open(Kind::Archive, &compressed).unwrap();
    let error = guest_of(&mut opened, None, &[]).unwrap_err();
    assert!(error.contains("no OCI image layout"), "{error}");
    // A directory with links or other things in place of files.
    let mark = layout.join("oci-layout");
    fs::rename(&mark, layout.join("other")).unwrap();
    symlink("other", &mark).unwrap();
    let error = guest_of(&mut open(Kind::Directory, &layout).unwrap(), None, &[]).unwrap_err();
    assert!(error.starts_with("oci-layout: cannot be read"), "{error}");
    fs::remove_file(&mark).unwrap();
    fs::create_dir(&mark).unwrap();
    let error = guest_of(&mut open(Kind::Directory, &layout).unwrap(), None, &[]).unwrap_err();
    assert_eq!(error, "oci-layout: not a regular file");
}

#[test]
fn an_archive_that_is_cut_off_is_an_error() {
    let files = simple(&app(), &[("app", &elf())]);
    let entries: Vec<(&str, &[u8])> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
    let whole = tar(&entries);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    let reference = Reference { kind: Kind::Archive, path: path.clone(), tag: None };
    let mut errors = 0;
    for size in (0..whole.len()).step_by(256) {
        fs::write(&path, &whole[..size]).unwrap();
        errors += usize::from(guest_of(&mut Layout::open(&reference).unwrap(), None, &[]).is_err());
    }
    // But for the zeros at its end.
    assert!(errors >= whole.len() / 256 - 8, "{errors} of {}", whole.len() / 256);
}

#[test]
fn every_digest_and_size_is_checked() {
    let files = || simple(&app(), &[("app", &elf())]);
    for path in files().keys().filter(|path| path.starts_with("blobs")) {
        let digest = path.rsplit('/').next().unwrap();
        let mut damaged = files();
        let byte = damaged.get_mut(path).unwrap().last_mut().unwrap();
        *byte ^= 1;
        let text = error(damaged);
        assert!(text.starts_with(&format!("blob sha256:{digest} is damaged")), "{text}");
        let mut longer = files();
        longer.get_mut(path).unwrap().push(b' ');
        let text = error(longer);
        assert!(text.starts_with(&format!("blob sha256:{digest} has ")), "{text}");
        let mut missing = files();
        missing.remove(path);
        assert_eq!(error(missing), format!("blob sha256:{digest} is missing"));
    }
    // A layer that is not the one of the configuration.
    let mut builder = Builder::new();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": app(),
        "rootfs": {"type": "layers", "diff_ids": [common::digest(b"")]},
    });
    let image = builder.image_of(&config, &[(TAR, tar(&[("app", &elf())]))]);
    let text = error(builder.index(&[image]));
    assert!(text.starts_with("layer 1: its contents have the digest sha256:"), "{text}");
}

#[test]
fn what_is_no_layout_is_an_error() {
    assert_eq!(error(Files::new()), "no OCI image layout: it has no file oci-layout");
    let with = |name: &str, text: &str| {
        let mut files = simple(&app(), &[("app", &elf())]);
        files.insert(name.to_owned(), text.as_bytes().to_vec());
        error(files)
    };
    assert!(with("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#).contains("not supported"));
    assert!(with("oci-layout", "").starts_with("oci-layout: malformed: "));
    assert!(with("index.json", "{}").starts_with("index.json: malformed: "));
    let deep = "[".repeat(1 << 20);
    assert!(with("index.json", &deep).starts_with("index.json: malformed: "));
    let empty = r#"{"schemaVersion":2,"manifests":[]}"#;
    assert_eq!(with("index.json", empty), "no image is for linux/amd64 (there are: none)");
    let long = format!("{empty}{}", " ".repeat(4 << 20));
    assert!(with("index.json", &long).contains("bytes of a document: more than 4194304"));
    for digest in ["sha256:../../../etc/passwd", "sha256:00", "", "sha512:00"] {
        let text = json!({"schemaVersion": 2, "manifests": [
            {"mediaType": MANIFEST, "digest": digest, "size": 1}]});
        assert!(with("index.json", &text.to_string()).contains("malformed"), "{digest}");
    }
    let other = format!("sha512:{}", "0".repeat(128));
    let text = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": MANIFEST, "digest": other, "size": 1}]});
    assert!(with("index.json", &text.to_string()).contains("not supported (sha256 is)"));
}

#[test]
fn tags_name_an_image() {
    let mut builder = Builder::new();
    let mut image = |name: &str| {
        builder.image(&json!({"Cmd": ["/app", name]}), &[(GZIP, tar(&[("app", &elf())]))])
    };
    let [a, b] = ["a", "b"].map(&mut image);
    let files = builder.index(&[tagged(a, "localhost/a:latest"), tagged(b, "1")]);
    let args = |tag: Option<&str>| {
        let image = guest_of(&mut Layout::in_memory(files.clone()), tag, &[])?;
        Ok::<_, String>(image.config().unwrap().app_args.clone())
    };
    for (tag, expected) in
        [(Some("1"), "b"), (Some("latest"), "a"), (Some("localhost/a:latest"), "a"), (None, "a")]
    {
        assert_eq!(args(tag).unwrap(), [expected], "{tag:?}");
    }
    let text = args(Some("test")).unwrap_err();
    assert_eq!(text, "no image is tagged \"test\" (there are: 1, localhost/a:latest)");

    let mut builder = Builder::new();
    let [a, b] = ["a", "b"].map(|name| builder.image(&json!({"Cmd": ["/app", name]}), &[]));
    let two = builder.files;
    let error_of = |manifests: &[Value]| {
        let builder = Builder { files: two.clone() };
        error(builder.index(manifests))
    };
    let text = error_of(&[tagged(a.clone(), "1"), tagged(b.clone(), "2")]);
    assert_eq!(text, "several images, and none of them was named (there are: 1, 2)");
    assert!(error_of(&[a, b]).starts_with("several images"));
}

#[test]
fn of_many_platforms_this_one_is_taken() {
    let mut builder = Builder::new();
    let good = builder.image(&app(), &[(GZIP, tar(&[("app", &elf()), ("d/f", b"good")]))]);
    let bad = builder.image(&app(), &[]);
    let attestation = builder.image(&json!({}), &[]);
    let listed = json!({"schemaVersion": 2, "manifests": [
        on(bad.clone(), "linux", "arm64"), on(attestation, "unknown", "unknown"),
        on(good, "linux", "amd64")]});
    let inner = builder.document(INDEX, &listed);
    let outer = builder.document(INDEX, &json!({"schemaVersion": 2, "manifests": [inner]}));
    let files = builder.files.clone();
    let image = guest(builder.index(&[tagged(outer, "latest")])).unwrap();
    assert_eq!(contents(&image), [("d/f".to_owned(), "good".to_owned())]);

    let others = [on(bad.clone(), "linux", "arm64"), on(bad, "windows", "amd64")];
    let text = error(Builder { files: files.clone() }.index(&others));
    assert_eq!(text, "no image is for linux/amd64 (there are: linux/arm64, windows/amd64)");

    // The configuration has the last word.
    let mut builder = Builder { files };
    let config = json!({"architecture": "arm64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []}});
    let image = builder.image_of(&config, &[]);
    assert!(error(builder.index(&[image])).contains("there are: linux/arm64"));

    // Indexes without end.
    let mut builder = Builder::new();
    let mut last = builder.image(&app(), &[]);
    for _ in 0..20 {
        last = builder.document(INDEX, &json!({"schemaVersion": 2, "manifests": [last]}));
    }
    assert!(error(builder.index(&[last])).contains("indexes of the layout: more than 16"));
}

#[test]
fn what_is_no_image_of_a_container_is_an_error() {
    let mut builder = Builder::new();
    let config = builder.document("application/vnd.oci.empty.v1+json", &json!({}));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": []});
    let image = builder.document(MANIFEST, &manifest);
    assert!(error(builder.index(&[image])).contains("is no configuration of a container"));

    let mut builder = Builder::new();
    let layers: Vec<_> = (0..129).map(|_| (TAR, Vec::new())).collect();
    let image = builder.image(&app(), &layers);
    assert!(error(builder.index(&[image])).contains("layers of the image: more than 128"));

    let mut builder = Builder::new();
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []}});
    let image = builder.image_of(&config, &[(TAR, tar(&[]))]);
    assert!(error(builder.index(&[image])).contains("1 layers, and 0 in the configuration"));
}

/// A message is a line that a person can read, whatever documents have in them.
#[test]
fn texts_of_an_image_are_short_in_messages() {
    let long = "\u{e9}".repeat(1 << 19);
    let is_short = |text: String| assert!(text.len() < 5000, "{} bytes", text.len());
    let mut files = simple(&app(), &[("app", &elf())]);
    files.insert(
        "index.json".to_owned(),
        json!({"schemaVersion": long, "manifests": []}).to_string().into_bytes(),
    );
    is_short(error(files.clone()));
    files.insert(
        "oci-layout".to_owned(),
        json!({"imageLayoutVersion": long}).to_string().into_bytes(),
    );
    is_short(error(files));
    let mut builder = Builder::new();
    let image = builder.image(&app(), &[]);
    is_short(error(builder.index(&[on(image, &long, "amd64")])));
    let mut builder = Builder::new();
    let image = builder.image(&app(), &[]);
    let tagged = [tagged(image.clone(), &long), tagged(image, &format!("{long}2"))];
    is_short(error(builder.index(&tagged)));
    for config in [
        json!({"Cmd": [long]}),
        json!({"Cmd": ["/app"], "Env": [long]}),
        json!({"Cmd": ["/app"], "WorkingDir": long}),
    ] {
        is_short(error(simple(&config, &[("app", &elf())])));
    }
}
