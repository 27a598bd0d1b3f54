//! The loops.

use core::arch::asm;
use core::cell::UnsafeCell;

/// A loop.
pub(crate) struct Loop {
    pub(crate) name: &'static str,
    /// Instructions of an iteration. An element that a string instruction moves counts as one.
    pub(crate) length: u64,
    pub(crate) iterations: u64,
    pub(crate) needs: Needs,
    pub(crate) run: unsafe fn(u64),
}

/// Rights that a loop needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// Privileged instructions.
    Kernel,
}

/// Memory that loops use.
#[repr(C, align(4096))]
struct Memory<T>(UnsafeCell<T>);

// SAFETY: there is one processor.
unsafe impl<T> Sync for Memory<T> {}

/// Slots of the ring of pointers, one in a cache line each.
const SLOTS: usize = 4096;
/// Elements that are copied and cleared at a time.
const ELEMENTS: u64 = 512;

static RING: Memory<[[u64; 8]; SLOTS]> = Memory(UnsafeCell::new([[0; 8]; SLOTS]));
static BUFFER: Memory<[u64; 4096]> = Memory(UnsafeCell::new([0; 4096]));
/// Four numbers of single precision, four more, and two of double precision.
static NUMBERS: Memory<([f32; 4], [f32; 4], [f64; 2])> =
    Memory(UnsafeCell::new(([1.5; 4], [1.000_000_1; 4], [1.000_000_1; 2])));

/// Makes each slot of the ring point to the next one, in an order that visits all.
pub(crate) fn link_ring() {
    let first: *mut [u64; 8] = RING.0.get().cast();
    for slot in 0..SLOTS {
        // A linear congruence with a full period.
        let next = (slot * 5 + 1) % SLOTS;
        // SAFETY: both are slots of the ring.
        unsafe { *first.add(slot).cast::<u64>() = first.add(next).addr() as u64 };
    }
}

macro_rules! loops {
    ($($name:literal $needs:ident $iterations:literal * $length:expr, $run:ident;)*) => {
        /// All of them.
        pub(crate) const LOOPS: &[Loop] = &[$(Loop {
            name: $name,
            length: $length,
            iterations: $iterations,
            needs: Needs::$needs,
            run: $run,
        }),*];
    };
}

loops! {
    "integer" Nothing 8_000_000 * 8, integer;
    "branches" Nothing 10_000_000 * 5, branches;
    "pointers" Nothing 5_000_000 * 10, pointers;
    "memory" Nothing 7_000_000 * 8, memory;
    "copy" Nothing 100_000 * (ELEMENTS + 5), copy;
    "clear" Nothing 100_000 * (ELEMENTS + 4), clear;
    "calls" Nothing 4_000_000 * 12, calls;
    "x87" Nothing 2_000_000 * 10, x87;
    "float" Nothing 5_000_000 * 10, float;
    "sse" Nothing 5_000_000 * 10, sse;
    "page tables" Kernel 300_000 * 10, page_tables;
    "exits" Kernel 1_000_000 * 4, exits;
}

/// Sums, shifts and logic on registers.
unsafe fn integer(iterations: u64) {
    // SAFETY: registers only.
    unsafe {
        asm!(
            "2:",
            "add rax, {x}",
            "xor rcx, rax",
            "shl rdx, 3",
            "sub rsi, rdx",
            "lea rdi, [rdi + rax * 2 + 5]",
            "and rdx, 0xffff",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, x = in(reg) 3_u64,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            options(nostack),
        );
    }
}

/// Two short jumps an iteration, one of which is taken every other time. Both ways to the end are
/// of the same length.
unsafe fn branches(iterations: u64) {
    // SAFETY: registers only.
    unsafe {
        asm!(
            "2:",
            "test {n:e}, 1",
            "jz 3f",
            "add rax, 3",
            "dec {n}",
            "jnz 2b",
            "jmp 4f",
            "3:",
            "xor rcx, rax",
            "dec {n}",
            "jnz 2b",
            "4:",
            n = inout(reg) iterations => _, out("rax") _, out("rcx") _,
            options(nostack),
        );
    }
}

/// Loads, each of which gives the address of the next one.
unsafe fn pointers(iterations: u64) {
    // SAFETY: the ring's slots point to each other.
    unsafe {
        asm!(
            "2:",
            "mov rax, [rax]", "mov rax, [rax]", "mov rax, [rax]", "mov rax, [rax]",
            "mov rax, [rax]", "mov rax, [rax]", "mov rax, [rax]", "mov rax, [rax]",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, inout("rax") RING.0.get() => _,
            options(nostack),
        );
    }
}

/// Loads, stores, and changes in place.
unsafe fn memory(iterations: u64) {
    // SAFETY: the buffer has 4096 elements.
    unsafe {
        asm!(
            "2:",
            "mov rax, [{p} + rcx * 8]",
            "add rax, 3",
            "mov [{p} + rcx * 8], rax",
            "add [{p} + 8], rax",
            "inc rcx",
            "and ecx, 0xfff",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) BUFFER.0.get(),
            out("rax") _, inout("rcx") 0_u64 => _,
            options(nostack),
        );
    }
}

/// Copies of a page by a string instruction.
unsafe fn copy(iterations: u64) {
    // SAFETY: the buffer has 4096 elements, of which the first and second 512 are used.
    unsafe {
        asm!(
            "2:",
            "mov rsi, {p}",
            "lea rdi, [{p} + 4096]",
            "mov ecx, {elements}",
            "rep movsq",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) BUFFER.0.get(), elements = const ELEMENTS,
            out("rsi") _, out("rdi") _, out("rcx") _,
            options(nostack),
        );
    }
}

/// Clearing of a page by a string instruction.
unsafe fn clear(iterations: u64) {
    // SAFETY: the buffer has 4096 elements, of which the first 512 are used.
    unsafe {
        asm!(
            "2:",
            "mov rdi, {p}",
            "mov ecx, {elements}",
            "rep stosq",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) BUFFER.0.get(), elements = const ELEMENTS,
            inout("rax") 0_u64 => _, out("rdi") _, out("rcx") _,
            options(nostack),
        );
    }
}

/// Two calls of a function with a register to save.
unsafe fn calls(iterations: u64) {
    // SAFETY: registers and the stack below, which is balanced.
    unsafe {
        asm!(
            "2:",
            "call 3f",
            "call 3f",
            "dec {n}",
            "jnz 2b",
            "jmp 4f",
            "3:",
            "push {x}",
            "mov {x}, rax",
            "pop {x}",
            "ret",
            "4:",
            n = inout(reg) iterations => _, x = inout(reg) 0_u64 => _, inout("rax") 0_u64 => _,
        );
    }
}

/// Sums, products and moves on the x87 stack and memory.
unsafe fn x87(iterations: u64) {
    // SAFETY: the x87 stack is as deep as before.
    unsafe {
        asm!(
            "2:",
            "fld qword ptr [{p} + 32]",
            "fld st(0)",
            "fmul st(0), st(1)",
            "fadd qword ptr [{p} + 32]",
            "fxch st(1)",
            "fsubr st(0), st(1)",
            "faddp st(1), st(0)",
            "fstp qword ptr [{p} + 40]",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) NUMBERS.0.get(),
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
}

/// Arithmetic of double precision on registers and memory, conversions, comparisons.
unsafe fn float(iterations: u64) {
    // SAFETY: only the last of the numbers is written.
    unsafe {
        asm!(
            "2:",
            "movsd xmm0, [{p} + 32]",
            "cvtsi2sd xmm1, {n:e}",
            "mulsd xmm1, xmm0",
            "addsd xmm2, xmm1",
            "subsd xmm2, [{p} + 32]",
            "movapd xmm3, xmm1",
            "ucomisd xmm3, xmm0",
            "movsd [{p} + 40], xmm3",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) NUMBERS.0.get(),
            out("xmm0") _, out("xmm1") _, inout("xmm2") 0.0 => _, out("xmm3") _,
            options(nostack),
        );
    }
}

/// Packed arithmetic and logic on registers and memory.
unsafe fn sse(iterations: u64) {
    // SAFETY: only the last of the numbers are written.
    unsafe {
        asm!(
            "movaps xmm1, [{p} + 16]",
            "2:",
            "movaps xmm0, [{p}]",
            "mulps xmm0, xmm1",
            "addps xmm0, [{p}]",
            "movaps xmm2, xmm0",
            "paddd xmm3, xmm0",
            "pshufd xmm4, xmm0, 0x4e",
            "pxor xmm4, xmm3",
            "movups [{p} + 32], xmm1",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) NUMBERS.0.get(),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _,
            options(nostack),
        );
    }
}

/// Switches between two page tables, with loads from four pages after each.
unsafe fn page_tables(iterations: u64) {
    let (a, b) = crate::entry::page_tables();
    // SAFETY: both page tables map all memory at its own address.
    unsafe {
        asm!(
            "2:",
            "mov cr3, {a}",
            "mov rax, [{p}]",
            "mov rax, [{p} + 0x1000]",
            "mov rax, [{p} + 0x2000]",
            "mov rax, [{p} + 0x3000]",
            "mov rax, [{p} + 0x4000]",
            "xchg {a}, {b}",
            "lea rcx, [rcx + rax]",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, p = in(reg) BUFFER.0.get(),
            a = inout(reg) a => _, b = inout(reg) b => _, out("rax") _, out("rcx") _,
            options(nostack),
        );
    }
}

/// Writes to a port and reads of it.
unsafe fn exits(iterations: u64) {
    // SAFETY: the port is that of codes of a power-on self-test, where nothing listens.
    unsafe {
        asm!(
            "2:",
            "out 0x80, al",
            "in al, 0x80",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) iterations => _, inout("rax") 0_u64 => _,
            options(nostack),
        );
    }
}
