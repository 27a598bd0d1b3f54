//! Hypercalls from any bytes, for the fuzz target and the property test that look for one that is
//! not answered.

use std::sync::Arc;

use nerite_arch::SpecialRegs;
use nerite_devices::{Console, Input, Sink};
use nerite_hostfs::{HostFs, Limits};
use nerite_hypercall::{v1, v2};
use nerite_hypervisor::scripted::Scripted;
use nerite_memory::{Backing, GuestRam, Region};
use nerite_platform::{LogBudget, StopToken};

use crate::Error;
use crate::hypercalls::{Hypercalls, Scratch};

/// RAM of the guest that calls: 64 KiB at 0, and as much far above.
const RAM: [Region; 2] =
    [Region { start: 0, size: 64 << 10 }, Region { start: 5 << 30, size: 64 << 10 }];
/// Bytes of one call in the input: interface and number, and the address of the block.
const RECORD: usize = 9;
/// The most calls.
const CALLS: usize = 64;

/// Makes the calls that the beginning of `bytes` stands for, in memory that begins with the rest of
/// it.
///
/// The guest has temporary files and page tables wherever its memory says; nothing of the host.
///
/// # Errors
/// If the host has no memory or descriptors.
pub fn hypercalls(bytes: &[u8]) -> Result<(), Error> {
    let (first, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let count = usize::from(*first).min(CALLS).min(bytes.len().checked_div(RECORD).unwrap_or(0));
    let (records, memory) =
        bytes.split_at_checked(count.saturating_mul(RECORD)).unwrap_or((&[], bytes));
    let ram = Arc::new(GuestRam::new(&RAM, &Backing::default())?);
    let fits = memory.get(..memory.len().min(64 << 10)).unwrap_or_default();
    // It is not longer than RAM.
    let _ = ram.write(0, fits);
    let limits = Limits {
        open_files: 8,
        temporary_bytes: 1 << 16,
        temporary_entries: 8,
        ..Limits::default()
    };
    let calls = Hypercalls {
        ram,
        console: Arc::new(Console::new(Sink::Null)),
        input: Input::new(None),
        files: HostFs::new(&[], &[], limits)?,
        command_line: std::sync::Mutex::default(),
        stop: StopToken::new().map_err(Error::host("creating an eventfd"))?,
        rate: None,
        budget: LogBudget::new(0),
    };
    let mut scratch = Scratch::default();
    let mut vcpu = Scripted::default();
    for record in records.chunks_exact(RECORD) {
        let Some((which, address)) = record.split_first_chunk::<1>() else { continue };
        let Ok(address) = <[u8; 8]>::try_from(address).map(u64::from_le_bytes) else { continue };
        let [which] = *which;
        let at = |count: usize| usize::from(which >> 1).checked_rem(count).unwrap_or(0);
        if which & 1 == 0 {
            let Some(call) = v2::Call::ALL.get(at(v2::Call::ALL.len())) else { continue };
            calls.v2(*call, address, &mut scratch);
        } else {
            let Some(call) = v1::Call::ALL.get(at(v1::Call::ALL.len())) else { continue };
            // Paging in 64-bit mode, by tables somewhere in the first pages.
            let (pg, lma, cr3) = (1 << 31, 1 << 10, address >> 32 & 0xf000);
            vcpu.special_regs = SpecialRegs { cr0: pg, efer: lma, cr3, ..SpecialRegs::default() };
            let [a, b, c, d, ..] = address.to_le_bytes();
            calls.v1(*call, u32::from_le_bytes([a, b, c, d]), &mut vcpu, &mut scratch);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_calls_are_answered(
            records in proptest::collection::vec((any::<u8>(), prop_oneof![0_u64..0x3000, any::<u64>()]), 1..40),
            memory in proptest::collection::vec(any::<u8>(), 0..8192),
        ) {
            let mut bytes = vec![u8::try_from(records.len()).unwrap()];
            for (which, address) in records {
                bytes.push(which);
                bytes.extend(address.to_le_bytes());
            }
            bytes.extend(memory);
            super::hypercalls(&bytes).unwrap();
        }
    }
}
