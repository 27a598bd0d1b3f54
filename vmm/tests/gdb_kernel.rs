//! The real GDB against a test kernel with symbols. `cargo xtask test` builds the kernel and says in the environment where it
//! and GDB are; the test needs a KVM that runs ordinary guests.

mod common;

use std::process::Stdio;

use common::debugger::{gdb, has, session, start};
use common::{Folder, code, wait, wait_until};

#[test]
fn breakpoints_steps_registers_and_memory_under_aslr() {
    // A breakpoint by its symbol, although the image lies elsewhere; has_kvm is looked at by `start`.
    let Some((text, code, told)) = session(
        &[],
        &[
            "break bump",
            "continue",
            "p $rdi",
            "p *(long*)&COUNTER",
            "continue",
            "continue",
            "p $rdi",
            "p *(long*)&COUNTER",
            "finish",
            "p $rax",
            "p/x *(long*)0x700000000008",
            "x/1gx 0x700000001000",
            "set var *(long*)&COUNTER = 1006",
            "p *(long*)&COUNTER",
            "set var *(long*)&COUNTER = 6",
            "delete",
            "hbreak vector_is_set",
            "continue",
            "p/x $xmm3.v4_int32",
            "p *(long*)&COUNTER",
            "info registers cr3 efer fs_base",
            "stepi",
            "monitor pagetable 0x700000000000",
            "monitor stats",
            "continue",
        ],
    ) else {
        return;
    };
    has(
        &text,
        &[
            "Breakpoint 1, ",
            "= 1",
            "= 0",
            "Breakpoint 1, ",
            "Breakpoint 1, ",
            "= 3",
            "= 3",
            "= 6",
            "= 0x1122334455667788",
            "= 1006",
        ],
    );
    has(&text, &["Cannot access memory at address 0x700000001000"]);
    has(
        &text,
        &[
            "= 1006",
            "Breakpoint 2, ",
            "{0x12345678, 0x12345678, 0x12345678, 0x12345678}",
            "= 55",
            "cr3 ",
            "exited normally",
        ],
    );
    // What `monitor` says comes on standard error.
    has(&text, &["page of 4 KiB, rw", " exits"]);
    assert_eq!((code, told.contains("debugged: ok\n")), (0, true), "{text}\n{told}");
}

#[test]
fn watchpoints_say_who_changed_what() {
    let Some((text, code, told)) = session(
        &[],
        &[
            "break bump",
            "continue",
            "delete",
            "watch *(long*)&COUNTER",
            "continue",
            "continue",
            "p *(long*)&COUNTER",
            "delete",
            "awatch *(long*)&COUNTER",
            "continue",
            "delete",
            "rwatch *(long*)&COUNTER",
            "continue",
            "delete",
            "continue",
        ],
    ) else {
        return;
    };
    has(
        &text,
        &[
            "Breakpoint 1, ",
            "Old value = 0",
            "New value = 1",
            "Old value = 1",
            "New value = 3",
            "= 3",
            "(read/write) watchpoint",
            "read watchpoint",
            "exited normally",
        ],
    );
    assert_eq!((code, told.contains("debugged: ok\n")), (0, true), "{text}\n{told}");
}

#[test]
fn four_vcpus_stop_together_and_step_alone() {
    let Some((text, code, told)) = session(
        &["-c", "4", "--no-aslr"],
        &[
            "info threads",
            "break worker if $rdi == 3",
            "continue",
            "thread",
            "p $rdi",
            "thread 1",
            "set $before = $pc",
            "thread 4",
            "set $mine = $pc",
            "stepi",
            "p $pc != $mine",
            "thread 1",
            "p $pc == $before",
            "delete",
            "continue",
        ],
    ) else {
        return;
    };
    has(
        &text,
        &[
            "* 1 ",
            "(vCPU 0, ",
            "4 ",
            "(vCPU 3, ",
            "hit Breakpoint 1",
            "Current thread is 4",
            "= 3",
            "= 1",
            "= 1",
            "exited normally",
        ],
    );
    assert_eq!((code, told.contains("debugged: ok\n")), (0, true), "{text}\n{told}");
}

#[test]
fn a_debugger_detaches_attaches_again_interrupts_and_kills() {
    let folder = Folder::new();
    // The kernel waits for nothing: so it is one that is held until the second debugger lets it go.
    let Some((mut child, kernel, program)) = start(&folder, &["--gdb=unix:socket", "-c", "2"]) else {
        return;
    };
    let first = common::finish(&mut gdb(
        &folder,
        &program,
        &kernel,
        &[
            "hbreak bump",
            "continue",
            "p $rdi",
            "delete",
            "break with_vector",
            "continue",
            "p *(long*)&COUNTER",
            "set var $rip = (long)bump",
            "set var $rdi = 0",
            "x/2xb $rip",
            "set {short}$rip = 0xfeeb",
            "detach",
        ],
    ));
    has(&first.stdout, &["Breakpoint 1, ", "= 1", "Breakpoint 2, ", "= 55", "detached"]);
    // It runs in a circle now, which the second debugger finds and breaks.
    let commands = ["shell touch attached", "continue", "x/2xb $pc", "p $rdi", "kill"];
    let mut second = gdb(&folder, &program, &kernel, &commands);
    let second = second.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the second debugger", || folder.path("attached").exists());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let pid = rustix::process::Pid::from_child(&second);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let text = String::from_utf8(wait(second).stdout).unwrap();
    has(&text, &["SIGINT", "0xeb\t0xfe", "= 0"]);
    child.stdin.take();
    assert_eq!(code(wait(child).status), 143);
}
