//! Kernels with a PVH entry point (Xen, docs/misc/pvh.pandoc): an uncompressed Linux, and many
//! others.

use super::{SegmentedKernel, elf};
use crate::bytes::Bytes;
use crate::{Error, Limits, Protocol};

/// A kernel that is entered through its PVH note.
#[derive(Debug, Clone)]
pub struct Pvh {
    kernel: SegmentedKernel,
}

/// Returns `true` if an ELF file has a PVH entry point.
pub(crate) fn is_pvh(bytes: &[u8]) -> bool {
    elf::has_pvh_note(bytes)
}

impl Pvh {
    pub(crate) fn from_bytes(bytes: Bytes, limits: &Limits) -> Result<Self, Error> {
        let lacks = |lacks| Error::NotOfProtocol { protocol: Protocol::Pvh, lacks };
        if !bytes.as_slice().starts_with(crate::elf::MAGIC) {
            return Err(lacks("an ELF header"));
        }
        let program = elf::parse(bytes.as_slice(), Protocol::Pvh)?;
        let entry =
            program.pvh_entry.ok_or_else(|| lacks("a note of Xen's with the entry point"))?;
        Ok(Self { kernel: SegmentedKernel::new(bytes, program.segments, entry, limits)? })
    }

    /// Segments and entry point.
    #[must_use]
    pub fn kernel(&self) -> &SegmentedKernel {
        &self.kernel
    }
}
