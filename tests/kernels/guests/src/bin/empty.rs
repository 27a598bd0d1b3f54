//! Says that it is there, and ends: what is left is what every guest costs. Three pages, no stack,
//! no runtime.

#![no_std]
#![no_main]

use core::arch::naked_asm;

// For the panic handler.
use runtime as _;
use runtime::hypercall::v2::{Call, SerialWriteBufferParams};

runtime::hermit_entry::define_uhyve_interface_version!(runtime::hypercall::UHYVE_INTERFACE_VERSION);
runtime::hermit_entry::define_abi_tag!();
runtime::hermit_entry::define_entry_version!();

static TEXT: [u8; 10] = *b"empty: ok\n";

/// Parameters of the one call. The address field is a pointer here, for the loader to relocate.
#[repr(C)]
struct Params {
    len: u64,
    buf: &'static [u8; 10],
}

const _: () = assert!(size_of::<Params>() == size_of::<SerialWriteBufferParams>());

static PARAMS: Params = Params { len: TEXT.len() as u64, buf: &TEXT };

/// # Safety
/// Only the VMM may come here.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!(
        "test esi, esi",
        "jnz 2f",
        "lea rdi, [rip + {params}]",
        "mov edx, {write}",
        "out dx, eax",
        "xor edi, edi",
        "mov edx, {exit}",
        "out dx, eax",
        "2: hlt",
        "jmp 2b",
        params = sym PARAMS,
        write = const Call::SerialWriteBuffer.port(),
        exit = const Call::Exit.port(),
    )
}
