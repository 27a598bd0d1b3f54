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
const HOST: u8 = 243;
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

#[test]
fn a_packed_image_runs_with_arguments_environment_and_files() {
    let folder = Folder::new();
    folder.file("teller", image::elf(&teller()));
    folder.file("data/go", "");
    let toml =
        image::HERMIT_TOML.replace("app_args = []", "app_args = [\"own\"]\nenv_vars = [\"A=1\"]");
    folder.file("hermit.toml", toml);
    let pack = |words: &[&str]| {
        let done = folder.run(&[&["image", "pack", "teller", "-o", "layout"], words].concat());
        assert_eq!((done.code, &*done.stderr), (0, ""), "{done:?}");
        done.stdout
    };
    let plain = pack(&["--file", "data:/data"]);
    let named = pack(&["--file", "data/go:/data/go", "--config", "hermit.toml", "--tag", "own"]);
    assert_eq!(pack(&["--file", "data/go:/data/go"]), plain);
    assert!(plain.starts_with("sha256:") && plain != named);
    let told_by = |words: &[&str]| told(&folder, words);
    let with_line = told_by(&["-e", "B=2", "oci:layout", "--", "line"]);
    assert!(with_line.knows("line") && with_line.knows("B=2") && !with_line.knows("own"));
    let with_own = told_by(&["oci:layout:own"]);
    assert!(with_own.knows("own") && with_own.knows("A=1"));
    let with_both = told_by(&["-e", "A=2", "oci:layout:own", "line"]);
    assert!(with_both.knows("line") && with_both.knows("A=2") && !with_both.knows("own"));
    let done = folder.run(&["inspect", "oci:layout"]);
    assert!(done.stdout.contains(plain.trim_end()), "{done:?}");
    assert!(done.stdout.contains("org.hermit-os.hypercall.interface=v2\n"), "{done:?}");
}

#[test]
fn what_cannot_be_packed_is_one_line() {
    let folder = Folder::new();
    folder.file("app", image::elf(&image::exit(0)));
    folder.file("other/file", "x");
    folder.file("bad", "#!/bin/sh");
    let fails = |words: &[&str], code: u8, parts: &[&str]| {
        folder.run(&[&["image", "pack"], words].concat()).is_error(code, parts);
    };
    fails(&["app", "-o", "other"], USAGE, &["other: neither empty nor an OCI image layout"]);
    fails(&["app", "-o", "no/such/layout"], HOST, &["no/such: cannot write", "No such file"]);
    fails(&["bad", "-o", "new"], IMAGE, &["bad", "a script"]);
    fails(&["none", "-o", "new"], IMAGE, &["none", "No such file"]);
    fails(&["app", "-o", "new", "--tag", "x-"], USAGE, &["is no tag"]);
    fails(&["app", "-o", "new", "--file", "none:/d/x"], USAGE, &["none: cannot read it"]);
    fails(&["app", "-o", "new", "--file", "bad:/x"], USAGE, &["directly in `/`"]);
    fails(&["app", "-o", "new", "--file", "/dev/null:/d/x"], USAGE, &["neither a regular"]);
    fails(&["app", "-o", "new", "--config", "bad"], IMAGE, &["hermit.toml: missing field"]);
    std::os::unix::fs::symlink("file", folder.path("other/link")).unwrap();
    fails(&["app", "-o", "new", "--file", "other:/d"], USAGE, &["link: neither a regular"]);
    assert!(!folder.path("new").exists());
}

/// A process that may write so little is killed in the middle of the first large file.
#[test]
fn a_full_disk_or_a_kill_leaves_no_broken_layout() {
    let folder = Folder::new();
    folder.file("app", image::elf(&image::exit(3)));
    // Bytes that cannot be compressed.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..200_000).map(|_| next()).collect();
    folder.file("noise", noise);
    let pack = |words: &[&str], limit: &str| {
        let script = format!("{limit}; exec \"$0\" image pack app \"$@\" 2>/dev/null >/dev/null");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_vmm")]).args(words);
        command.current_dir(folder.path(".")).status().unwrap()
    };
    let runs = || folder.run(&[&SOFTWARE[..], &["oci:layout"]].concat()).code;
    // The limit counts blocks of 512 bytes. Ignoring the signal makes it an error, as a full disk.
    let large = ["-o", "layout", "--file", "noise:/d/noise"];
    for limit in ["ulimit -f 100", "trap '' XFSZ; ulimit -f 100"] {
        assert!(!pack(&large, limit).success());
        assert!(!folder.path("layout").exists(), "{limit}");
    }
    assert!(pack(&["-o", "layout"], "true").success());
    assert_eq!(runs(), 3);
    for limit in ["ulimit -f 100", "trap '' XFSZ; ulimit -f 100"] {
        assert!(!pack(&large, limit).success());
        assert_eq!(runs(), 3, "{limit}");
    }
    assert!(pack(&large, "true").success());
    assert_eq!(runs(), 3);
}
