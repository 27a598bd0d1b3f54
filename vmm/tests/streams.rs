//! Images from standard input, the log in a file, and an inspection for programs.

#![cfg(test)]

mod common;

use common::{Done, Folder, finish, image};

/// Runs `vmm` with the image on standard input.
fn with_stdin(folder: &Folder, words: &[&str], image: &[u8]) -> Done {
    let stdin = std::fs::File::open(folder.file("stdin", image)).unwrap();
    finish(folder.vmm(words).stdin(stdin))
}

#[test]
fn an_image_comes_from_standard_input() {
    let folder = Folder::new();
    let guest = image::elf(&[&image::print("hi\n")[..], &image::exit(7)].concat());
    let done = with_stdin(&folder, &["run", "--accel", "software", "-"], &guest);
    assert_eq!((done.code, &*done.stdout), (7, "hi\n"), "{done:?}");
    let done = with_stdin(&folder, &["inspect", "-"], &guest);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("ELF"), "{done:?}");
    let done = with_stdin(&folder, &["run", "-"], b"no image");
    done.is_error(242, &["standard input"]);
}

#[test]
fn the_log_goes_to_a_file_with_times() {
    let folder = Folder::new();
    let words = ["--log-file", "log", "--log-time", "-v", "run", "--accel", "software"];
    let guest = folder.file("image", image::elf(&image::HALT));
    let done = folder.run(&[&words[..], &[&guest]].concat());
    assert_eq!((done.code, &*done.stderr), (244, ""), "{done:?}");
    let log = std::fs::read_to_string(folder.path("log")).unwrap();
    assert!(log.contains("guest crashed on vCPU 0"), "{log}");
    let line = log.lines().find(|line| line.contains("vmm: start took")).unwrap();
    let (time, _) = line.split_once(" vmm: ").unwrap();
    assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{line}");

    let done = folder.run(&["--log-file", "no/such/log", "run", &guest]);
    done.is_error(243, &["no/such/log", "log file"]);
}

#[test]
fn an_image_is_inspected_as_json() {
    let folder = Folder::new();
    let kernel = image::elf(&image::HALT);
    let tar = image::gzip(&image::tar(&[
        ("hermit.toml", image::HERMIT_TOML.as_bytes()),
        ("kernel", &kernel),
    ]));
    let inspect = |path: &str| {
        let done = folder.run(&["inspect", "--json", path]);
        assert_eq!((done.code, &*done.stderr), (0, ""), "{done:?}");
        serde_json::from_str::<serde_json::Value>(&done.stdout).unwrap()
    };
    let seen = inspect(&folder.file("image", &kernel));
    assert_eq!(seen["format"], "hermit-elf");
    assert_eq!(seen["file_size"], kernel.len());
    assert!(seen["segments"][0]["memory_size"].as_u64() >= Some(3), "{seen}");
    assert!(seen["config"].is_null() && seen["entry"].is_u64(), "{seen}");
    let seen = inspect(&folder.file("tar", tar));
    assert_eq!(
        (&seen["format"], &seen["config"]["kernel"]),
        (&"hermit-tar".into(), &"kernel".into())
    );
    assert_eq!(
        (&seen["files"][1]["name"], &seen["files"][1]["kind"]),
        (&"kernel".into(), &"file".into())
    );
}

#[test]
fn the_hosts_features_are_those_that_can_be_chosen() {
    let folder = Folder::new();
    let done = folder.run(&["inspect", "--host", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    let software = &found["hypervisors"][1];
    assert_eq!(software["name"], "software", "{found}");
    let names = |list: &str| -> Vec<String> {
        let names = software[list].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let guest = folder.file("image", image::elf(&image::exit(7)));
    let run =
        |features: &str| folder.run(&["run", "--accel", "software", "--cpu", features, &guest]);
    for name in names("optional") {
        assert_eq!(run(&format!("-{name}")).code, 7, "{name}");
    }
    let all: Vec<String> = names("optional").iter().map(|name| format!("+{name}")).collect();
    assert_eq!(run(&all.join(",")).code, 7);
    for base in names("bases") {
        assert_eq!(run(&base).code, 7, "{base}");
    }
    let absent = &names("absent")[0];
    run(&format!("+{absent}")).is_error(240, &[absent, "software lacks", "vmm inspect --host"]);
    let done = folder.run(&["inspect", "--host", "x"]);
    assert!(done.code == 240 && done.stderr.contains("'--host'"), "{done:?}");
}
