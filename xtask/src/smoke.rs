//! Sets of tests: the smoke set, some guests of each kind, which run in one boot of the lab in
//! about a minute; and guests besides the test kernels for the processor in software.

use anyhow::Result;

use crate::suite::{Suite, Test};

/// Names of the tests, in the order in which they run.
const NAMES: [&str; 26] = [
    "hello",
    "hello, 16 processors and 1 GiB",
    "fixed address, version 1",
    "image tar",
    "exit code 42",
    "panic",
    "arguments and environment",
    "memory, 64 MiB without ASLR",
    "entry state",
    "CPUID",
    "SMP, 4 processors without ASLR",
    "SSE state",
    "timer",
    "interrupts between 2 processors",
    "console output",
    "a question and its answer",
    "file calls",
    "mounted files",
    "hostile parameters",
    "PCI without devices",
    "irqchip user: hello",
    "triple fault",
    "SIGINT stops a loop",
    "time limit",
    "net over tap",
    "linux group: PVH",
];

/// Guests besides the test kernels for the processor in software, one for each ability and the
/// longest first. `cargo xtask test-kernels --software linux` and `hermit` run all.
const IN_SOFTWARE: [&str; 14] = [
    "linux, 2 processors, 128 MiB, disks",
    "linux, 2 processors, 256 MiB, a network card",
    "linux, 1 processor, 128 MiB",
    "linux, 4 processors, 128 MiB",
    "linux, the VMM of 100 lines",
    "linux, a shell",
    "linux, triple fault",
    "linux group: multiboot with modules",
    "linux group: PVH",
    "hermit-threads-4",
    "hermit-time",
    "hermit-file-mounted",
    "hermit-gzip",
    "hermit-stopped-asleep",
];

/// Guests that are handed over between KVM and the processor in software. `cargo xtask test-kernels
/// --hand-over` runs all test kernels, and with `linux` all of that group.
const HANDED_OVER: [&str; 15] = [
    "linux, 2 processors, 128 MiB, disks",
    "linux, 2 processors, 256 MiB, a network card",
    "linux, 1 processor, 128 MiB",
    "64 readers and writers on a hundred files, four vCPUs, killed too",
    "console output",
    "file calls",
    "hostile parameters",
    "interrupts between 4 processors",
    "irqchip kernel: INIT and a start",
    "irqchip kernel: timer with a count",
    "memory, 5 GiB",
    "SMP, 16 processors",
    "SSE state",
    "timer",
    "timer, 4 processors",
];

/// The smoke set.
pub(crate) fn tests() -> Result<Vec<Test>> {
    let mut all = Suite::load()?.tests;
    all.extend(Suite::load_linux()?.tests);
    Ok(named(&NAMES, &all))
}

/// The guests for the processor in software.
pub(crate) fn in_software() -> Result<Vec<Test>> {
    let mut all = Suite::load_linux()?.tests;
    all.extend(Suite::load_hermit()?.tests);
    Ok(named(&IN_SOFTWARE, &all))
}

/// The guests that are handed over.
pub(crate) fn handed_over() -> Result<Vec<Test>> {
    let mut all = Suite::load()?.tests;
    all.extend(Suite::load_linux()?.tests);
    Ok(named(&HANDED_OVER, &all))
}

fn named(names: &[&str], all: &[Test]) -> Vec<Test> {
    names.iter().filter_map(|name| all.iter().find(|test| test.name == *name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_that_of_a_test() {
        let found: Vec<String> = tests().unwrap().into_iter().map(|test| test.name).collect();
        assert_eq!(found, NAMES);
        let found: Vec<String> = in_software().unwrap().into_iter().map(|test| test.name).collect();
        assert_eq!(found, IN_SOFTWARE);
        let found: Vec<String> = handed_over().unwrap().into_iter().map(|test| test.name).collect();
        assert_eq!(found, HANDED_OVER);
    }
}
