//! Features of GDB with a guest, one by one and with values: the same list on one vCPU and on four.
//! The real GDB against the test kernel `debugged`, which `cargo xtask test-host` names in the
//! environment.
//!
//! Where breakpoints are kept by stepping, time is what the guest executes meanwhile: so the first
//! vCPU runs alone for most of the list, and the guest comes to what is looked at in few
//! instructions.

#![cfg(test)]

mod common;

use common::debugger::{Feature, gdb, programs, start, told, try_out};
use common::features::{BREAKPOINTS, STATE};
use common::{Folder, code, wait, wait_until};
use rustix::process::{Signal, kill_process};

/// Stopped before the first instruction and then by Ctrl-C; the image has been moved by address
/// space randomisation.
fn beginning<'a>(last: &'a str) -> [Feature<'a>; 5] {
    [
        (
            "held before the first instruction, with symbols",
            &["info symbol $pc", "p $pc == (long)&_start"],
            &["_start in section", "= 1\n"],
        ),
        (
            "threads are vCPUs",
            &["info threads"],
            &["* 1 ", "Thread 1.1 (vCPU 0, paused)", "_start"],
        ),
        (
            "one vCPU steps while the others are held",
            // Without others it is the same thread that has gone on.
            match last {
                "1" => &["stepi 3", "p $pc != (long)&_start && $_thread == 1"],
                _ => &[
                    "thread 4",
                    "p $rsi",
                    "stepi 3",
                    "p $_thread",
                    "p $pc != (long)&_start",
                    "thread 2",
                    "p $pc == (long)&_start && $rsi == 1",
                    "thread 1",
                    "p $pc == (long)&_start && $rsi == 0",
                ],
            },
            match last {
                "1" => &["= 1\n"],
                _ => &["= 3\n", "= 4\n", "= 1\n", "= 1\n", "= 1\n"],
            },
        ),
        (
            "interrupted",
            &["continue", "p $_thread", "p *(long*)&GO"],
            &["SIGINT", "= 1\n", "= 0\n"],
        ),
        (
            "memory is written",
            &["set scheduler-locking on", "set var *(long*)&GO = 1", "p *(long*)&GO"],
            &["= 1\n"],
        ),
    ]
}

/// With all vCPUs running, up to the end. `others` says whether there are any.
fn end<'a>(others: bool) -> [Feature<'a>; 4] {
    [
        (
            "a breakpoint that any vCPU can hit",
            &[
                "set scheduler-locking off",
                "break *worker",
                "continue",
                "delete",
                "set $me = $_thread",
                "set $index = $rdi",
                "p $me == $index + 1 && $pc == (long)&worker",
            ],
            &["Breakpoint ", "Breakpoint ", "= 1\n"],
        ),
        (
            "it steps alone",
            if others {
                &[
                    "set $other = $me % 4 + 1",
                    "eval \"thread %d\", $other",
                    "set $before = $pc",
                    "eval \"thread %d\", $me",
                    "stepi 5",
                    "p $_thread == $me && $pc != (long)&worker",
                    "eval \"thread %d\", $other",
                    "p $pc == $before",
                    "eval \"thread %d\", $me",
                ]
            } else {
                &["stepi 5", "p $_thread == $me && $pc != (long)&worker", "p 1"]
            },
            &["= 1\n", "= 1\n"],
        ),
        (
            "memory is watched on all vCPUs",
            &[
                "eval \"watch ((long*)&WORKED)[%d]\", $index",
                "continue",
                "p ((long*)&WORKED)[$index] % ($index + 1) == 0 && $_thread == $me",
                "thread apply all -q p $rsp != 0",
                "delete",
            ],
            &["watchpoint", "New value = ", "= 1\n", "= 1\n"],
        ),
        ("the guest's end", &["continue"], &["exited normally"]),
    ]
}

/// A guest that GDB holds from its first instruction to its end.
fn from_the_first_instruction_to_the_end(cpus: &str) {
    let (kernel, program) = programs();
    let folder = Folder::new();
    let child = start(&folder, &["--gdb=unix:socket", "-c", cpus], &kernel, &["wait"]);
    let mut debugger = gdb(&folder, &program, &kernel);
    debugger.args(["-ex", "target remote socket"]);
    let features = [&beginning(cpus)[..], &BREAKPOINTS, &STATE, &end(cpus != "1")].concat();
    try_out(debugger, &features, |gdb| {
        wait_until("the kernel to wait", || told(&folder).contains("waiting\n"));
        kill_process(gdb, Signal::INT).unwrap();
    });
    let (output, told) = (wait(child), told(&folder));
    assert_eq!(
        (code(output.status), told.contains("debugged: ok\n")),
        (0, true),
        "{told}\n{output:?}"
    );
}

/// A guest that GDB attaches to while it runs, and again when it has halted; and then ends.
fn attached_detached_and_killed(cpus: &str) {
    let (kernel, program) = programs();
    let folder = Folder::new();
    let options = ["--gdb-attach=unix:socket", "--api-socket", "control", "-c", cpus];
    let child = start(&folder, &options, &kernel, &["wait", "halt"]);
    wait_until("the kernel to wait", || told(&folder).contains("waiting\n"));
    let attach = || {
        let mut debugger = gdb(&folder, &program, &kernel);
        debugger.args(["-ex", "target remote socket"]);
        debugger
    };
    let first: [Feature<'_>; 2] = [
        ("attached while it runs", &["p *(long*)&GO", "p *(long*)&COUNTER"], &["= 0\n", "= 0\n"]),
        ("detached", &["set var *(long*)&GO = 1", "detach"], &["detached"]),
    ];
    try_out(attach(), &first, |_| {});
    wait_until("the kernel's end", || told(&folder).contains("at the end with 55 and 7"));
    let second: [Feature<'_>; 4] = [
        (
            "attached to one that has halted",
            &["info symbol $pc", "p *(long*)&COUNTER", "info threads"],
            &["in section", "= 55\n", "vCPU 0, "],
        ),
        (
            "with its vCPUs",
            &["eval \"thread %d\", $_inferior_thread_count", "p $_thread"],
            &[&format!("= {cpus}\n")],
        ),
        (
            "interrupted while it rests",
            &["shell touch attached", "continue", "p *(long*)&COUNTER"],
            &["SIGINT", "= 55\n"],
        ),
        ("killed", &["kill"], &["Remote connection closed"]),
    ];
    try_out(attach(), &second, |gdb| {
        wait_until("the debugger", || folder.path("attached").exists());
        wait_until("the guest to go on", || {
            let status = folder.run(&["ctl", "control", "status"]).stdout;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            let states = status["vcpus"].as_array().unwrap();
            states.iter().all(|state| state != "paused")
        });
        kill_process(gdb, Signal::INT).unwrap();
    });
    let output = wait(child);
    assert_eq!(code(output.status), 143, "{output:?}");
}

/// A core file of a guest that has crashed opens in GDB with its image.
fn a_core_file_opens_with_the_image(cpus: &str) {
    let (kernel, program) = programs();
    let folder = Folder::new();
    let done = folder.run(&["run", "--on-crash", "dump:core", "-c", cpus, &kernel, "halt"]);
    assert_eq!(done.code, 244, "{done:?}");
    let mut debugger = gdb(&folder, &program, &kernel);
    debugger.arg("--core=core");
    let all: Vec<String> = (1..=cpus.parse().unwrap()).map(|cpu| format!("LWP {cpu}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let features: [Feature<'_>; 4] = [
        (
            "vector registers of a core",
            // AVX is off in this guest: the upper halves are there, and zero.
            &[
                "thread apply all -q p/x $xmm3.v4_int32",
                "thread apply all -q p/x $ymm3.v4_int64[3]",
                "p $mxcsr",
                "p/x $fctrl",
            ],
            &[
                "{0x12345678, 0x12345678, 0x12345678, 0x12345678}",
                "= 0x0\n",
                "IM DM ZM OM UM PM ]",
                "= 0x37f\n",
            ],
        ),
        ("threads of a core", &["info threads"], &all),
        (
            "memory of a core",
            &["p *(long*)&COUNTER", "p/x *(long*)0x700000000008", "x/1gx 0x700000001000"],
            &["= 55\n", "= 0x1122334455667788\n", "Cannot access memory at address 0x700000001000"],
        ),
        ("where it was", &["info symbol $pc", "backtrace"], &["in section", "#0 ", "dead_end"]),
    ];
    try_out(debugger, &features, |_| {});
}

#[test]
#[ignore = "needs a KVM"]
fn all_of_it_on_one_vcpu() {
    from_the_first_instruction_to_the_end("1");
    attached_detached_and_killed("1");
    a_core_file_opens_with_the_image("1");
}

#[test]
#[ignore = "needs a KVM"]
fn all_of_it_on_four_vcpus() {
    from_the_first_instruction_to_the_end("4");
    attached_detached_and_killed("4");
    a_core_file_opens_with_the_image("4");
}
