//! The socket device of a machine.

use std::path::PathBuf;
use std::sync::Arc;

use nerite_service::DeviceCounters;
use nerite_virtio::VirtioPci;
use nerite_virtio_vsock::nerite_private_socket::SocketName;
use nerite_virtio_vsock::{Limits, Listener, Spec, Totals, Vsock};
use parking_lot::Mutex;

use crate::Error;
use crate::wires::PciBuilder;

/// The device, and the name of its socket.
#[derive(Debug)]
pub(crate) struct VsockDevice {
    pub(crate) function: Arc<VirtioPci<Vsock>>,
    path: PathBuf,
    /// Removed when the machine ends.
    name: Mutex<Option<SocketName>>,
}

impl VsockDevice {
    /// Makes the device, with an interrupt line.
    pub(crate) fn new(
        spec: &Spec,
        mut listener: Listener,
        pci: &mut PciBuilder<'_>,
        line: u8,
    ) -> Result<Self, Error> {
        let name = Mutex::new(listener.take_name());
        let device = Vsock::new(spec.cid, listener, Limits::default());
        let device = device.map_err(Error::host("making a virtio device"))?;
        Ok(Self { function: pci.add(device, line)?, path: spec.socket.clone(), name })
    }

    /// Ends the device's thread, and removes the socket.
    pub(crate) fn halt(&self) {
        self.function.device().halt();
        drop(self.name.lock().take());
    }

    /// Counters of connections so far, and of their bytes.
    pub(crate) fn counters(&self) -> DeviceCounters {
        let Totals { from_host, from_guest, resets, to_guest_bytes, to_host_bytes } =
            self.function.device().totals();
        DeviceCounters {
            device: "vsock",
            name: self.path.display().to_string(),
            counters: vec![
                ("from_host", from_host),
                ("from_guest", from_guest),
                ("resets", resets),
                ("to_guest_bytes", to_guest_bytes),
                ("to_host_bytes", to_host_bytes),
            ],
            ..DeviceCounters::default()
        }
    }
}
