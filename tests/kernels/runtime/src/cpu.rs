//! Instructions: ports, MSRs, CPUID, the time stamp counter, halting.
//!
//! Port and MSR access is not `unsafe` here, though it can stop the machine: that is what test
//! guests are for, and none of it touches memory that Rust knows of (hypercalls go through
//! `hypercall::guest`).

pub use core::arch::x86_64::CpuidResult;
use core::arch::{asm, global_asm};

macro_rules! port_access {
    ($read:ident, $write:ident, $type:ty, $register:tt, $width:literal) => {
        #[doc = concat!("Reads ", $width, " from a port.")]
        #[must_use]
        pub fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: see the module's documentation.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes ", $width, " to a port that is no hypercall.")]
        pub fn $write(port: u16, value: $type) {
            // SAFETY: see the module's documentation.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    };
}

port_access!(in8, out8, u8, "al", "a byte");
port_access!(in16, out16, u16, "ax", "two bytes");
port_access!(in32, out32, u32, "eax", "four bytes");

/// CPUID.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// Reads an MSR. One that does not exist raises an exception, which ends the guest.
#[must_use]
pub fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: see the module's documentation.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
pub fn wrmsr(msr: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: see the module's documentation. It may be an APIC command, hence no `nomem`.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high, options(nostack, preserves_flags));
    }
}

/// The time stamp counter.
#[must_use]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// CR2: the address of the last page fault.
#[must_use]
pub fn cr2() -> u64 {
    let value;
    // SAFETY: a read without effects.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// CR3: the address of the page tables.
#[must_use]
pub fn cr3() -> u64 {
    let value;
    // SAFETY: a read without effects.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// CR4.
#[must_use]
pub fn cr4() -> u64 {
    let value;
    // SAFETY: a read without effects.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Turns bits of CR4 on.
pub fn set_cr4(bits: u64) {
    // SAFETY: guests turn on only features that the processor reports, none of which takes memory
    // away.
    unsafe { asm!("mov cr4, {}", in(reg) cr4() | bits, options(nostack, preserves_flags)) }
}

/// Allows interrupts.
pub fn enable_interrupts() {
    // SAFETY: handlers for all vectors are installed at entry.
    unsafe { asm!("sti", options(nostack)) }
}

/// Forbids interrupts.
pub fn disable_interrupts() {
    // SAFETY: no memory is touched.
    unsafe { asm!("cli", options(nostack)) }
}

global_asm!(
    ".globl runtime_wait_for_interrupt",
    ".globl runtime_halt",
    "runtime_wait_for_interrupt: sti",
    "runtime_halt: hlt",
    "ret",
);

unsafe extern "C" {
    fn runtime_wait_for_interrupt();
    static runtime_halt: u8;
}

/// Allows interrupts and halts until one came. There is no gap in between: STI takes effect after
/// HLT has started. Interrupts stay allowed.
pub fn wait_for_interrupt() {
    // SAFETY: handlers for all vectors are installed at entry, and the ABI is that of a function.
    unsafe { runtime_wait_for_interrupt() }
}

/// Address of the HLT of [`wait_for_interrupt`].
pub(crate) fn halt_address() -> u64 {
    (&raw const runtime_halt).addr() as u64
}

/// Halts for good: interrupts are off.
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: no memory is touched.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}
