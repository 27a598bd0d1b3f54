//! Images of containers: guests that run from OCI image layouts, without an engine.

#![cfg(test)]

mod common;
#[path = "../../crates/image/tests/common/mod.rs"]
mod layout;

use std::path::Path;
use std::process::Stdio;

use common::clone_guest::{Told, teller};
use common::{Folder, code, image, wait};
use layout::{Builder, Files, GZIP, simple, tagged, tar};
use serde_json::json;

const USAGE: u8 = 240;
const IMAGE: u8 = 242;
const SOFTWARE: [&str; 4] = ["run", "--accel", "software", "-m16M"];

/// Writes a layout into a directory, and into an archive.
fn write(folder: &Folder, files: &Files) {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        folder.file(&format!("layout/{name}"), bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    folder.file("layout.tar", builder.into_inner().unwrap());
}

/// A layout of a guest that tells what it was started with, once it has found `/data/go`.
fn telling() -> Files {
    let config = json!({
        "Entrypoint": ["teller", "-entry"], "Cmd": ["from-cmd"], "WorkingDir": "/",
        "Env": ["PATH=/bin", "WHO=image", "KEPT=kept"],
    });
    let mut builder = Builder::new();
    let app =
        [(GZIP, tar(&[("bin/teller", &image::elf(&teller()))])), (GZIP, tar(&[("data/go", b"")]))];
    let telling = builder.image(&config, &app);
    let other = json!({"Cmd": ["/app"]});
    let app = [(GZIP, tar(&[("app", &image::elf(&image::exit(42)))]))];
    let other = builder.image(&other, &app);
    builder.index(&[tagged(telling, "latest"), tagged(other, "other")])
}

/// The report of a guest.
fn told(folder: &Folder, words: &[&str]) -> Told {
    let mut command = folder.vmm(&[&SOFTWARE, words].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = wait(child);
    assert_eq!(code(output.status), 0, "{}", String::from_utf8_lossy(&output.stderr));
    Told::read(&output.stdout)
}

#[test]
fn an_image_runs_with_its_files_arguments_and_environment() {
    let folder = Folder::new();
    write(&folder, &telling());
    for name in ["oci:layout", "oci:layout:latest", "oci-archive:layout.tar:latest"] {
        let told = told(&folder, &[name]);
        for text in ["-entry", "from-cmd", "WHO=image", "KEPT=kept"] {
            assert!(told.knows(text), "{name}: {text}");
        }
    }
    let told = told(&folder, &["-e", "WHO=line", "oci:layout", "--", "from-line"]);
    for (text, is_known) in [
        ("-entry", true),
        ("from-line", true),
        ("from-cmd", false),
        ("WHO=line", true),
        ("WHO=image", false),
        ("KEPT=kept", true),
    ] {
        assert_eq!(told.knows(text), is_known, "{text}");
    }
    let done = folder.run(&[&SOFTWARE[..], &["oci:layout:other"]].concat());
    assert_eq!((done.code, &*done.stderr), (42, ""), "{done:?}");
}

#[test]
fn an_image_runs_with_and_without_a_sandbox() {
    let folder = Folder::new();
    write(&folder, &telling());
    for level in ["normal", "off"] {
        let words = ["--sandbox", level, "oci:layout:other"];
        let done = folder.run(&[&SOFTWARE[..], &words].concat());
        assert_eq!((done.code, &*done.stderr), (42, ""), "{level}: {done:?}");
    }
}

#[test]
fn nothing_is_written_beside_a_layout() {
    let folder = Folder::new();
    write(&folder, &telling());
    let list = |path: &Path| {
        let mut all: Vec<_> = walk(path).collect();
        all.sort();
        all
    };
    let before = list(&folder.path("."));
    told(&folder, &["oci:layout"]);
    assert_eq!(list(&folder.path(".")), before);
}

fn walk(path: &Path) -> Box<dyn Iterator<Item = std::path::PathBuf>> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    Box::new(entries.flat_map(|path| -> Box<dyn Iterator<Item = std::path::PathBuf>> {
        if path.is_dir() { walk(&path) } else { Box::new(std::iter::once(path)) }
    }))
}

#[test]
fn a_bad_image_is_one_line() {
    let folder = Folder::new();
    write(&folder, &telling());
    let fails = |name: &str, parts: &[&str]| {
        for action in ["run", "inspect"] {
            folder.run(&[action, name]).is_error(IMAGE, &[&[name], parts].concat());
        }
    };
    fails("oci:none", &["none: cannot be read", "No such file"]);
    fails("oci:layout:none", &["no image is tagged \"none\" (there are: latest, other)"]);
    fails("oci:layout.tar", &["Not a directory"]);
    fails("oci-archive:layout", &["not a regular file"]);
    fails("oci:layout/blobs", &["no OCI image layout"]);
    for name in ["oci:", "oci::x", "oci:layout:"] {
        folder.run(&["run", name]).is_error(USAGE, &[name]);
    }
    folder.run(&["inspect", "--verify", "oci:layout"]).is_error(USAGE, &["--verify"]);
    let mut files = simple(&json!({"Cmd": ["/app"]}), &[("app", b"MZ")]);
    write(&folder, &files);
    fails("oci:layout", &["app", "a PE file or Linux kernel"]);
    let blob = files.keys().find(|path| path.starts_with("blobs")).unwrap().clone();
    files.get_mut(&blob).unwrap()[0] ^= 1;
    write(&folder, &files);
    fails("oci:layout", &["is damaged"]);
    std::fs::remove_file(folder.path("layout").join(blob)).unwrap();
    fails("oci:layout", &["is missing"]);
}

#[test]
fn inspect_shows_image_and_guest() {
    let folder = Folder::new();
    write(&folder, &telling());
    let done = folder.run(&["inspect", "oci:layout"]);
    assert_eq!((done.code, &*done.stderr), (0, ""), "{done:?}");
    for part in [
        "tag:              latest\n",
        "digest:           sha256:",
        "layer:            sha256:",
        "application:      teller\n",
        "hypercalls:       v2",
        "arguments:        -entry\n",
        "KEPT=kept\n",
        "0 data/go\n",
    ] {
        assert!(done.stdout.contains(part), "{part:?}: {}", done.stdout);
    }
    let done = folder.run(&["inspect", "--json", "oci-archive:layout.tar"]);
    let value: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(value["format"], "oci-image");
    assert_eq!(value["layers"].as_array().unwrap().len(), 2);
    assert_eq!(value["app_args"], json!(["-entry", "from-cmd"]));
    assert_eq!(value["guest"]["config"]["kernel"], "bin/teller");
}

#[test]
fn a_snapshot_of_such_a_guest_goes_on_without_the_layout() {
    let folder = Folder::new();
    let code = [image::print("up\n"), image::exit(42)].concat();
    let files = simple(&json!({"Cmd": ["/app"]}), &[("app", &image::elf(&code))]);
    write(&folder, &files);
    let words = ["--snapshot", "saved", "--snapshot-at", "exit", "oci:layout"];
    let done = folder.run(&[&SOFTWARE[..], &words].concat());
    assert_eq!((done.code, &*done.stdout), (42, "up\n"), "{done:?}");
    std::fs::remove_dir_all(folder.path("layout")).unwrap();
    let done = folder.run(&["inspect", "saved"]);
    assert!(done.stdout.contains("hermit, /app\n"), "{done:?}");
    let done = folder.run(&["run", "--accel", "software", "--restore", "saved"]);
    assert_eq!(done.code, 42, "{done:?}");
}
