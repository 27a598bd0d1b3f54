//! Single pages of guest RAM for a processor in software.
//!
//! A processor in software keeps the pages that it used last, and reaches them without looking up a
//! region. The accesses are machine instructions of the host, so they have its guarantees: an
//! aligned one is never torn, stores of one thread are seen in order, and a locked one is atomic
//! for all threads (Intel SDM vol. 3, 9.1 and 9.2).

use std::arch::asm;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::GuestRam;

/// Size of a page in bytes.
const SIZE: usize = 4096;

/// A source of [`Page`]s: guest RAM that lives as long as one of them.
#[derive(Debug, Clone)]
pub struct Pages {
    ram: Arc<GuestRam>,
}

impl Pages {
    /// Shares the guest RAM.
    #[must_use]
    pub fn new(ram: &GuestRam) -> Self {
        Self { ram: Arc::new(ram.clone()) }
    }

    /// The guest RAM.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Returns the page that holds the guest-physical address, or `None` outside of RAM.
    #[must_use]
    pub fn page(&self, address: u64) -> Option<Page> {
        let start = address & !(SIZE as u64).wrapping_sub(1);
        let mapping = self.ram.mappings().find(|mapping| {
            start.checked_sub(mapping.guest).is_some_and(|offset| offset < mapping.size)
        })?;
        let offset = usize::try_from(start.checked_sub(mapping.guest)?).ok()?;
        // Regions are multiples of 4 KiB at multiples of 4 KiB, so the whole page is in this one.
        let start = NonNull::new(mapping.host.wrapping_add(offset))?;
        Some(Page { start, ram: Arc::clone(&self.ram) })
    }
}

/// One page of 4 KiB of guest RAM. Offsets are in bytes from its start.
#[derive(Clone)]
pub struct Page {
    start: NonNull<u8>,
    /// Keeps the page mapped.
    ram: Arc<GuestRam>,
}

// SAFETY: `start` points into the mapping that `ram` keeps, which belongs to no thread. It is
// accessed only by single instructions of the host, which tolerate others doing so at the same
// time.
unsafe impl Send for Page {}
// SAFETY: As above: shared use is what the accesses are for.
unsafe impl Sync for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("start", &self.start).finish_non_exhaustive()
    }
}

mod sealed {
    /// The instructions for one width.
    pub trait Word: Copy + Eq {
        /// Loads from `at`.
        ///
        /// # Safety
        /// The bytes at `at` are mapped for reading.
        unsafe fn load(at: *const u8) -> Self;
        /// Stores to `at`.
        ///
        /// # Safety
        /// The bytes at `at` are mapped for writing, and no reference to them exists.
        unsafe fn store(at: *mut u8, value: Self);
        /// Replaces `old` by `new` at `at` atomically; returns what was there.
        ///
        /// # Safety
        /// The bytes at `at` are mapped for writing, and no reference to them exists.
        unsafe fn compare_exchange(at: *mut u8, old: Self, new: Self) -> Self;
    }
}

/// An unsigned integer of 1, 2, 4 or 8 bytes, which is loaded and stored by one instruction.
pub trait Word: sealed::Word {}

macro_rules! word {
    ($type:ty, $load:literal, $store:literal, $exchange:literal, $class:ident, $accumulator:tt, $loaded:ty) => {
        impl Word for $type {}

        impl sealed::Word for $type {
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::unnecessary_cast, reason = "loaded zero-extended")]
            unsafe fn load(at: *const u8) -> Self {
                let value: $loaded;
                // SAFETY: The caller vouches for the bytes; the instruction does nothing but load
                // them.
                unsafe { asm!($load, out(reg) value, in(reg) at, options(nostack, preserves_flags, readonly)) };
                value as Self
            }

            #[inline(always)]
            unsafe fn store(at: *mut u8, value: Self) {
                // SAFETY: The caller vouches for the bytes; the instruction does nothing but store
                // them.
                unsafe { asm!($store, in(reg) at, in($class) value, options(nostack, preserves_flags)) };
            }

            #[inline(always)]
            unsafe fn compare_exchange(at: *mut u8, old: Self, new: Self) -> Self {
                let found: Self;
                // SAFETY: The caller vouches for the bytes; the instruction changes no others.
                unsafe {
                    asm!($exchange, in(reg) at, in($class) new, inout($accumulator) old => found, options(nostack));
                }
                found
            }
        }
    };
}

word!(
    u8,
    "movzx {0:e}, byte ptr [{1}]",
    "mov byte ptr [{0}], {1}",
    "lock cmpxchg byte ptr [{0}], {1}",
    reg_byte,
    "al",
    u32
);
word!(
    u16,
    "movzx {0:e}, word ptr [{1}]",
    "mov word ptr [{0}], {1:x}",
    "lock cmpxchg word ptr [{0}], {1:x}",
    reg,
    "ax",
    u32
);
word!(
    u32,
    "mov {0:e}, dword ptr [{1}]",
    "mov dword ptr [{0}], {1:e}",
    "lock cmpxchg dword ptr [{0}], {1:e}",
    reg,
    "eax",
    u32
);
word!(
    u64,
    "mov {0}, qword ptr [{1}]",
    "mov qword ptr [{0}], {1}",
    "lock cmpxchg qword ptr [{0}], {1}",
    reg,
    "rax",
    u64
);

impl Page {
    /// The host address of the `len` bytes at `offset`, if they are all in the page.
    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<*mut u8> {
        // For a constant `len`, one comparison.
        (len <= SIZE && offset <= SIZE.wrapping_sub(len))
            .then(|| self.start.as_ptr().wrapping_add(offset))
    }

    /// Loads a word; `None` if it is not all in the page.
    #[inline(always)]
    #[must_use]
    pub fn load<W: Word>(&self, offset: usize) -> Option<W> {
        let at = self.at(offset, size_of::<W>())?;
        // SAFETY: The bytes are in the page, which `ram` keeps mapped for reading and writing.
        Some(unsafe { W::load(at) })
    }

    /// Stores a word; `None` if it would not be all in the page.
    #[inline(always)]
    #[must_use]
    pub fn store<W: Word>(&self, offset: usize, value: W) -> Option<()> {
        let at = self.at(offset, size_of::<W>())?;
        // SAFETY: The bytes are in the page, which `ram` keeps mapped for reading and writing. No
        // reference to guest RAM is ever made.
        unsafe { W::store(at, value) };
        Some(())
    }

    /// Replaces `old` by `new` atomically, and returns what was there; `None` if the word is not
    /// all in the page.
    #[inline(always)]
    #[must_use]
    pub fn compare_exchange<W: Word>(&self, offset: usize, old: W, new: W) -> Option<W> {
        let at = self.at(offset, size_of::<W>())?;
        // SAFETY: The bytes are in the page, which `ram` keeps mapped for reading and writing. No
        // reference to guest RAM is ever made.
        Some(unsafe { W::compare_exchange(at, old, new) })
    }

    /// Replaces the 16 bytes `old` by `new` atomically, and returns what was there; `None` if
    /// `offset` is not a multiple of 16 in the page, or the host has no CMPXCHG16B.
    #[must_use]
    pub fn compare_exchange_16(&self, offset: usize, old: u128, new: u128) -> Option<u128> {
        let at = self.at(offset, size_of::<u128>()).filter(|_| offset.is_multiple_of(16))?;
        if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
            return None;
        }
        let [old_low, old_high] = halves(old);
        let [new_low, new_high] = halves(new);
        let (low, high): (u64, u64);
        // SAFETY: The 16 bytes are in the page, which `ram` keeps mapped for reading and writing,
        // and are aligned; the host has the instruction. RBX, which the compiler reserves, is put
        // back.
        unsafe {
            asm!(
                "xchg rbx, rsi",
                "lock cmpxchg16b xmmword ptr [rdi]",
                "mov rbx, rsi",
                in("rdi") at,
                inout("rsi") new_low => _,
                in("rcx") new_high,
                inout("rax") old_low => low,
                inout("rdx") old_high => high,
                options(nostack),
            );
        }
        Some(u128::from(low) | u128::from(high) << 64)
    }

    /// Copies 16 bytes out of the page at once; `None`, and `data` unchanged, if they are not all
    /// in it.
    #[inline(always)]
    #[must_use]
    pub fn read_16(&self, offset: usize, data: &mut [u8; 16]) -> Option<()> {
        let at = self.at(offset, 16)?;
        // SAFETY: The 16 bytes at `at` are in the page, which `ram` keeps mapped; those of `data`
        // are borrowed for writing. Both instructions allow any alignment.
        unsafe {
            asm!(
                "movups {0}, xmmword ptr [{1}]",
                "movups xmmword ptr [{2}], {0}",
                out(xmm_reg) _,
                in(reg) at,
                in(reg) data.as_mut_ptr(),
                options(nostack, preserves_flags),
            );
        }
        Some(())
    }

    /// Copies 16 bytes into the page at once; `None`, and the page unchanged, if there is no room.
    #[inline(always)]
    #[must_use]
    pub fn write_16(&self, offset: usize, data: &[u8; 16]) -> Option<()> {
        let at = self.at(offset, 16)?;
        // SAFETY: As for `read_16`, in the other direction. No reference to guest RAM is ever made.
        unsafe {
            asm!(
                "movups {0}, xmmword ptr [{1}]",
                "movups xmmword ptr [{2}], {0}",
                out(xmm_reg) _,
                in(reg) data.as_ptr(),
                in(reg) at,
                options(nostack, preserves_flags),
            );
        }
        Some(())
    }

    /// Copies bytes out of the page; `None`, and `data` unchanged, if they are not all in it.
    #[must_use]
    pub fn read(&self, offset: usize, data: &mut [u8]) -> Option<()> {
        let at = self.at(offset, data.len())?;
        // SAFETY: Both ranges are mapped: one is in the page, the other is a borrowed slice. They
        // do not overlap, because no slice of guest RAM exists. The direction flag is clear in Rust
        // code.
        unsafe {
            asm!(
                "rep movsb",
                inout("rsi") at => _,
                inout("rdi") data.as_mut_ptr() => _,
                inout("rcx") data.len() => _,
                options(nostack, preserves_flags),
            );
        }
        Some(())
    }

    /// Copies bytes into the page; `None`, and the page unchanged, if there is no room for all of
    /// them.
    #[must_use]
    pub fn write(&self, offset: usize, data: &[u8]) -> Option<()> {
        let at = self.at(offset, data.len())?;
        // SAFETY: As for `read`, in the other direction.
        unsafe {
            asm!(
                "rep movsb",
                inout("rsi") data.as_ptr() => _,
                inout("rdi") at => _,
                inout("rcx") data.len() => _,
                options(nostack, preserves_flags),
            );
        }
        Some(())
    }

    /// Copies `len` bytes from another page (or this one), lowest first, one after the other: as
    /// REP MOVSB does where they overlap. `None`, and nothing copied, if they are not all in the
    /// pages.
    #[must_use]
    pub fn copy_from(
        &self,
        offset: usize,
        source: &Self,
        source_offset: usize,
        len: usize,
    ) -> Option<()> {
        let to = self.at(offset, len)?;
        let from = source.at(source_offset, len)?;
        // SAFETY: Both ranges are in pages that are kept mapped for reading and writing. The
        // instruction allows an overlap. The direction flag is clear in Rust code.
        unsafe {
            asm!(
                "rep movsb",
                inout("rsi") from => _,
                inout("rdi") to => _,
                inout("rcx") len => _,
                options(nostack, preserves_flags),
            );
        }
        Some(())
    }

    /// Stores `count` copies of `value`; `None`, and nothing stored, if they do not fit.
    #[must_use]
    pub fn fill<W: Word>(&self, offset: usize, value: W, count: usize) -> Option<()> {
        self.at(offset, count.checked_mul(size_of::<W>())?)?;
        (0..count).try_for_each(|index| {
            self.store(offset.wrapping_add(index.wrapping_mul(size_of::<W>())), value)
        })
    }

    /// Stores `len` bytes of this value; `None`, and nothing stored, if they do not fit.
    #[must_use]
    pub fn fill_bytes(&self, offset: usize, value: u8, len: usize) -> Option<()> {
        let at = self.at(offset, len)?;
        // SAFETY: The bytes are in the page, which `ram` keeps mapped for writing. The direction
        // flag is clear in Rust code.
        unsafe {
            asm!(
                "rep stosb",
                inout("rdi") at => _,
                inout("rcx") len => _,
                in("al") value,
                options(nostack, preserves_flags),
            );
        }
        Some(())
    }

    /// `true` if both are the same page of the same guest.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.start == other.start && Arc::ptr_eq(&self.ram, &other.ram)
    }
}

/// The low and the high half.
#[expect(clippy::cast_possible_truncation, reason = "halves of the value")]
const fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

#[cfg(test)]
#[path = "page_test.rs"]
mod tests;
