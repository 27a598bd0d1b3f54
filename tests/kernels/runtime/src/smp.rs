//! The other processors. They all start at the entry and wait here for work.

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::entry::{EntryState, MAX_CPUS};
use crate::{boot, cpu};

/// State of a processor at entry, beyond the registers that [`EntryState`] holds.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The registers.
    pub state: EntryState,
    /// CR3.
    pub cr3: u64,
    /// MSR EFER.
    pub efer: u64,
    /// MSR IA32_APIC_BASE.
    pub apic_base: u64,
    /// MSR IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// Selectors CS, DS, ES, SS.
    pub selectors: [u16; 4],
    /// Address and limit of the GDT.
    pub gdt: (u64, u16),
}

static FOUND: [AtomicPtr<Found>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static WORK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static STARTED: AtomicU32 = AtomicU32::new(1);
static DONE: AtomicU32 = AtomicU32::new(0);

#[repr(C, packed)]
#[derive(Default)]
struct TableRegister {
    limit: u16,
    base: u64,
}

fn gdt() -> TableRegister {
    let mut gdt = TableRegister::default();
    // SAFETY: stores ten bytes into what is ten bytes.
    unsafe {
        core::arch::asm!("sgdt [{}]", in(reg) &raw mut gdt, options(nostack, preserves_flags))
    }
    gdt
}

fn selectors() -> [u16; 4] {
    let (cs, ds, es, ss): (u16, u16, u16, u16);
    // SAFETY: reads without effects.
    unsafe {
        core::arch::asm!(
            "mov {0:x}, cs", "mov {1:x}, ds", "mov {2:x}, es", "mov {3:x}, ss",
            out(reg) cs, out(reg) ds, out(reg) es, out(reg) ss, options(nomem, nostack, preserves_flags)
        );
    }
    [cs, ds, es, ss]
}

/// Notes what this processor found, before anything is changed.
pub(crate) fn remember_entry(index: usize, state: &EntryState) {
    let gdt = gdt();
    let found = Found {
        state: *state,
        cr3: cpu::cr3(),
        efer: cpu::rdmsr(0xc000_0080),
        apic_base: cpu::rdmsr(0x1b),
        misc_enable: cpu::rdmsr(0x1a0),
        selectors: selectors(),
        gdt: (gdt.base, gdt.limit),
    };
    let kept = alloc::boxed::Box::leak(alloc::boxed::Box::new(found));
    FOUND[index].store(kept, Ordering::Release);
}

/// State of a processor at entry; `None` until it started.
#[must_use]
pub fn found(index: usize) -> Option<&'static Found> {
    // SAFETY: null or a leaked box, set once.
    unsafe { FOUND.get(index)?.load(Ordering::Acquire).as_ref() }
}

/// Number of processors that reached the guest's code.
#[must_use]
pub fn started() -> u32 {
    STARTED.load(Ordering::Acquire)
}

/// Number of processors that are done with the work of [`on_others`].
#[must_use]
pub fn done() -> u32 {
    DONE.load(Ordering::Acquire)
}

/// Waits for work, does it, and halts.
pub(crate) fn wait_for_work(index: usize) -> ! {
    STARTED.fetch_add(1, Ordering::AcqRel);
    loop {
        let work = WORK.load(Ordering::Acquire);
        if !work.is_null() {
            // SAFETY: only `on_others` stores here, and it stores such a function.
            let work = unsafe { core::mem::transmute::<*mut (), fn(usize)>(work) };
            work(index);
            DONE.fetch_add(1, Ordering::AcqRel);
            cpu::halt_forever();
        }
        core::hint::spin_loop();
    }
}

/// Lets every other processor call `work` with its index, once, and returns at once.
pub fn on_others(work: fn(usize)) {
    WORK.store(work as *mut (), Ordering::Release);
}

/// Waits until all processors reached the guest's code.
pub fn wait_until_started() {
    while started() < boot::cpus() {
        core::hint::spin_loop();
    }
}

/// Waits until all other processors are done with their work.
pub fn wait_until_done() {
    while done() + 1 < boot::cpus() {
        core::hint::spin_loop();
    }
}
