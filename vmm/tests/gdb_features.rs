//! What GDB can do with a guest, one by one and with values, on one and on four vCPUs; the real GDB against the test kernel
//! `debugged`, which needs a KVM that runs ordinary guests (`has_kvm` is not enough).

mod common;

use std::process::Stdio;

use common::debugger::{KERNEL, gdb, has, session, start_with, waiting_session};
use common::{Folder, code, finish, wait, wait_until};

/// A machine of one vCPU and one of four.
const SIZES: [&[&str]; 2] = [&["-c", "1"], &["-c", "4"]];

#[test]
fn registers_of_every_kind_are_read_and_written() {
    for size in SIZES {
        let Some((text, code, told)) = waiting_session(
            size,
            &[
                "hbreak vector_is_set",
                "continue",
                "p/x $xmm3.v4_int32",
                "set $ymm3.v4_int64[3] = 0x1234567",
                "set $xmm4.v2_int64[1] = 0x77",
                "set $st0 = 1.5",
                "set $mxcsr = 0x1fa0",
                "set $r15 = 0x1122334455667788",
                "set $fs_base = 0x700000000000",
                "set $cr2 = 0x99000",
                "stepi",
                "p/x $ymm3.v4_int64[3]",
                "p/x $xmm4.v2_int64[1]",
                "p $st0",
                "p $mxcsr",
                "p/x $r15",
                "p/x $fs_base",
                "p/x $cr2",
                "p/x $cs",
                "p/x $efer & 0xd00",
                "p $cr3 != 0 && $cr0 != 0 && $cr4 != 0 && $gdt_base != 0 && $idt_base != 0",
                "p/x $apic_base & 0x100",
                "p/x $eflags & 2",
                "kill",
            ],
        ) else {
            return;
        };
        has(
            &text,
            &[
                "Breakpoint 1, ",
                "{0x12345678, 0x12345678, 0x12345678, 0x12345678}",
                "= 0x1234567\n",
                "= 0x77\n",
                "= 1.5\n",
                "= 0x1122334455667788\n",
                "= 0x700000000000\n",
                "= 0x99000\n",
                "= 0x8\n",
                "= 0xd00\n",
                "= 1\n",
                "= 0x100\n",
                "= 0x2\n",
            ],
        );
        assert_eq!(code, 143, "{text}{told}");
    }
}

#[test]
fn pages_of_three_sizes_and_holes() {
    for size in SIZES {
        let Some((text, code, told)) = waiting_session(
            size,
            &[
                "break bump",
                "continue",
                // Entry 1 of the root leads to PAGE, whose entry 2 is the page of 1 GiB in which PAGE itself lies.
                "set $page = (long)&PAGE",
                "set var ((long*)($cr3 & ~0xfff))[1] = $page | 7",
                "set var ((long*)$page)[2] = ($page & ~0x3fffffff) | 0x83",
                "set $large = (1L << 39) + (2L << 30)",
                "p/x *(long*)($large + ($page & 0x3fffffff) + 8)",
                "set var *(long*)($large + ($page & 0x3fffffff) + 16 * 8) = 0x4711",
                "p/x ((long*)$page)[16]",
                "eval \"monitor pagetable %ld\", $large + 5",
                "eval \"monitor pagetable %ld\", $page",
                "monitor pagetable 0x700000000000",
                "monitor pagetable 0x700000001000",
                "p/x *(long*)0x700000000008",
                "x/1gx 0x700000001000",
                "set var *(long*)0x700000001000 = 1",
                "x/1gx 0x8000000000000000",
                "delete",
                "set var ((long*)($cr3 & ~0xfff))[1] = 0",
                "set scheduler-locking off",
                "continue",
            ],
        ) else {
            return;
        };
        has(&text, &["Breakpoint 1, ", "= 0x1122334455667788\n", "= 0x4711\n", "= 0x1122334455667788\n"]);
        has(&text, &["exited normally"]);
        has(
            &text,
            &["page of 1048576 KiB, rw", "page of 2048 KiB, rw", "page of 4 KiB, rw", "is not mapped"],
        );
        let hole = "Cannot access memory at address 0x700000001000";
        assert_eq!(text.matches(hole).count(), 2, "{text}");
        has(&text, &["Cannot access memory at address 0x8000000000000000"]);
        assert_eq!((code, told.contains("debugged: ok\n")), (0, true), "{text}\n{told}");
    }
}

#[test]
fn many_breakpoints_and_four_in_hardware() {
    for size in SIZES {
        let Some((text, code, told)) = waiting_session(
            size,
            &[
                "hbreak bump",
                "hbreak with_vector",
                "hbreak vector_is_set",
                "hbreak worker",
                "hbreak *(bump + 1)",
                // The fifth cannot be had.
                "continue",
                "delete 5",
                "continue",
                "p $rdi",
                "delete 1",
                // Software breakpoints have no such limit: each instruction of a function has one.
                "break *vector_is_set",
                "break *(vector_is_set + 1)",
                "break *(with_vector + 5)",
                "break *(with_vector + 9)",
                "tbreak with_vector",
                "watch *(long*)&COUNTER",
                "continue",
                "p *(long*)&COUNTER",
                "delete 11",
                "continue",
                "p $pc == (long)&with_vector",
                "continue",
                "p (long)$pc - (long)&with_vector",
                "continue",
                "p (long)$pc - (long)&with_vector",
                "continue",
                "p $pc == (long)&vector_is_set",
                "continue",
                "p (long)$pc - (long)&vector_is_set",
                "monitor stats",
                "monitor exits",
                "monitor help",
                "kill",
            ],
        ) else {
            return;
        };
        has(&text, &["Cannot insert hardware breakpoint "]);
        has(&text, &["Breakpoint 1, ", "= 1\n", "New value = 1\n", "= 1\n"]);
        has(&text, &["New value = 1\n", "= 1\n", "= 1\n", "= 5\n", "= 9\n", "= 1\n", "= 1\n"]);
        has(&text, &[" exits", "vCPU 0: ", "monitor pagetable ADDR"]);
        assert_eq!(code, 143, "{text}{told}");
    }
}

#[test]
fn every_vcpu_steps_alone_and_is_watched() {
    let Some((text, code, told)) = session(
        &["-c", "4"],
        &[
            "break worker",
            "continue",
            "set scheduler-locking off",
            "delete",
            // Whoever it is: the others stand still while it steps.
            "set $me = $_thread",
            "set $index = $rdi",
            "p $_thread == $index + 1",
            "thread apply all -q p/x $pc",
            "stepi 5",
            "p $_thread == $me",
            "eval \"watch ((long*)&WORKED)[%d]\", $index",
            "continue",
            "p ((long*)&WORKED)[$index] == $index + 1 && $_thread == $me",
            "thread apply all -q p $rsp != 0",
            "delete",
            "continue",
        ],
    ) else {
        return;
    };
    has(
        &text,
        &["hit Breakpoint 1", "= 1\n", "= 1\n", "watchpoint", "New value = ", "= 1\n", "exited normally"],
    );
    assert_eq!((code, told.contains("debugged: ok\n")), (0, true), "{text}\n{told}");
}

#[test]
fn attached_later_detached_and_interrupted() {
    // On one vCPU: `a_crash_waits_for_a_debugger` in `gdb.rs`.
    let folder = Folder::new();
    let options = ["--gdb-attach=unix:socket", "--output", "told", "-c", "4"];
    let Some((child, kernel, program)) = start_with(&folder, &options, &["halt"]) else { return };
    // It halts for ever after its work, and a debugger finds it there, twice.
    wait_until("the kernel's end", || {
        std::fs::read_to_string(folder.path("told"))
            .is_ok_and(|told| told.contains("at the end with 55 and 7"))
    });
    let commands = ["info symbol $pc", "p *(long*)&COUNTER", "detach"];
    let seen = finish(&mut gdb(&folder, &program, &kernel, &commands));
    has(&seen.stdout, &["= 55\n", "detached"]);
    let is_there = seen.stdout.contains("halt_forever") || seen.stdout.contains("dead_end");
    assert!(is_there, "{seen:?}");
    let commands = ["shell touch attached", "continue", "p *(long*)&COUNTER", "kill"];
    let mut last = gdb(&folder, &program, &kernel, &commands);
    let last = last.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the last debugger", || folder.path("attached").exists());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let pid = rustix::process::Pid::from_child(&last);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let text = String::from_utf8(wait(last).stdout).unwrap();
    has(&text, &["SIGINT", "= 55\n"]);
    let output = wait(child);
    assert_eq!(code(output.status), 143, "{output:?}");
}

#[test]
fn a_core_file_opens_with_the_image() {
    let folder = Folder::new();
    let size = SIZES[1];
    let (Ok(kernel), Ok(program)) = (std::env::var(KERNEL), std::env::var("NERITE_TEST_GDB")) else {
        common::skip("the kernel and GDB are named by `cargo xtask test-host`");
        return;
    };
    if folder.run(&["probe"]).stdout != "hardware\n" {
        common::skip("the kernel needs a KVM that runs ordinary guests");
        return;
    }
    let done = folder.run(&[&["run", "--on-crash", "dump:core"][..], size, &[&kernel, "halt"]].concat());
    assert_eq!(done.code, 244, "{done:?}");
    let mut gdb = std::process::Command::new(program);
    gdb.args(["-nx", "-batch", &kernel, &folder.path("core").display().to_string(), "-ex", "set language c"]);
    for command in [
        "info threads",
        "backtrace",
        "p *(long*)&COUNTER",
        "p/x *(long*)0x700000000008",
        "info symbol $pc",
        "x/1gx 0x700000001000",
    ] {
        gdb.args(["-ex", command]);
    }
    let seen = finish(&mut gdb);
    has(&seen.stdout, &["= 55\n", "= 0x1122334455667788\n"]);
    let is_there = seen.stdout.contains("halt_forever") || seen.stdout.contains("dead_end");
    assert!(is_there, "{seen:?}");
    assert!(seen.stderr.contains("Cannot access memory at address 0x700000001000"), "{seen:?}");
    // Threads are numbered from 1; there are as many as vCPUs.
    let threads = seen.stdout.matches("LWP ").count();
    assert!(threads >= size[1].parse().unwrap(), "{seen:?}");
}
