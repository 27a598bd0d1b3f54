//! Layers: their kinds, their order, their limits, and an image archive in one.

#![cfg(test)]

mod common;
mod guest;

use common::{Builder, GZIP, MANIFEST, TAR, ZSTD, simple, tar};
use guest::{app, contents, elf, error, guest};
use nerite_image::{Layout, Manifest, Rootfs};
use nerite_loader::Limits;
use nerite_log_budget::Causes;
use serde_json::json;

#[test]
fn layers_of_other_kinds_are_refused_by_name() {
    let with = |kind: &str| {
        let mut builder = Builder::new();
        let image = builder.image(&app(), &[(kind, tar(&[("app", &elf())]))]);
        guest(builder.index(&[image]))
    };
    assert!(with(TAR).is_ok() && with(GZIP).is_ok());
    assert!(with("application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
    assert!(with(ZSTD).unwrap_err().contains("layer 1: compressed with zstd"));
    assert!(
        with("application/wasm").unwrap_err().contains("\"application/wasm\" is not supported")
    );
    // Said to be compressed, and not.
    let mut builder = Builder::new();
    let bytes = tar(&[("app", &elf())]);
    let layer = builder.blob(GZIP, &bytes);
    let config = builder.document(
        "application/vnd.oci.image.config.v1+json",
        &json!({
        "architecture": "amd64", "os": "linux", "config": app(),
        "rootfs": {"type": "layers", "diff_ids": [common::digest(&bytes)]}}),
    );
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let image = builder.document(MANIFEST, &manifest);
    assert!(error(builder.index(&[image])).starts_with("layer 1: cannot decompress it"));
}

#[test]
fn upper_layers_win_and_whiteouts_hide() {
    let mut builder = Builder::new();
    let lower = tar(&[("app", &elf()), ("d/a", b"1"), ("d/b", b"1"), ("e/c", b"1")]);
    let upper = tar(&[("d/.wh.a", b""), ("d/b", b"2"), ("e/.wh..wh..opq", b""), ("e/d", b"2")]);
    let image = builder.image(&app(), &[(TAR, lower), (GZIP, upper)]);
    let image = guest(builder.index(&[image])).unwrap();
    let expected = [("d/b", "2"), ("e/d", "2")];
    assert_eq!(contents(&image), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    let mut builder = Builder::new();
    let hidden = [(TAR, tar(&[("app", &elf())])), (TAR, tar(&[(".wh.app", b"")]))];
    let image = builder.image(&app(), &hidden);
    assert_eq!(error(builder.index(&[image])), "application \"/app\": not found in the image");
}

#[test]
fn bombs_are_refused_within_the_limits() {
    let zeros = tar(&[("app", &elf()), ("d/zero", &vec![0; 1 << 20])]);
    let many: Vec<String> = (0..100).map(|number| format!("d/{number}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let mut builder = Builder::new();
    let image = builder.image(&app(), &[(GZIP, zeros), (GZIP, tar(&many)), (GZIP, tar(&many))]);
    let files = builder.index(&[image]);
    let read = |limits: Limits| {
        let mut layout = Layout::in_memory(files.clone());
        let manifest = Manifest::read(&mut layout, None).unwrap();
        let read = Rootfs::read(&mut layout, &manifest, &limits);
        read.map(|_| ()).map_err(|error| Causes(&error).to_string())
    };
    let limits = Limits::default();
    assert_eq!(read(limits), Ok(()));
    let error = read(Limits { max_decompressed: 1 << 20, ..limits }).unwrap_err();
    assert!(error.starts_with("layer 1: decompressed, all layers have more than"), "{error}");
    // The layers share them.
    let error = read(Limits { max_decompressed: (1 << 20) + 40_000, ..limits }).unwrap_err();
    assert!(error.starts_with("layer 2: decompressed"), "{error}");
    let error = read(Limits { max_entries: 150, ..limits }).unwrap_err();
    assert!(error.starts_with("layer 3: "), "{error}");
    let error = read(Limits { max_names: 500, ..limits }).unwrap_err();
    assert!(error.starts_with("layer 3: "), "{error}");
    let error = read(Limits { max_file: 1000, ..limits }).unwrap_err();
    assert!(error.contains("bytes of a blob: more than"), "{error}");
}

#[test]
fn an_image_archive_in_an_image_brings_its_files() {
    let toml = "version = \"1\"\nkernel = \"/bin/k\"\n[input]\nkernel_args = [\"-k\"]\n\
        app_args = [\"own\"]\nenv_vars = [\"A=1\"]\n[requirements]\nmemory = \"32 MiB\"\ncpus = 2\n";
    let inner = common::gzip(&tar(&[
        ("bin/k", &elf()),
        ("own/f", b"own"),
        ("data/f", b"hidden"),
        ("top", b"top"),
        ("hermit.toml", toml.as_bytes()),
    ]));
    let entries: &[(&str, &[u8])] = &[("guest", &inner), ("data/g", b"seen")];
    let image = guest(simple(&json!({"Cmd": ["/guest"], "Env": ["A=2"]}), entries)).unwrap();
    let config = image.config().unwrap();
    assert_eq!(
        (&*config.app_args, &*config.kernel_args),
        (&["own".into()][..], &["-k".into()][..])
    );
    assert_eq!(config.env_vars, ["A=1", "A=2"]);
    assert_eq!((config.memory, config.cpus, &*config.kernel), (Some(32 << 20), Some(2), "bin/k"));
    let expected = [("own/f", "own"), ("top", "top"), ("data/g", "seen")];
    assert_eq!(contents(&image), expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
    // A directory of the container hides those of the archive, and not its kernel.
    let entries: &[(&str, &[u8])] = &[("guest", &inner), ("bin/k", b"seen")];
    let image = guest(simple(&json!({"Cmd": ["/guest", "new"]}), entries)).unwrap();
    assert_eq!(image.config().unwrap().app_args, ["new"]);
    assert!(contents(&image).contains(&("bin/k".to_owned(), "seen".to_owned())));
    let broken = guest(simple(&json!({"Cmd": ["/guest"]}), &[("guest", &inner[..100])]));
    assert!(broken.unwrap_err().starts_with("application \"/guest\": "));
}
