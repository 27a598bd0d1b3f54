//! The way into an instruction with the state of a case, and back.

use std::arch::{asm, global_asm};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::case::Case;

unsafe extern "C" {
    /// Executes `native_code` with the state of a case, and puts the state after it there.
    pub(crate) fn native_enter(case: *mut Case);
    /// Target of the jump after an instruction.
    fn native_exit();
    /// Return address for a signal handler that has put the state into the case.
    fn native_abort();
    /// Components of the vector state.
    safe static native_components: AtomicU32;
    /// Address of the code.
    safe static native_code: AtomicU64;
}

global_asm!(
    ".pushsection .bss",
    ".balign 8",
    ".globl native_components, native_code",
    "native_components: .skip 8",
    "native_code: .skip 8",
    "native_case: .skip 8",
    "native_rsp: .skip 8",
    "native_rdi: .skip 8",
    ".popsection",
    ".pushsection .text",
    ".globl native_enter, native_exit, native_abort",
    "native_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + native_case], rdi",
    "mov [rip + native_rsp], rsp",
    "mov eax, [rip + native_components]",
    "xor edx, edx",
    "xrstor64 [rdi + {vector}]",
    "push qword ptr [rdi + {flags}]",
    "popfq",
    "mov rax, [rdi + {registers}]",
    "mov rcx, [rdi + {registers} + 8]",
    "mov rdx, [rdi + {registers} + 16]",
    "mov rbx, [rdi + {registers} + 24]",
    "mov rbp, [rdi + {registers} + 40]",
    "mov rsi, [rdi + {registers} + 48]",
    "mov r8, [rdi + {registers} + 64]",
    "mov r9, [rdi + {registers} + 72]",
    "mov r10, [rdi + {registers} + 80]",
    "mov r11, [rdi + {registers} + 88]",
    "mov r12, [rdi + {registers} + 96]",
    "mov r13, [rdi + {registers} + 104]",
    "mov r14, [rdi + {registers} + 112]",
    "mov r15, [rdi + {registers} + 120]",
    "mov rdi, [rdi + {registers} + 56]",
    "jmp [rip + native_code]",
    "native_exit:",
    "mov [rip + native_rdi], rdi",
    "mov rdi, [rip + native_case]",
    "mov [rdi + {registers}], rax",
    "mov [rdi + {registers} + 8], rcx",
    "mov [rdi + {registers} + 16], rdx",
    "mov [rdi + {registers} + 24], rbx",
    "mov [rdi + {registers} + 40], rbp",
    "mov [rdi + {registers} + 48], rsi",
    "mov [rdi + {registers} + 64], r8",
    "mov [rdi + {registers} + 72], r9",
    "mov [rdi + {registers} + 80], r10",
    "mov [rdi + {registers} + 88], r11",
    "mov [rdi + {registers} + 96], r12",
    "mov [rdi + {registers} + 104], r13",
    "mov [rdi + {registers} + 112], r14",
    "mov [rdi + {registers} + 120], r15",
    "pushfq",
    "pop qword ptr [rdi + {flags}]",
    "mov rax, [rip + native_rdi]",
    "mov [rdi + {registers} + 56], rax",
    "mov eax, [rip + native_components]",
    "xor edx, edx",
    "xsave64 [rdi + {vector}]",
    "native_abort:",
    "cld",
    "fninit",
    "mov rsp, [rip + native_rsp]",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "pop rax",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".popsection",
    vector = const offset_of!(Case, vector),
    registers = const offset_of!(Case, registers),
    flags = const offset_of!(Case, flags),
);

/// Address that the code of an instruction jumps to when it is done.
pub(crate) fn exit_address() -> u64 {
    native_exit as *const () as u64
}

/// Address that a signal handler returns to.
pub(crate) fn abort_address() -> u64 {
    native_abort as *const () as u64
}

/// Sets the address of the code.
pub(crate) fn prepare(code: u64) {
    native_code.store(code, Ordering::Relaxed);
    native_components.store(vector_components(), Ordering::Relaxed);
}

/// Components of the vector state that the host has, of x87 (1), SSE (2) and AVX (4); 0 if it has
/// no XSAVE.
#[must_use]
pub fn vector_components() -> u32 {
    if !std::is_x86_feature_detected!("xsave") {
        return 0;
    }
    let low: u32;
    // SAFETY: the host has XSAVE, and its kernel uses it.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _) };
    low & 7
}
