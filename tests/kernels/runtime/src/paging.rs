//! Reading and extending the page tables the VMM made (4 levels, Intel SDM volume 3, chapter 4).

use alloc::boxed::Box;
use core::arch::asm;

use crate::{cpu, mmio};

/// Size of a small page.
pub const PAGE: u64 = 4096;
/// Size of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Mapping of a virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The physical address of exactly the virtual address asked for.
    pub physical: u64,
    /// Size of the page in bytes.
    pub page_size: u64,
    /// `true` if the page is writable.
    pub writable: bool,
}

fn index(address: u64, level: u32) -> u64 {
    address >> (12 + 9 * level) & 0x1ff
}

/// Looks an address up, as the processor does.
#[must_use]
pub fn lookup(address: u64) -> Option<Mapping> {
    let mut table = cpu::cr3() & ADDRESS;
    let mut writable = true;
    for level in (0..4).rev() {
        let entry = mmio::read64(table + 8 * index(address, level));
        if entry & PRESENT == 0 {
            return None;
        }
        writable &= entry & WRITABLE != 0;
        if level == 0 || (level < 3 && entry & LARGE != 0) {
            let page_size = 1u64 << (12 + 9 * level);
            let base = entry & ADDRESS & !(page_size - 1);
            return Some(Mapping { physical: base + address % page_size, page_size, writable });
        }
        table = entry & ADDRESS;
    }
    None
}

/// The root table and its slot 511.
#[must_use]
pub fn root() -> (u64, u64) {
    let root = cpu::cr3() & ADDRESS;
    (root, mmio::read64(root + 8 * 511))
}

#[repr(C, align(4096))]
struct Table([u64; 512]);

fn new_table() -> u64 {
    let table = Box::leak(Box::new(Table([0; 512])));
    table.0.as_ptr().addr() as u64
}

/// Maps one page; `page_size` is [`PAGE`] or [`LARGE_PAGE`], and both addresses are multiples of
/// it. Where a larger page is in the way, or something else is mapped, nothing is changed and
/// `false` comes back.
fn map_page(address: u64, physical: u64, page_size: u64) -> bool {
    let last = if page_size == LARGE_PAGE { 1 } else { 0 };
    let mut table = cpu::cr3() & ADDRESS;
    for level in ((last + 1)..4).rev() {
        let slot = table + 8 * index(address, level);
        let entry = mmio::read64(slot);
        if entry & PRESENT == 0 {
            let fresh = new_table();
            mmio::write64(slot, fresh | PRESENT | WRITABLE);
            table = fresh;
        } else if level < 3 && entry & LARGE != 0 {
            return false;
        } else {
            table = entry & ADDRESS;
        }
    }
    let slot = table + 8 * index(address, last);
    if mmio::read64(slot) & PRESENT != 0 {
        return false;
    }
    let large = if page_size == LARGE_PAGE { LARGE } else { 0 };
    mmio::write64(slot, physical | large | PRESENT | WRITABLE);
    // SAFETY: only forgets what the processor may have cached about this address.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) }
    true
}

/// Maps `start..end` to the same physical addresses, with large pages where they fit. What is
/// mapped already stays.
pub fn map_identity(start: u64, end: u64) {
    let mut at = start & !(PAGE - 1);
    while at < end {
        let size =
            if at.is_multiple_of(LARGE_PAGE) && at + LARGE_PAGE <= end { LARGE_PAGE } else { PAGE };
        if let Some(mapping) = lookup(at) {
            // Go on after the page that is there.
            at = (at & !(mapping.page_size - 1)) + mapping.page_size;
        } else if map_page(at, at, size) {
            at += size;
        } else {
            // A large page does not fit, as there are small pages in part of it.
            map_page(at, at, PAGE);
            at += PAGE;
        }
    }
}

/// Maps one small page at a virtual address of one's choice; `false` if something is mapped there.
#[must_use]
pub fn map_small(address: u64, physical: u64) -> bool {
    map_page(address, physical, PAGE)
}
