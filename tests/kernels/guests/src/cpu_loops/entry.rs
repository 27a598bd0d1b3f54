//! Entries: as a multiboot kernel, and as a program for Linux.

use core::arch::{asm, global_asm};

use super::run;

global_asm!(
    // Multiboot Specification 0.6.96, 3.1: header, with the addresses of the image.
    ".section .rodata.multiboot, \"a\"",
    ".balign 4",
    "multiboot_header:",
    ".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)",
    ".long multiboot_header, __executable_start, edata, end, entry_32",
    ".balign 8",
    "gdt:",
    ".quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "gdt_pointer:",
    ".word 23",
    ".long gdt",
    // Page tables, of which both roots map the lowest GiB to itself.
    ".section .bss.tables, \"aw\", @nobits",
    ".balign 4096",
    "root_a: .skip 4096",
    "root_b: .skip 4096",
    "pointers: .skip 4096",
    "directory: .skip 4096",
    ".skip 65536",
    "stack_top:",
    ".section .text.entry, \"ax\"",
    ".code32",
    "entry_32:",
    "cld",
    "mov esp, offset stack_top",
    "mov edi, offset directory",
    "mov eax, 0x83",
    "mov ecx, 512",
    "2:",
    "mov [edi], eax",
    "mov dword ptr [edi + 4], 0",
    "add eax, 0x200000",
    "add edi, 8",
    "dec ecx",
    "jnz 2b",
    "mov dword ptr [pointers], offset directory + 3",
    "mov dword ptr [root_a], offset pointers + 3",
    "mov dword ptr [root_b], offset pointers + 3",
    "mov eax, offset root_a",
    "mov cr3, eax",
    "mov eax, 0x620", // PAE, OSFXSR, OSXMMEXCPT
    "mov cr4, eax",
    "mov ecx, 0xc0000080", // EFER
    "rdmsr",
    "or eax, 0x100", // LME
    "wrmsr",
    "mov eax, 0x80000023", // PG, NE, MP, PE
    "mov cr0, eax",
    "lgdt [gdt_pointer]",
    "push 8",
    "mov eax, offset entry_64",
    "push eax",
    "retf",
    ".code64",
    "entry_64:",
    "mov eax, 16",
    "mov ds, eax",
    "mov es, eax",
    "mov ss, eax",
    "fninit",
    // The first serial port: 115200 baud, 8 bits.
    "mov dx, 0x3fb",
    "mov al, 0x80",
    "out dx, al",
    "mov dx, 0x3f8",
    "mov ax, 1",
    "out dx, ax",
    "mov dx, 0x3fb",
    "mov al, 3",
    "out dx, al",
    "call {kernel}",
    ".globl _start",
    "_start:",
    "call {program}",
    kernel = sym kernel,
    program = sym program,
);

unsafe extern "C" {
    static root_a: u8;
    static root_b: u8;
}

/// Guest-physical addresses of two page tables that map the same.
pub(crate) fn page_tables() -> (u64, u64) {
    ((&raw const root_a).addr() as u64, (&raw const root_b).addr() as u64)
}

/// Continuation of `entry_64`.
extern "C" fn kernel() -> ! {
    run(true, write_serial);
}

/// Continuation of `_start`.
extern "C" fn program() -> ! {
    run(false, write_output);
}

/// Writes to the first serial port.
fn write_serial(text: &[u8]) {
    for byte in text {
        // SAFETY: the ports of a UART, of which the transmitter is waited for.
        unsafe {
            asm!(
                "2:",
                "mov dx, 0x3fd",
                "in al, dx",
                "test al, 0x20",
                "jz 2b",
                "mov dx, 0x3f8",
                "mov al, {byte}",
                "out dx, al",
                byte = in(reg_byte) *byte, out("rax") _, out("rdx") _,
                options(nostack),
            );
        }
    }
}

/// Writes to standard output.
fn write_output(text: &[u8]) {
    // SAFETY: write(2) reads the text.
    unsafe {
        asm!(
            "syscall",
            inout("rax") 1_u64 => _, in("rdi") 1_u64, in("rsi") text.as_ptr(), in("rdx") text.len(),
            out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
}
