//! Does with hostile bytes all that a monitor would do with an image. Used by the property tests
//! and, with more patience, by the targets in `fuzz/`: whatever the bytes, nothing here may panic,
//! hang or take much memory.

use nerite_loader::{Error, Image, ImageConfig, Kernel, Limits};
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// Limits that keep one run short.
pub(crate) fn limits() -> Limits {
    Limits {
        max_file: 1 << 20,
        max_decompressed: 1 << 20,
        max_entries: 256,
        max_names: 1 << 16,
        max_memory: 16 << 20,
    }
}

/// Parses any image; if that works, looks at all of it and loads it.
pub(crate) fn image(bytes: Vec<u8>) -> Result<(), Error> {
    let image = Image::parse(bytes, &limits()).map_err(one_line)?;
    assert!(!image.inspect().to_string().contains(['\x1b', '\0']));
    if let Some(archive) = image.archive() {
        for entry in archive.entries() {
            assert_eq!(archive.data(entry).len() as u64, entry.size());
            assert!(archive.get(&entry.name).is_some());
        }
    }
    use_kernel(image.kernel());
    Ok(())
}

/// Parses an ELF file; if that works, looks at all of it and loads it.
pub(crate) fn elf(bytes: Vec<u8>) -> Result<(), Error> {
    let kernel = Kernel::parse(bytes, &limits()).map_err(one_line)?;
    use_kernel(&kernel);
    Ok(())
}

/// Packs a tar archive and parses it as an image.
pub(crate) fn image_tar(tar: &[u8]) -> Result<(), Error> {
    image(gzip(tar))
}

/// Parses a configuration.
pub(crate) fn hermit_toml(bytes: &[u8]) -> Result<(), Error> {
    let config = ImageConfig::parse(bytes).map_err(one_line)?;
    assert!(config.env().all(|(name, _)| !name.is_empty()));
    Ok(())
}

/// A gzip stream (RFC 1952) of one stored block per 64 KiB, quick to make.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn use_kernel(kernel: &Kernel) {
    let last = kernel.segments().last().unwrap();
    let (start, end) = (kernel.link_start(), kernel.link_start() + kernel.mem_size());
    assert_eq!(end, last.end());
    for address in [0, start, kernel.entry(), end - 1, end, u64::MAX] {
        if let Some(location) = kernel.symbols().lookup(address) {
            assert!(location.to_string().chars().count() < 1000 && !location.name.contains('\x1b'));
        }
    }

    // Memory from below the kernel to above it, as far as that is possible.
    let start = kernel.fixed_start().unwrap_or(0x40_0000);
    let from = start.saturating_sub(0x1000) & !0xfff;
    let size = (kernel.mem_size() as usize + 0x4000).next_multiple_of(0x1000);
    let Ok(memory) = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(from), size)]) else {
        return;
    };
    match kernel.load(&memory, start) {
        Ok(loaded) => {
            assert!((loaded.start..loaded.end).contains(&loaded.entry));
            assert_eq!(loaded.end - loaded.start, kernel.mem_size());
            kernel.clear(&memory, start).unwrap();
        }
        Err(Error::OutsideMemory { .. }) => assert!(from.checked_add(size as u64).is_none()),
        Err(error) => panic!("{error}"),
    }
}

/// Checks that an error can be shown, with its causes.
fn one_line(error: Error) -> Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(
        !text.is_empty() && !text.contains(|c: char| c.is_control()) && text.len() < 4000,
        "{text:?}"
    );
    error
}
