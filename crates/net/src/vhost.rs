//! The host's kernel works on the queues: vhost-net.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nerite_memory::{GuestRam, Memory};
use nerite_virtio::{Activation, Event, QueueConfig, feature as transport};
use nerite_virtio_net::{Engine, feature};
use vhost::net::VhostNet;
use vhost::vhost_kern::net::Net as Kernel;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::eventfd::EventFd;

use crate::{Error, Tap, thread};

/// A backend of vhost-net: it expects virtio headers of the size that modern drivers use
/// (`VHOST_NET_F_VIRTIO_NET_HDR` is not set, as the tap brings them).
const KNOWN: u64 =
    transport::VERSION_1 | transport::INDIRECT_DESC | transport::EVENT_IDX | feature::MRG_RXBUF;

/// Guest memory that becomes known when the driver is ready, and is kept for as long as the kernel
/// knows it.
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
    /// The card may not access memory.
    is_paused: bool,
}

struct Pair {
    tap: OwnedFd,
    multi_queue: bool,
    kernel: Kernel<LateMemory>,
    /// The queues that the driver has enabled, while it is ready: receive and transmit.
    enabled: [bool; 2],
    is_attached: bool,
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
            thread::start_worker_in_batch(|| kernel.set_owner()).map_err(unusable)?;
            let multi_queue = tap.is_multi_queue();
            let tap = tap.into_fd();
            pairs.push(Pair { tap, multi_queue, kernel, enabled: [false; 2], is_attached: false });
        }
        Ok(Self { pairs, memory, link_up: true, is_paused: false })
    }
}

impl Pair {
    fn is_running(&self) -> bool {
        self.enabled.contains(&true)
    }

    /// The numbers of the queues in use.
    fn queues(&self) -> impl Iterator<Item = usize> {
        self.enabled
            .into_iter()
            .enumerate()
            .filter_map(|(number, is_enabled)| is_enabled.then_some(number))
    }

    fn start(
        &mut self,
        activation: &Activation,
        first: u16,
        calls: &[Event],
        broken: &Event,
    ) -> io::Result<()> {
        let kernel = &self.kernel;
        let offered = kernel.get_features().map_err(failed)?;
        kernel.set_features(activation.features & KNOWN & offered).map_err(failed)?;
        kernel.set_mem_table(&regions(&activation.ram)).map_err(failed)?;
        let mut enabled = [false; 2];
        let queues = [first, first.saturating_add(1)].into_iter().zip(&mut enabled).enumerate();
        for (number, (queue, is_enabled)) in queues {
            let Some(Some(config)) = activation.queues.get(usize::from(queue)) else { continue };
            kernel.set_vring_num(number, config.size).map_err(failed)?;
            kernel.set_vring_base(number, config.progress.next_available).map_err(failed)?;
            kernel.set_vring_addr(number, &rings(config)).map_err(failed)?;
            let at = usize::from(queue);
            let kick = activation.kicks.get(at).ok_or(io::ErrorKind::NotFound)?;
            let call = activation
                .notifier
                .queue_event(queue)
                .or_else(|| calls.get(at))
                .ok_or(io::ErrorKind::NotFound)?;
            kernel.set_vring_kick(number, &eventfd(kick)?).map_err(failed)?;
            kernel.set_vring_call(number, &eventfd(call)?).map_err(failed)?;
            kernel.set_vring_err(number, &eventfd(broken)?).map_err(failed)?;
            *is_enabled = true;
        }
        self.enabled = enabled;
        Ok(())
    }

    /// Starts or stops the kernel's work on the queues, which resume where they were.
    fn set_attached(&mut self, is_attached: bool) -> io::Result<()> {
        if !self.is_running()
            || std::mem::replace(&mut self.is_attached, is_attached) == is_attached
        {
            return Ok(());
        }
        for number in self.queues() {
            // To take a queue back, the kernel waits until nothing works on it any more.
            let tap = if is_attached { Some(File::from(self.tap.try_clone()?)) } else { None };
            self.kernel.set_backend(number, tap.as_ref()).map_err(failed)?;
        }
        Ok(())
    }

    fn stop(&mut self) {
        if let Err(error) = self.set_attached(false) {
            log::debug!("taking a queue back from vhost-net: {error}");
        }
        self.enabled = [false; 2];
        self.is_attached = false;
    }
}

impl Engine for Vhost {
    fn start(
        &mut self,
        activation: &Activation,
        calls: &[Event],
        broken: &Event,
    ) -> io::Result<()> {
        self.stop();
        self.memory.set(Arc::new(activation.ram.inner().clone()));
        for (index, pair) in (0_u16..).zip(&mut self.pairs) {
            let first = index.saturating_mul(2);
            let is_enabled =
                |queue: u16| activation.queues.get(usize::from(queue)).is_some_and(Option::is_some);
            if !is_enabled(first) && !is_enabled(first.saturating_add(1)) {
                continue;
            }
            if index == 0 {
                Tap::set_offloads(&pair.tap, activation.features)?;
            }
            pair.start(activation, first, calls, broken)?;
            // As without vhost: the driver gets no frames from before it was there.
            Tap::drain(&pair.tap);
            pair.set_attached(self.link_up && !self.is_paused)?;
        }
        self.set_pairs(1)
    }

    fn stop(&mut self) {
        self.pairs.iter_mut().for_each(Pair::stop);
        self.memory.set(Arc::default());
    }

    fn next_available(&mut self, queue: u16) -> io::Result<u16> {
        let (pair, number) = (usize::from(queue / 2), usize::from(queue % 2));
        let pair =
            self.pairs.get(pair).filter(|pair| pair.queues().any(|enabled| enabled == number));
        let base =
            pair.ok_or(io::ErrorKind::NotFound)?.kernel.get_vring_base(number).map_err(failed)?;
        u16::try_from(base).map_err(io::Error::other)
    }

    fn set_paused(&mut self, paused: bool) -> io::Result<()> {
        self.is_paused = paused;
        self.place_queues()
    }

    fn set_link(&mut self, up: bool) -> io::Result<()> {
        if std::mem::replace(&mut self.link_up, up) != up && up {
            self.pairs
                .iter()
                .filter(|pair| pair.is_running())
                .for_each(|pair| Tap::drain(&pair.tap));
        }
        self.place_queues()
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

impl Vhost {
    /// Has the kernel work on the queues that are in use while it may.
    fn place_queues(&mut self) -> io::Result<()> {
        let is_attached = self.link_up && !self.is_paused;
        self.pairs.iter_mut().try_for_each(|pair| pair.set_attached(is_attached))
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
