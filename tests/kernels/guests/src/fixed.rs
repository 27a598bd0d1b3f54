//! The checks of both fixed-address guests: they run at their link address.

use runtime::prelude::*;

/// The address that build.rs tells the linker.
const LINKED_AT: u64 = 0x20_0000;

/// A pointer that no relocation adjusts: right only if the image is where it was linked.
static POINTER: &u32 = &0x5afe_c0de;

pub(crate) fn main() {
    let range = &boot::info().load_info.kernel_image_addr_range;
    println!("loaded at {:#x}", range.start);
    check!(
        range.start >= LINKED_AT && range.start < LINKED_AT + 0x10_0000,
        "loaded at {:#x}, linked for {LINKED_AT:#x}",
        range.start
    );
    check!(
        range.contains(&(core::ptr::from_ref(POINTER).addr() as u64)),
        "a pointer points out of the image"
    );
    check_eq!(core::hint::black_box(*POINTER), 0x5afe_c0de, "a constant behind a pointer");
    check_eq!(boot::info().hardware_info.phys_addr_range.start, 0, "start of RAM of a fixed image");
}
