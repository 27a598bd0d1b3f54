//! Guests of layouts, as a machine gets them.

#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use nerite_image::{HermitImage, Layout, Manifest, Process, Rootfs};
use nerite_loader::testing::Elf;
use nerite_loader::{EntryKind, Image, Limits};
use nerite_log_budget::Causes;
use serde_json::{Value, json};

use crate::common::Files;

pub fn elf() -> Vec<u8> {
    Elf::hermit().build()
}

/// The guest of a layout, as the machine gets it.
pub fn guest_of(layout: &mut Layout, tag: Option<&str>, args: &[&str]) -> Result<Image, String> {
    let limits = Limits::default();
    let mut guest = || {
        let manifest = Manifest::read(layout, tag)?;
        let rootfs = Rootfs::read(layout, &manifest, &limits)?;
        let args: Vec<String> = args.iter().map(|word| (*word).to_owned()).collect();
        let process = Process::of(&manifest.config, &args)?;
        let mut image = Vec::new();
        HermitImage::new(&rootfs, &process, &limits)?.write(&mut image)?;
        Ok(image)
    };
    let image = guest().map_err(|error: nerite_image::Error| Causes(&error).to_string())?;
    Ok(Image::parse(image, &limits).unwrap())
}

pub fn guest(files: Files) -> Result<Image, String> {
    guest_of(&mut Layout::in_memory(files), None, &[])
}

#[track_caller]
pub fn error(files: Files) -> String {
    guest(files).unwrap_err()
}

/// Names and contents of a guest's files, but for its configuration.
pub fn contents(image: &Image) -> Vec<(String, String)> {
    let archive = image.archive().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entries = archive.entries().iter().filter(|entry| entry.name != b"hermit.toml");
    entries
        .filter(|entry| !archive.data(entry).starts_with(b"\x7fELF"))
        .map(|entry| match entry.kind {
            EntryKind::HardLink => {
                (text(&entry.name), format!("={}", text(entry.target.as_ref().unwrap())))
            }
            _ => (text(&entry.name), text(archive.data(entry))),
        })
        .collect()
}

pub fn app() -> Value {
    json!({"Entrypoint": ["/app"]})
}
