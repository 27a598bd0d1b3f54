//! Translation of linear addresses (Intel SDM vol. 3, chapter 4).

use crate::core::{Core, Run};
use crate::flags::AC;
use crate::int::mask;
use crate::registers::{CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_NXE};

/// Kind of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

/// A translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The guest-physical address.
    pub(crate) address: u64,
    /// The page has more than 4 KiB.
    pub(crate) is_large: bool,
    pub(crate) is_global: bool,
    /// A write needs no further look at the tables.
    pub(crate) is_writable: bool,
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;

/// Bits of a page fault's error code (Intel SDM vol. 3, 4.7).
const FAULT_PRESENT: u32 = 1;
const FAULT_WRITE: u32 = 1 << 1;
const FAULT_USER: u32 = 1 << 2;
const FAULT_RESERVED: u32 = 1 << 3;
const FAULT_FETCH: u32 = 1 << 4;

/// The formats of page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Bits32,
    Pae,
    Long,
}

/// Lowest address bit and index width that a level translates, uppermost level first.
const fn levels(format: Format) -> &'static [(u32, u32)] {
    match format {
        Format::Bits32 => &[(22, 10), (12, 10)],
        Format::Pae => &[(30, 2), (21, 9), (12, 9)],
        Format::Long => &[(39, 9), (30, 9), (21, 9), (12, 9)],
    }
}

/// Attempts to set accessed and dirty bits that other processors change at the same time.
const ATTEMPTS: u32 = 16;

impl Core {
    /// Translates a linear address, or raises #PF.
    pub(crate) fn translate(&mut self, linear: u64, access: Access) -> Run<Found> {
        if self.cr0 & CR0_PG == 0 {
            let address = linear & 0xffff_ffff;
            return Ok(Found { address, is_large: false, is_global: false, is_writable: true });
        }
        let user = self.cpl == 3 && !self.is_implicit;
        for _ in 0..ATTEMPTS {
            match self.walk(linear, access, user) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(code) => {
                    let write = if access == Access::Write { FAULT_WRITE } else { 0 };
                    let by_user = if user { FAULT_USER } else { 0 };
                    let tells_fetch = self.efer & EFER_NXE != 0 && self.cr4 & CR4_PAE != 0
                        || self.cr4 & CR4_SMEP != 0;
                    let fetch =
                        if access == Access::Execute && tells_fetch { FAULT_FETCH } else { 0 };
                    return self.page_fault(linear, code | write | by_user | fetch);
                }
            }
        }
        self.page_fault(linear, 0)
    }

    fn table_format(&self) -> Format {
        if self.is_long() {
            Format::Long
        } else if self.cr4 & CR4_PAE != 0 {
            Format::Pae
        } else {
            Format::Bits32
        }
    }

    /// Reads an entry. Where there is no RAM, it has all bits set, as from a bus where nothing
    /// answers.
    fn table_entry(&mut self, format: Format, address: u64) -> u64 {
        let offset = usize::try_from(address & 0xfff).unwrap_or(0);
        let Some(page) = self.physical.page(address) else { return u64::MAX };
        if format == Format::Bits32 {
            page.load::<u32>(offset).map_or(u64::MAX, u64::from)
        } else {
            page.load::<u64>(offset).unwrap_or(u64::MAX)
        }
    }

    /// Sets bits of an entry. `false` if it changed meanwhile.
    fn set_in_table(&mut self, format: Format, address: u64, entry: u64, bits: u64) -> bool {
        if entry & bits == bits {
            return true;
        }
        let offset = usize::try_from(address & 0xfff).unwrap_or(0);
        let Some(page) = self.physical.page(address) else { return true };
        let is_set = if format == Format::Bits32 {
            let (old, new) = (entry as u32, (entry | bits) as u32);
            page.compare_exchange(offset, old, new) == Some(old)
        } else {
            page.compare_exchange(offset, entry, entry | bits) == Some(entry)
        };
        self.code.written(address, 8);
        is_set
    }

    /// The bits of an entry that must be zero.
    fn reserved(&self, format: Format, shift: u32, is_leaf: bool) -> u64 {
        let width = u32::from(self.cpuid.physical_bits());
        let too_wide = mask(52) & !mask(width);
        let no_execute = if self.efer & EFER_NXE == 0 { NO_EXECUTE } else { 0 };
        let in_page = mask(shift) & !mask(13);
        match format {
            Format::Bits32 if shift == 22 && is_leaf => {
                // Bits 20:13 are address bits 39:32 (PSE-36).
                let high = width.saturating_sub(32).min(8);
                1 << 21 | mask(21) & !mask(13_u32.wrapping_add(high))
            }
            Format::Bits32 => 0,
            Format::Pae if shift == 30 => too_wide | !mask(52) | 0b1_1110_0110,
            Format::Pae => {
                too_wide | mask(63) & !mask(52) | no_execute | if is_leaf { in_page } else { 0 }
            }
            Format::Long if shift == 39 => too_wide | no_execute | LARGE,
            Format::Long => too_wide | no_execute | if is_leaf { in_page } else { 0 },
        }
    }

    /// One pass through the tables. `None` if an entry changed on the way, an error code if there
    /// is no such access.
    fn walk(&mut self, linear: u64, access: Access, user: bool) -> Result<Option<Found>, u32> {
        let format = self.table_format();
        let entry_size: u64 = if format == Format::Bits32 { 4 } else { 8 };
        let mut table = match format {
            Format::Pae => self.cr3 & 0xffff_ffe0,
            Format::Bits32 => self.cr3 & 0xffff_f000,
            Format::Long => self.cr3 & mask(52) & !0xfff,
        };
        let mut rights = WRITABLE | USER;
        let mut no_execute = 0;
        let mut path = [(0_u64, 0_u64); 4];
        for ((shift, bits), step) in levels(format).iter().copied().zip(0_usize..) {
            let index = linear.wrapping_shr(shift) & mask(bits);
            let at = table.wrapping_add(index.wrapping_mul(entry_size));
            let entry = self.table_entry(format, at);
            if entry & PRESENT == 0 {
                return Err(0);
            }
            let has_large = match format {
                Format::Bits32 => shift == 22 && self.cr4 & CR4_PSE != 0,
                Format::Pae => shift == 21,
                Format::Long => shift == 21 || shift == 30,
            };
            let is_large = has_large && entry & LARGE != 0;
            let is_leaf = is_large || shift == 12;
            if entry & self.reserved(format, shift, is_leaf) != 0 {
                return Err(FAULT_PRESENT | FAULT_RESERVED);
            }
            let is_pdpte = format == Format::Pae && shift == 30;
            if !is_pdpte {
                rights &= entry;
                if format != Format::Bits32 {
                    no_execute |= entry & NO_EXECUTE;
                }
                if let Some(slot) = path.get_mut(step) {
                    *slot = (at, entry);
                }
            }
            if !is_leaf {
                table = entry & mask(52) & !0xfff;
                continue;
            }
            let write = self.check(access, user, rights, no_execute != 0)?;
            let set_dirty = if access == Access::Write { DIRTY } else { 0 };
            for (known, (at, entry)) in
                path.iter().copied().enumerate().filter(|(_, (at, _))| *at != 0)
            {
                let bits = ACCESSED | if known == step { set_dirty } else { 0 };
                if !self.set_in_table(format, at, entry, bits) {
                    return Ok(None);
                }
            }
            let high =
                if format == Format::Bits32 && is_large { (entry >> 13 & 0xff) << 32 } else { 0 };
            let in_page = mask(shift);
            return Ok(Some(Found {
                address: (entry
                    & mask(52)
                    & !in_page
                    & if format == Format::Bits32 { 0xffff_ffff } else { u64::MAX })
                    | high
                    | linear & in_page,
                is_large,
                is_global: entry & GLOBAL != 0 && self.cr4 & crate::registers::CR4_PGE != 0,
                is_writable: write && (entry | set_dirty) & DIRTY != 0,
            }));
        }
        Err(0)
    }

    /// Checks the rights of a page (Intel SDM vol. 3, 4.6). Returns `true` if it may be written to.
    fn check(
        &self,
        access: Access,
        user: bool,
        rights: u64,
        no_execute: bool,
    ) -> Result<bool, u32> {
        let is_user_page = rights & USER != 0;
        let smap = is_user_page
            && !user
            && self.cr4 & CR4_SMAP != 0
            && (self.is_implicit || self.flags.control & AC == 0);
        let write = if user { true } else { self.cr0 & CR0_WP != 0 };
        let may_write = (rights & WRITABLE != 0 || !write) && !smap && (!user || is_user_page);
        let is_allowed = match access {
            Access::Read => (!user || is_user_page) && !smap,
            Access::Write => may_write,
            Access::Execute => {
                let smep = is_user_page && !user && self.cr4 & CR4_SMEP != 0;
                (!user || is_user_page) && !no_execute && !smep
            }
        };
        if is_allowed { Ok(may_write) } else { Err(FAULT_PRESENT) }
    }
}
