//! Settings of a PC.

use std::path::PathBuf;

/// Guest memory size used when none is given, in bytes: 256 MiB.
pub const DEFAULT_MEMORY: u64 = 256 << 20;

/// Settings of a PC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Path of the image, which is a multiboot kernel's first word.
    pub image: PathBuf,
    /// Memory size in bytes; `None` for [`DEFAULT_MEMORY`].
    pub memory: Option<u64>,
    /// Number of vCPUs; `None` for 1.
    pub vcpus: Option<u32>,
    /// The kernel's command line. [`Self::app_args`] follow it.
    pub command_line: Option<String>,
    /// Further words of the command line.
    pub app_args: Vec<String>,
    /// `true` if input goes to a virtio console in place of the serial port.
    pub virtio_console: bool,
    /// First of four ports by which a guest ends itself with an exit code; `None` for none, but
    /// the usual one with multiboot.
    pub debug_exit: Option<u16>,
    /// The number of the machine's first generation, at random unless each run is to be the same.
    pub generation: [u8; 16],
    /// Interrupt lines of the PCI slots after the host bridge, in order.
    pub lines: Vec<u8>,
}
