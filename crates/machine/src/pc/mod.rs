//! Machines for kernels that know nothing of Hermit: Linux, PVH and multiboot kernels find a small PC.

mod build;
mod devices;
mod dispatch;
mod input;
mod load;
mod plan;
mod platform;

pub(crate) use build::build;
pub(crate) use devices::Devices;
pub use devices::DiskReport;
pub(crate) use dispatch::PcDispatcher;
pub(crate) use input::{Ended, Keyboard};
pub(crate) use platform::PcPlatform;

use std::ops::Range;
use std::sync::Arc;

/// What a machine keeps of such a guest.
#[derive(Debug)]
pub(crate) struct Pc {
    pub(crate) platform: Arc<PcPlatform>,
    /// The guest-physical range of the loaded kernel.
    pub(crate) kernel: Range<u64>,
    /// What is typed for it.
    pub(crate) keyboard: Option<Keyboard>,
    pub(crate) devices: Devices,
}
