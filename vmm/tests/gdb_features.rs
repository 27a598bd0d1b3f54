//! What GDB can do with a guest, one by one and with values: the same list on one vCPU and on four. The real GDB against the
//! test kernel `debugged`, which needs a KVM that runs ordinary guests (`has_kvm` is not enough).
//!
//! Where breakpoints are kept by stepping, time is what the guest executes meanwhile: so the first vCPU runs alone for most of
//! the list, and the guest comes to what is looked at in few instructions.

mod common;

use common::debugger::{Feature, gdb, programs, start, told, try_out};
use common::{Folder, code, wait, wait_until};
use rustix::process::{Signal, kill_process};

/// Stopped before the first instruction and then by Ctrl-C; the image has been moved by address space randomisation.
fn beginning<'a>(last: &'a str) -> [Feature<'a>; 5] {
    [
        (
            "held before the first instruction, with symbols",
            &["info symbol $pc", "p $pc == (long)&_start"],
            &["_start in section", "= 1\n"],
        ),
        ("threads are vCPUs", &["info threads"], &["* 1 ", "Thread 1.1 (vCPU 0, paused)", "_start"]),
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
        ("interrupted", &["continue", "p $_thread", "p *(long*)&GO"], &["SIGINT", "= 1\n", "= 0\n"]),
        (
            "memory is written",
            &["set scheduler-locking on", "set var *(long*)&GO = 1", "p *(long*)&GO"],
            &["= 1\n"],
        ),
    ]
}

/// In the function that is called ten times.
const BREAKPOINTS: [Feature<'_>; 7] = [
    (
        "a breakpoint by its symbol",
        &["break bump", "continue", "p $rdi", "p *(long*)&COUNTER", "info symbol $pc", "backtrace"],
        &["Breakpoint 1 at", "Breakpoint 1, ", "= 1\n", "= 0\n", "bump", "#0 ", "#1 "],
    ),
    (
        "to the end of a function",
        &["finish", "p $rax", "p *(long*)&COUNTER", "delete"],
        &["in main ", "= 1\n", "= 1\n"],
    ),
    (
        "four breakpoints in hardware and no fifth",
        &[
            "hbreak bump",
            "hbreak with_vector",
            "hbreak vector_is_set",
            "hbreak worker",
            "hbreak *(bump + 1)",
            "continue",
            "delete $bpnum",
            "continue",
            "p $rdi",
            "delete",
        ],
        &["Hardware assisted breakpoint", "Cannot insert hardware breakpoint ", "Breakpoint 2, ", "= 2\n"],
    ),
    (
        "a watchpoint for writes",
        &["watch *(long*)&COUNTER", "continue", "continue", "p *(long*)&COUNTER", "delete"],
        &[
            "Hardware watchpoint",
            "Old value = 1\n",
            "New value = 3\n",
            "Old value = 3\n",
            "New value = 6\n",
            "= 6\n",
        ],
    ),
    (
        "a watchpoint for reads",
        &["rwatch *(long*)&COUNTER", "continue", "p *(long*)&COUNTER", "delete"],
        &["Hardware read watchpoint", "Hardware read watchpoint", "Value = 10\n", "= 10\n"],
    ),
    (
        "a watchpoint for both",
        &["awatch *(long*)&COUNTER", "continue", "p *(long*)&COUNTER", "delete"],
        &["Hardware access (read/write) watchpoint", "Hardware access (read/write) watchpoint", "= 15\n"],
    ),
    (
        "any number of breakpoints in software",
        &[
            "break *vector_is_set",
            "break *(vector_is_set + 1)",
            "break *(with_vector + 5)",
            "break *(with_vector + 9)",
            "tbreak with_vector",
            "continue",
            "p $pc == (long)&with_vector",
            "continue",
            "p (long)$pc - (long)&with_vector",
            "continue",
            "p (long)$pc - (long)&with_vector",
            "continue",
            "p $pc == (long)&vector_is_set",
            "delete",
            "p *(long*)&COUNTER",
        ],
        &[
            "Temporary breakpoint",
            "= 1\n",
            "Breakpoint",
            "= 5\n",
            "Breakpoint",
            "= 9\n",
            "Breakpoint",
            "= 1\n",
            "= 55\n",
        ],
    ),
];

/// At the instruction before which XMM3 got its value.
const STATE: [Feature<'_>; 7] = [
    (
        "registers of every kind are read",
        &[
            "p/x $xmm3.v4_int32",
            "p $rip == $pc && $rsp != 0",
            "p/x $cs",
            "p/x $efer & 0xd00",
            "p $cr3 != 0 && $cr0 != 0 && $cr4 != 0 && $gdt_base != 0 && $idt_base != 0",
            "p/x $apic_base & 0x100",
            "p/x $eflags & 2",
            "info registers",
        ],
        &[
            "{0x12345678, 0x12345678, 0x12345678, 0x12345678}",
            "= 1\n",
            "= 0x8\n",
            "= 0xd00\n",
            "= 1\n",
            "= 0x100\n",
            "= 0x2\n",
            "rax ",
            "cr0 ",
            "idt_limit ",
        ],
    ),
    (
        "registers of every kind are written, and are there after a step",
        &[
            "set $kept = $r15",
            "set $ymm3.v4_int64[3] = 0x1234567",
            "set $xmm4.v2_int64[1] = 0x77",
            "set $st0 = 1.5",
            "set $mxcsr = 0x1fa0",
            "set $r15 = 0x1122334455667788",
            "set $fs_base = 0x700000000000",
            "set $cr2 = 0x99000",
            "stepi",
            "p (long)$pc - (long)&vector_is_set",
            "p/x $ymm3.v4_int64[3]",
            "p/x $xmm4.v2_int64[1]",
            "p $st0",
            "p/x $mxcsr",
            "p/x $r15",
            "p/x $fs_base",
            "p/x $cr2",
            "set $r15 = $kept",
        ],
        &[
            "= 1\n",
            "= 0x1234567\n",
            "= 0x77\n",
            "= 1.5\n",
            "= 0x1fa0\n",
            "= 0x1122334455667788\n",
            "= 0x700000000000\n",
            "= 0x99000\n",
        ],
    ),
    (
        "pages of 4 KiB and holes",
        &[
            "p/x *(long*)0x700000000008",
            "set var *(long*)0x700000000010 = 0x4710",
            "p/x ((long*)&PAGE)[2]",
            "x/1gx 0x700000001000",
            "set var *(long*)0x700000001000 = 1",
            "x/1gx 0x8000000000000000",
        ],
        &[
            "= 0x1122334455667788\n",
            "= 0x4710\n",
            "Cannot access memory at address 0x700000001000",
            "Cannot access memory at address 0x700000001000",
            "Cannot access memory at address 0x8000000000000000",
        ],
    ),
    (
        "pages of 1 GiB",
        // Entry 1 of the root leads to PAGE, whose entry 2 is the page of 1 GiB in which PAGE itself lies.
        &[
            "set $page = (long)&PAGE",
            "set var ((long*)($cr3 & ~0xfff))[1] = $page | 7",
            "set var ((long*)$page)[2] = ($page & ~0x3fffffff) | 0x83",
            "set $large = (1L << 39) + (2L << 30)",
            "p/x *(long*)($large + ($page & 0x3fffffff) + 8)",
            "set var *(long*)($large + ($page & 0x3fffffff) + 16 * 8) = 0x4711",
            "p/x ((long*)$page)[16]",
            "eval \"monitor pagetable %ld\", $large + 5",
            "set var ((long*)($cr3 & ~0xfff))[1] = 0",
            "eval \"x/1gx %ld\", $large",
        ],
        &["= 0x1122334455667788\n", "= 0x4711\n", "page of 1048576 KiB, rw", "Cannot access memory"],
    ),
    (
        "page tables are shown",
        &[
            "eval \"monitor pagetable %ld\", $page",
            "monitor pagetable 0x700000000000",
            "monitor pagetable 0x700000001000",
        ],
        &["page of 2048 KiB, rw", "page of 4 KiB, rw", "is not mapped"],
    ),
    ("figures", &["monitor stats", "monitor exits"], &[" exits", "vCPU 0: "]),
    ("help", &["monitor help"], &["monitor pagetable ADDR"]),
];

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
            "memory is watched whoever writes it",
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
    let Some((kernel, program)) = programs() else { return };
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
    assert_eq!((code(output.status), told.contains("debugged: ok\n")), (0, true), "{told}\n{output:?}");
}

/// A guest that GDB attaches to while it runs, and again when it has halted; and then ends.
fn attached_detached_and_killed(cpus: &str) {
    let Some((kernel, program)) = programs() else { return };
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

/// What is left of a guest that has crashed.
fn a_core_file_opens_with_the_image(cpus: &str) {
    let Some((kernel, program)) = programs() else { return };
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
fn all_of_it_on_one_vcpu() {
    from_the_first_instruction_to_the_end("1");
    attached_detached_and_killed("1");
    a_core_file_opens_with_the_image("1");
}

#[test]
fn all_of_it_on_four_vcpus() {
    from_the_first_instruction_to_the_end("4");
    attached_detached_and_killed("4");
    a_core_file_opens_with_the_image("4");
}
