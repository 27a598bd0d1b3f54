//! Settings of a Hermit guest.

use std::path::PathBuf;

use nerite_hostfs::{Limits, Mount, OnChanged};

/// Guest memory size used when none is given, in bytes: 64 MiB.
pub const DEFAULT_MEMORY: u64 = 64 << 20;

/// Settings of a Hermit guest. What the image itself asks for (`hermit.toml`) never wins over them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Path of the image, which is the guest's first argument.
    pub image: PathBuf,
    /// Memory size in bytes; `None` for what the image asks for, and [`DEFAULT_MEMORY`] if it asks
    /// for nothing.
    pub memory: Option<u64>,
    /// `true` places the guest at a random address, if its image can be relocated.
    pub aslr: bool,
    /// Number of vCPUs; `None` for what the image asks for, and 1 if it asks for nothing.
    pub vcpus: Option<u32>,
    /// `true` adds an i8254 interval timer.
    pub pit: bool,
    /// Arguments of the kernel. Empty: those of the image.
    pub kernel_args: Vec<String>,
    /// Arguments of the application, after its name. Empty: those of the image.
    pub app_args: Vec<String>,
    /// Environment variables, in order; a later one of the same name wins.
    pub env: Vec<(String, String)>,
    /// `true` if input goes to a virtio console in place of hypercalls.
    pub virtio_console: bool,
    /// Files and directories of the host that the guest sees.
    pub mounts: Vec<Mount>,
    /// Limits of the guest's files.
    pub file_limits: Limits,
    /// Treatment of a file that was open when the guest was saved, and has changed since.
    pub on_changed: OnChanged,
}
