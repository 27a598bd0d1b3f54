//! Linux' compressed kernel (Linux, Documentation/arch/x86/boot.rst).

use vm_memory::{Bytes as _, GuestAddress, GuestMemory, Permissions};

use super::{u16_at, u32_at, u64_at, wrong};
use crate::bytes::Bytes;
use crate::{Error, Protocol, text};

/// Offset of `boot_flag`, 0xaa55.
const BOOT_FLAG: usize = 0x1fe;
/// Offset of the setup header.
const HEADER: usize = 0x1f1;
/// Offset of the magic number.
const MAGIC: usize = 0x202;
/// The oldest protocol that says how much memory the kernel needs: 2.10 (Linux 2.6.31).
const OLDEST: u16 = 0x20a;
/// The sector size that `setup_sects` counts in.
const SECTOR: usize = 512;
/// The number of setup sectors if the field is 0.
const DEFAULT_SECTORS: u8 = 4;
/// The protected-mode code is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// There is a 64-bit entry point at 0x200 of the protected-mode code.
const KERNEL_64: u16 = 1;
/// The offset of that entry point.
const ENTRY_64: u64 = 0x200;
/// The longest version string that is shown.
const MAX_VERSION: usize = 128;

/// A bzImage whose header has been checked.
#[derive(Debug, Clone)]
pub struct BzImage {
    bytes: Bytes,
    payload: usize,
    protocol: u16,
    version: Option<String>,
    entry_64: bool,
    relocatable: bool,
    alignment: u32,
    preferred: u64,
    init_size: u32,
    initrd_max: u32,
    command_line: u32,
}

/// Returns `true` if `bytes` begin like a bzImage.
pub(crate) fn is_bzimage(bytes: &[u8]) -> bool {
    u16_at(bytes, BOOT_FLAG) == Some(0xaa55)
        && bytes.get(MAGIC..).is_some_and(|at| at.starts_with(b"HdrS"))
}

impl BzImage {
    pub(crate) fn from_bytes(bytes: Bytes) -> Result<Self, Error> {
        let file = bytes.as_slice();
        if !is_bzimage(file) {
            return Err(Error::NotOfProtocol {
                protocol: Protocol::Linux,
                lacks: "a setup header (\"HdrS\" at 0x202)",
            });
        }
        let problem = |problem| wrong(Protocol::Linux, problem);
        let short = || problem("the file ends within the setup header; copy or build it again");
        let byte = |offset: usize| file.get(offset).copied().ok_or_else(short);
        let word = |offset| u16_at(file, offset).ok_or_else(short);
        let double = |offset| u32_at(file, offset).ok_or_else(short);
        let protocol = word(0x206)?;
        if protocol < OLDEST {
            return Err(Error::OldBootProtocol { found: protocol });
        }
        let xload_flags = if protocol >= 0x20c { word(0x236)? } else { 0 };
        if byte(0x211)? & LOADED_HIGH == 0 {
            return Err(problem("a zImage, which is loaded below 1 MiB; build a bzImage"));
        }
        let sectors = match byte(HEADER)? {
            0 => DEFAULT_SECTORS,
            sectors => sectors,
        };
        let payload = usize::from(sectors).saturating_add(1).saturating_mul(SECTOR);
        if payload >= file.len() {
            return Err(problem("the file ends before the kernel's code; copy or build it again"));
        }
        let (alignment, init_size) = (double(0x230)?, double(0x260)?);
        if !alignment.is_power_of_two() {
            return Err(problem("the alignment is not a power of two"));
        }
        let size = file.len().saturating_sub(payload) as u64;
        if u64::from(init_size) < size {
            return Err(problem("it needs less memory than its own code takes"));
        }
        let preferred = u64_at(file, 0x258).ok_or_else(short)?;
        let end = preferred.checked_add(u64::from(init_size));
        if end.is_none_or(|end| end > 1 << 32) || preferred < 0x10_0000 {
            return Err(problem("its address is not between 1 MiB and 4 GiB"));
        }
        if !preferred.is_multiple_of(u64::from(alignment)) {
            return Err(problem("its address is not aligned as it asks"));
        }
        Ok(Self {
            payload,
            protocol,
            version: version(file, word(0x20e)?),
            entry_64: xload_flags & KERNEL_64 != 0,
            relocatable: byte(0x234)? != 0,
            alignment,
            preferred,
            init_size,
            initrd_max: double(0x22c)?,
            command_line: double(0x238)?,
            bytes,
        })
    }

    /// The setup header as it lies in the image, for the zero page: from `setup_sects` at 0x1f1 to
    /// where it says it ends.
    #[must_use]
    pub fn setup_header(&self) -> &[u8] {
        let file = self.bytes.as_slice();
        // The byte after the short jump's opcode is how far the jump goes: to the header's end
        // (boot.rst, "jump").
        let end = MAGIC.saturating_add(usize::from(file.get(0x201).copied().unwrap_or(0)));
        file.get(HEADER..end).unwrap_or_default()
    }

    /// The version of the boot protocol: major in the upper byte, minor in the lower.
    #[must_use]
    pub fn protocol_version(&self) -> u16 {
        self.protocol
    }

    /// Version text of the kernel, such as `6.1.0-56-cloud-amd64 (...)`; at most 128 printable
    /// bytes.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// Returns `true` if the kernel has an entry point for 64-bit mode.
    #[must_use]
    pub fn has_64_bit_entry(&self) -> bool {
        self.entry_64
    }

    /// Returns `true` if the kernel runs at other addresses than [`Self::preferred_address`].
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    /// Alignment of the load address in bytes, a power of two.
    #[must_use]
    pub fn alignment(&self) -> u32 {
        self.alignment
    }

    /// Preferred guest-physical load address. A kernel that is loaded below it moves itself there.
    #[must_use]
    pub fn preferred_address(&self) -> u64 {
        self.preferred
    }

    /// Memory in bytes that the kernel needs from its load address on before it reads the memory
    /// map.
    #[must_use]
    pub fn init_size(&self) -> u32 {
        self.init_size
    }

    /// The highest address that the initial file system may have.
    #[must_use]
    pub fn initrd_max(&self) -> u32 {
        self.initrd_max
    }

    /// Longest command line in bytes, without its NUL.
    #[must_use]
    pub fn command_line_max(&self) -> u32 {
        self.command_line
    }

    /// The size in bytes of the code that is loaded.
    #[must_use]
    pub fn code_size(&self) -> u64 {
        self.code().len() as u64
    }

    /// Guest-physical entry point of a kernel loaded at `address`.
    #[must_use]
    pub fn entry(&self, address: u64) -> u64 {
        if self.entry_64 { address.saturating_add(ENTRY_64) } else { address }
    }

    fn code(&self) -> &[u8] {
        self.bytes.as_slice().get(self.payload..).unwrap_or_default()
    }

    /// Copies the code to [`Self::preferred_address`] and returns that address.
    ///
    /// # Errors
    /// [`Error::OutsideMemory`] if the memory has not the whole range that the kernel needs, in
    /// which case none of it is touched; [`Error::Memory`].
    pub fn load<M: GuestMemory + ?Sized>(&self, memory: &M) -> Result<u64, Error> {
        let start = self.preferred;
        let end = start.saturating_add(u64::from(self.init_size));
        let size = usize::try_from(self.init_size).unwrap_or(usize::MAX);
        if !memory.check_range(GuestAddress(start), size, Permissions::ReadWrite) {
            return Err(Error::OutsideMemory { start, end });
        }
        memory.write_slice(self.code(), GuestAddress(start)).map_err(Error::Memory)?;
        Ok(start)
    }
}

/// The string that `kernel_version` leads to.
fn version(file: &[u8], field: u16) -> Option<String> {
    if field == 0 {
        return None;
    }
    let start = usize::from(field).checked_add(0x200)?;
    let rest = file.get(start..)?;
    let bytes = rest.get(..MAX_VERSION).unwrap_or(rest);
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(text::printable(bytes.get(..end)?)).filter(|text| !text.is_empty())
}
