//! Packing: the same input is the same image, and a layout is whole at any time.

#![cfg(test)]

mod common;
mod guest;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::Files;
use guest::{contents, elf, guest_of};
use nerite_image::{Kind, Layout, Pack, PackError, Packed, Reference};
use nerite_log_budget::Causes;
use serde_json::Value;

const TOML: &str = "version = \"1\"\nkernel = \"bin/k\"\n[input]\nkernel_args = [\"-k\"]\n\
    app_args = [\"a b\"]\nenv_vars = [\"A=1\", \"odd\"]\n[requirements]\nmemory = \"32 MiB\"\n";

fn packed(config: Option<&str>) -> Packed {
    let mut pack = Pack::new("app", elf(), config.map(str::as_bytes)).unwrap();
    pack.file("/data/b", false, b"2".to_vec()).unwrap();
    pack.file("/data/a/x", true, b"1".to_vec()).unwrap();
    pack.finish().unwrap()
}

/// Files below a directory by their paths.
fn read(folder: &Path) -> Files {
    let mut files = Files::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

fn json(files: &Files, name: &str) -> Value {
    serde_json::from_slice(&files[name]).unwrap()
}

/// The blob that a descriptor names.
fn blob(files: &Files, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    files[&format!("blobs/{}", digest.replace(':', "/"))].clone()
}

/// A change of these is a change of what every user's images are called.
#[test]
fn digests_depend_on_the_input_alone() {
    assert_eq!(packed(None).digest, packed(None).digest);
    assert_eq!(packed(None).files("a"), packed(None).files("a"));
    assert_eq!(
        packed(None).digest,
        "sha256:5ddb7353e9640e1a34ae981c06271752ebecb6a8d55f1e04ce147537c42d139a"
    );
    assert_eq!(
        packed(Some(TOML)).digest,
        "sha256:8275d1e6cd522cbc0b290859639fb6e437b936163b29f7030818a649d45ca20c"
    );
}

#[test]
fn an_image_says_what_it_is_and_runs() {
    let files = packed(None).files("latest");
    let index = json(&files, "index.json");
    let manifest = &index["manifests"][0];
    assert_eq!(manifest["annotations"]["org.opencontainers.image.ref.name"], "latest");
    assert_eq!(manifest["platform"]["architecture"], "amd64");
    let manifest: Value = serde_json::from_slice(&blob(&files, manifest)).unwrap();
    let config: Value = serde_json::from_slice(&blob(&files, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/app"]));
    for labels in [&manifest["annotations"], &config["config"]["Labels"]] {
        assert_eq!(labels["org.hermit-os.hypercall.interface"], "v2");
    }
    assert_eq!(blob(&files, &manifest["layers"][0])[4..8], [0; 4], "no time");
    let image = guest_of(&mut Layout::in_memory(files), None, &[]).unwrap();
    let expected = [("data/a/x", "1"), ("data/b", "2")];
    assert_eq!(contents(&image), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    assert_eq!(image.config().unwrap().kernel, "app");
}

#[test]
fn the_layer_has_sorted_names_of_root_without_times() {
    let files = packed(None).files("latest");
    let index = json(&files, "index.json");
    let manifest: Value = serde_json::from_slice(&blob(&files, &index["manifests"][0])).unwrap();
    let layer = blob(&files, &manifest["layers"][0]);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&*layer));
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
        assert_eq!(owner, (0, 0, 0));
        (entry.path().unwrap().to_str().unwrap().to_owned(), header.mode().unwrap())
    });
    let expected = [
        ("app", 0o755),
        ("data", 0o755),
        ("data/a", 0o755),
        ("data/a/x", 0o755),
        ("data/b", 0o644),
    ];
    let expected = expected.map(|(name, mode)| (name.to_owned(), mode));
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}

#[test]
fn a_configuration_is_for_engines_and_for_the_guest() {
    let files = packed(Some(TOML)).files("latest");
    let index = json(&files, "index.json");
    let manifest: Value = serde_json::from_slice(&blob(&files, &index["manifests"][0])).unwrap();
    let config: Value = serde_json::from_slice(&blob(&files, &manifest["config"])).unwrap();
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["a b"]));
    assert_eq!(config["config"]["Env"], serde_json::json!(["A=1"]));
    let image = guest_of(&mut Layout::in_memory(files), None, &[]).unwrap();
    let config = image.config().unwrap();
    assert_eq!((&*config.kernel, config.memory), ("bin/k", Some(32 << 20)));
    assert_eq!(
        (&*config.kernel_args, &*config.app_args),
        (&["-k".into()][..], &["a b".into()][..])
    );
}

#[test]
fn a_layout_gets_tags_and_keeps_those_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    packed(None).store(&layout, "one").unwrap();
    assert_eq!(read(&layout), packed(None).files("one"));
    // Others may read it, if the user's mask lets them.
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    assert_eq!(mode(&layout), mode(&other));
    fs::remove_dir(&other).unwrap();
    fs::write(&other, "").unwrap();
    assert_eq!(mode(&layout.join("index.json")), mode(&other));
    packed(None).store(&layout, "one").unwrap();
    assert_eq!(mode(&layout.join("index.json")), mode(&other));
    fs::remove_file(&other).unwrap();
    packed(Some(TOML)).store(&layout, "two").unwrap();
    packed(Some(TOML)).store(&layout, "one").unwrap();
    packed(Some(TOML)).store(&layout, "one").unwrap();
    let files = read(&layout);
    let index = json(&files, "index.json");
    let tags: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap())
        .collect();
    assert_eq!(tags, ["two", "one"]);
    // Nothing but blobs, and what was damaged is written anew.
    assert!(
        files.keys().all(|name| name.len() > 70 || ["index.json", "oci-layout"].contains(&&**name))
    );
    let blob = files.keys().find(|name| name.starts_with("blobs")).unwrap();
    fs::write(layout.join(blob), "damaged").unwrap();
    packed(None).store(&layout, "three").unwrap();
    packed(Some(TOML)).store(&layout, "two").unwrap();
    for tag in ["one", "two", "three"] {
        let reference = Reference { kind: Kind::Directory, path: layout.clone(), tag: None };
        guest_of(&mut Layout::open(&reference).unwrap(), Some(tag), &[]).unwrap();
    }
    // An empty directory becomes one, too.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    packed(None).store(&empty, "one").unwrap();
    assert_eq!(read(&empty), packed(None).files("one"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something is left");
}

#[test]
fn other_directories_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "data").unwrap();
    let refused = |path: &Path| {
        let error = packed(None).store(path, "latest").unwrap_err();
        assert!(matches!(error, PackError::NoLayout { .. }), "{}", Causes(&error));
    };
    refused(folder.path());
    fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    fs::write(folder.path().join("index.json"), r#"{"manifests":[]}"#).unwrap();
    refused(folder.path());
    fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(folder.path().join("index.json"), "[]").unwrap();
    refused(folder.path());
    assert_eq!(read(folder.path()).len(), 3);
    let file = folder.path().join("precious");
    let error = packed(None).store(&file, "latest").unwrap_err();
    assert!(matches!(error, PackError::Write { .. }), "{error}");
    let error = packed(None).store(&folder.path().join("no/such"), "latest").unwrap_err();
    assert!(matches!(error, PackError::Write { .. }), "{error}");
}

#[test]
fn names_paths_and_tags_that_cannot_be_are_refused() {
    for name in ["", ".", "..", "a/b"] {
        assert!(matches!(Pack::new(name, elf(), None), Err(PackError::Name { .. })), "{name}");
    }
    let mut pack = Pack::new("app", elf(), None).unwrap();
    for (path, reason) in [
        ("data/x", "not absolute"),
        ("/x", "directly in `/`"),
        ("/a/../x", "`..`"),
        ("/a//x", "an empty name"),
        ("/a/", "an empty name"),
        ("/dev/x", "no guest sees"),
        ("/a/.wh.x", "`.wh.`"),
    ] {
        let error = pack.file(path, false, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(reason), "{path}: {error}");
    }
    pack.file("/a/x", false, Vec::new()).unwrap();
    let error = pack.file("/a/x", false, Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "path /a/x for the guest: given twice");
    pack.file("/app/x", false, Vec::new()).unwrap();
    let error = Causes(&pack.finish().unwrap_err()).to_string();
    assert_eq!(error, "layer 1: entry \"app/x\": its directory is none");
    for tag in ["", "-a", "a b", "a-", "ä"] {
        let error = packed(None).store(Path::new("/none"), tag).unwrap_err();
        assert!(matches!(error, PackError::Tag { .. }), "{tag}");
    }
    let archive = common::gzip(b"");
    let error = Pack::new("app", archive, Some(TOML.as_bytes())).unwrap_err();
    assert!(matches!(error, PackError::TwoConfigs));
    let error = Pack::new("app", b"MZ".to_vec(), None).unwrap_err();
    assert!(Causes(&error).to_string().contains("a PE file or Linux kernel"));
    let error = Pack::new("app", elf(), Some(b"version")).unwrap_err();
    assert!(Causes(&error).to_string().contains("hermit.toml, line 1"), "{}", Causes(&error));
}
