use crate::{Backing, GuestRam, Region};

use super::*;

fn pages() -> Pages {
    let regions =
        [Region { start: 0x1000, size: 0x3000 }, Region { start: 0x10_0000, size: 0x1000 }];
    Pages::new(&GuestRam::new(&regions, &Backing::default()).unwrap())
}

#[test]
fn pages_are_where_ram_is_and_outlive_their_source() {
    let pages = pages();
    for outside in [0, 0xfff, 0x4000, 0xf_ffff, 0x10_1000, u64::MAX] {
        assert!(pages.page(outside).is_none(), "{outside:#x}");
    }
    let page = pages.page(0x3fff).unwrap();
    pages.ram().write(0x3ff8, &0x1122_3344_5566_7788_u64.to_le_bytes()).unwrap();
    assert!(page.is(&pages.page(0x3000).unwrap()) && !page.is(&pages.page(0x2000).unwrap()));
    drop(pages);
    assert_eq!(page.load::<u64>(0xff8), Some(0x1122_3344_5566_7788));
    assert_eq!(page.load::<u16>(0xffe), Some(0x1122));
}

#[test]
fn words_do_not_leave_the_page() {
    let page = pages().page(0x1000).unwrap();
    assert_eq!(page.store(4095, 0xab_u8), Some(()));
    assert_eq!(page.load::<u8>(4095), Some(0xab));
    assert_eq!(page.store(4095, 1_u16), None);
    assert_eq!(page.load::<u32>(4093), None);
    assert_eq!(page.load::<u64>(usize::MAX), None);
    assert_eq!(page.compare_exchange(4089, 0_u64, 1), None);
    assert_eq!(page.read(4090, &mut [0; 7]), None);
    assert_eq!(page.write(1, &[0; 4096]), None);
    assert_eq!(page.fill(4090, 1_u16, 4), None);
    assert_eq!(page.fill(0, 1_u64, usize::MAX), None);
    assert_eq!(page.fill_bytes(0, 1, 4097), None);
    assert_eq!(page.copy_from(0, &page, 1, 4096), None);
    assert_eq!(page.load::<u64>(0), Some(0));
}

#[test]
fn exchanges_of_all_widths_tell_what_was_there() {
    let page = pages().page(0x1000).unwrap();
    page.store(3, 0x8877_6655_4433_2211_u64).unwrap();
    assert_eq!(page.compare_exchange(3, 0x11_u8, 0xaa), Some(0x11));
    assert_eq!(page.compare_exchange(4, 0x3322_u16, 0xbbbb), Some(0x3322));
    assert_eq!(page.compare_exchange(6, 0_u32, 1), Some(0x7766_5544));
    assert_eq!(page.compare_exchange(3, 0x8877_6655_44bb_bbaa, 5_u64), Some(0x8877_6655_44bb_bbaa));
    assert_eq!(page.load::<u64>(3), Some(5));
}

#[test]
fn sixteen_bytes_are_exchanged_where_they_are_aligned() {
    let page = pages().page(0x1000).unwrap();
    assert_eq!(page.compare_exchange_16(8, 0, 1), None);
    let value = 0x1111_2222_3333_4444_5555_6666_7777_8888;
    assert_eq!(page.compare_exchange_16(16, 0, value), Some(0));
    assert_eq!(page.compare_exchange_16(16, 0, 1), Some(value));
    assert_eq!(page.load::<u64>(16), Some(0x5555_6666_7777_8888));
    assert_eq!(page.load::<u64>(24), Some(0x1111_2222_3333_4444));
}

#[test]
fn copies_that_overlap_repeat_their_beginning() {
    let page = pages().page(0x1000).unwrap();
    page.write(0, b"ab").unwrap();
    page.copy_from(2, &page, 0, 6).unwrap();
    let mut bytes = [0; 8];
    page.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"abababab");
    page.fill(1, 0x7978_u16, 3).unwrap();
    page.fill_bytes(7, b'z', 1).unwrap();
    page.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"axyxyxyz");
}

#[test]
fn exchanges_of_two_threads_are_atomic() {
    let pages = pages();
    let count = || {
        let page = pages.page(0x2000).unwrap();
        for _ in 0..10_000 {
            let mut old: u32 = page.load(61).unwrap();
            loop {
                let found = page.compare_exchange(61, old, old.wrapping_add(1)).unwrap();
                if found == old {
                    break;
                }
                old = found;
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(count);
        scope.spawn(count);
    });
    assert_eq!(pages.page(0x2000).unwrap().load::<u32>(61), Some(20_000));
}

#[test]
fn sixteen_bytes_are_copied_at_any_alignment() {
    let page = pages().page(0x1000).unwrap();
    let bytes = *b"0123456789abcdef";
    assert_eq!(page.write_16(4081, &bytes), None);
    assert_eq!(page.write_16(4080, &bytes), Some(()));
    let mut found = [0; 16];
    assert_eq!(page.read_16(4081, &mut found), None);
    assert_eq!((page.read_16(4079, &mut found), found[0]), (Some(()), 0));
    assert_eq!(found[1..], bytes[..15]);
}
