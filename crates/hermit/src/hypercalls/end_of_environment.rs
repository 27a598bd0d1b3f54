//! The end of the environment for kernels that forget it.
//!
//! Hermit kernels before 0.10 make room for a null pointer after the last environment variable and
//! never write it. What they tell of is a table of the guest-physical addresses of the variables'
//! buffers; the application gets another one beside it, of the guest-virtual addresses of the same
//! buffers, which is how it is found here.

use nerite_arch::paging::{self, Root};
use nerite_memory::GuestRam;

/// Bytes before and after the table of guest-physical addresses that are searched.
const WINDOW: u64 = 4 << 10;
const ENTRY: u64 = 8;

/// Writes a null pointer into the application's table, after `variables` entries. `table` is the
/// guest-physical address of the other table, of `count` entries. Nothing is written if there is no
/// table of at least two addresses that all lead to the same buffers.
pub(super) fn write(ram: &GuestRam, root: Root, table: u64, count: usize, variables: usize) {
    let at = |base: u64, index: usize| {
        base.wrapping_add(u64::try_from(index).unwrap_or(u64::MAX).wrapping_mul(ENTRY))
    };
    let read = |address: u64| ram.read_obj::<u64>(address).ok();
    let buffers: Option<Vec<u64>> = (0..count).map(|index| read(at(table, index))).collect();
    let Some(buffers) = buffers.filter(|buffers| buffers.len() >= 2) else { return };
    let leads_to = |entry: u64, buffer: u64| {
        // Most words are dismissed by what is below the page.
        entry & 0xfff == buffer & 0xfff
            && paging::walk(root, entry, read).is_ok_and(|found| found.phys == buffer)
    };
    let start = table.saturating_sub(WINDOW);
    let places = (start..table.saturating_add(WINDOW)).step_by(8);
    let is_table = |place: &u64| {
        *place != table
            && buffers.iter().enumerate().all(|(index, buffer)| {
                read(at(*place, index)).is_some_and(|entry| leads_to(entry, *buffer))
            })
    };
    if let Some(place) = places.into_iter().find(is_table) {
        // The kernel has made room for it, or RAM ends there, and the application goes without.
        let _ = ram.write_obj(at(place, variables), &0_u64);
    }
}
