//! A network card whose driver does all that the specification forbids, on rings, descriptors and
//! registers: the card needs a reset where it should, and works after it; a frame that goes out and
//! an answer that comes in show that.
//!
//! Arguments: `vhost` where the host's kernel works on the queues, which judges some mistakes in
//! another way; `resets=N` for so many resets while the card is busy, and nothing else.

#![no_std]
#![no_main]

#[path = "../net/bench.rs"]
mod bench;
#[path = "../net/chains.rs"]
mod chains;
#[path = "../net/misuse.rs"]
mod misuse;
#[path = "../net/raw.rs"]
mod raw;

use runtime::prelude::*;

runtime::kernel!(v2, main);

fn main() {
    let Some(card) = raw::Registers::find() else {
        check!(false, "there is no network card");
        return;
    };
    let mut bench = bench::Bench::new(card, boot::args().iter().any(|arg| arg == "vhost"));
    println!("ready");
    // The host may still be busy with its end.
    bench.start(raw::INDIRECT_DESC);
    check!(bench.exchange(200), "no answer");
    let resets = boot::args().iter().find_map(|arg| arg.strip_prefix("resets=")?.parse().ok());
    if let Some(resets) = resets {
        misuse::play_resets(&mut bench, resets);
        println!("{resets} resets");
        return;
    }
    let cases = chains::play(&mut bench) + misuse::play(&mut bench);
    println!("{cases} cases");
}
