//! Layers of any entries and documents of any text, as a test and as a fuzz target.

use std::collections::BTreeMap;

use nerite_image::{Error, HermitImage, Layout, Manifest, Process, Rootfs};
use nerite_loader::testing::Elf;
use nerite_loader::{EntryKind, Image, Limits};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// An entry of a layer: its kind, two bytes for its name, one for its target.
pub type Step = (u8, u8, u8, u8);

/// Parts of names.
const PARTS: [&str; 16] = [
    "a",
    "b",
    "c",
    ".wh.a",
    ".wh.b",
    ".wh..wh..opq",
    "..",
    ".",
    "",
    "dev",
    "/",
    "app",
    ".wh.",
    ".wh...",
    "hermit.toml",
    "\x1b[31m",
];
const KINDS: [EntryType; 6] = [
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Char,
    EntryType::Regular,
];

fn limits() -> Limits {
    Limits {
        max_file: 1 << 20,
        max_decompressed: 1 << 20,
        max_entries: 100,
        max_names: 2000,
        max_memory: 16 << 20,
    }
}

/// A part of a name, one of those that mostly work for a `tame` entry.
fn part(byte: u8, tame: bool) -> &'static str {
    PARTS[usize::from(byte % 16) % if tame { 6 } else { PARTS.len() }]
}

fn add(tar: &mut Vec<u8>, kind: EntryType, name: &str, target: &str, data: &[u8]) {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    let data = if kind == EntryType::Regular { data } else { &[] };
    header.set_size(data.len() as u64);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(data);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn layer(steps: &[Step]) -> Vec<u8> {
    let mut tar = Vec::new();
    for &(kind, first, second, target) in steps {
        let tame = kind < 0xf0;
        let part = |byte| part(byte, tame);
        let name = [part(first), part(first >> 4), part(second)].join("/");
        let target = [part(target), part(target >> 4)].join("/");
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        add(&mut tar, kind, &name, &target, &[kind.as_byte(), second]);
    }
    tar
}

fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// Document of a layout that a text takes the place of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    None,
    Index,
    Manifest,
    Config,
    Layer,
}

/// Files of a layout whose digests are right.
fn layout(layers: &[Vec<u8>], place: Place, text: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut blob = |kind: &str, own: Place, bytes: &[u8]| {
        let bytes = if own == place { text } else { bytes };
        let digest = digest(bytes);
        files.insert(format!("blobs/{}", digest.replace(':', "/")), bytes.to_vec());
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()})
    };
    let listed: Vec<_> = layers.iter().map(|tar| blob("layer.v1.tar", Place::Layer, tar)).collect();
    let diff_ids: Vec<_> = listed.iter().map(|layer| layer["digest"].clone()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["app"], "Env": ["PATH=/:/a:/b/c"], "WorkingDir": "/a"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob("config.v1+json", Place::Config, config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": listed});
    let manifest = blob("manifest.v1+json", Place::Manifest, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string().into_bytes();
    let index = if place == Place::Index { text.to_vec() } else { index };
    files.insert("index.json".to_owned(), index);
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    files
}

/// Reads a layout as far as it can be read.
fn read(files: BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    let limits = limits();
    let mut layout = Layout::in_memory(files);
    let manifest = Manifest::read(&mut layout, None)?;
    let rootfs = Rootfs::read(&mut layout, &manifest, &limits)?;
    let kinds: BTreeMap<&[u8], EntryKind> = rootfs.paths().collect();
    assert!(kinds.len() <= limits.max_entries);
    for path in kinds.keys() {
        let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        assert!(parts.iter().all(|part| !matches!(*part, b"" | b"." | b"..")), "{path:?}");
        assert!(parts.iter().all(|part| !part.starts_with(b".wh.")), "{path:?}");
        let parent = parts[..parts.len() - 1].join(&b'/');
        assert!(parent.is_empty() || kinds[&*parent] == EntryKind::Directory, "{path:?}");
    }
    let process = Process::of(&manifest.config, &[])?;
    let guest = HermitImage::new(&rootfs, &process, &limits)?;
    let mut image = Vec::new();
    guest.write(&mut image)?;
    // A root file system that is within the limits may be beyond them with its configuration.
    if let Ok(image) = Image::parse(image, &Limits::default()) {
        for entry in image.archive().unwrap().entries() {
            assert!(!entry.has_parent_component() && !entry.is_absolute(), "{entry:?}");
        }
    }
    Ok(())
}

/// Reads layouts with layers of these entries, and with a text in place of each of its documents.
/// Returns `true` if the layers were an image.
pub fn run(layers: &[Vec<Step>], text: &[u8]) -> bool {
    let elf = Elf::hermit().build();
    let mut first = Vec::new();
    add(&mut first, EntryType::Regular, "a/app", "", &elf);
    let layers = [first].into_iter().chain(layers.iter().take(8).map(|steps| layer(steps)));
    let layers: Vec<Vec<u8>> = layers.collect();
    let mut is_image = false;
    for place in [Place::None, Place::Index, Place::Manifest, Place::Config, Place::Layer] {
        match read(layout(&layers, place, text)) {
            Ok(()) => is_image |= place == Place::None,
            Err(error) => assert!(error.to_string().len() < 5000, "{error}"),
        }
    }
    is_image
}
