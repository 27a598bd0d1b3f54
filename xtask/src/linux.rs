//! The group "linux" of `cargo xtask test-kernels`: guests that are not Hermit.
//!
//! The kernel is the lab's own, Debian's; with busybox it becomes a small system. For the other
//! protocols there is a kernel of a few dozen bytes, made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::lab::{Files, kernel};
use crate::{build, packages, paths, progress};

/// Example that boots the kernel without `vmm`.
const SMALL_VMM: &str = "hundred_lines";
/// Guest-physical address of the tiny kernels.
const LOAD: u32 = 0x10_0000;
/// Text that they print.
const MESSAGE: &[u8] = b"tiny kernel\n\0";
/// Value that they write to the debug-exit port.
const CODE: u8 = 20;

fn target() -> PathBuf {
    paths::target().join("linux")
}

/// The list of tests, in the format of the other kernels' `suite.toml`.
pub(crate) fn suite() -> Result<String> {
    let path = paths::root().join("tests/linux/suite.toml");
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reason why the guest cannot be made on this host, if there is one, in one line.
pub(crate) fn obstacle() -> Option<String> {
    if !build::has_static_libc() {
        return Some("there is no libc.a (Debian: libc6-dev, Fedora: glibc-static)".to_owned());
    }
    let parts = packages::need(&[packages::BUSYBOX]).and_then(|_| kernel::get());
    parts.err().map(|error| progress::one_line(&error))
}

/// Fetches and makes the images; says in which folder they are.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = target();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = kernel::get()?;
    let step = progress::step("making the Linux guest");
    fs::copy(&kernel.image, folder.join("vmlinuz")).context("cannot copy the kernel")?;
    let busybox = packages::need(&[packages::BUSYBOX])?;
    let busybox = busybox.first().context("no busybox")?;
    let mut files = Files::default();
    files.add(busybox, Path::new("/bin/busybox"))?;
    files.add(&paths::root().join("tests/linux/init"), Path::new("/init"))?;
    files.add(&sockets(&folder)?, Path::new("/bin/sockets"))?;
    let mut names = String::new();
    for (name, file) in &kernel.guest_modules {
        files.add(file, &Path::new("/modules").join(name))?;
        names.push_str(name);
        names.push('\n');
    }
    for (name, file) in &kernel.optional_modules {
        files.add(file, &Path::new("/modules").join(name))?;
    }
    files.add_text("/modules/list", names);
    files.write(&folder.join("initramfs"))?;
    fs::write(folder.join("multiboot"), multiboot())
        .context("cannot write the multiboot kernel")?;
    fs::write(folder.join("pvh"), pvh()).context("cannot write the PVH kernel")?;
    step.done();
    let step = progress::step("building the VMM of 100 lines");
    fs::copy(build::examples()?.join(SMALL_VMM), folder.join(SMALL_VMM))
        .with_context(|| format!("cannot copy the example {SMALL_VMM}"))?;
    step.done();
    Ok(folder)
}

/// Builds the program for both ends of a socket: one file, statically linked.
fn sockets(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (paths::root().join("tests/linux/sockets.rs"), folder.join("sockets"));
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-O", "-Ctarget-feature=+crt-static", "-Cpanic=abort"]);
    build::quiet(rustc.arg("-Cstrip=symbols").arg(source).arg("-o").arg(&program))?;
    Ok(program)
}

/// 32-bit code for `address` that prints [`MESSAGE`] on the serial port, writes [`CODE`] to port
/// 0xf4, and halts.
fn code(address: u32) -> Vec<u8> {
    let mut code = vec![
        0xbe, 0, 0, 0, 0,    // mov esi, message
        0xac, // again: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x07, // jz done
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf4, // jmp again
        0xb8, CODE, 0, 0, 0, // done: mov eax, CODE
        0xe7, 0xf4, // out 0xf4, eax
        0xfa, // cli
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the halt
    ];
    let message = address + u32::try_from(code.len()).unwrap_or(0);
    code[1..5].copy_from_slice(&message.to_le_bytes());
    code.extend_from_slice(MESSAGE);
    code
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A multiboot kernel with load addresses (Multiboot Specification 0.6.96, 3.1).
fn multiboot() -> Vec<u8> {
    let (magic, flags) = (0x1bad_b002_u32, 1 << 16);
    let entry = LOAD + 32;
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    let header = words(&[magic, flags, checksum, LOAD, LOAD, 0, 0, entry]);
    [header, code(entry)].concat()
}

/// A 32-bit ELF file with a PVH note: file header, two program headers, note, code (System V ABI, 4
/// and 5).
fn pvh() -> Vec<u8> {
    const HEADERS: u32 = 52 + 2 * 32;
    const NOTE: u32 = 12 + 4 + 4;
    let at = HEADERS + NOTE;
    let code = code(LOAD);
    let size = u32::try_from(code.len()).unwrap_or(0);
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    // Version, entry, program headers, section headers, flags; then sizes and counts of 16 bits.
    file.extend(words(&[1, LOAD, 52, 0, 0, 52 | 32 << 16, 2 | 40 << 16, 0]));
    // Type, offset, virtual and physical address, sizes in file and memory, flags, alignment.
    file.extend(words(&[1, at, LOAD, LOAD, size, size, 7, 4]));
    file.extend(words(&[4, HEADERS, 0, 0, NOTE, NOTE, 4, 4]));
    file.extend(words(&[4, 4, 18, u32::from_le_bytes(*b"Xen\0"), LOAD]));
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use nerite_loader::{GuestImage, Limits, Protocol};

    use super::*;

    #[test]
    fn tiny_kernels_are_what_they_are_meant_to_be() {
        for (file, expected) in [(multiboot(), Protocol::Multiboot), (pvh(), Protocol::Pvh)] {
            let image = GuestImage::parse(file, None, &Limits::default()).unwrap();
            assert_eq!(image.protocol(), expected);
        }
        let code = code(LOAD);
        assert_eq!(code[28..], *MESSAGE);
        assert_eq!(code[1..5], (LOAD + 28).to_le_bytes());
    }
}
