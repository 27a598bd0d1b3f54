//! `monitor` commands: what GDB passes on without understanding it.

use std::fmt::Write as _;

use nerite_service::{port_counts, statistics};
use nerite_vcpu::{ExitKind, Statistics};

use crate::guest::Guest;

const HELP: &str = "\
monitor stats            exits of all vCPUs together, and hypercalls
monitor exits            exits of each vCPU
monitor pagetable ADDR   where a guest-virtual address leads, for each vCPU
monitor help             this
";

/// Answers a command. There is always something to say.
pub(crate) fn answer(guest: &mut Guest, command: &str) -> String {
    let mut words = command.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (None | Some("help"), None, _) => HELP.to_owned(),
        (Some("stats"), None, _) => stats(guest),
        (Some("exits"), None, _) => exits(guest),
        (Some("pagetable"), Some(address), None) => match number(address) {
            Some(address) => page_table(guest, address),
            None => format!("{address} is not an address\n"),
        },
        _ => format!("unknown command: {command}\n{HELP}"),
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn stats(guest: &Guest) -> String {
    let mut total = Statistics::default();
    statistics(&*guest.machine).iter().flatten().for_each(|vcpu| total.merge(vcpu));
    let mut text = format!("{}\n", total.exits);
    for (name, count) in port_counts(&total, |port| guest.machine.port_name(port)).calls {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<20} {count:>10}");
    }
    if let Some(touched) = guest.machine.ram().resident_bytes() {
        let _ = writeln!(text, "memory touched: {} KiB", touched >> 10);
    }
    text
}

fn exits(guest: &Guest) -> String {
    let mut text = String::new();
    for (index, vcpu) in statistics(&*guest.machine).iter().enumerate() {
        let Some(vcpu) = vcpu else {
            let _ = writeln!(text, "vCPU {index}: cannot be asked");
            continue;
        };
        let _ = write!(text, "vCPU {index}: {} exits", vcpu.exits.total());
        for kind in ExitKind::ALL.into_iter().filter(|kind| vcpu.exits.of(*kind) > 0) {
            let _ = write!(text, ", {} {}", vcpu.exits.of(kind), kind.name());
        }
        text.push('\n');
    }
    text
}

fn page_table(guest: &mut Guest, address: u64) -> String {
    let mut text = String::new();
    for index in 0..guest.count() {
        let translation = guest
            .special(index)
            .and_then(|special| nerite_inspect::translate(guest.machine.ram(), &special, address));
        let _ = match translation {
            Ok(found) => {
                let right = |has: bool, name| if has { name } else { '-' };
                writeln!(
                    text,
                    "vCPU {index}: {address:#x} -> {:#x}, page of {} KiB, r{}{}{}",
                    found.phys,
                    found.page_size >> 10,
                    right(found.flags.writable, 'w'),
                    right(found.flags.executable, 'x'),
                    right(found.flags.user, 'u'),
                )
            }
            Err(error) => writeln!(text, "vCPU {index}: {error}"),
        };
    }
    text
}
