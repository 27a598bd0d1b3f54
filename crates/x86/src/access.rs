//! Loads and stores at linear addresses.

mod wide;

use crate::core::{Core, Run, Stop};
use crate::exit::{Entry, Exit};
use crate::int::{Int, mask};
use crate::tlb::{self, PAGE, Target};
use crate::walk::Access;

/// Destination of a linear address.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Ram(Target, u64),
    Device(u64),
}

/// The offset of an address in its page.
#[inline(always)]
pub(crate) const fn page_offset(address: u64) -> usize {
    (address & 0xfff) as usize
}

/// `true` if the `size` bytes at the address are in two pages.
pub(crate) const fn crosses(address: u64, size: u64) -> bool {
    (address & 0xfff).wrapping_add(size) > 0x1000
}

impl Core {
    /// Loads an operand.
    #[inline(always)]
    pub(crate) fn load<T: Int>(&mut self, linear: u64) -> Run<T> {
        let entry = self.tlb.entry(linear);
        if entry.read == linear & PAGE
            && let Some(target) = &entry.target
            && let Some(value) = target.page.load::<T>(page_offset(linear))
        {
            return Ok(value);
        }
        self.load_slow(linear, T::BYTES).map(T::of)
    }

    /// Stores an operand.
    #[inline(always)]
    pub(crate) fn store<T: Int>(&mut self, linear: u64, value: T) -> Run {
        let entry = self.tlb.entry(linear);
        if entry.write == linear & PAGE
            && let Some(target) = &entry.target
            && target.page.store(page_offset(linear), value).is_some()
        {
            // Another processor may have decoded code there since the entry was made.
            if target.chunk.lines(entry.address) != 0 {
                self.stored(linear, T::BYTES);
            }
            return Ok(());
        }
        self.store_slow(linear, value.zx(), T::BYTES)
    }

    /// Replaces an operand by a function of it; returns the old and the new value. Atomic if
    /// `lock`.
    #[inline(always)]
    pub(crate) fn update<T: Int>(
        &mut self,
        linear: u64,
        lock: bool,
        mut change: impl FnMut(T) -> T,
    ) -> Run<(T, T)> {
        let entry = self.tlb.entry(linear);
        if entry.write == linear & PAGE
            && let Some(target) = &entry.target
            && let Some(old) = target.page.load::<T>(page_offset(linear))
        {
            let new = change(old);
            let pair = if lock {
                exchange(target, page_offset(linear), old, new, &mut change)
            } else {
                let stored = target.page.store(page_offset(linear), new);
                debug_assert!(stored.is_some(), "what was loaded can be stored");
                (old, new)
            };
            if target.chunk.lines(entry.address) != 0 {
                self.stored(linear, T::BYTES);
            }
            return Ok(pair);
        }
        self.update_slow(linear, lock, &mut change)
    }

    /// Makes code stale that a store with a hit in the TLB has changed.
    #[cold]
    #[inline(never)]
    pub(crate) fn stored(&mut self, linear: u64, size: u64) {
        let entry = self.tlb.entry(linear);
        if let Some(target) = &entry.target {
            let first = linear & 0xfff;
            if target.chunk.has_code(entry.address, first, first.wrapping_add(size).wrapping_sub(1))
            {
                target.chunk.invalidate(entry.address);
            }
        }
    }

    /// Finds what a linear address leads to, through the TLB or the page tables.
    pub(crate) fn resolve(&mut self, linear: u64, write: bool) -> Run<Place> {
        let entry = self.tlb.entry(linear);
        let page = linear & PAGE;
        let is_known =
            if write { entry.write == page || entry.code == page } else { entry.read == page };
        if is_known && let Some(target) = &entry.target {
            let place = Place::Ram(target.clone(), entry.address | linear & 0xfff);
            if write
                && target.chunk.lines(entry.address) == 0
                && let Some(entry) = self.tlb.entry_mut(linear)
            {
                entry.write = page;
                entry.code = tlb::NONE;
            }
            return Ok(place);
        }
        if self.is_long() && !is_canonical(linear) {
            return self.non_canonical();
        }
        let access = if write { Access::Write } else { Access::Read };
        let found = self.translate(linear, access)?;
        let address = found.address & PAGE;
        let Some(memory) = self.physical.page(address) else {
            return Ok(Place::Device(found.address));
        };
        let target = Target { page: memory.clone(), chunk: self.code.chunk(address) };
        if self.tlb.set != tlb::CHECKED {
            let has_code = target.chunk.lines(address) != 0;
            self.tlb.has_large |= found.is_large;
            let entry = tlb::Entry {
                read: page,
                write: if found.is_writable && !has_code { page } else { tlb::NONE },
                code: if found.is_writable && has_code { page } else { tlb::NONE },
                address,
                global: found.is_global,
                target: Some(target.clone()),
            };
            self.tlb.occupy(linear, entry);
        }
        Ok(Place::Ram(target, found.address))
    }

    /// Conditions of an access that a hit in the TLB does not look at.
    pub(crate) fn check_access(&mut self, linear: u64, size: u64, write: bool) -> Run {
        if self.tlb.set != tlb::CHECKED {
            return Ok(());
        }
        if self.checks_alignment() && size.is_power_of_two() && linear & size.wrapping_sub(1) != 0 {
            return self.alignment_fault();
        }
        self.watch(linear, size, write);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn load_slow(&mut self, linear: u64, size: u64) -> Run<u64> {
        self.check_access(linear, size, false)?;
        let linear = self.wrap(linear);
        if !crosses(linear, size) {
            let place = self.resolve(linear, false)?;
            return self.load_place(&place, size);
        }
        let first_size = 0x1000_u64.wrapping_sub(linear & 0xfff);
        let first = self.resolve(linear, false)?;
        let second = self.resolve(self.wrap(linear.wrapping_add(first_size)), false)?;
        let low = self.load_place(&first, first_size)?;
        let high = self.load_place(&second, size.wrapping_sub(first_size))?;
        let shift = first_size.wrapping_mul(8) as u32;
        Ok(low | high.wrapping_shl(shift))
    }

    /// Linear addresses have 32 bits outside of long mode.
    pub(crate) fn wrap(&self, linear: u64) -> u64 {
        if self.is_long() { linear } else { linear & 0xffff_ffff }
    }

    fn load_place(&mut self, place: &Place, size: u64) -> Run<u64> {
        match place {
            Place::Ram(target, address) => {
                let offset = page_offset(*address);
                let value = match size {
                    1 => target.page.load::<u8>(offset).map(u64::from),
                    2 => target.page.load::<u16>(offset).map(u64::from),
                    4 => target.page.load::<u32>(offset).map(u64::from),
                    8 => target.page.load::<u64>(offset),
                    _ => {
                        let mut bytes = [0; 8];
                        let count = usize::try_from(size).unwrap_or(0);
                        let read =
                            bytes.get_mut(..count).and_then(|part| target.page.read(offset, part));
                        read.map(|()| u64::from_le_bytes(bytes))
                    }
                };
                debug_assert!(value.is_some(), "an access within a page");
                Ok(value.unwrap_or(0))
            }
            Place::Device(address) => {
                let width = u8::try_from(size).unwrap_or(8);
                let entry = self.device(Exit::MmioRead { address: *address, width })?;
                Ok(data(entry) & mask(u32::from(width).wrapping_mul(8)))
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn store_slow(&mut self, linear: u64, value: u64, size: u64) -> Run {
        self.check_access(linear, size, true)?;
        let linear = self.wrap(linear);
        if !crosses(linear, size) {
            let place = self.resolve(linear, true)?;
            self.check_code(&place, size)?;
            return self.store_place(&place, value, size);
        }
        let first_size = 0x1000_u64.wrapping_sub(linear & 0xfff);
        let second_size = size.wrapping_sub(first_size);
        let first = self.resolve(linear, true)?;
        let second = self.resolve(self.wrap(linear.wrapping_add(first_size)), true)?;
        self.check_code(&first, first_size)?;
        self.check_code(&second, second_size)?;
        self.store_place(&first, value, first_size)?;
        let shift = first_size.wrapping_mul(8) as u32;
        self.store_place(&second, value.wrapping_shr(shift), second_size)
    }

    /// Stops before a store to code of this block, or makes the code stale.
    pub(crate) fn check_code(&mut self, place: &Place, size: u64) -> Run {
        let Place::Ram(target, address) = place else { return Ok(()) };
        let first = address & 0xfff;
        if target.chunk.has_code(*address, first, first.wrapping_add(size).wrapping_sub(1)) {
            if !self.is_alone {
                return Err(Stop::Alone);
            }
            target.chunk.invalidate(*address);
        }
        Ok(())
    }

    pub(crate) fn store_place(&mut self, place: &Place, value: u64, size: u64) -> Run {
        let width = u8::try_from(size).unwrap_or(8);
        match place {
            Place::Ram(target, address) => {
                let offset = page_offset(*address);
                let stored = match size {
                    1 => target.page.store(offset, u8::of(value)),
                    2 => target.page.store(offset, u16::of(value)),
                    4 => target.page.store(offset, u32::of(value)),
                    8 => target.page.store(offset, value),
                    _ => value
                        .to_le_bytes()
                        .get(..usize::from(width))
                        .and_then(|part| target.page.write(offset, part)),
                };
                debug_assert!(stored.is_some(), "an access within a page");
                let last = (address & 0xfff).wrapping_add(size).wrapping_sub(1);
                if target.chunk.has_code(*address, address & 0xfff, last) {
                    target.chunk.invalidate(*address);
                }
                Ok(())
            }
            Place::Device(address) => {
                let value = value & mask(u32::from(width).wrapping_mul(8));
                self.device(Exit::MmioWrite { address: *address, width, value }).map(drop)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn update_slow<T: Int>(
        &mut self,
        linear: u64,
        lock: bool,
        change: &mut dyn FnMut(T) -> T,
    ) -> Run<(T, T)> {
        self.check_access(linear, T::BYTES, true)?;
        let linear = self.wrap(linear);
        if !crosses(linear, T::BYTES) {
            let place = self.resolve(linear, true)?;
            self.check_code(&place, T::BYTES)?;
            if let Place::Ram(target, address) = &place
                && lock
                && let Some(old) = target.page.load::<T>(page_offset(*address))
            {
                let pair = exchange(target, page_offset(*address), old, change(old), change);
                let last = (address & 0xfff).wrapping_add(T::BYTES).wrapping_sub(1);
                if target.chunk.has_code(*address, address & 0xfff, last) {
                    target.chunk.invalidate(*address);
                }
                return Ok(pair);
            }
            let old = T::of(self.load_place(&place, T::BYTES)?);
            let new = change(old);
            self.store_place(&place, new.zx(), T::BYTES)?;
            return Ok((old, new));
        }
        // Both pages are writable before the first byte changes.
        let code = std::sync::Arc::clone(&self.code);
        let _held = lock.then(|| code.hold_split());
        let first_size = 0x1000_u64.wrapping_sub(linear & 0xfff);
        self.resolve(linear, true)?;
        self.resolve(self.wrap(linear.wrapping_add(first_size)), true)?;
        let old = T::of(self.load_slow(linear, T::BYTES)?);
        let new = change(old);
        self.store_slow(linear, new.zx(), T::BYTES)?;
        Ok((old, new))
    }

    /// Loads with the rights of privileged code, as the processor does from its tables.
    pub(crate) fn load_system<T: Int>(&mut self, linear: u64) -> Run<T> {
        self.implicitly(|core| core.load(linear))
    }

    /// Makes accesses with the rights of privileged code.
    pub(crate) fn implicitly<R>(&mut self, action: impl FnOnce(&mut Self) -> R) -> R {
        let before = (self.tlb.set, self.is_implicit);
        self.is_implicit = true;
        if self.tlb.set != tlb::CHECKED {
            self.tlb.set = tlb::SUPERVISOR;
        }
        let result = action(self);
        (self.tlb.set, self.is_implicit) = before;
        result
    }
}

/// Replaces a word atomically by a function of it. `new` is that of `old`.
#[inline(always)]
fn exchange<T: Int>(
    target: &Target,
    offset: usize,
    mut old: T,
    mut new: T,
    change: &mut (impl FnMut(T) -> T + ?Sized),
) -> (T, T) {
    while let Some(found) = target.page.compare_exchange(offset, old, new) {
        if found == old {
            return (old, new);
        }
        old = found;
        new = change(old);
    }
    (old, new)
}

/// The data that a read is answered with.
pub(crate) const fn data(entry: Entry) -> u64 {
    match entry {
        Entry::Data(value) => value,
        Entry::Resume | Entry::Fault => u64::MAX,
    }
}

/// `true` if bits 63:47 of the address are equal.
#[inline(always)]
pub(crate) const fn is_canonical(address: u64) -> bool {
    let sign = address.cast_signed() >> 47;
    sign == 0 || sign == -1
}
