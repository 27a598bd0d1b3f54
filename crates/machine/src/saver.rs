//! Parts of a running machine that are needed to save it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;

use nerite_devices::Console;
use nerite_hypervisor::{Hypervisor, Vm};
use nerite_memory::PageMap;
use nerite_platform::Platform;
use nerite_switch::{Side, Switch};
use parking_lot::Mutex;

use crate::devices::Devices;
use crate::setup::Setup;

/// Parts of a running machine that a snapshot is made of, and a hand-over.
#[derive(Debug)]
pub(crate) struct Saver {
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) devices: Arc<Devices>,
    pub(crate) console: Arc<Console>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    /// The choice between hypervisors, if the guest can be handed over.
    pub(crate) switch: Option<Arc<Switch>>,
    pub(crate) setup: Mutex<Setup>,
    /// The image, if snapshots are prepared.
    pub(crate) image: Option<BootImage>,
    /// The page tables of this process, if the host shows them.
    pub(crate) page_map: Option<PageMap>,
    /// The hypervisor that the guest was on before it was stepped.
    pub(crate) before_steps: Mutex<Option<Side>>,
    /// Held while a snapshot is made, the machine is put back to one, or handed over.
    pub(crate) lock: Mutex<()>,
    /// Progress of resets.
    pub(crate) resets: Mutex<Resets>,
}

/// Progress of resets.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    /// The point whose memory file is mapped, and `/proc/self/pagemap`.
    pub(crate) mapped: Option<(u64, File)>,
}

/// The image that a guest was booted from.
#[derive(Debug)]
pub(crate) struct BootImage {
    file: File,
    /// Size, and time of the last change of the contents in seconds and nanoseconds. It may be
    /// removed or renamed meanwhile.
    version: [i64; 3],
}

impl BootImage {
    /// `file` as it is now.
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let version = version(&file)?;
        Ok(Self { file, version })
    }

    /// Copies the image to `target`, which is empty. Returns `false` if it has changed.
    pub(crate) fn copy_to(&self, target: &File) -> io::Result<bool> {
        let mut buffer = vec![0; 256 << 10];
        let mut offset = 0_u64;
        let copied = loop {
            match self.file.read_at(&mut buffer, offset) {
                Ok(0) => break Ok(()),
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Err(error) = target.write_all_at(bytes, offset) {
                        break Err(error);
                    }
                    offset = offset.saturating_add(length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        copied?;
        Ok(version(&self.file)? == self.version)
    }
}

fn version(file: &File) -> io::Result<[i64; 3]> {
    let it = file.metadata()?;
    Ok([it.size().cast_signed(), it.mtime(), it.mtime_nsec()])
}
