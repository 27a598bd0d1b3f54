//! [`Protocol`]: the boot protocols of kernels.

use std::fmt;
use std::str::FromStr;

/// Boot protocol of a kernel.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// As a Hermit kernel under the uhyve hypercall interface.
    Hermit,
    /// By Linux' boot protocol: a bzImage.
    Linux,
    /// By Xen's PVH protocol: an ELF file with a note.
    Pvh,
    /// By multiboot, version 1.
    Multiboot,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hermit, Self::Linux, Self::Pvh, Self::Multiboot];

    /// Its name: `hermit`, `linux`, `pvh`, `multiboot`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hermit => "hermit",
            Self::Linux => "linux",
            Self::Pvh => "pvh",
            Self::Multiboot => "multiboot",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no protocol's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a way to boot; there are hermit, linux, pvh and multiboot")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}
