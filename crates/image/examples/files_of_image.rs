//! Lists the files of an image: `cargo run -p nerite-image --example files_of_image -- oci:DIR`.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;

use nerite_image::nerite_loader::Limits;
use nerite_image::{Layout, Manifest, Process, Reference, Rootfs};

fn main() -> Result<(), Box<dyn Error>> {
    let Some(name) = std::env::args_os().nth(1) else {
        println!("usage: files_of_image oci:DIR[:TAG] | oci-archive:FILE[:TAG]");
        return Ok(());
    };
    let reference = Reference::parse(&name).ok_or("neither oci: nor oci-archive:")??;
    let mut layout = Layout::open(&reference)?;
    let manifest = Manifest::read(&mut layout, reference.tag.as_deref())?;
    let rootfs = Rootfs::read(&mut layout, &manifest, &Limits::default())?;
    println!("{}", manifest.digest);
    for (path, kind) in rootfs.paths() {
        println!("{:<14} /{}", kind.describe(), String::from_utf8_lossy(path));
    }
    let process = Process::of(&manifest.config, &[])?;
    println!("application    {} {:?}", process.name, process.args);
    Ok(())
}
