//! The host's kernel works on the queues: vhost-net.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nerite_memory::{GuestRam, Memory};
use nerite_virtio::{Event, QueueConfig, Session, feature as transport};
use nerite_virtio_net::{Engine, feature};
use vhost::net::VhostNet;
use vhost::vhost_kern::net::Net as Kernel;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, Tap, thread};

/// A backend of vhost-net: it expects virtio headers of the size that modern drivers use (`VHOST_NET_F_VIRTIO_NET_HDR` is not set,
/// as the tap brings them).
const KNOWN: u64 =
    transport::VERSION_1 | transport::INDIRECT_DESC | transport::EVENT_IDX | feature::MRG_RXBUF;

/// Guest memory that becomes known when the driver is ready, and is kept for as long as the kernel knows it.
#[derive(Debug, Clone, Default)]
struct LateMemory(Arc<Mutex<Arc<Memory>>>);

impl LateMemory {
    fn set(&self, memory: Arc<Memory>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }
}

impl GuestAddressSpace for LateMemory {
    type M = Memory;
    type T = Arc<Memory>;

    fn memory(&self) -> Arc<Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A tap whose queues the host's kernel serves, one instance of vhost-net for each queue pair.
pub struct Vhost {
    pairs: Vec<Pair>,
    memory: LateMemory,
    link_up: bool,
}

struct Pair {
    tap: OwnedFd,
    multi_queue: bool,
    kernel: Kernel<LateMemory>,
    is_running: bool,
}

impl Vhost {
    /// For these queues of a tap.
    ///
    /// # Errors
    /// If there is no vhost-net, or this user may not use it.
    pub fn new(taps: Vec<Tap>) -> Result<Self, Error> {
        let memory = LateMemory::default();
        let mut pairs = Vec::new();
        for tap in taps {
            let unusable = |error| Error::Vhost { source: failed(error) };
            let kernel = Kernel::new(memory.clone()).map_err(unusable)?;
            thread::do_not_preempt_in(|| kernel.set_owner()).map_err(unusable)?;
            let multi_queue = tap.is_multi_queue();
            pairs.push(Pair { tap: tap.into_fd(), multi_queue, kernel, is_running: false });
        }
        Ok(Self { pairs, memory, link_up: true })
    }
}

impl Pair {
    fn start(&mut self, session: &Session, first: u16, calls: &[Event], broken: &Event) -> io::Result<()> {
        let kernel = &self.kernel;
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
            let call = session
                .notifier
                .queue_event(queue)
                .or_else(|| calls.get(at))
                .ok_or(io::ErrorKind::NotFound)?;
            kernel.set_vring_kick(number, &eventfd(kick)?).map_err(failed)?;
            kernel.set_vring_call(number, &eventfd(call)?).map_err(failed)?;
            kernel.set_vring_err(number, &eventfd(broken)?).map_err(failed)?;
        }
        self.is_running = true;
        Ok(())
    }

    /// Has the kernel work on the queues, which go on where they were.
    fn attach(&self) -> io::Result<()> {
        // As without vhost: the driver gets no frames from before it was there.
        Tap::drain(&self.tap);
        for number in 0..2 {
            let tap = File::from(self.tap.try_clone()?);
            self.kernel.set_backend(number, Some(&tap)).map_err(failed)?;
        }
        Ok(())
    }

    fn stop(&mut self) {
        if std::mem::take(&mut self.is_running) {
            self.detach();
        }
    }

    fn detach(&self) {
        for number in 0..2 {
            // The kernel waits until nobody works on the queue any more.
            if let Err(error) = self.kernel.set_backend(number, None) {
                log::warn!("taking a queue back from vhost-net: {error}");
            }
        }
    }
}

impl Engine for Vhost {
    fn start(&mut self, session: &Session, calls: &[Event], broken: &Event) -> io::Result<()> {
        self.stop();
        self.memory.set(Arc::new(session.ram.inner().clone()));
        for (index, pair) in (0_u16..).zip(&mut self.pairs) {
            let first = index.saturating_mul(2);
            if !session.queues.get(usize::from(first)).is_some_and(Option::is_some) {
                break;
            }
            if index == 0 {
                Tap::set_offloads(&pair.tap, session.features)?;
            }
            pair.start(session, first, calls, broken)?;
            if self.link_up {
                pair.attach()?;
            }
        }
        self.set_pairs(1)
    }

    fn stop(&mut self) {
        self.pairs.iter_mut().for_each(Pair::stop);
        self.memory.set(Arc::default());
    }

    fn set_link(&mut self, up: bool) -> io::Result<()> {
        if std::mem::replace(&mut self.link_up, up) == up {
            return Ok(());
        }
        for pair in self.pairs.iter().filter(|pair| pair.is_running) {
            if up { pair.attach()? } else { pair.detach() }
        }
        Ok(())
    }

    fn set_pairs(&mut self, pairs: u16) -> io::Result<()> {
        for (index, pair) in (0_u16..).zip(&self.pairs).skip(1) {
            if pair.multi_queue {
                // One that is on or off already refuses to be again.
                let _ = Tap::set_queue(&pair.tap, index < pairs);
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
        f.debug_struct("Vhost").field("pairs", &self.pairs.len()).finish_non_exhaustive()
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
