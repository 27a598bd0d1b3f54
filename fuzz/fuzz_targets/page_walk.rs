//! Page tables of any bytes, walked as a guest's buffer is: the walk ends, whatever they say.
#![no_main]

use nerite_arch::SpecialRegs;
use nerite_arch::paging::{self, Root};

libfuzzer_sys::fuzz_target!(|input: (u64, u64, u64, u64, Vec<u64>)| {
    let (cr3, cr4, address, length, words) = input;
    let special = SpecialRegs {
        cr3,
        cr4,
        cr0: 1 << 31 | 1,
        efer: 1 << 8 | 1 << 10,
        ..SpecialRegs::default()
    };
    let Some(root) = Root::of(&special) else { return };
    // Memory of a few pages, which repeat without end.
    let reads = std::cell::Cell::new(0_u32);
    let mut read = |at: u64| {
        reads.set(reads.get() + 1);
        let count = words.len() as u64;
        words.get(usize::try_from((at / 8).checked_rem(count)?).ok()?).copied()
    };
    if let Ok(found) = paging::walk(root, address, &mut read) {
        assert!(found.page_size.is_power_of_two() && found.page_size <= 1 << 30);
    }
    assert!(reads.get() <= 5);
    let length = length % (1 << 24);
    let mut total = 0_u64;
    for piece in paging::chunks(root, address, length, &mut read) {
        let Ok((_, size)) = piece else { break };
        assert!(size > 0);
        total += size;
    }
    assert!(total <= length);
});
