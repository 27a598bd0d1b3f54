//! The socket device of a machine.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

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

/// Counters of a socket device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsockReport {
    /// The Unix socket of clients.
    pub path: PathBuf,
    /// Connections and bytes so far.
    pub totals: Totals,
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

    /// Counters so far.
    pub(crate) fn report(&self) -> VsockReport {
        VsockReport { path: self.path.clone(), totals: self.function.device().totals() }
    }
}

impl fmt::Display for VsockReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "vsock {}", self.path.display())?;
        let Totals { from_host, from_guest, resets, to_guest_bytes, to_host_bytes } = self.totals;
        writeln!(f, " from host from guest     resets       bytes to guest        bytes to host")?;
        writeln!(
            f,
            "{from_host:>10} {from_guest:>10} {resets:>10} {to_guest_bytes:>20} {to_host_bytes:>20}"
        )
    }
}
