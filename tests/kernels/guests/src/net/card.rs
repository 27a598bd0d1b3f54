//! The network card, through the crate virtio-drivers, as smoltcp's device.

use alloc::alloc::{Layout, alloc_zeroed};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use runtime::mmio;
use runtime::paging::map_identity;
use runtime::prelude::*;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, PciRoot,
};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::interrupt;

extern crate alloc;

/// Entries of a queue, and buffers of each direction.
const QUEUE: usize = 64;
/// Bytes before each frame.
const HEADER: usize = 12;
/// Ethernet header and a tag.
const ETHERNET: usize = 18;

/// The guest's memory is mapped at its physical addresses, and so is the card.
struct Identity;

/// Pages that an earlier driver's queues had, so that a reset takes no memory; 0 is none.
static SPARE: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

/// A spare page, zeroed.
fn spare_page() -> Option<NonNull<u8>> {
    let page = SPARE.iter().map(|page| page.swap(0, Ordering::AcqRel)).find(|page| *page != 0)?;
    let page = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(page))?;
    // SAFETY: the page was given back, and nothing else has it.
    unsafe { page.write_bytes(0, PAGE_SIZE) };
    Some(page)
}

// SAFETY: memory comes from the heap, is page-aligned and zeroed, and has one owner at a time;
// virtual addresses are physical ones.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        if pages == 1
            && let Some(page) = spare_page()
        {
            return (page.as_ptr().addr() as u64, page);
        }
        let layout =
            Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).expect("a number of pages");
        // SAFETY: the layout is not empty: the number of pages is not zero.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory for a queue");
        (memory.as_ptr().addr() as u64, memory)
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, pages: usize) -> i32 {
        let address = memory.as_ptr().expose_provenance();
        let keep = |slot: &AtomicUsize| {
            slot.compare_exchange(0, address, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        // The heap takes nothing back.
        let _ = pages == 1 && SPARE.iter().any(keep);
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, size: usize) -> NonNull<u8> {
        map_identity(physical, physical + size as u64);
        NonNull::new(core::ptr::with_exposed_provenance_mut(physical as usize))
            .expect("a device is not at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>().addr() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The configuration ports.
struct Ports;

fn select(function: DeviceFunction, register: u8) {
    let DeviceFunction { bus, device, function } = function;
    let address = u32::from(bus) << 16
        | u32::from(device) << 11
        | u32::from(function) << 8
        | u32::from(register);
    cpu::out32(0xcf8, 1 << 31 | address);
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        select(function, register);
        cpu::in32(0xcfc)
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        select(function, register);
        cpu::out32(0xcfc, data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

type Net = VirtIONetRaw<Identity, PciTransport, QUEUE>;
type Buffer = &'static mut [u8];

/// The card and its buffers.
pub(crate) struct Card {
    function: DeviceFunction,
    /// The driver; there is none only in the middle of a reset.
    net: Option<Net>,
    mtu: usize,
    /// Receive buffers, by the token of the request they are part of.
    receiving: [Option<Buffer>; QUEUE],
    /// Frames on their way out.
    sending: [Option<(Buffer, usize)>; QUEUE],
    /// Buffers for frames to send.
    free: Vec<Buffer>,
    line: u8,
}

fn buffer(size: usize) -> Buffer {
    runtime::leak(vec![0; size]).as_mut_slice()
}

impl Card {
    /// The first network card on bus 0, set up.
    pub(crate) fn find(mtu: usize) -> Option<Self> {
        let root = PciRoot::new(Ports);
        let (function, _) = root
            .enumerate_bus(0)
            .find(|(_, info)| virtio_device_type(info) == Some(DeviceType::Network))?;
        let line = (Ports.read_word(function, 0x3c) & 0xff) as u8;
        let size = mtu + ETHERNET + HEADER;
        let mut card = Self {
            function,
            net: Some(start(function)),
            mtu,
            receiving: [const { None }; QUEUE],
            sending: [const { None }; QUEUE],
            free: (0..QUEUE).map(|_| buffer(size)).collect(),
            line,
        };
        for _ in 0..QUEUE {
            card.offer(buffer(size));
        }
        Some(card)
    }

    fn net(&mut self) -> &mut Net {
        self.net.as_mut().expect("a driver")
    }

    pub(crate) fn mac(&mut self) -> [u8; 6] {
        self.net().mac_address()
    }

    pub(crate) fn line(&self) -> u8 {
        self.line
    }

    /// Resets the card, whatever it is doing, and sets it up anew with the same buffers.
    pub(crate) fn reset(&mut self) {
        // The old driver's end resets the card.
        self.net = None;
        self.net = Some(start(self.function));
        let receiving = core::mem::replace(&mut self.receiving, [const { None }; QUEUE]);
        let sending = core::mem::replace(&mut self.sending, [const { None }; QUEUE]);
        self.free.extend(sending.into_iter().flatten().map(|(buffer, _)| buffer));
        receiving.into_iter().flatten().for_each(|buffer| self.offer(buffer));
    }

    /// Returns `true` if there is a frame, or a buffer that has been sent.
    pub(crate) fn has_work(&self) -> bool {
        self.net.as_ref().is_some_and(|net| net.poll_receive().is_some())
    }

    /// Returns `true` if the link is up (5.1.4).
    pub(crate) fn link_is_up(&self) -> bool {
        let config = find_structure(&mut PciRoot::new(Ports), self.function, 4);
        config.is_some_and(|config| mmio::read16(config + 6) & 1 != 0)
    }

    fn offer(&mut self, buffer: Buffer) {
        // SAFETY: the buffer is kept in `receiving`, untouched, until the request is complete.
        let token = unsafe { self.net().receive_begin(buffer) }.expect("room for a receive buffer");
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// Takes back what has been sent.
    fn reclaim(&mut self) {
        while let Some(token) = self.net().poll_transmit() {
            let (buffer, length) =
                self.sending[usize::from(token)].take().expect("a frame that was sent");
            // SAFETY: the same bytes as when the request began.
            unsafe { self.net().transmit_complete(token, &buffer[..length]) }
                .expect("a request that is complete");
            self.free.push(buffer);
        }
    }

    fn receive(&mut self) -> Option<(Buffer, core::ops::Range<usize>)> {
        let token = self.net().poll_receive()?;
        let buffer = self.receiving[usize::from(token)].take().expect("a buffer that was offered");
        // SAFETY: the same buffer as when the request began.
        let (header, length) =
            unsafe { self.net().receive_complete(token, buffer) }.expect("a frame");
        Some((buffer, header..header + length))
    }
}

fn start(function: DeviceFunction) -> Net {
    let mut root = PciRoot::new(Ports);
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
    // The interrupt handler reads ISR status.
    find_structure(&mut root, function, 3).into_iter().for_each(interrupt::set_isr);
    let transport = PciTransport::new::<Identity, _>(&mut root, function).expect("a virtio device");
    VirtIONetRaw::new(transport).expect("a network card")
}

/// Finds a structure of the card by the type of its capability (virtio 1.2, 4.1.4).
fn find_structure(root: &mut PciRoot<Ports>, function: DeviceFunction, kind: u16) -> Option<u64> {
    let at = root
        .capabilities(function)
        .find(|capability| capability.id == 9 && capability.private_header >> 8 == kind)?
        .offset;
    let bar = Ports.read_word(function, at + 4) as u8;
    let offset = u64::from(Ports.read_word(function, at + 8));
    match root.bar_info(function, bar) {
        Ok(Some(BarInfo::Memory { address, .. })) => {
            map_identity(address + offset, address + offset + 8);
            Some(address + offset)
        }
        _ => None,
    }
}

impl Device for Card {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        self.reclaim();
        if self.free.is_empty() {
            return None;
        }
        let (buffer, frame) = self.receive()?;
        // Smoltcp may answer a frame while it looks at it, so each token has what it needs.
        let card = core::ptr::from_mut(self);
        // SAFETY: the first token uses `receiving` and the receive queue, the second one the rest,
        // and smoltcp uses them one after the other on this processor.
        let (one, two) = unsafe { (&mut *card, &mut *card) };
        Some((Received { card: one, buffer, frame }, Sending(two)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.reclaim();
        (!self.free.is_empty()).then_some(Sending(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// A frame that came.
pub(crate) struct Received<'a> {
    card: &'a mut Card,
    buffer: Buffer,
    frame: core::ops::Range<usize>,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        let result = look(&self.buffer[self.frame]);
        self.card.offer(self.buffer);
        result
    }
}

/// Room for a frame to send.
pub(crate) struct Sending<'a>(&'a mut Card);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let card = self.0;
        let buffer = card.free.pop().expect("a free buffer, or there would be no token");
        let header = card.net().fill_buffer_header(buffer).expect("room for a header");
        let result = write(&mut buffer[header..header + length]);
        let length = header + length;
        // SAFETY: the buffer is kept in `sending`, untouched, until the request is complete.
        let token =
            unsafe { card.net().transmit_begin(&buffer[..length]) }.expect("room for a frame");
        card.sending[usize::from(token)] = Some((buffer, length));
        result
    }
}
