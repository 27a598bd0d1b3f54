//! Image layouts made by hand: small enough to break in every way one likes.

#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Files of a layout by their paths.
pub type Files = BTreeMap<String, Vec<u8>>;

pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// Path of the blob with these bytes.
pub fn path(bytes: &[u8]) -> String {
    format!("blobs/{}", digest(bytes).replace(':', "/"))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive of these files and links: a target begins with `->`.
pub fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        if let Some(target) = data.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, name, std::str::from_utf8(target).unwrap()).unwrap();
        } else {
            header.set_size(data.len() as u64);
            builder.append_data(&mut header, name, *data).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// A layout to be.
#[derive(Default)]
pub struct Builder {
    pub files: Files,
}

impl Builder {
    pub fn new() -> Self {
        let mut files = Files::new();
        files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        Self { files }
    }

    /// Adds a blob, and gives its descriptor.
    pub fn blob(&mut self, kind: &str, bytes: &[u8]) -> Value {
        self.files.insert(path(bytes), bytes.to_vec());
        json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
    }

    pub fn document(&mut self, kind: &str, value: &Value) -> Value {
        self.blob(kind, value.to_string().as_bytes())
    }

    /// Adds an image of these layers, which are packed as their media types say, and gives its
    /// descriptor.
    pub fn image(&mut self, config: &Value, layers: &[(&str, Vec<u8>)]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(_, tar)| digest(tar)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        self.image_of(&config, layers)
    }

    pub fn image_of(&mut self, config: &Value, layers: &[(&str, Vec<u8>)]) -> Value {
        let config = self.document("application/vnd.oci.image.config.v1+json", config);
        let layers: Vec<Value> = layers
            .iter()
            .map(|(kind, tar)| {
                if kind.ends_with("gzip") {
                    self.blob(kind, &gzip(tar))
                } else {
                    self.blob(kind, tar)
                }
            })
            .collect();
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.document(MANIFEST, &manifest)
    }

    /// The layout of these images.
    pub fn index(mut self, manifests: &[Value]) -> Files {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.files.insert("index.json".to_owned(), index.to_string().into_bytes());
        self.files
    }
}

/// A descriptor with a tag.
pub fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    descriptor
}

/// A descriptor for a platform.
pub fn on(mut descriptor: Value, os: &str, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

/// A layout with one image of one layer.
pub fn simple(config: &Value, entries: &[(&str, &[u8])]) -> Files {
    let mut builder = Builder::new();
    let image = builder.image(config, &[(GZIP, tar(entries))]);
    builder.index(&[image])
}
