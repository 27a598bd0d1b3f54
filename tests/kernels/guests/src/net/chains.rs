//! Chains and indices that no driver may write (virtio 1.2, 2.7).

use runtime::paging::PAGE;
use runtime::prelude::*;

use crate::bench::Outcome::{Any, Broken, Goes};
use crate::bench::{Bench, FRAME, Outcome};
use crate::raw::{EVENT_IDX, INDIRECT, INDIRECT_DESC, NEXT, SIZE, WRITE, set_descriptor};

/// An address that is not RAM: in the gap for devices.
const NO_RAM: u64 = 0xc800_0000;
/// Entries of a table that are more than the queue has.
const MANY: u16 = SIZE + 4;
/// Entries of a table that are more than the largest queue has.
const TOO_MANY: u16 = 257;

/// Misuse of a queue by the driver.
type Act = fn(&mut Bench);

/// A mistake on a queue: its name, what has to come of it, and what comes of it where the host's
/// kernel works on the queues, which judges some of them in another way.
struct Case(&'static str, Outcome, Outcome, Act);

fn send(bench: &mut Bench, chain: &[(u64, u32, u16, u16)]) {
    (0..).zip(chain).for_each(|(index, descriptor)| bench.tx.set(index, *descriptor));
    bench.tx.publish(0);
}

/// A table of descriptors, behind the frame.
fn table(bench: &Bench) -> u64 {
    bench.data + PAGE
}

fn indirect(bench: &mut Bench, entries: &[(u64, u32, u16, u16)], length: u32, flags: u16) {
    let table = table(bench);
    (0..).zip(entries).for_each(|(index, entry)| set_descriptor(table, index, *entry));
    send(bench, &[(table, length, INDIRECT | flags, 1), (bench.data, FRAME, 0, 0)]);
}

fn ram_end() -> u64 {
    boot::memory().iter().map(|region| region.end).max().unwrap_or(0)
}

const SENDING: &[Case] = &[
    Case("a chain that ends in itself", Broken, Broken, |b| send(b, &[(b.data, FRAME, NEXT, 0)])),
    Case("a loop of two", Broken, Broken, |b| {
        send(b, &[(b.data, FRAME, NEXT, 1), (b.data, FRAME, NEXT, 0)])
    }),
    Case("a loop of the whole queue", Broken, Broken, |b| {
        (0..SIZE).for_each(|index| b.tx.set(index, (b.data, FRAME, NEXT, (index + 1) % SIZE)));
        b.tx.publish(0);
    }),
    Case("the next descriptor is one too far", Broken, Broken, |b| {
        send(b, &[(b.data, FRAME, NEXT, SIZE)])
    }),
    Case("the next descriptor is the last number", Broken, Broken, |b| {
        send(b, &[(b.data, 4, NEXT, 0xffff)])
    }),
    Case("the first descriptor is one too far", Broken, Broken, |b| b.tx.publish(SIZE)),
    Case("the first descriptor is the last number", Broken, Broken, |b| b.tx.publish(0xffff)),
    Case("a buffer out of RAM", Broken, Broken, |b| send(b, &[(NO_RAM, FRAME, 0, 0)])),
    Case("a buffer in the card", Broken, Broken, |b| send(b, &[(b.card.bar, FRAME, 0, 0)])),
    Case("a buffer over the end of RAM", Broken, Broken, |b| {
        send(b, &[(ram_end() - 8, FRAME, 0, 0)])
    }),
    Case("a buffer over the end of all", Broken, Broken, |b| {
        send(b, &[(u64::MAX - 7, FRAME, 0, 0)])
    }),
    Case("a length beyond RAM", Broken, Broken, |b| send(b, &[(b.data, u32::MAX, 0, 0)])),
    Case("a megabyte", Goes(1), Any, |b| send(b, &[(ram_end() - (2 << 20), 1 << 20, 0, 0)])),
    Case("nothing", Goes(1), Broken, |b| send(b, &[(b.data, 0, 0, 0)])),
    Case("less than a header", Goes(1), Any, |b| send(b, &[(b.data, 4, 0, 0)])),
    Case("a header", Goes(1), Any, |b| send(b, &[(b.data, 12, 0, 0)])),
    Case("nothing, and then a frame", Goes(1), Goes(1), |b| {
        send(b, &[(b.data, 0, NEXT, 1), (b.data, FRAME, 0, 0)]);
    }),
    Case("a frame in pieces of a few bytes", Goes(1), Goes(1), |b| {
        (0..9).for_each(|n| {
            b.tx.set(n, (b.data + 8 * u64::from(n), 8, if n < 8 { NEXT } else { 0 }, n + 1))
        });
        b.tx.publish(0);
    }),
    Case("a frame to write", Goes(1), Broken, |b| send(b, &[(b.data, FRAME, WRITE, 0)])),
    Case("to read after to write", Broken, Broken, |b| {
        send(b, &[(b.data + PAGE, 12, WRITE | NEXT, 1), (b.data, FRAME, 0, 0)]);
    }),
    Case("a chain twice", Goes(2), Goes(2), |b| {
        send(b, &[(b.data, FRAME, 0, 0)]);
        b.tx.publish(0);
    }),
    Case("a queue full of the same chain", Goes(SIZE), Goes(SIZE), |b| {
        send(b, &[(b.data, FRAME, 0, 0)]);
        (1..SIZE).for_each(|_| b.tx.publish(0));
    }),
    Case("an index ahead", Broken, Broken, |b| b.tx.set_available(SIZE + 1)),
    Case("an index far ahead", Broken, Broken, |b| b.tx.set_available(0x8000)),
    Case("an index back", Broken, Broken, |b| {
        send(b, &[(b.data, FRAME, 0, 0)]);
        b.card.kick(1);
        check!(b.tx.wait_used().is_some(), "a frame is not given back");
        b.tx.set_available(0);
    }),
    Case("a table", Goes(1), Goes(1), |b| indirect(b, &[(b.data, FRAME, 0, 0)], 16, 0)),
    Case("a table to write", Goes(1), Goes(1), |b| {
        indirect(b, &[(b.data, FRAME, 0, 0)], 16, WRITE)
    }),
    Case("a table in a table", Broken, Broken, |b| {
        indirect(b, &[(table(b), 16, INDIRECT, 0)], 16, 0)
    }),
    Case("an empty table", Broken, Broken, |b| indirect(b, &[(b.data, FRAME, 0, 0)], 0, 0)),
    Case("a table and a half", Broken, Broken, |b| indirect(b, &[(b.data, FRAME, 0, 0)], 24, 0)),
    Case("a table with a successor", Broken, Any, |b| {
        indirect(b, &[(b.data, FRAME, 0, 0)], 16, NEXT)
    }),
    Case("a table out of RAM", Broken, Broken, |b| send(b, &[(NO_RAM, 16, INDIRECT, 0)])),
    Case("a table of 4 GiB", Goes(1), Broken, |b| {
        indirect(b, &[(b.data, FRAME, 0, 0)], 0xffff_fff0, 0)
    }),
    Case("a loop in a table", Broken, Broken, |b| indirect(b, &[(b.data, FRAME, NEXT, 0)], 16, 0)),
    Case("beyond the end of a table", Broken, Broken, |b| {
        indirect(b, &[(b.data, FRAME, NEXT, 1)], 16, 0)
    }),
    Case("a table longer than the queue", Goes(1), Any, |b| {
        let entry = |n| {
            (b.data, if n == 0 { FRAME } else { 1 }, if n + 1 < MANY { NEXT } else { 0 }, n + 1)
        };
        let entries: Vec<_> = (0..MANY).map(entry).collect();
        indirect(b, &entries, 16 * u32::from(MANY), 0);
    }),
    Case("a table longer than the largest queue", Broken, Any, |b| {
        // In the place of the frame: it takes more than a page.
        let flags = |n| if n + 1 < TOO_MANY { NEXT } else { 0 };
        (0..TOO_MANY).for_each(|n| set_descriptor(b.data, n, (b.data, 1, flags(n), n + 1)));
        send(b, &[(b.data, 16 * u32::from(TOO_MANY), INDIRECT, 0)]);
    }),
];

/// The kernel looks at what it was given when there is a frame for it.
const RECEIVING: &[Case] = &[
    Case("a chain that ends in itself", Broken, Broken, |b| {
        take(b, &[(b.data + PAGE, 64, WRITE | NEXT, 0)])
    }),
    Case("the first descriptor is one too far", Broken, Broken, |b| b.rx.publish(SIZE)),
    Case("a buffer out of RAM", Broken, Broken, |b| take(b, &[(NO_RAM, 2048, WRITE, 0)])),
    Case("a buffer over the end of RAM", Broken, Broken, |b| {
        take(b, &[(ram_end() - 8, 2048, WRITE, 0)])
    }),
    Case("a length beyond RAM", Broken, Broken, |b| take(b, &[(b.data, u32::MAX, WRITE, 0)])),
    Case("a megabyte", Goes(1), Goes(1), |b| {
        take(b, &[(ram_end() - (2 << 20), 1 << 20, WRITE, 0)])
    }),
    Case("nothing", Goes(1), Any, |b| take(b, &[(b.data + PAGE, 0, WRITE, 0)])),
    Case("a buffer of one byte", Any, Any, |b| take(b, &[(b.data + PAGE, 1, WRITE, 0)])),
    Case("a buffer to read", Goes(1), Broken, |b| take(b, &[(b.data + PAGE, 2048, 0, 0)])),
    Case("to read after to write", Broken, Broken, |b| {
        take(b, &[(b.data + PAGE, 1024, WRITE | NEXT, 1), (b.data, 64, 0, 0)]);
    }),
    Case("an index ahead", Broken, Broken, |b| b.rx.set_available(SIZE + 1)),
    Case("an index back", Broken, Broken, |b| b.rx.set_available(0xffff)),
];

fn take(bench: &mut Bench, chain: &[(u64, u32, u16, u16)]) {
    (0..).zip(chain).for_each(|(index, descriptor)| bench.rx.set(index, *descriptor));
    bench.rx.publish(0);
}

/// Plays them all. Returns how many.
pub(crate) fn play(bench: &mut Bench) -> usize {
    for features in [0, EVENT_IDX] {
        for Case(name, wanted, by_kernel, act) in SENDING {
            bench.start(features | INDIRECT_DESC);
            act(bench);
            bench.card.kick(1);
            bench.judge(
                &format!("sending {name}"),
                1,
                if bench.by_kernel { *by_kernel } else { *wanted },
            );
        }
    }
    for Case(name, wanted, by_kernel, act) in RECEIVING {
        bench.start(INDIRECT_DESC);
        act(bench);
        bench.card.kick(0);
        bench.ask();
        bench.judge(
            &format!("receiving {name}"),
            0,
            if bench.by_kernel { *by_kernel } else { *wanted },
        );
    }
    bench.start(0);
    indirect(bench, &[(bench.data, FRAME, 0, 0)], 16, 0);
    bench.card.kick(1);
    bench.judge(
        "a table that was not agreed on",
        1,
        if bench.by_kernel { Goes(1) } else { Broken },
    );
    2 * SENDING.len() + RECEIVING.len() + 1
}
