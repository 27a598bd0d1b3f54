//! A `config.json` of any contents, as a test and as a fuzz target.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use clap::Parser as _;
use nerite_machine::config::SandboxLevel;
use nerite_oci::bundle::Bundle;
use nerite_oci::guest::Guest;
use nerite_vmm::cli::{Action, Cli};
use serde_json::{Value, json};

/// Places in a `config.json` that a guest is made of.
const PLACES: [&str; 24] = [
    "/ociVersion",
    "/root",
    "/root/path",
    "/root/readonly",
    "/process",
    "/process/args",
    "/process/args/0",
    "/process/args/1",
    "/process/cwd",
    "/process/env",
    "/process/env/0",
    "/process/user/uid",
    "/mounts",
    "/mounts/0/destination",
    "/mounts/0/source",
    "/mounts/0/type",
    "/mounts/0/options",
    "/linux/namespaces",
    "/linux/resources/memory/limit",
    "/linux/resources/cpu/quota",
    "/linux/resources/cpu/period",
    "/annotations",
    "/annotations/nerite.cmdline",
    "/annotations/nerite.memory",
];

/// A place's number, and what is written there: JSON, or else the text itself.
pub type Change = (u8, String);

/// Reads the text, if there is one, or a right description with these changes. What is accepted
/// makes a command line that `vmm` understands, and that only says what it is meant to say.
pub fn run(text: Option<&[u8]>, changes: &[Change]) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let rootfs = folder.join("rootfs");
    fs::create_dir_all(rootfs.join("data")).unwrap();
    fs::write(rootfs.join("app"), "").unwrap();
    symlink("/../../../../../../etc/hostname", rootfs.join("out")).unwrap();
    let bundle = match text {
        Some(text) => Bundle::parse(&folder, text),
        None => Bundle::parse(&folder, changed(changes).to_string().as_bytes()),
    };
    let Ok(bundle) = bundle else { return };
    let Ok(guest) = Guest::of(&bundle) else { return };
    let Ok(words) = guest.words(&[]) else { return };
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => {
            // A value of an annotation, which is the user's text, can be wrong.
            assert!(error.to_string().contains("invalid value"), "{words:?}: {error}");
            return;
        }
    };
    let Action::Run(run) = cli.action else { panic!("{words:?}") };
    let [image, dashes, args @ ..] = run.image_and_args.as_slice() else { panic!("{words:?}") };
    let process = bundle.process().unwrap();
    assert!(Path::new(image).starts_with(bundle.rootfs.canonicalize().unwrap()), "{image:?}");
    assert_eq!(dashes, "--");
    let expected: Vec<&str> = process.args().iter().flatten().skip(1).map(String::as_str).collect();
    assert_eq!(args, expected, "{words:?}");
    assert_eq!(run.options.guest.env.len(), process.env().iter().flatten().count());
    assert_ne!(run.options.sandbox.level, Some(SandboxLevel::Off));
    assert!(run.options.sandbox.seccomp.is_none() && run.restore.is_none());
}

fn changed(changes: &[Change]) -> Value {
    let mut config = json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": ["/app", "word"], "cwd": "/", "env": ["A=b"],
        },
        "mounts": [{ "destination": "/data", "type": "bind", "source": "/x", "options": ["ro"] }],
        "linux": {
            "namespaces": [],
            "resources": { "memory": { "limit": 1 << 27 }, "cpu": { "quota": 1, "period": 1 } },
        },
        "annotations": { "nerite.cmdline": "quiet", "nerite.memory": "64M" },
    });
    for (place, text) in changes {
        let place = PLACES[usize::from(*place) % PLACES.len()];
        if let Some(value) = config.pointer_mut(place) {
            *value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
        }
    }
    config
}
