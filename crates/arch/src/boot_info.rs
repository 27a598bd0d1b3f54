//! The boot information of a Hermit guest: the bytes behind `hermit_entry::boot_info::RawBootInfo`.
//!
//! That type's padding is undefined, so writing it as it is would hand bytes of the host's stack to
//! the guest, and it cannot be built without a linear buffer of guest memory. [`RawBootInfo`] here
//! has the same layout with padding that is part of the data and zero; a test of this crate proves
//! the two equal.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The kernel's image of thread-local storage, in guest-virtual addresses (System V ABI, PT_TLS).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TlsInfo {
    /// Address of the initialised part.
    pub start: u64,
    /// The size of the initialised part in bytes.
    pub filesz: u64,
    /// The whole size in bytes.
    pub memsz: u64,
    /// The alignment in bytes.
    pub align: u64,
}

/// Boot information of a Hermit guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootInfo {
    /// From the lowest to the highest address of RAM. The device tree has the exact regions.
    pub phys_addr_range: Range<u64>,
    /// The port to print to: the hypercall that writes to the console.
    pub serial_port: Option<NonZeroU16>,
    /// Guest-physical address of the device tree.
    pub device_tree: Option<NonZeroU64>,
    /// Guest-physical range of the loaded kernel.
    pub kernel_range: Range<u64>,
    /// The kernel's thread-local storage.
    pub tls: Option<TlsInfo>,
    /// `true` if PCI configuration space exists.
    pub has_pci: bool,
    /// The number of vCPUs.
    pub num_cpus: NonZeroU64,
    /// The frequency of the time-stamp counter in kHz.
    pub cpu_freq_khz: Option<NonZeroU32>,
    /// Nanoseconds since 1970-01-01 00:00 UTC. The guest takes years from -9999 to 9999.
    pub boot_time_ns: i128,
}

/// [`BootInfo`] as it lies in guest memory: 128 bytes, native byte order of x86-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawBootInfo {
    phys_addr_start: u64,
    phys_addr_end: u64,
    serial_port: u16,
    zero_1: [u8; 6],
    device_tree: u64,
    kernel_start: u64,
    kernel_end: u64,
    tls: TlsInfo,
    platform: u32,
    zero_2: [u8; 4],
    has_pci: u8,
    zero_3: [u8; 7],
    num_cpus: u64,
    cpu_freq_khz: u32,
    zero_4: [u8; 4],
    boot_time_ns: [u8; 16],
}

impl RawBootInfo {
    /// Guest-physical address of the device tree.
    #[must_use]
    pub fn device_tree(&self) -> u64 {
        self.device_tree
    }

    /// Guest-physical range of the kernel.
    #[must_use]
    pub fn kernel_range(&self) -> Range<u64> {
        self.kernel_start..self.kernel_end
    }

    /// Frequency of the time-stamp counter in kHz, if it is there.
    #[must_use]
    pub fn cpu_freq_khz(&self) -> Option<u32> {
        NonZeroU32::new(self.cpu_freq_khz).map(NonZeroU32::get)
    }

    /// The same with another time of day, in nanoseconds since 1970.
    #[must_use]
    pub fn with_boot_time(self, nanoseconds: i128) -> Self {
        Self { boot_time_ns: nanoseconds.to_le_bytes(), ..self }
    }
}

/// The platform `Uhyve`: the second variant of hermit-entry's enum on x86-64.
const PLATFORM_UHYVE: u32 = 1;

impl From<&BootInfo> for RawBootInfo {
    fn from(info: &BootInfo) -> Self {
        Self {
            phys_addr_start: info.phys_addr_range.start,
            phys_addr_end: info.phys_addr_range.end,
            serial_port: info.serial_port.map_or(0, NonZeroU16::get),
            zero_1: [0; 6],
            device_tree: info.device_tree.map_or(0, NonZeroU64::get),
            kernel_start: info.kernel_range.start,
            kernel_end: info.kernel_range.end,
            tls: info.tls.unwrap_or_default(),
            platform: PLATFORM_UHYVE,
            zero_2: [0; 4],
            has_pci: u8::from(info.has_pci),
            zero_3: [0; 7],
            num_cpus: info.num_cpus.get(),
            cpu_freq_khz: info.cpu_freq_khz.map_or(0, NonZeroU32::get),
            zero_4: [0; 4],
            boot_time_ns: info.boot_time_ns.to_le_bytes(),
        }
    }
}
