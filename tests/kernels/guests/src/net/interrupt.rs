//! The card's interrupt: a line of the I/O APIC, level-triggered, and the local timer so that every
//! wait ends.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::interrupts::set_handler;
use runtime::paging::map_identity;
use runtime::prelude::*;
use runtime::{apic, mmio};

const VECTOR: u8 = 0x50;
const TIMER: u8 = 0x51;
const IO_APIC: u64 = 0xfec0_0000;
/// Level-triggered, active low, as PCI's lines are.
const LEVEL_LOW: u32 = 1 << 15 | 1 << 13;
/// The longest sleep in microseconds.
const NAP: u64 = 10_000;

static COUNT: AtomicU64 = AtomicU64::new(0);
/// Address of the card's ISR status; reading it lowers the line.
static ISR: AtomicU64 = AtomicU64::new(0);

/// `true` if the card's configuration has changed since the last question.
static CHANGED: AtomicBool = AtomicBool::new(false);

/// Returns `true` if the card's configuration has changed since the last call.
pub(crate) fn config_changed() -> bool {
    CHANGED.swap(false, Ordering::AcqRel)
}

/// Interrupts of the card so far.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// Says where the card's ISR status is.
pub(crate) fn set_isr(address: u64) {
    ISR.store(address, Ordering::Release);
}

/// Takes the interrupt back. Reading ISR status clears it for all, so all that it says is
/// kept here (virtio 1.2, 4.1.4.5).
pub(crate) fn acknowledge() {
    let isr = ISR.load(Ordering::Acquire);
    if isr != 0 && mmio::read8(isr) & 2 != 0 {
        CHANGED.store(true, Ordering::Release);
    }
}

/// Has the card's interrupts, and the timer's, delivered to this processor.
pub(crate) fn connect(line: u8) {
    // The line also goes to the 8259 pair, which starts out open and would deliver it as an
    // exception.
    cpu::out8(0x21, 0xff);
    cpu::out8(0xa1, 0xff);
    apic::enable();
    set_handler(VECTOR, |_| {
        acknowledge();
        COUNT.fetch_add(1, Ordering::Relaxed);
    });
    set_handler(TIMER, |_| {});
    apic::set_timer_vector(TIMER);
    map_identity(IO_APIC, IO_APIC + 0x1000);
    let register = 0x10 + 2 * u32::from(line);
    for (register, value) in
        [(register + 1, apic::id() << 24), (register, LEVEL_LOW | u32::from(VECTOR))]
    {
        mmio::write32(IO_APIC, register);
        mmio::write32(IO_APIC + 0x10, value);
    }
}

/// Sleeps until an interrupt, `micros` at most, unless there is work already.
pub(crate) fn wait(micros: Option<u64>, has_work: impl Fn() -> bool) {
    cpu::disable_interrupts();
    if has_work() {
        return;
    }
    let micros = micros.unwrap_or(NAP).min(NAP);
    apic::set_deadline(cpu::tsc() + micros * (boot::tsc_khz() / 1000));
    cpu::wait_for_interrupt();
    cpu::disable_interrupts();
}
