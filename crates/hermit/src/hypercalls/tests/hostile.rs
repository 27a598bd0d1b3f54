//! Whatever a guest says: no panic, no hang, and nothing but its own memory and the console is
//! touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nerite_devices::{Console, Input, Sink};
use nerite_hypercall::file::{O_CREAT, O_RDWR};
use nerite_hypercall::{v1, v2};
use nerite_memory::WriteObserver;
use proptest::prelude::*;

use crate::builder::shared;
use crate::dispatch::Shared;
use crate::hypercalls::buffers::Buffer;
use crate::hypercalls::{Hypercalls, Next};
use crate::testing::{Guest, HIGH, MIB, RAM_END};
use nerite_testkit::tables;

/// A guest that has no input to wait for and whose output goes to `console`, or to the usual one.
fn guest(console: Option<Console>) -> Guest {
    let guest = Guest::new();
    let Guest { ram, shared: old, vcpu, scratch, screen, .. } = guest;
    let Shared { calls, .. } = Arc::into_inner(old).unwrap();
    let console = console.map_or(calls.console.clone(), Arc::new);
    let calls = Hypercalls { input: Input::new(None), console, ..calls };
    Guest {
        ram,
        shared: Arc::new(shared(calls, None, &nerite_pci::Bridge::new()).unwrap()),
        vcpu,
        scratch,
        screen,
        keyboard: None,
    }
}

/// Numbers near the edges of RAM and of their type, and any others.
fn number() -> impl Strategy<Value = u64> {
    let near = |edge: u64| (0..0x80_u64).prop_map(move |n| edge.wrapping_add(n).wrapping_sub(0x40));
    prop_oneof![
        near(0),
        near(RAM_END),
        near(HIGH),
        near(HIGH + 2 * MIB),
        near(1 << 47),
        0..RAM_END,
        any::<u64>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_call_comes_back(
        words in proptest::collection::vec(number(), 6),
        address in number(),
        entries in proptest::collection::vec((0..512_u64, number()), 8),
    ) {
        let mut guest = guest(Some(Console::new(Sink::Null)));
        guest.vcpu.special_regs = tables::map(&guest.ram, &entries);
        for at in [address & 0xffff_ffff, address] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            // Where they do not fit they are not.
            let _ = guest.ram.write(at, &bytes);
            for call in v2::Call::ALL {
                let next = guest.v2_at(call, at);
                let as_expected = match next {
                    Next::Resume => call != v2::Call::Exit,
                    Next::Exit(_) => call == v2::Call::Exit,
                    _ => false,
                };
                prop_assert!(as_expected, "{call:?}: {next:?}");
            }
        }
        for call in v1::Call::ALL {
            let next = guest.v1_at(call, address & 0xffff_ffff);
            let as_expected = match next {
                Next::Resume => true,
                Next::Exit(_) => call == v1::Call::Exit,
                _ => false,
            };
            prop_assert!(as_expected, "{call:?}: {next:?}");
        }
    }

    /// A buffer is shown exactly if it is all in RAM, and not at all otherwise.
    #[test]
    fn a_buffer_comes_out_whole_or_not_at_all(
        start in prop_oneof![Just(RAM_END), Just(HIGH), Just(HIGH + 2 * MIB)],
        before in 0..0x200_u64,
        len in 0..0x400_u64,
        seed: u8,
    ) {
        let mut guest = guest(None);
        let pattern: Vec<u8> = (0..=250_u8).cycle().map(|n| seed.wrapping_add(n)).take(0x200).collect();
        for edge in [RAM_END - 0x200, HIGH, HIGH + 2 * MIB - 0x200] {
            guest.ram.write(edge, &pattern).unwrap();
        }
        let buf = start - before;
        let mut expected = vec![0; usize::try_from(len).unwrap()];
        let in_ram = guest.ram.read(buf, &mut expected).is_ok();
        let write = v2::WriteParams { fd: 1, buf, len, ..v2::WriteParams::default() };
        let ret = guest.v2(v2::Call::FileWrite, write).ret;
        let shown = guest.shown();
        if in_ram {
            prop_assert_eq!(ret, len.cast_signed());
            prop_assert!(shown == expected);
        } else {
            prop_assert_eq!(ret, i64::from(-nerite_hypercall::errno::EFAULT));
            prop_assert_eq!(shown, b"");
        }
    }

    /// Copies through page tables are those a processor would make, byte by byte.
    #[test]
    fn virtual_buffers_are_copied_as_by_the_processor(
        pages in proptest::collection::vec(0..64_u64, 4),
        offset in 0..0x1000_u64,
        len in 0..0x3000_usize,
        seed: u8,
    ) {
        let guest = Guest::new();
        let physical = |page: u64| 0x10_0000 + page * 0x1000;
        let mapping: Vec<_> = (16..).zip(pages.iter().map(|&page| physical(page))).collect();
        tables::map(&guest.ram, &mapping);
        let data: Vec<u8> = (0..=250_u8).cycle().map(|n| seed.wrapping_add(n)).take(len).collect();
        let buffer = Buffer::Virtual { root: Some(tables::ROOT.into()), address: 0x1_0000 + offset, length: len as u64 };
        prop_assert_eq!(buffer.write(&guest.ram, &data), Ok(()));
        // Later bytes win where pages are mapped twice.
        let mut expected = std::collections::BTreeMap::new();
        for (at, byte) in (offset..).zip(&data) {
            let page = pages[usize::try_from(at / 0x1000).unwrap()];
            expected.insert(physical(page) + at % 0x1000, *byte);
        }
        for (address, byte) in &expected {
            prop_assert_eq!(guest.ram.read_obj::<u8>(*address).unwrap(), *byte);
        }
        let mut back = vec![0; len];
        prop_assert_eq!(buffer.read(&guest.ram, 0, &mut back), Ok(len));
        for (at, byte) in (offset..).zip(&back) {
            let page = pages[usize::try_from(at / 0x1000).unwrap()];
            prop_assert_eq!(*byte, expected[&(physical(page) + at % 0x1000)]);
        }
    }
}

/// Sums what is reported as written.
struct Sum(AtomicU64);

impl WriteObserver for Sum {
    fn written(&self, _: u64, len: u64) {
        self.0.fetch_add(len, Ordering::Relaxed);
    }
}

#[test]
fn no_more_is_reported_as_written_than_was_read() {
    let mut guest = Guest::new();
    guest.ram.write(0x100, b"/temporary\0").unwrap();
    let open = v2::OpenParams { name: 0x100, flags: O_RDWR | O_CREAT, ..Default::default() };
    let fd = guest.v2(v2::Call::FileOpen, open).ret;
    let write = v2::WriteParams { fd, buf: 0x100, len: 10, ..v2::WriteParams::default() };
    assert_eq!(guest.v2(v2::Call::FileWrite, write).ret, 10);
    let sum = Arc::new(Sum(AtomicU64::new(0)));
    guest.ram.observe(sum.clone());
    let mut read = |fd, buf, len| {
        let seek = v2::LseekParams { fd, ..v2::LseekParams::default() };
        guest.v2(v2::Call::FileLseek, seek);
        sum.0.store(0, Ordering::Relaxed);
        let params = v2::ReadParams { fd, buf, len, ..v2::ReadParams::default() };
        let ret = guest.v2(v2::Call::FileRead, params).ret;
        // The parameters, written here and by the call, are observed as well.
        (ret, sum.0.load(Ordering::Relaxed) < 0x100)
    };
    let fault = i64::from(-nerite_hypercall::errno::EFAULT);
    assert_eq!(read(fd, 0x1000, 10), (10, true));
    assert_eq!(read(fd, 0x1000, MIB), (10, true));
    assert_eq!(read(fd, 0x1000, u64::MAX), (fault, true));
    assert_eq!(read(fd, RAM_END - 1, MIB), (fault, true));
    // Nothing says which part of it a read that failed has written.
    assert!(read(77, 0x1000, 10).0 < 0);
}
