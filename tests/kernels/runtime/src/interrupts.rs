//! Interrupts and exceptions: descriptor tables of our own, and handlers that are plain functions.
//!
//! Handlers run on a stack of their own (IST 1, an NMI's on IST 2): compiled code keeps data below
//! RSP, in the red zone, which an interrupt on the same stack would overwrite. They run with
//! interrupts off and do not nest. SSE registers are saved around them.

use alloc::boxed::Box;
use alloc::vec;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::entry::MAX_CPUS;
use crate::{apic, cpu, exit, println};

/// The frame that the processor and the stub pushed.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    /// R15 down to RAX, in the order of the stub's pushes.
    pub registers: [u64; 15],
    /// The vector.
    pub vector: u64,
    /// The exception's error code, or 0.
    pub error: u64,
    /// Return address.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
}

/// A handler. For vectors from 32 up, the end of the interrupt is signalled after it returned.
pub type Handler = fn(&mut Frame);

const VECTORS: usize = 256;
const STUB_SIZE: usize = 16;

static HANDLERS: [AtomicPtr<()>; VECTORS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; VECTORS];
static SPURIOUS: AtomicU64 = AtomicU64::new(0);
static BEFORE_HALT: AtomicU64 = AtomicU64::new(0);

// One stub of 16 bytes for each vector: push an error code where the processor does not, and the
// vector.
global_asm!(
    ".balign 16",
    "runtime_interrupt_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    // Vectors 8, 10-14, 17, 21, 29 and 30 come with an error code.
    ".if (vector > 31) || (((0x60227d00 >> vector) & 1) == 0)",
    "push 0",
    ".endif",
    "push vector",
    "jmp runtime_interrupt_common",
    ".set vector, vector + 1",
    ".endr",
    "runtime_interrupt_common:",
    "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp",
    "push r8", "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
    "mov rbx, rsp",
    "sub rsp, 512",
    "and rsp, -16",
    "fxsave64 [rsp]",
    "mov rdi, rbx",
    "cld",
    "call {dispatch}",
    "fxrstor64 [rsp]",
    "mov rsp, rbx",
    "pop r15", "pop r14", "pop r13", "pop r12", "pop r11", "pop r10", "pop r9", "pop r8",
    "pop rbp", "pop rdi", "pop rsi", "pop rdx", "pop rcx", "pop rbx", "pop rax",
    "add rsp, 16",
    "iretq",
    dispatch = sym dispatch,
);

unsafe extern "C" {
    static runtime_interrupt_stubs: [u8; VECTORS * STUB_SIZE];
}

/// The name of an exception, for the report of an unexpected one.
fn name(vector: u64) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug",
        2 => "NMI",
        3 => "breakpoint",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        _ => "interrupt",
    }
}

extern "C" fn dispatch(frame: &mut Frame) {
    let vector = frame.vector as usize % VECTORS;
    if vector == usize::from(apic::SPURIOUS_VECTOR) {
        SPURIOUS.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let handler = HANDLERS[vector].load(Ordering::Acquire);
    if handler.is_null() {
        println!(
            "unexpected {} (vector {vector}, error code {:#x}) at {:#x}, rsp {:#x}, cr2 {:#x}",
            name(frame.vector),
            frame.error,
            frame.rip,
            frame.rsp,
            cpu::cr2()
        );
        exit(-1);
    }
    // An interrupt in the gap that STI closes: an NMI opens it on any processor, and a VM exit on
    // one that is emulated and forgets STI meanwhile. HLT would wait for another interrupt.
    if frame.rip == cpu::halt_address() {
        BEFORE_HALT.fetch_add(1, Ordering::Relaxed);
        frame.rip += 1;
    }
    // SAFETY: only `set_handler` stores here, and it stores such a function.
    let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
    handler(frame);
    if vector >= 32 {
        apic::end_of_interrupt();
    }
}

/// Installs the handler of a vector, for all processors.
pub fn set_handler(vector: u8, handler: Handler) {
    HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Release);
}

/// Number of interrupts so far that came between the STI and the HLT of a wait.
#[must_use]
pub fn before_halt() -> u64 {
    BEFORE_HALT.load(Ordering::Relaxed)
}

/// Number of spurious interrupts so far.
#[must_use]
pub fn spurious() -> u64 {
    SPURIOUS.load(Ordering::Relaxed)
}

#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// 64-bit TSS: only the stacks matter (SDM volume 3, 9.7).
#[repr(C, packed)]
struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: [u16; 5],
    io_map: u16,
}

const INTERRUPT_STACK: usize = 16 << 10;
/// An NMI comes in the middle of another handler, whose frame its own must not overwrite.
const NMI_STACK: usize = 4 << 10;
const NMI: usize = 2;

static IDT: AtomicPtr<[[u64; 2]; VECTORS]> = AtomicPtr::new(core::ptr::null_mut());

fn new_idt() -> *mut [[u64; 2]; VECTORS] {
    let stubs = (&raw const runtime_interrupt_stubs).addr();
    let mut idt = Box::new([[0u64; 2]; VECTORS]);
    for (vector, gate) in idt.iter_mut().enumerate() {
        let address = (stubs + vector * STUB_SIZE) as u64;
        let stack = if vector == NMI { 2 } else { 1 };
        // Present, 64-bit interrupt gate, IST, selector 8 (SDM volume 3, 7.14.1).
        gate[0] =
            address & 0xffff | 8 << 16 | stack << 32 | 0x8e << 40 | (address >> 16 & 0xffff) << 48;
        gate[1] = address >> 32;
    }
    Box::into_raw(idt)
}

/// The IDT all processors share; the first one to come builds it.
fn idt() -> *mut [[u64; 2]; VECTORS] {
    let known = IDT.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    let built = new_idt();
    match IDT.compare_exchange(core::ptr::null_mut(), built, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => built,
        Err(other) => other,
    }
}

/// Returns the top of a new stack.
fn new_stack(size: usize) -> u64 {
    let stack = Box::leak(vec![0u8; size].into_boxed_slice());
    (stack.as_ptr().addr() + stack.len()) as u64 & !15
}

/// Gives this processor a GDT with a TSS, stacks for interrupts, and the IDT.
pub(crate) fn init(index: usize) {
    assert!(index < MAX_CPUS, "processor {index}: this guest has stacks for {MAX_CPUS}");
    let tss = Box::leak(Box::new(Tss {
        reserved0: 0,
        rsp: [0; 3],
        reserved1: 0,
        ist: [new_stack(INTERRUPT_STACK), new_stack(NMI_STACK), 0, 0, 0, 0, 0],
        reserved2: [0; 5],
        io_map: size_of::<Tss>() as u16,
    }));
    let tss_at = core::ptr::from_ref(tss).addr() as u64;
    // The code and data descriptors are those the VMM uses; the TSS descriptor takes two slots.
    let gdt = Box::leak(Box::new([
        0u64,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        (size_of::<Tss>() as u64 - 1)
            | (tss_at & 0xff_ffff) << 16
            | 0x89 << 40
            | (tss_at >> 24 & 0xff) << 56,
        tss_at >> 32,
    ]));
    let gdt_pointer = TablePointer {
        limit: size_of_val(gdt) as u16 - 1,
        base: core::ptr::from_ref(gdt).addr() as u64,
    };
    let idt_pointer = TablePointer { limit: (VECTORS * 16 - 1) as u16, base: idt().addr() as u64 };
    // SAFETY: both tables are valid, have a static lifetime, and keep the meaning of the selectors
    // in use (8 and 0x10).
    unsafe {
        asm!(
            "lgdt [{gdt}]", "ltr {tss:x}", "lidt [{idt}]",
            gdt = in(reg) &raw const gdt_pointer, idt = in(reg) &raw const idt_pointer,
            tss = in(reg) 0x18u16, options(nostack, preserves_flags)
        );
    }
}

/// Takes the IDT away, so that the next exception is a triple fault.
pub fn remove_idt() {
    let nothing = TablePointer { limit: 0, base: 0 };
    // SAFETY: the guest is about to crash on purpose.
    unsafe { asm!("lidt [{}]", in(reg) &raw const nothing, options(nostack, preserves_flags)) }
}
