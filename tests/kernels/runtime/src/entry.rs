//! From the VMM's entry state to Rust: per-processor stacks and SSE, in assembly.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicPtr, Ordering};

use hermit_entry::boot_info::RawBootInfo;

use crate::{Kernel, boot, console, interrupts, smp};

/// The most processors a guest can have; there are that many stacks.
pub const MAX_CPUS: usize = 64;

/// Bytes of stack for each processor, 2^16: a network stack takes more than half of it. `entry`
/// shifts by it.
const STACK_SIZE: usize = 1 << 16;

#[repr(C, align(4096))]
struct Stacks(core::cell::UnsafeCell<[u8; MAX_CPUS * STACK_SIZE]>);

// SAFETY: each processor uses only its own part, and only as its stack.
unsafe impl Sync for Stacks {}

static STACKS: Stacks = Stacks(core::cell::UnsafeCell::new([0; MAX_CPUS * STACK_SIZE]));

static KERNEL: AtomicPtr<Kernel> = AtomicPtr::new(core::ptr::null_mut());

/// Registers of a processor on entry.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EntryState {
    /// RDI: the address of the boot info.
    pub boot_info: u64,
    /// RSI: the processor's index.
    pub cpu: u64,
    /// RSP: the lowest address of the boot stack.
    pub rsp: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// CR4.
    pub cr4: u64,
}

/// Continuation of `_start`, with RDX pointing to the [`Kernel`].
///
/// All processors come here at once and with the same RSP, so the first thing is a stack of one's
/// own, found without changing the flags, which are to be looked at. SSE must be on before any Rust
/// code runs.
///
/// # Safety
/// Only `_start` may come here.
#[unsafe(naked)]
pub unsafe extern "C" fn entry() -> ! {
    naked_asm!(
        "mov r8, rsp",
        "mov ecx, esi",
        "lea rcx, [rcx + 1]", // a stack starts at its upper end
        "lea rcx, [rcx * 2]", // times 2^16
        "lea rcx, [rcx * 8]",
        "lea rcx, [rcx * 8]",
        "lea rcx, [rcx * 8]",
        "lea rcx, [rcx * 8]",
        "lea rcx, [rcx * 8]",
        "lea rax, [rip + {stacks}]",
        "lea rsp, [rax + rcx]",
        "pushfq",
        "pop r9",
        "mov r10, cr0",
        "mov r11, cr4",
        "mov rax, r10",
        "and rax, ~0xc", // EM and TS off
        "or rax, 2",     // MP on
        "mov cr0, rax",
        "mov rax, r11",
        "or rax, 0x600", // OSFXSR, OSXMMEXCPT
        "mov cr4, rax",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rsi",
        "push rdi",
        "mov rdi, rsp",
        "mov rsi, rdx",
        "xor ebp, ebp",
        "call {start}",
        "ud2",
        stacks = sym STACKS,
        start = sym start,
    )
}

extern "C" fn start(state: &EntryState, kernel: &'static Kernel) -> ! {
    let cpu = usize::try_from(state.cpu).unwrap_or(usize::MAX);
    if cpu == 0 {
        let raw = core::ptr::with_exposed_provenance::<RawBootInfo>(state.boot_info as usize);
        // SAFETY: RDI points to the boot info on entry, mapped, and nothing writes to it.
        boot::init(unsafe { *raw });
    }
    // Before the tables of our own replace what the VMM set up.
    smp::remember_entry(cpu, state);
    interrupts::init(cpu);
    if cpu != 0 {
        smp::wait_for_work(cpu);
    }
    // The other processors look at the kernel only when they got work, after this.
    KERNEL.store(core::ptr::from_ref(kernel).cast_mut(), Ordering::Release);
    console::init(kernel.interface);
    (kernel.main)();
    crate::check::finish()
}

/// The guest that runs.
///
/// # Panics
/// Never after processor 0 started: there is no console before.
#[must_use]
pub fn kernel() -> &'static Kernel {
    // SAFETY: set once by processor 0 from a `&'static Kernel`.
    unsafe { KERNEL.load(Ordering::Acquire).as_ref() }.expect("the kernel is set at entry")
}
