//! The host's kernel works on the queues: vhost-net.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use nerite_memory::{GuestRam, Memory};
use nerite_virtio::{Event, QueueConfig, Session, feature as transport};
use nerite_virtio_net::{Engine, feature};
use vhost::vhost_kern::net::Net as Kernel;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vhost::net::VhostNet;
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, Tap};

/// A backend of vhost-net: it expects virtio headers of the size that modern drivers use (`VHOST_NET_F_VIRTIO_NET_HDR` is not set,
/// as the tap brings them).
const KNOWN: u64 = transport::VERSION_1
    | transport::INDIRECT_DESC
    | transport::EVENT_IDX
    | feature::MRG_RXBUF;

/// A tap whose queues the host's kernel serves, one instance of vhost-net for each queue pair.
pub struct Vhost {
    taps: Vec<(OwnedFd, bool)>,
    kernels: Vec<Kernel<Arc<Memory>>>,
    /// Guest memory that the kernel knows, for as long as it does.
    ram: Option<Arc<GuestRam>>,
}

impl Vhost {
    /// For these queues of a tap.
    ///
    /// # Errors
    /// If there is no vhost-net, or this user may not use it.
    pub fn new(taps: Vec<Tap>) -> Result<Self, Error> {
        // Whether it works is to be known before the guest runs; instances are made when memory is known.
        File::options()
            .read(true)
            .write(true)
            .open("/dev/vhost-net")
            .map_err(|source| Error::Vhost { source })?;
        let taps = taps.into_iter().map(|tap| (tap.is_multi_queue(), tap)).map(|(multi, tap)| (tap.into_fd(), multi));
        Ok(Self { taps: taps.collect(), kernels: Vec::new(), ram: None })
    }

    fn start_pair(
        &self,
        kernel: &Kernel<Arc<Memory>>,
        session: &Session,
        first: u16,
        tap: &OwnedFd,
        calls: &[Event],
    ) -> io::Result<()> {
        kernel.set_owner().map_err(failed)?;
        let offered = kernel.get_features().map_err(failed)?;
        kernel.set_features(session.features & KNOWN & offered).map_err(failed)?;
        kernel.set_mem_table(&regions(&session.ram)).map_err(failed)?;
        for (number, queue) in [first, first.saturating_add(1)].into_iter().enumerate() {
            let Some(Some(config)) = session.queues.get(usize::from(queue)) else { continue };
            kernel.set_vring_num(number, config.size).map_err(failed)?;
            kernel.set_vring_base(number, 0).map_err(failed)?;
            kernel.set_vring_addr(number, &rings(config)).map_err(failed)?;
            let at = usize::from(queue);
            let kick = session.kicks.get(at).ok_or(io::ErrorKind::NotFound)?;
            let call = session.notifier.queue_event(queue).or_else(|| calls.get(at)).ok_or(io::ErrorKind::NotFound)?;
            kernel.set_vring_kick(number, &eventfd(kick)?).map_err(failed)?;
            kernel.set_vring_call(number, &eventfd(call)?).map_err(failed)?;
        }
        for number in 0..2 {
            let tap = File::from(tap.try_clone()?);
            kernel.set_backend(number, Some(&tap)).map_err(failed)?;
        }
        Ok(())
    }
}

impl Engine for Vhost {
    fn start(&mut self, session: &Session, calls: &[Event]) -> io::Result<()> {
        self.stop();
        self.ram = Some(session.ram.clone());
        let memory = Arc::new(session.ram.inner().clone());
        for (index, (tap, multi_queue)) in (0_u16..).zip(&self.taps) {
            let first = index.saturating_mul(2);
            if !session.queues.get(usize::from(first)).is_some_and(Option::is_some) {
                break;
            }
            if index == 0 {
                Tap::set_offloads(tap, session.features)?;
            }
            let kernel = Kernel::new(memory.clone()).map_err(failed)?;
            self.start_pair(&kernel, session, first, tap, calls)?;
            self.kernels.push(kernel);
            if *multi_queue && self.taps.len() > 1 && index > 0 {
                // The driver asks for the others. Being off already is as good.
                let _ = Tap::set_queue(tap, false);
            }
        }
        Ok(())
    }

    fn stop(&mut self) {
        for kernel in self.kernels.drain(..) {
            for number in 0..2 {
                // The kernel waits until nobody works on the queue any more.
                if let Err(error) = kernel.set_backend(number, None) {
                    log::warn!("taking a queue back from vhost-net: {error}");
                }
            }
        }
        self.ram = None;
    }

    fn set_pairs(&mut self, pairs: u16) -> io::Result<()> {
        for (index, (tap, multi_queue)) in (0_u16..).zip(&self.taps).skip(1) {
            if *multi_queue {
                // One that is on or off already refuses to be again.
                let _ = Tap::set_queue(tap, index < pairs);
            }
        }
        Ok(())
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Vhost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vhost").field("taps", &self.taps).finish_non_exhaustive()
    }
}

fn failed(error: vhost::Error) -> io::Error {
    match error {
        vhost::Error::IoctlError(error) | vhost::Error::VhostOpen(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn regions(ram: &GuestRam) -> Vec<VhostUserMemoryRegionInfo> {
    let region = |mapping: nerite_memory::Mapping| VhostUserMemoryRegionInfo {
        guest_phys_addr: mapping.guest,
        memory_size: mapping.size,
        userspace_addr: mapping.host.addr() as u64,
        mmap_offset: 0,
        mmap_handle: -1,
    };
    ram.mappings().map(region).collect()
}

fn rings(config: &QueueConfig) -> VringConfigData {
    VringConfigData {
        queue_max_size: config.size,
        queue_size: config.size,
        flags: 0,
        desc_table_addr: config.descriptors,
        used_ring_addr: config.used,
        avail_ring_addr: config.available,
        log_addr: None,
    }
}

/// The same event as the type that the crate vhost takes.
fn eventfd(event: &Event) -> io::Result<EventFd> {
    let fd = event.as_fd().try_clone_to_owned()?;
    // SAFETY: the descriptor is an open eventfd that was just made and that nothing else owns.
    Ok(unsafe { EventFd::from_raw_fd(fd.into_raw_fd()) })
}
