//! The local APIC in x2APIC mode (Intel SDM volume 3, chapter 11).

use crate::cpu::{cpuid, rdmsr, wrmsr};

const APIC_BASE: u32 = 0x1b;
const ID: u32 = 0x802;
const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const INITIAL_COUNT: u32 = 0x838;
const TSC_DEADLINE: u32 = 0x6e0;

/// The vector of spurious interrupts. Their handler must not signal an end.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// Turns on x2APIC mode and the local APIC on this processor.
pub fn enable() {
    wrmsr(APIC_BASE, rdmsr(APIC_BASE) | 1 << 11 | 1 << 10);
    wrmsr(SPURIOUS, 1 << 8 | u64::from(SPURIOUS_VECTOR));
}

/// The id of this processor's APIC, in x2APIC mode.
#[must_use]
pub fn id() -> u32 {
    rdmsr(ID) as u32
}

/// Signals the end of the interrupt being handled.
pub fn end_of_interrupt() {
    wrmsr(EOI, 0);
}

/// Returns `true` if the timer has the TSC-deadline mode (CPUID leaf 1).
#[must_use]
pub fn has_tsc_deadline() -> bool {
    cpuid(1, 0).ecx & 1 << 24 != 0
}

/// Selects TSC-deadline mode with the given vector.
pub fn set_timer_vector(vector: u8) {
    wrmsr(LVT_TIMER, 2 << 17 | u64::from(vector));
    // The SDM asks for a fence between this write and arming; in x2APIC mode neither is
    // serialising.
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Arms the timer to fire once when the time stamp counter reaches `tsc`; 0 disarms.
pub fn set_deadline(tsc: u64) {
    wrmsr(TSC_DEADLINE, tsc);
}

/// Selects one-shot mode with the given vector and arms the timer to fire once after `count`.
pub fn set_count(vector: u8, count: u32) {
    wrmsr(LVT_TIMER, vector.into());
    wrmsr(INITIAL_COUNT, count.into());
}

/// Sends an interrupt to the processor with the given APIC id.
pub fn send(id: u32, vector: u8) {
    wrmsr(ICR, u64::from(id) << 32 | 1 << 14 | u64::from(vector));
}

/// Sends an interrupt to all processors but this one.
pub fn send_to_others(vector: u8) {
    wrmsr(ICR, 3 << 18 | 1 << 14 | u64::from(vector));
}

/// Sends an interrupt to this processor.
pub fn send_to_self(vector: u8) {
    wrmsr(0x83f, vector.into());
}
