//! Registers and rings as no driver may use them (virtio 1.2, 3.1 and 4.1.4), and resets at bad
//! moments.

use runtime::mmio;
use runtime::paging::PAGE;
use runtime::prelude::*;

use crate::bench::Outcome::{Any, Broken, Goes};
use crate::bench::{Bench, FRAME, Outcome};
use crate::raw::{
    ACCEPT, ACCEPT_SELECT, ACKNOWLEDGE, CTRL_VQ, DRIVER, DRIVER_OK, FEATURES_OK, INDIRECT_DESC,
    NEXT, QUEUE_DESC, QUEUE_ENABLE, QUEUE_SELECT, QUEUE_SIZE, READY, SIZE, STATUS, VERSION_1,
    WRITE, pages, wait,
};

/// An address that is not RAM: in the gap for devices.
const NO_RAM: u64 = 0xc800_0000;
/// Bytes of the common configuration.
const COMMON: u64 = 56;

fn ram_end() -> u64 {
    boot::memory().iter().map(|region| region.end).max().unwrap_or(0)
}

/// Queues that cannot be used: size and parts, instead of those of the queue for sending.
fn bad_queues(bench: &Bench) -> Vec<(&'static str, u16, [u64; 3], Outcome)> {
    let [d, a, u] = bench.tx.parts;
    let end = ram_end();
    vec![
        ("a queue of no entries", 0, [d, a, u], Broken),
        ("a queue of three entries", 3, [d, a, u], Broken),
        ("a queue of 512 entries", 512, [d, a, u], Broken),
        ("a queue of 65535 entries", 0xffff, [d, a, u], Broken),
        ("descriptors out of RAM", SIZE, [NO_RAM, a, u], Broken),
        ("an available ring out of RAM", SIZE, [d, NO_RAM, u], Broken),
        ("a used ring out of RAM", SIZE, [d, a, NO_RAM], Broken),
        ("a used ring in the card", SIZE, [d, a, bench.card.bar], Broken),
        ("descriptors over the end of RAM", SIZE, [end - 16, a, u], Broken),
        ("an available ring over the end of RAM", SIZE, [d, end - 4, u], Broken),
        ("a used ring over the end of RAM", SIZE, [d, a, end - 4], Broken),
        ("descriptors over the end of all", SIZE, [!15, a, u], Broken),
        ("a used ring over the end of all", SIZE, [d, a, !3], Broken),
        ("descriptors that are not aligned", SIZE, [d + 8, a, u], Broken),
        ("an available ring that is not aligned", SIZE, [d, a + 1, u], Broken),
        ("a used ring that is not aligned", SIZE, [d, a, u + 2], Broken),
        ("nothing at all", SIZE, [0, 0, 0], Broken),
        ("all parts at one address", SIZE, [d, d, d], Any),
        ("both rings at one address", SIZE, [d, a, a], Any),
        ("descriptors in the used ring", SIZE, [u, a, u], Any),
        ("rings that overlap in part", SIZE, [d, d + 8, d + 20], Any),
    ]
}

fn play_queues(bench: &mut Bench) -> usize {
    let all = bad_queues(bench);
    for (name, size, parts, wanted) in &all {
        bench.card.negotiate(VERSION_1);
        bench.rx.clear();
        bench.tx.clear();
        bench.card.set_queue(0, SIZE, bench.rx.parts);
        bench.card.set_queue(1, *size, *parts);
        bench.card.set_status(READY);
        bench.tx.set(0, (bench.data, FRAME, 0, 0));
        bench.tx.publish(0);
        bench.card.kick(1);
        bench.judge(name, 1, *wanted);
    }
    // Parts that another queue has, too.
    bench.card.negotiate(VERSION_1);
    bench.card.set_queue(0, SIZE, bench.tx.parts);
    bench.card.set_queue(1, SIZE, bench.tx.parts);
    bench.card.set_status(READY);
    bench.ask();
    bench.card.kick(0);
    bench.judge("two queues at one address", 1, Any);
    for (name, queues) in [("no queue", 0..0), ("no queue for sending", 0..1)] {
        bench.card.negotiate(VERSION_1);
        queues.for_each(|index| bench.card.set_queue(index, SIZE, bench.rx.parts));
        bench.card.set_status(READY);
        // A driver need not enable all queues: nothing comes of it.
        let broken = wait(3_000, || (bench.card.status() != READY).then_some(()));
        check!(broken.is_none(), "{name}: the card needs a reset");
        bench.judge_after(name);
    }
    all.len() + 3
}

/// Common configuration, without the device's own bits.
fn common(bench: &Bench) -> Vec<u32> {
    (0..COMMON / 4).map(|word| mmio::read32(bench.card.common + 4 * word)).collect()
}

fn write(at: u64, width: u64, value: u64) {
    match width {
        1 => mmio::write8(at, value as u8),
        2 => mmio::write16(at, value as u16),
        4 => mmio::write32(at, value as u32),
        _ => mmio::write64(at, value),
    }
}

/// Writes everything, in all widths, but for the status, which ends in a reset, and the selectors.
fn play_widths(bench: &mut Bench) {
    bench.start(INDIRECT_DESC);
    let selector = |at, width| {
        matches!((at, width), (0 | 8, 4) | (QUEUE_SELECT, 2) | (STATUS, 1) | (16 | 26, 2))
    };
    let before = common(bench);
    for width in [1, 2, 4, 8] {
        for at in (0..=COMMON + 8).filter(|at| !selector(*at, width)) {
            for value in [u64::MAX, 0, 0x0123_4567_89ab_cdef] {
                write(bench.card.common + at, width, value);
            }
        }
    }
    check_eq!(
        common(bench),
        before,
        "registers of a driver that is ready, after writes in all widths"
    );
    check_eq!(mmio::read16(bench.card.common + STATUS), 0xffff, "the status in two bytes");
    check_eq!(mmio::read8(bench.card.common + QUEUE_SELECT), 0xff, "half of a selector");
    check_eq!(mmio::read32(bench.card.common + COMMON), u32::MAX, "what is behind the registers");
    // Where nothing is, everything reads and writes.
    for at in (0..0x8000).step_by(0x1fc) {
        let at = bench.card.bar + at;
        if (bench.card.vectors..bench.card.vectors + PAGE).contains(&at)
            || at < bench.card.common + PAGE
        {
            continue;
        }
        let _ = (mmio::read8(at), mmio::read64(at));
        write(at, 8, u64::MAX);
    }
    bench.judge("registers in all widths", 1, Goes(0));
}

/// Configuration space: what is read-only stays, and the card comes back from where it was moved
/// to.
fn play_config(bench: &mut Bench) {
    let card = bench.card;
    bench.start(INDIRECT_DESC);
    // Command, status and base address are to be written below.
    let fixed = || (0..0x100).step_by(4).filter(|at| !matches!(at, 4 | 0xc | 0x10 | 0x14 | 0x3c));
    let (command, before) =
        (card.config(4, 2), fixed().map(|at| card.config(at, 4)).collect::<Vec<_>>());
    let writable: Vec<_> = fixed()
        .zip(&before)
        .filter(|(at, value)| {
            // The window at the end of the capabilities, and message control, are meant to be
            // written.
            card.set_config(*at, 4, !**value);
            card.config(*at, 4) != **value
        })
        .map(|(at, _)| at)
        .collect();
    fixed().zip(&before).for_each(|(at, value)| card.set_config(at, 4, *value));
    check!(
        writable.iter().all(|at| *at >= 0x40),
        "registers of the header can be written: {writable:x?}"
    );
    check_eq!(
        fixed().map(|at| card.config(at, 4)).collect::<Vec<_>>(),
        before,
        "configuration space"
    );
    card.set_config(4, 2, 0);
    check_eq!(mmio::read32(card.common), u32::MAX, "a card whose memory is turned off");
    bench.ask();
    card.set_config(4, 2, u32::MAX);
    card.set_config(4, 2, command);
    check_eq!(card.config(4, 2), command, "the command register");
    for place in
        [0, 0xfee0_0000, 0xfec0_0000, 0x10_0000, 0xffff_8000, 0xc000_0000 + 7 * 0x8000, u32::MAX]
    {
        card.set_config(0x10, 4, place);
        bench.ask();
        card.set_config(0x14, 4, place);
        bench.ask();
        card.set_config(0x14, 4, 0);
    }
    card.set_config(0x10, 4, u32::MAX);
    card.set_config(0x14, 4, u32::MAX);
    check_eq!(
        (card.config(0x10, 4) & !0xf, card.config(0x14, 4)),
        (0xffff_8000, u32::MAX),
        "the size of what is behind the base address"
    );
    card.set_config(0x10, 4, card.bar as u32);
    card.set_config(0x14, 4, (card.bar >> 32) as u32);
    bench.card.kick(1);
    check!(bench.exchange(20), "the card does not go on where it was");
    bench.judge_after("the card moves");
    // Messages that go nowhere, to every vector.
    bench.start(INDIRECT_DESC);
    for entry in 0..3 {
        let at = card.vectors + 16 * entry;
        write(at, 8, [0, 0xfee0_0000, !3][entry as usize]);
        write(at + 8, 8, 0x20);
        write(at + 3, 2, u64::MAX);
    }
    card.set_config(card.msix, 2, 0x8000);
    check!(bench.exchange(20), "a card with messages that go nowhere does not go on");
    card.set_config(card.msix, 2, 0);
    bench.judge_after("messages that go nowhere");
}

/// Kicks and answers that come too early or too late, and features that change.
fn play_moments(bench: &mut Bench) {
    let card = bench.card;
    bench.set_up(INDIRECT_DESC);
    bench.offer();
    bench.ask();
    (0..0x100).for_each(|word| mmio::write32(card.notify + 4 * word, word as u32));
    let _ = wait(3_000, || None::<()>);
    check_eq!(
        (bench.rx.used_index(), bench.tx.used_index()),
        (0, 0),
        "given back before the driver is ready"
    );
    card.set_status(READY);
    check!(bench.exchange(20), "what was there before the driver was ready is not found");
    // What is set cannot be taken back, but by a reset.
    card.set_status(ACKNOWLEDGE);
    check_eq!(card.status(), READY, "the status after bits were taken back");
    mmio::write16(card.common + QUEUE_SELECT, 1);
    mmio::write16(card.common + QUEUE_SIZE, 4);
    mmio::write64(card.common + QUEUE_DESC, NO_RAM);
    mmio::write16(card.common + QUEUE_ENABLE, 0);
    check_eq!(mmio::read16(card.common + QUEUE_SIZE), SIZE, "the size of a queue in use");
    check_eq!(
        mmio::read64(card.common + QUEUE_DESC),
        bench.tx.parts[0],
        "the address of a queue in use"
    );
    check!(bench.exchange(20), "a card whose queues were written in use does not go on");
    card.reset();
    bench.tx.clear();
    bench.rx.clear();
    bench.offer();
    bench.ask();
    let _ = wait(3_000, || None::<()>);
    check_eq!((bench.rx.used_index(), bench.tx.used_index()), (0, 0), "given back after a reset");
    bench.judge_after("kicks too early and too late");

    bench.set_up(INDIRECT_DESC);
    mmio::write32(card.common + ACCEPT_SELECT, 0);
    let agreed = mmio::read32(card.common + ACCEPT);
    for value in [0, u32::MAX] {
        mmio::write32(card.common + ACCEPT, value);
        check_eq!(mmio::read32(card.common + ACCEPT), agreed, "features after they were agreed on");
    }
    card.set_status(READY);
    bench.judge("features that change", 1, Goes(0));

    // Word, and bits of it; the first has all that is offered but what every driver must take.
    for (word, bits) in [(1, 0), (1, 1 | 1 << 31), (2, 1), (u32::MAX, 1)] {
        card.reset();
        card.set_status(ACKNOWLEDGE | DRIVER);
        mmio::write32(card.common + ACCEPT_SELECT, 1);
        mmio::write32(card.common + ACCEPT, if word == 1 { bits } else { 1 });
        mmio::write32(card.common + ACCEPT_SELECT, word);
        mmio::write32(card.common + ACCEPT, bits);
        card.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        check_eq!(
            card.status(),
            ACKNOWLEDGE | DRIVER,
            "the status after features {bits:#x} of word {word}"
        );
        card.set_status(READY);
        check_eq!(card.status() & DRIVER_OK, 0, "a driver that is ready without features");
    }
    bench.judge_after("features that are not there");
}

/// Commands that are none (5.1.6.5).
fn play_commands(bench: &mut Bench) {
    bench.card.negotiate(VERSION_1 | INDIRECT_DESC | CTRL_VQ);
    bench.rx.clear();
    bench.tx.clear();
    let mut control = crate::raw::Ring::new();
    bench.card.set_queue(0, SIZE, bench.rx.parts);
    bench.card.set_queue(1, SIZE, bench.tx.parts);
    bench.card.set_queue(2, SIZE, control.parts);
    bench.card.set_status(READY);
    let (request, answer) = (bench.data + PAGE, bench.data + PAGE + 64);
    let commands: [&[(u64, u32, u16, u16)]; 6] = [
        &[(request, 1, NEXT, 1), (answer, 1, WRITE, 0)],
        &[(request, 0, NEXT, 1), (answer, 1, WRITE, 0)],
        &[(request, 4096 - 64, NEXT, 1), (answer, 64, WRITE, 0)],
        &[(request, 4, 0, 0)],
        &[(answer, 1, WRITE, 0)],
        &[(answer, 0, WRITE, 0)],
    ];
    for (number, command) in commands.iter().enumerate() {
        for byte in [0, 4, 0xff] {
            mmio::write8(request, byte);
            (0..).zip(*command).for_each(|(index, descriptor)| control.set(index, *descriptor));
            control.publish(0);
            bench.card.kick(2);
            check!(
                control.wait_used().is_some(),
                "command {number} of class {byte} is not answered"
            );
        }
    }
    control.set(0, (request, 4, NEXT, 0));
    control.publish(0);
    bench.card.kick(2);
    bench.judge("a command that ends in itself", 1, Broken);
}

/// Resets while the card is busy: once that is read, it writes nothing any more, and each time it
/// works afterwards.
pub(crate) fn play_resets(bench: &mut Bench, rounds: u64) {
    let old = (bench.rx.parts[2], bench.tx.parts[2]);
    for round in 0..rounds {
        bench.start(INDIRECT_DESC);
        bench.offer();
        (0..SIZE).for_each(|_| {
            bench.tx.set(0, (bench.data, FRAME, 0, 0));
            bench.tx.publish(0);
        });
        bench.card.kick(1);
        let _ = wait(round % 40 * 20, || None::<()>);
        bench.card.reset();
        let seen = [old.0, old.1]
            .map(|page| (0..PAGE / 8).map(|word| mmio::read64(page + 8 * word)).sum::<u64>());
        bench.card.kick(0);
        bench.card.kick(1);
        let _ = wait(200, || None::<()>);
        let later = [old.0, old.1]
            .map(|page| (0..PAGE / 8).map(|word| mmio::read64(page + 8 * word)).sum::<u64>());
        check_eq!(later, seen, "used rings after reset {round}");
        bench.judge_after(&format!("reset {round} while the card is busy"));
    }
    // Half-made requests and old rings are no matter to it.
    bench.rx.parts = [pages(1), pages(1), pages(1)];
    bench.judge_after("a ring elsewhere");
}

/// Plays them all. Returns how many.
pub(crate) fn play(bench: &mut Bench) -> usize {
    let queues = play_queues(bench);
    play_widths(bench);
    play_config(bench);
    play_moments(bench);
    play_commands(bench);
    play_resets(bench, 40);
    queues + 11
}
