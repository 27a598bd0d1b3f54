//! Contents of the configuration space of a virtio device (virtio 1.2, 4.1.4).

use nerite_pci::{Bar, Capability, ConfigSpace, ConfigSpaceState, Identity, Msix};

use super::{BAR_SIZE, NOTIFY_MULTIPLIER, region};
use crate::{VirtioDevice, common_cfg};

/// Guest-visible layout of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// A base address of 64 bits, and the common configuration of virtio 1.3.
    Current,
    /// A base address of 32 bits, and the common configuration of virtio 1.1: functions of
    /// snapshots that are older than [`Layout::Current`].
    Narrow,
}

impl Layout {
    /// Layout of the function that saved this configuration space.
    pub(super) fn of(saved: &ConfigSpaceState) -> Self {
        /// Lowest byte of base address 0, and its bit of a 64-bit address (PCI 3.0, 6.2.5.1).
        const BAR_0: usize = 0x10;
        const BITS_64: u8 = 1 << 2;
        let is_64_bit = saved.registers.get(BAR_0).is_none_or(|low| low & BITS_64 != 0);
        if is_64_bit { Self::Current } else { Self::Narrow }
    }

    /// Bytes of the common configuration.
    fn common_length(self) -> u32 {
        match self {
            Self::Current => common_cfg::LENGTH,
            Self::Narrow => 56,
        }
    }
}

/// Red Hat's vendor identifier, which virtio uses (4.1.2).
const VENDOR: u16 = 0x1af4;
/// The device identifier of virtio device 0 (4.1.2.1).
const DEVICE_BASE: u16 = 0x1040;
/// Vendor-specific capability, which virtio's are.
const VENDOR_CAPABILITY: u8 = 0x09;
/// Configuration types of virtio's capabilities (4.1.4).
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;

/// Builds the configuration space. Returns it with the offsets of MSI-X's message control and of
/// the capability for access through configuration space.
pub(super) fn config_space<D: VirtioDevice>(
    device: &D,
    msix: &Msix,
    layout: Layout,
    address: u64,
    line: u8,
) -> Result<(ConfigSpace, u8, u8), nerite_pci::Error> {
    let kind = device.kind();
    let mut config = ConfigSpace::new(&Identity {
        vendor: VENDOR,
        device: DEVICE_BASE.saturating_add(kind.id),
        // Not transitional (4.1.2.1).
        revision: 1,
        class: kind.class,
        subsystem_vendor: VENDOR,
        subsystem: DEVICE_BASE.saturating_add(kind.id),
    });
    // Reading ISR status has a side effect, yet drivers map it uncached, and some only take
    // prefetchable regions, or such of 64 bits.
    let is_64_bit = layout == Layout::Current;
    config.add_bar(0, Bar { size: BAR_SIZE, prefetchable: true, is_64_bit })?;
    config.place(0, address);
    config.set_interrupt(1, line);
    let notify_length = u32::try_from(device.queue_sizes().len())
        .unwrap_or(u32::MAX)
        .saturating_mul(NOTIFY_MULTIPLIER)
        .max(NOTIFY_MULTIPLIER);
    let regions = [
        (CFG_COMMON, region::COMMON, layout.common_length(), None),
        (CFG_NOTIFY, region::NOTIFY, notify_length, Some(NOTIFY_MULTIPLIER)),
        (CFG_ISR, region::ISR, 1, None),
        (CFG_DEVICE, region::DEVICE, 0x1000, None),
    ];
    for (kind, offset, length, last) in regions {
        let body = virtio_capability(kind, offset, length, last);
        config.add_capability(&Capability { id: VENDOR_CAPABILITY, body: &body, writable: &[] })?;
    }
    let body = virtio_capability(CFG_PCI, 0, 0, Some(0));
    // Base address, offset and length can be written (4.1.4.9.1); the data that follows is looked
    // up.
    let writable = [0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let pci_cfg = config.add_capability(&Capability {
        id: VENDOR_CAPABILITY,
        body: &body,
        writable: &writable,
    })?;
    let table = u32::try_from(region::MSIX_TABLE).unwrap_or_default();
    let pending = u32::try_from(region::MSIX_PENDING).unwrap_or_default();
    let body = msix.capability(0, table, pending);
    let msix = config.add_capability(&Capability {
        id: Msix::CAPABILITY,
        body: &body,
        writable: &Msix::WRITABLE,
    })?;
    Ok((config, msix.saturating_add(2), pci_cfg))
}

/// The body of a virtio capability (4.1.4): everything after identifier and link.
fn virtio_capability(kind: u8, offset: u64, length: u32, last: Option<u32>) -> Vec<u8> {
    let size: u8 = if last.is_some() { 20 } else { 16 };
    // Base address 0, the only one of its kind.
    let mut body = vec![size, kind, 0, 0, 0, 0];
    body.extend(u32::try_from(offset).unwrap_or_default().to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(last.into_iter().flat_map(u32::to_le_bytes));
    body
}
