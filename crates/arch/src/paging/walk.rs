//! Translation of guest-virtual addresses through the guest's own page tables.

use crate::SpecialRegs;

/// The page tables of a processor in 64-bit mode: where the first one is, and how many levels there
/// are.
///
/// A plain CR3 is taken for 4 levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    cr3: u64,
    levels: u8,
}

impl Root {
    /// The tables that a processor uses: 5 levels if CR4.LA57 is set, or else 4. None if it is not
    /// in 64-bit mode, where there is no paging or one with other tables (Intel SDM vol. 3, 5.1.1).
    #[must_use]
    pub const fn of(regs: &SpecialRegs) -> Option<Self> {
        if regs.cr0 & CR0_PG == 0 || regs.efer & EFER_LMA == 0 {
            return None;
        }
        Some(Self { cr3: regs.cr3, levels: if regs.cr4 & CR4_LA57 == 0 { 4 } else { 5 } })
    }

    /// Returns `true` if `vaddr` is canonical: the bits above the translated ones are all equal to
    /// the highest of them (Intel SDM vol. 1, 3.3.7.1).
    const fn is_canonical(self, vaddr: u64) -> bool {
        let sign = vaddr.cast_signed() >> if self.levels == 5 { 56 } else { 47 };
        sign == 0 || sign == -1
    }
}

impl From<u64> for Root {
    fn from(cr3: u64) -> Self {
        Self { cr3, levels: 4 }
    }
}

const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;

/// Translation of a virtual address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address. It need not be in RAM.
    pub phys: u64,
    /// The size of the page that holds it in bytes: 4 KiB, 2 MiB or 1 GiB.
    pub page_size: u64,
    /// Access rights of the page.
    pub flags: Flags,
}

/// The access rights of a page, all levels taken together (Intel SDM vol. 3, 5.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// It may be written to (by privileged code, if CR0.WP is set).
    pub writable: bool,
    /// Unprivileged code may use it.
    pub user: bool,
    /// It may be executed (if `IA32_EFER.NXE` is set).
    pub executable: bool,
}

/// A virtual address has no translation. The level counts from 5 (PML5) or 4 (PML4) down to 1 (page
/// table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// Bits 63:47 of the address (63:56 with 5 levels) are not all equal.
    #[error("guest-virtual address {vaddr:#x} is not canonical")]
    NotCanonical {
        /// The address.
        vaddr: u64,
    },
    /// An entry is not present.
    #[error(
        "guest-virtual address {vaddr:#x} is not mapped: its entry of level {level} is not present"
    )]
    NotPresent {
        /// The address.
        vaddr: u64,
        /// The level of the entry.
        level: u8,
    },
    /// An entry has a bit set that must be zero.
    #[error(
        "guest-virtual address {vaddr:#x}: the entry {entry:#x} of level {level} has a reserved bit set"
    )]
    Reserved {
        /// The address.
        vaddr: u64,
        /// The level of the entry.
        level: u8,
        /// The entry.
        entry: u64,
    },
    /// A table lies outside guest memory.
    #[error(
        "guest-virtual address {vaddr:#x}: its table of level {level} at {table:#x} is not in guest memory"
    )]
    BadTable {
        /// The address.
        vaddr: u64,
        /// The level of the table.
        level: u8,
        /// The table's guest-physical address.
        table: u64,
    },
}

/// The physical address in CR3 and in entries: bits 51:12.
const ADDR: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Bit 7: the entry maps a page (levels 2 and 3), or is reserved (levels 4 and 5). On level 1 it is
/// the PAT bit.
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// Translates `vaddr` through the page tables at `root`, in at most as many reads as there are
/// levels.
///
/// `read` gives the 8 bytes at a guest-physical address, or `None` where there is no memory. Tables
/// that refer to themselves are no problem: each level is visited once. Addresses are bits 51:12 of
/// an entry, whatever the width of the CPU's physical addresses: one that is too wide leads out of
/// memory and fails there.
///
/// # Errors
///
/// If the address is not canonical or not mapped, or the tables are broken.
pub fn walk(
    root: impl Into<Root>,
    vaddr: u64,
    mut read: impl FnMut(u64) -> Option<u64>,
) -> Result<Translation, WalkError> {
    let root = root.into();
    if !root.is_canonical(vaddr) {
        return Err(WalkError::NotCanonical { vaddr });
    }
    let mut table = root.cr3 & ADDR;
    let mut rights = WRITABLE | USER;
    let mut no_execute = 0;
    let levels = [(5_u8, 48_u32), (4, 39), (3, 30), (2, 21), (1, 12)];
    for (level, shift) in levels.into_iter().filter(|(level, _)| *level <= root.levels) {
        let index = vaddr.checked_shr(shift).unwrap_or(0) & 511;
        // The table is a multiple of 4096, so its 12 low bits are free for the entry's offset.
        let entry = read(table | index << 3).ok_or(WalkError::BadTable { vaddr, level, table })?;
        if entry & PRESENT == 0 {
            return Err(WalkError::NotPresent { vaddr, level });
        }
        rights &= entry;
        no_execute |= entry & NO_EXECUTE;
        let leaf = level == 1 || entry & LARGE != 0;
        let page_size = 1_u64.checked_shl(shift).unwrap_or(0);
        let offset_bits = page_size.wrapping_sub(1);
        // A page directory entry's bit 12 is the PAT bit of a large page, the others below the
        // page's size reserved.
        let reserved = offset_bits & ADDR & !(1 << 12);
        if leaf && (level >= 4 || level > 1 && entry & reserved != 0) {
            return Err(WalkError::Reserved { vaddr, level, entry });
        }
        if leaf {
            let flags = Flags {
                writable: rights & WRITABLE != 0,
                user: rights & USER != 0,
                executable: no_execute == 0,
            };
            return Ok(Translation {
                phys: entry & ADDR & !offset_bits | vaddr & offset_bits,
                page_size,
                flags,
            });
        }
        table = entry & ADDR;
    }
    // Level 1 is always a leaf.
    Err(WalkError::NotPresent { vaddr, level: 1 })
}

/// Cuts the virtual range of `len` bytes at `vaddr` into physical pieces `(address, length)`, one
/// per page, in order.
///
/// The iterator is lazy and ends with the first error. A guest's `len` decides how long it is:
/// limit it first.
pub fn chunks<R: FnMut(u64) -> Option<u64>>(
    root: impl Into<Root>,
    vaddr: u64,
    len: u64,
    read: R,
) -> Chunks<R> {
    Chunks { root: root.into(), vaddr, left: len, read }
}

/// The iterator of [`chunks`].
#[derive(Debug, Clone)]
pub struct Chunks<R> {
    root: Root,
    vaddr: u64,
    left: u64,
    read: R,
}

impl<R: FnMut(u64) -> Option<u64>> Iterator for Chunks<R> {
    type Item = Result<(u64, u64), WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let found = match walk(self.root, self.vaddr, &mut self.read) {
            Ok(found) => found,
            Err(error) => {
                self.left = 0;
                return Some(Err(error));
            }
        };
        let offset = found.phys & found.page_size.wrapping_sub(1);
        let len = found.page_size.saturating_sub(offset).min(self.left);
        self.left = self.left.saturating_sub(len);
        self.vaddr = self.vaddr.wrapping_add(len);
        Some(Ok((found.phys, len)))
    }
}

#[cfg(test)]
#[path = "walk_test.rs"]
mod tests;
