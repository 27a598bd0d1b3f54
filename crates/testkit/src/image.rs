//! Images.

use flate2::{Compression, write::GzEncoder};
use nerite_loader::testing::{Elf, abi_tag, interface_note};
use nerite_loader::{Image, Limits};

/// A relocatable kernel with this hypercall interface and version.
pub fn elf(interface: u32, version: Option<[u32; 3]>) -> Elf {
    let mut elf = Elf::hermit();
    elf.notes.truncate(1);
    if interface > 1 {
        elf.notes.push(interface_note(interface));
    }
    if let Some([major, minor, patch]) = version {
        elf.notes.push(abi_tag([6, major, minor, patch]));
    }
    elf
}

/// An image that is only a kernel.
pub fn parse(elf: &Elf) -> Image {
    Image::parse(elf.build(), &Limits::default()).unwrap()
}

/// An image with a `hermit.toml` that has arguments and these further lines in its two tables.
pub fn archive(elf: &Elf, input: &str, requirements: &str) -> Image {
    let config = format!(
        "version = '1'\nkernel = 'kernel'\n[input]\nkernel_args = ['-own']\napp_args = ['own']\n{input}\n[requirements]\n{requirements}\n"
    );
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, data) in [("hermit.toml", config.as_bytes()), ("kernel", &elf.build())] {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, data).unwrap();
    }
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    Image::parse(bytes, &Limits::default()).unwrap()
}
