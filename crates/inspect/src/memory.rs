//! Guest-virtual memory.

use nerite_arch::SpecialRegs;
use nerite_arch::paging::{self, Root, Translation};
use nerite_memory::GuestRam;

/// Translates a guest-virtual address through a vCPU's page tables.
///
/// # Errors
/// Fails if the address is not mapped.
pub fn translate(
    ram: &GuestRam,
    special: &SpecialRegs,
    address: u64,
) -> Result<Translation, String> {
    match Root::of(special) {
        Some(root) => paging::walk(root, address, |entry| ram.read_obj::<u64>(entry).ok())
            .map_err(|error| error.to_string()),
        None => Err(format!("guest-virtual address {address:#x}: the vCPU is not in 64-bit mode")),
    }
}

/// Reads guest-virtual memory. Returns the number of bytes that could be read.
pub fn read_virtual(ram: &GuestRam, special: &SpecialRegs, address: u64, data: &mut [u8]) -> usize {
    pieces(ram, special, address, data.len(), |physical, range| {
        data.get_mut(range).is_some_and(|piece| ram.read(physical, piece).is_ok())
    })
}

/// Writes guest-virtual memory, whatever its pages allow the guest. Returns the number of bytes
/// that could be written.
pub fn write_virtual(ram: &GuestRam, special: &SpecialRegs, address: u64, data: &[u8]) -> usize {
    pieces(ram, special, address, data.len(), |physical, range| {
        data.get(range).is_some_and(|piece| ram.write(physical, piece).is_ok())
    })
}

/// Splits guest-virtual memory at the borders of small pages, and hands each piece over with its
/// physical address.
fn pieces(
    ram: &GuestRam,
    special: &SpecialRegs,
    address: u64,
    length: usize,
    mut each: impl FnMut(u64, std::ops::Range<usize>) -> bool,
) -> usize {
    const PAGE: u64 = 4096;
    let mut done = 0_usize;
    while done < length {
        let Some(at) = address.checked_add(done as u64) else { break };
        let in_page = PAGE.saturating_sub(at & PAGE.saturating_sub(1));
        let size = usize::try_from(in_page).unwrap_or(1).min(length.saturating_sub(done));
        let Ok(translation) = translate(ram, special, at) else { break };
        let end = done.saturating_add(size);
        if !each(translation.phys, done..end) {
            break;
        }
        done = end;
    }
    done
}
